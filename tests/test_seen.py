"""Whether anything that was read has changed since, without reading it again."""

from __future__ import annotations

import os
import shutil
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from nginx_acme.nginx.files import read_with_status
from nginx_acme.seen import Seen, is_settled
from tests.servers import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def of(*paths: Path) -> Seen:
    """What was read, long after it was written."""
    seen = Seen(now=lambda: time.time_ns() + 60 * 10**9)
    for path in paths:
        seen.note(str(path))
    return seen


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


def test_nothing_changed(file: Path) -> None:
    """Files, folders, links and what is absent stay unchanged while nobody touches them."""
    seen = of(file, file.parent, file.parent / "link", file / "x", file.parent / "none")
    assert not seen.sources.changed()
    file.read_text()
    assert not seen.sources.changed()


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
    seen = of(file.parent / looked_at)
    change(file)
    assert seen.sources.changed()


def test_what_was_seen_so_far(file: Path) -> None:
    """What is told of is what was seen until then, whatever is looked at later."""
    seen = of(file)
    before = seen.sources
    seen.note(str(file.parent))
    seen.note_more("/proc/version")
    assert ([*before.states], [*before.more], before.settled) == ([str(file)], [], True)


def test_come_and_gone(file: Path) -> None:
    """A folder with the same names in it is the same: it may be where nginx has its pid file."""
    before = file.parent.stat().st_mtime_ns
    seen = of(file.parent)

    def touched() -> bool:
        (file.parent / "nginx.pid").touch()
        (file.parent / "nginx.pid").unlink()
        return file.parent.stat().st_mtime_ns != before

    wait_for(touched, what="the clock's next tick")
    assert not seen.sources.changed()
    (file.parent / "nginx.pid").touch()
    assert seen.sources.changed()


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
    seen = Seen(now=lambda: file.stat().st_ctime_ns + int(seconds * 1e9))
    seen.note(str(file))
    assert seen.sources.settled == settled
    assert seen.sources.changed() != settled


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
    seen = of(file)
    seen.note_more(str(file.parent))
    seen.note_more(str(file))
    (file.parent / "upload").touch()
    assert seen.sources.changed()
    assert not seen.sources.edited()
    file.write_text("longer")
    assert seen.sources.edited()


def test_first_look_counts(file: Path) -> None:
    """A file that changes between two looks of one start looks changed to the next."""
    seen = of(file)
    file.write_text("longer")
    seen.note(str(file))
    assert seen.sources.changed()


def test_what_was_read_counts(file: Path) -> None:
    """A link that leads elsewhere just while it is read looks changed when it leads back."""
    link, other = file.parent / "link", file.parent / "other"
    other.write_text("two")

    def turn(target: Path) -> None:
        link.unlink()
        link.symlink_to(target)

    def read(path: str) -> tuple[bytes, os.stat_result]:
        turn(other)
        try:
            return read_with_status(path)
        finally:
            turn(file)

    seen = Seen(read, now=lambda: time.time_ns() + 60 * 10**9)
    seen.note(str(link))
    assert seen.read(str(link)) == b"two"
    assert link.read_text() == "one"
    assert seen.sources.edited()


def test_written_while_it_was_read(file: Path) -> None:
    """So does a file that somebody writes between the look and the reading."""

    def read(path: str) -> tuple[bytes, os.stat_result]:
        status = os.stat(path)
        file.write_text("longer")
        return read_with_status(path)[0], status

    seen = Seen(read, now=lambda: time.time_ns() + 60 * 10**9)
    assert seen.read(str(file)) == b"longer"
    assert seen.sources.edited()


def test_not_on_every_file_system(file: Path) -> None:
    """Where others may write, or that is not known, nothing tells whether a file is the same."""
    seen = of(file)
    assert seen.sources.settled
    seen.note_more("/proc/version")
    assert seen.sources.edited()
    assert seen.sure([str(file)]).keys() == {str(file)}
