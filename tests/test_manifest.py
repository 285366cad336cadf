"""Whether anything changed since a generation was made, without reading anything again."""

from __future__ import annotations

import os
import shutil
import time
import zlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_acme import __version__
from nginx_acme.manifest import (
    Manifest,
    Served,
    Sources,
    is_settled,
    keep_manifest,
    keep_served,
    kept_manifest,
    kept_served,
    state_of,
)
from tests.servers import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def made(**more: object) -> Manifest:
    """A manifest of a start that depended on nothing."""
    fields: dict[str, object] = {
        "generation": "generations/1",
        "sources": Sources(),
        "context": (),
        "added": (),
        "left_out": False,
        "pid_file": "/run/nginx.pid",
        "error_log": "stderr",
        "agent": "{}",
        "warnings": (),
    }
    return Manifest(**(fields | more))  # type: ignore[arg-type]


def of(*paths: Path) -> Sources:
    """What was read, long after it was written."""
    sources = Sources(now=lambda: time.time_ns() + 60 * 10**9)
    for path in paths:
        sources.note(str(path))
    return sources


def as_tuple(it: Manifest) -> tuple[object, ...]:
    """Everything in a manifest, to compare."""
    known, more = (list(states.items()) for states in (it.sources.states, it.sources.more))
    sources = known, more, it.sources.settled
    rest = (getattr(it, name) for name in Manifest.__slots__ if name != "sources")
    return (*sources, *rest)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file in a folder, beside a link to it."""
    path = tmp_path / "conf" / "nginx.conf"
    path.parent.mkdir()
    path.write_text("one")
    (path.parent / "link").symlink_to("nginx.conf")
    return path


def edit_without_a_trace(file: Path) -> None:
    """Another content of the same size, with the old mtime."""
    before = file.stat()

    def edited() -> bool:
        file.write_text("two")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        return file.stat().st_ctime_ns != before.st_ctime_ns

    wait_for(edited, what="the next tick of the file system's clock")
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def replace(file: Path) -> None:
    """Another file at its path, as editors do it."""
    (file.parent.parent / "new").write_text("one")
    (file.parent.parent / "new").rename(file)


# --- sources --------------------------------------------------------------------------------


def test_nothing_changed(file: Path) -> None:
    """Files, folders, links and what is absent stay unchanged while nobody touches them."""
    sources = of(file, file.parent, file.parent / "link", file / "x", file.parent / "none")
    assert not sources.changed()
    file.read_text()
    assert not sources.changed()


@pytest.mark.parametrize(
    ("change", "looked_at"),
    [
        pytest.param(lambda file: file.write_text("longer"), "nginx.conf", id="edited"),
        pytest.param(edit_without_a_trace, "nginx.conf", id="same size and mtime"),
        pytest.param(replace, "nginx.conf", id="replaced"),
        pytest.param(lambda file: file.unlink(), "nginx.conf", id="gone"),
        pytest.param(lambda file: file.write_text("longer"), "link", id="edited, by a link"),
        pytest.param(lambda file: file.with_name("none").touch(), "none", id="come"),
        pytest.param(lambda file: file.with_name("x").touch(), ".", id="new in the folder"),
        pytest.param(lambda file: file.unlink(), ".", id="gone from the folder"),
        pytest.param(lambda file: file.rename(file.with_name("x")), ".", id="renamed"),
        pytest.param(lambda file: shutil.rmtree(file.parent), ".", id="no folder"),
    ],
)
def test_changed(file: Path, change: Callable[[Path], object], looked_at: str) -> None:
    """Whatever is done to a file or folder is a change, in the same tick, too."""
    sources = of(file.parent / looked_at)
    change(file)
    assert sources.changed()


def test_come_and_gone(file: Path) -> None:
    """A folder with the same names in it is the same: it may be where nginx has its pid file."""
    before = file.parent.stat().st_mtime_ns
    sources = of(file.parent)

    def touched() -> bool:
        (file.parent / "nginx.pid").touch()
        (file.parent / "nginx.pid").unlink()
        return file.parent.stat().st_mtime_ns != before

    wait_for(touched, what="the clock's next tick")
    assert not sources.changed()
    (file.parent / "nginx.pid").touch()
    assert sources.changed()


@pytest.mark.parametrize(
    ("seconds", "settled"),
    [
        pytest.param(0, False, id="now"),
        pytest.param(0.019, False, id="just before"),
        pytest.param(-5, False, id="in the future"),
        pytest.param(0.021, True, id="before"),
    ],
)
def test_just_changed(file: Path, seconds: float, settled: bool) -> None:  # noqa: FBT001
    """A file that changed within the clock's last tick may change again unseen."""

    def fine() -> bool:
        os.utime(file, (1, 1))  # as a package manager sets it; ctime is what counts
        return file.stat().st_ctime_ns % 10**9 != 0

    wait_for(fine, what="a time that is no whole second")
    sources = Sources(now=lambda: file.stat().st_ctime_ns + int(seconds * 1e9))
    sources.note(str(file))
    assert sources.settled == settled
    assert sources.changed() != settled


def test_from_an_image(file: Path) -> None:
    """What is in the next image may have the same times: whole seconds, and all of them equal."""
    second = file.stat().st_ctime_ns // 10**9 * 10**9
    entry = SimpleNamespace(st_ctime_ns=second, st_mtime_ns=second)
    later = second + 60 * 10**9
    assert not is_settled(cast("os.stat_result", entry), later)
    entry.st_mtime_ns -= 1
    assert is_settled(cast("os.stat_result", entry), later)


def test_no_edit(file: Path) -> None:
    """Something else in the main file's folder is a change to a start, and no edit."""
    sources = of(file)
    sources.note_more(str(file.parent))
    sources.note_more(str(file))
    (file.parent / "upload").touch()
    assert sources.changed()
    assert not sources.edited()
    file.write_text("longer")
    assert sources.edited()


def test_first_look_counts(file: Path) -> None:
    """A file that changes between two looks of one start looks changed to the next."""
    sources = of(file)
    file.write_text("longer")
    sources.note(str(file))
    assert sources.changed()


# --- certificates ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("until", "usable"), [pytest.param(1001, True, id="good"), pytest.param(1000, False, id="over")]
)
def test_times(file: Path, until: int, usable: bool) -> None:  # noqa: FBT001
    """Certificates are usable until the first of them expires."""
    assert Served({str(file): state_of(str(file))}, until).usable(1000) == usable


@pytest.mark.parametrize(
    "change",
    [lambda file: file.unlink(), lambda file: file.write_text("garbage")],
    ids=["gone", "changed"],
)
def test_certificate_file(file: Path, change: Callable[[Path], object]) -> None:
    """A certificate that is gone or another one is looked at again."""
    served = Served(
        {str(file.parent): state_of(str(file.parent)), str(file): state_of(str(file))}, 9
    )
    assert served.usable(1)
    change(file)
    assert not served.usable(1)


# --- on disk --------------------------------------------------------------------------------


WORDS = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"])
    | st.sampled_from([chr(0xDC00 + byte) for byte in (0x80, 0xFF)])
)
STATES = st.dictionaries(WORDS, WORDS)
MANIFESTS = st.builds(
    Manifest,
    generation=WORDS,
    sources=st.builds(Sources, STATES, STATES, settled=st.booleans()),
    context=st.lists(WORDS),
    added=st.lists(st.tuples(WORDS, st.integers(0, 65535), st.booleans())),
    left_out=st.booleans(),
    pid_file=WORDS,
    error_log=WORDS,
    agent=WORDS,
    warnings=st.lists(WORDS),
)


@given(MANIFESTS)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, manifest: Manifest) -> None:
    """What was written is read, whatever is in paths and arguments."""
    folder = str(tmp_path_factory.getbasetemp())
    keep_manifest(folder, manifest)
    back = kept_manifest(folder)
    assert back is not None
    assert as_tuple(back) == as_tuple(manifest)


@given(STATES, st.integers())
def test_round_trip_served(
    tmp_path_factory: pytest.TempPathFactory, states: dict[str, str], until: int
) -> None:
    """The same for certificates."""
    folder = str(tmp_path_factory.getbasetemp())
    keep_served(folder, Served(states, until))
    back = kept_served(folder)
    assert back is not None
    assert (back.states, back.until) == (states, until)


def test_nothing_is_kept(tmp_path: Path) -> None:
    """Where there is no file, or no folder, there is nothing."""
    assert kept_manifest(str(tmp_path)) is None
    assert kept_served(str(tmp_path / "none")) is None


def test_private(tmp_path: Path) -> None:
    """What an agent is started with, and where everything is, is nobody else's."""
    keep_manifest(str(tmp_path), made())
    assert (tmp_path / "manifest").stat().st_mode & 0o777 == 0o600


def test_cut_off(tmp_path: Path) -> None:
    """A text that is cut off anywhere is no manifest."""
    manifest = made(sources=Sources({"/a": "1 2", "/b\n": "3"}), added=[("::", 80, True)])
    keep_manifest(str(tmp_path), manifest)
    path = tmp_path / "manifest"
    text = path.read_bytes()
    for length in range(len(text)):
        path.write_bytes(text[:length])
        assert kept_manifest(str(tmp_path)) is None
    path.write_bytes(text)
    assert kept_manifest(str(tmp_path)) is not None


def sealed(text: bytes) -> bytes:
    """A text with its checksum, as if it had been written here."""
    return f"nginx-acme {__version__} {zlib.crc32(text):08x}\n".encode() + text


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\0" * 100, id="zeros"),
        pytest.param(f"nginx-acme 0.0 {zlib.crc32(b'0'):08x}\n0".encode(), id="another release's"),
        pytest.param(f"nginx-acme {__version__} 00000000\n0".encode(), id="another checksum"),
        pytest.param(sealed(b""), id="nothing in it"),
        pytest.param(sealed(b"x\x000\x000"), id="no number"),
        pytest.param(sealed(b"1\x009\x009\x000"), id="too few"),
        pytest.param(sealed(b"1\x009\x001\0/a\x000"), id="a path without a state"),
        pytest.param(sealed(b"1\0soon\x000\x000"), id="no time"),
        pytest.param(b'{"json": true}', id="JSON"),
        pytest.param(b"\xff\xfe\0\xff", id="binary"),
    ],
)
def test_broken(tmp_path: Path, text: bytes) -> None:
    """Anything else is nothing."""
    for name in ("manifest", "served"):
        (tmp_path / name).write_bytes(text)
        (tmp_path / name).chmod(0o600)
    assert kept_manifest(str(tmp_path)) is None
    assert kept_served(str(tmp_path)) is None


def test_damaged(tmp_path: Path) -> None:
    """A single bit makes it nothing: an agent that it starts would not run."""
    keep_manifest(str(tmp_path), made(agent='{"lock": "/x"}', added=[("::", 80, True)]))
    path = tmp_path / "manifest"
    text = path.read_bytes()
    for place in range(len(text)):
        path.write_bytes(text[:place] + bytes([text[place] ^ 4]) + text[place + 1 :])
        assert kept_manifest(str(tmp_path)) is None


@pytest.mark.parametrize("mode", [0o644, 0o620, 0o602])
def test_of_others(tmp_path: Path, mode: int) -> None:
    """What another user can have written or may read is nothing: it says what is run."""
    keep_manifest(str(tmp_path), made())
    (tmp_path / "manifest").chmod(mode)
    assert kept_manifest(str(tmp_path)) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users(tmp_path: Path) -> None:
    """So is what is another user's."""
    keep_manifest(str(tmp_path), made())
    os.chown(tmp_path / "manifest", 65534, -1)
    assert kept_manifest(str(tmp_path)) is None


@given(st.binary())
def test_garbage(tmp_path_factory: pytest.TempPathFactory, garbage: bytes) -> None:
    """Nothing in the file makes a start fail."""
    folder = tmp_path_factory.getbasetemp()
    (folder / "manifest").write_bytes(garbage)
    (folder / "manifest").chmod(0o600)
    assert kept_manifest(str(folder)) is None
