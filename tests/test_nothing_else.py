"""A generation says what the user says, and what we put in: nothing else is changed, on disk too.

And what nginx says of it, to who reads the user's paths, is what it says of the user's own files.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st

from nginx_acme import disk, generation
from nginx_acme.binary import Nginx
from nginx_acme.certificate import temporary
from nginx_acme.directives import hint
from nginx_acme.errors import ConfigError, NginxRejected
from nginx_acme.generate import Answer, Layout, generate
from nginx_acme.judgement import Judgement, judge
from nginx_acme.nginx.files import glob_files, read_bytes
from nginx_acme.nginx.source import Unreadable, read_source
from nginx_acme.plan import Facts, make_plan
from nginx_acme.refusal import refusal
from tests.nginx.writer import PIECES, examples
from tests.pieces import Place, configurations
from tests.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nginx_acme.generation import Generation
    from tests.pieces import Piece


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A folder for all examples, one after the other, with a certificate."""
    root = tmp_path_factory.mktemp("user")
    (root / "stub.pem").write_bytes(temporary(["x"], "ecdsa:256", datetime.now(UTC)).pem)
    return Place(str(root), free_port(), free_port())


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where their generations are."""
    return tmp_path_factory.mktemp("instance")


def write(place: Place, texts: dict[str, str]) -> None:
    """Write these files, and no other ones of the user are there."""
    for name in ("conf", "other"):
        shutil.rmtree(f"{place.root}/{name}", ignore_errors=True)
    for name, text in texts.items():
        disk.make_folder(f"{place.root}/{name}".rpartition("/")[0], 0o755)
        with open(f"{place.root}/{name}".encode(), "wb") as file:
            file.write(text.encode("utf-8", "surrogateescape"))


def generated(place: Place, instance: Path) -> Generation:
    """A generation of the configuration that is there."""
    source = read_source(place.main, read_bytes, glob_files)
    plan = make_plan(source, Facts((1, 30, 0), "host.example.com"))
    answer = Answer("x", "T", f"{place.state}/x", tuple(plan.whose_hosts))
    answers = (answer,) if plan.certificates else ()
    layout = Layout(
        lambda *_: f"{place.root}/stub.pem", answers, plan.added, f"{place.root}/public"
    )
    files = source.texts | generate(source, plan, layout)
    return generation.write(
        str(instance), place.main, files, listed=source.listed, exclude=place.state
    )


def command(place: Place, main: str, *options: str) -> tuple[str, ...]:
    """Arguments for nginx that leave nothing outside of the folder."""
    root = place.root
    return (*options, "-e", "/dev/null", "-p", f"{root}/", "-c", main, "-g", f"pid {root}/pid;")


def dumped(nginx: str, place: Place, main: str) -> list[tuple[str, str]]:
    """Path and text of each file that `nginx -T` shows, in its order."""
    argv = (nginx, *command(place, main, "-T"))
    answer = subprocess.run(argv, capture_output=True, check=False)
    assert answer.returncode == 0, answer.stderr.decode(errors="replace")
    dump = answer.stdout.decode("utf-8", "surrogateescape")
    parts = re.split(r"^# configuration file (.*):\n", dump, flags=re.MULTILINE)
    return [(path, text[:-1]) for path, text in zip(parts[1::2], parts[2::2], strict=True)]


@examples(25)
@given(data=st.data())
def test_nothing_else(each_nginx: str, place: Place, instance: Path, data: st.DataObject) -> None:
    """On disk and for nginx each file is the user's, but for what may become of its pieces."""
    pieces = data.draw(configurations(place))
    write(place, {name: piece.text for name, piece in pieces.items()})
    written = generated(place, instance)
    wanted = {f"{place.root}/{name}": piece for name, piece in pieces.items()}
    texts = dict(written.texts())
    for path, text in texts.items():
        piece = wanted[os.path.normpath(path)]
        assert re.fullmatch(piece.pattern, text)
        assert text.count("\n") == piece.text.count("\n")
    dump = dumped(each_nginx, place, written.main)
    shown = [(written.translate(path), text) for path, text in dump]
    write(place, {name: piece.without for name, piece in pieces.items()})
    plain = dumped(each_nginx, place, place.main)
    assert [path for path, _ in shown] == [path for path, _ in plain]
    for path, text in shown:
        assert text == texts[os.path.normpath(path)]
    written.discard()


@examples(30)
@given(data=st.data())
def test_same_complaint(each_nginx: str, place: Place, instance: Path, data: st.DataObject) -> None:
    """Of a slip of the hand the user is told what nginx says without our words in the files."""
    pieces = data.draw(configurations(place))
    texts = {name: piece.text for name, piece in pieces.items()}
    plain = {name: piece.without for name, piece in pieces.items()}
    name = data.draw(st.sampled_from([name for name in texts if not name.endswith("README")]))
    start = data.draw(st.integers(0, len(texts[name])))
    end = min(len(texts[name]), start + data.draw(st.sampled_from([0, 0, 1, 1, 2, 9])))
    slip = data.draw(st.sampled_from(["", *PIECES]))
    assume(is_elsewhere(pieces[name], start, end, slip))
    for files in (texts, plain):
        files[name] = files[name][:start] + slip + files[name][end:]
    write(place, texts)
    said = told(each_nginx, place, instance)
    write(place, plain)
    wanted = judged(each_nginx, place, place.main, str)
    if said is None or any("ssl_certificate" in line for line in wanted.messages):
        event("ours")
        return
    event("refused" if wanted.messages else "accepted")
    assert said == tuple(map(hint, wanted.messages))


def is_elsewhere(piece: Piece, start: int, end: int, slip: str) -> bool:
    """Whether nothing of ours is changed with this part of a file, or ends a quote or comment."""
    if piece.text == piece.without:
        return True
    before, after = piece.text[:start].rstrip(), piece.text[end:].lstrip()
    if set(slip + piece.text[start:end]) & set("\"'\\#\n"):
        return False
    start, end = len(before) - 1, len(piece.text) - len(after) + 1
    return piece.text[max(start, 0) : end] == piece.without[max(start, 0) : end]


def told(nginx: str, place: Place, instance: Path) -> tuple[str, ...] | None:
    """What the user is told of the files that are there; None of a mistake in our directives."""

    def test(written: Generation) -> Judgement:
        return judged(nginx, place, written.main, written.translate)

    try:
        written = generated(place, instance)
    except Unreadable as mistake:
        error = refusal(mistake, str(instance), place.state, test)
        return error.lines if isinstance(error, NginxRejected) else (f"nginx: [emerg] {error}",)
    except ConfigError:
        return None
    said = test(written)
    written.discard()
    return tuple(map(hint, said.messages))


def judged(nginx: str, place: Place, main: str, translate: Callable[[str], str]) -> Judgement:
    """What `nginx -t` says."""
    binary = Nginx(nginx, "nginx", (1, 22, 1), "")
    return judge(binary, command(place, main, "-t", "-q"), translate)
