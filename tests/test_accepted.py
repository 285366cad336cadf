"""What nginx says of a generated text is what it says of the user's with certificates by hand."""

from __future__ import annotations

import os
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nginx_acme.certificate import temporary
from nginx_acme.generate import mirrored
from nginx_acme.nginx.edit import Replacement, apply
from nginx_acme.plan import Facts, make_plan
from tests.test_generate import CASES, FOLDER, STATE, called, source_of

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULES = "/usr/lib/nginx/modules"


@pytest.fixture(scope="session")
def stub() -> bytes:
    """A certificate with its key."""
    return temporary(["example.com"], "ecdsa:256", datetime.now(UTC)).pem


def complaints(nginx: str, main: Path, *modules: str) -> list[tuple[str, str]]:
    """Everything that `nginx -t` says, without time and process."""
    loads = "".join(f"load_module {path};" for path in modules if os.path.exists(path))
    asked = subprocess.run(
        (nginx, "-t", "-q", "-e", "stderr", "-c", main, *(("-g", loads) if loads else ())),
        capture_output=True,
        check=False,
    )
    return re.findall(r"\[(warn|emerg)\] (?:\d+#\d+: )?(.*)", asked.stderr.decode(errors="replace"))


def by_hand(case: Path) -> Iterator[tuple[str, str]]:
    """Each file with a certificate where it says `acme`."""
    source = source_of(case)
    plan = make_plan(source, Facts((1, 30, 0), "host.example.com"))
    for file in source.files.values():
        edits = set()
        for directive in plan.ours:
            if directive.path != file.path:
                continue
            lines = "\n" * file.text.count("\n", directive.start, directive.end)
            wanted = directive.name == "acme" and directive.args != ("off",)
            pair = "ssl_certificate {0}; ssl_certificate_key {0};".format(f"{STATE}/certificates/x")
            edits.add(Replacement(directive.start, directive.end, pair * wanted + lines))
        yield file.path, apply(file.text, edits)


def put(root: Path, path: str, text: bytes) -> None:
    """A file below `root`, which stands for the root folder in what it says."""
    place = Path(os.path.normpath(f"{root}{path}"))
    for folder in (f"{root}{path}", place):
        os.makedirs(os.path.dirname(folder), exist_ok=True)
    text = re.sub(rb"%s/certificates/[^ ;]*" % STATE.encode(), b"/etc/stub.pem", text)
    place.write_bytes(re.sub(rb"(?<![\w.])/(etc|srv)/", rb"%s/\1/" % bytes(root), text))


@pytest.mark.skipif(os.geteuid() != 0, reason="nginx tries port 443 even for -t")
@pytest.mark.parametrize(
    "case", [c for c in CASES if (c / "expected").exists()], ids=lambda c: c.name
)
def test_accepted(each_nginx: str, nginx: str, stub: bytes, tmp_path: Path, case: Path) -> None:
    """Nginx accepts, warns and refuses as it does without us."""
    modules = [f"{MODULES}/ngx_{kind}_module.so" for kind in ("mail", "stream")]
    loads = modules if each_nginx == nginx else []  # they fit the nginx that they came with
    main = tmp_path / "etc/nginx/nginx.conf"
    for path in case.rglob("*"):
        if path.is_file() and not path.is_relative_to(case / "expected"):
            put(tmp_path, called(case, str(path)), path.read_bytes())
    (tmp_path / "etc/stub.pem").write_bytes(stub)
    for user_path, text in by_hand(case):
        put(tmp_path, user_path, text.encode("utf-8", "surrogateescape"))
    wanted = complaints(each_nginx, main, *loads)
    for user_path, text in source_of(case).texts.items():
        copied = f"{FOLDER}/{mirrored(FOLDER, user_path)}"
        put(tmp_path, copied, text.encode("utf-8", "surrogateescape"))
    for path in (case / "expected").rglob("*"):
        if path.is_file():
            name = path.relative_to(case / "expected")
            put(tmp_path, f"{FOLDER}/{name}", path.read_bytes())
    assert complaints(each_nginx, main, *loads) == wanted
