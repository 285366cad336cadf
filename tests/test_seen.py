"""Whether anything that was read has changed since, without reading it again."""

from __future__ import annotations

import os
import shutil
import stat
from typing import TYPE_CHECKING

import pytest

from nginx_acme.nginx.files import read_with_status
from nginx_acme.seen import Seen, is_settled
from tests.launcher import eventually
from tests.settled import SECOND, here, in_a_minute

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def of(*paths: Path) -> Seen:
    """What was read, long after it was written."""
    seen = Seen(is_local=here, now=in_a_minute)
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

    eventually(edited, "the next tick of the file system's clock")
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

    eventually(touched, "the clock's next tick")
    assert not seen.sources.changed()
    (file.parent / "nginx.pid").touch()
    assert seen.sources.changed()


@pytest.mark.parametrize(
    ("ctime", "mtime", "age", "settled"),
    [
        pytest.param(SECOND + 1, 1, 0, False, id="now"),
        pytest.param(SECOND + 1, 1, 19_000_000, False, id="may change in the same tick"),
        pytest.param(SECOND + 1, 1, 21_000_000, True, id="the tick is over"),
        pytest.param(SECOND + 1, 1, -SECOND, False, id="the clock was set back"),
        pytest.param(SECOND, 1, 21_000_000, False, id="a clock of whole seconds"),
        pytest.param(SECOND, 1, 2 * SECOND - 1, False, id="and of two of them"),
        pytest.param(SECOND, 1, 2 * SECOND, True, id="they are over"),
        pytest.param(SECOND, SECOND, 60 * SECOND, False, id="from an image"),
        pytest.param(SECOND + 1, SECOND + 1, 60 * SECOND, True, id="written once, here"),
    ],
)
def test_settled(ctime: int, mtime: int, age: int, *, settled: bool) -> None:
    """A file that may change again, or be another one, and look the same is none to trust."""
    base = (stat.S_IFREG, *[0] * 9)
    status = os.stat_result(base, {"st_mtime_ns": mtime, "st_ctime_ns": ctime})
    assert is_settled(status, ctime + age) is settled


def test_just_changed(file: Path) -> None:
    """What was seen of such a file counts as changed."""
    seen = Seen(is_local=here, now=lambda: file.stat().st_ctime_ns)
    seen.note(str(file))
    assert not seen.sources.settled
    assert seen.sources.changed()


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

    seen = Seen(read, is_local=here, now=in_a_minute)
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

    seen = Seen(read, is_local=here, now=in_a_minute)
    assert seen.read(str(file)) == b"longer"
    assert seen.sources.edited()


def test_not_on_every_file_system(file: Path) -> None:
    """Where others may write, or that is not known, nothing tells whether a file is the same."""
    seen = Seen(is_local=lambda path: path == str(file), now=in_a_minute)
    seen.note(str(file))
    assert seen.sources.settled
    seen.note_more("/proc/version")
    assert seen.sources.edited()
    assert seen.sure([str(file), "/proc/version"]).keys() == {str(file)}
    usual = Seen(now=in_a_minute)
    usual.note("/proc/version")
    assert usual.sources.edited()
