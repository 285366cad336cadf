"""How anything gets to disk, tried with real files, real processes and a real full disk."""

from __future__ import annotations

import os
import stat
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nginx_acme import disk
from nginx_acme.errors import StateError
from tests.launcher import eventually
from tests.mounts import CAN_MOUNT, in_memory
from tests.programs import heard, running
from tests.servers import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

OLD = b"old" * 50_000
NEW = b"new" * 50_000


def mode_of(path: str | Path) -> int:
    """Its permission bits."""
    return stat.S_IMODE(os.stat(path).st_mode)


def names_in(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(os.listdir(folder))


@contextmanager
def umask(value: int) -> Iterator[None]:
    """Another umask for a while."""
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    with in_memory(folder, "64k"):
        yield folder


# Files


@pytest.mark.parametrize(
    "durable", [pytest.param(True, id="durable"), pytest.param(False, id="not")]
)
def test_replace_writes_what_it_is_given(tmp_path: Path, *, durable: bool) -> None:
    """The file has the new content, and nothing else is left in the folder."""
    path = tmp_path / "file"
    path.write_bytes(OLD)
    disk.replace(str(path), NEW, mode=0o600, durable=durable)
    assert path.read_bytes() == NEW
    assert names_in(tmp_path) == ["file"]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o666])
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_the_mode_is_the_one_asked_for(tmp_path: Path, mode: int, mask: int) -> None:
    """The umask of whoever started us has no say, nor has the mode of the file before."""
    path = tmp_path / "file"
    path.write_bytes(OLD)
    path.chmod(0o640)
    with umask(mask):
        disk.replace(str(path), NEW, mode=mode, durable=False)
    assert mode_of(path) == mode


def test_a_private_file_is_private_before_it_has_content(tmp_path: Path) -> None:
    """No file of the folder is ever seen with a wider mode, at whatever moment one looks."""
    program = (
        "from nginx_acme import disk\n"
        "print(flush=True)\n"
        "while True: disk.replace(sys.argv[1], b'key' * 1000, mode=0o600, durable=False)"
    )
    seen = set()
    with umask(0), running(program, str(tmp_path / "key.pem")) as process:
        heard(process)
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            for entry in os.scandir(tmp_path):
                try:
                    seen.add(mode_of(entry.path))
                except FileNotFoundError:
                    continue
    assert seen == {0o600}


def test_a_symbolic_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """What a link points to stays as it is."""
    target = tmp_path / "target"
    target.write_bytes(OLD)
    (tmp_path / "link").symlink_to(target)
    disk.replace(str(tmp_path / "link"), NEW, mode=0o600, durable=False)
    assert target.read_bytes() == OLD
    assert (tmp_path / "link").read_bytes() == NEW


def test_replace_says_which_path_and_why(tmp_path: Path) -> None:
    """A write that fails is one sentence with the path, and knows the path."""
    path = str(tmp_path / "missing" / "file")
    with pytest.raises(StateError, match=r"cannot write .*missing/file.*No such file") as caught:
        disk.replace(path, NEW, mode=0o600, durable=False)
    assert caught.value.path == path


def test_replace_by_a_file_over_a_folder_leaves_nothing_behind(tmp_path: Path) -> None:
    """A rename that fails takes the temporary file with it."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(StateError, match="cannot write"):
        disk.replace(str(tmp_path / "folder"), NEW, mode=0o600, durable=False)
    assert names_in(tmp_path) == ["folder"]


@CAN_MOUNT
def test_a_full_disk_leaves_the_old_file_and_no_new_one(small_disk: Path) -> None:
    """Disk full: the old content is there, the temporary file is gone, the message says why."""
    path = small_disk / "file"
    disk.replace(str(path), b"old", mode=0o600, durable=True)
    with pytest.raises(StateError, match="No space left on device"):
        disk.replace(str(path), NEW, mode=0o600, durable=True)
    assert path.read_bytes() == b"old"
    assert names_in(small_disk) == ["file"]


REPLACES = """
from nginx_acme import disk
path, old, new = sys.argv[1], b"old" * 50_000, b"new" * 50_000
print(flush=True)
while True:
    disk.replace(path, old, mode=0o600, durable=False)
    disk.replace(path, new, mode=0o600, durable=False)
"""


def test_a_kill_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    """Killed at any moment, a write has happened or it has not; what is left over can be swept."""
    path = tmp_path / "file"
    path.write_bytes(OLD)
    for delay in range(20):
        with running(REPLACES, str(path)) as process:
            heard(process)
            time.sleep(delay / 1000)  # the moment of the kill is what varies
            process.kill()
            process.wait()
        assert path.read_bytes() in (OLD, NEW)
    others = [name for name in names_in(tmp_path) if name != "file"]
    assert all(map(disk.is_leftover, others))
    disk.sweep(str(tmp_path), older_than=0)
    assert names_in(tmp_path) == ["file"]


def test_point_switches_a_link(tmp_path: Path) -> None:
    """A link is made, then switched, and nothing else is left in the folder."""
    link = tmp_path / "generated"
    disk.point(str(link), "generations/1")
    disk.point(str(link), "generations/2")
    assert os.readlink(link) == "generations/2"
    assert names_in(tmp_path) == ["generated"]


def test_point_does_not_replace_a_folder(tmp_path: Path) -> None:
    """What is no link is left as it is, with a message."""
    (tmp_path / "generated").mkdir()
    with pytest.raises(StateError, match="cannot switch"):
        disk.point(str(tmp_path / "generated"), "generations/1")
    assert names_in(tmp_path) == ["generated"]


def test_read_tells_no_file_from_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """No file, or a file where its folder should be, is None; anything else is an error."""
    (tmp_path / "file").write_bytes(OLD)
    assert disk.read(str(tmp_path / "file")) == OLD
    assert disk.read(str(tmp_path / "missing")) is None
    assert disk.read(str(tmp_path / "file" / "below")) is None
    with pytest.raises(StateError, match="cannot read"):
        disk.read(str(tmp_path))


def test_set_aside_and_remove(tmp_path: Path) -> None:
    """A file set aside is found under its name with the suffix; removing twice is no error."""
    path = tmp_path / "file"
    path.write_bytes(OLD)
    assert disk.set_aside(str(path), ".damaged") == f"{path}.damaged"
    assert names_in(tmp_path) == ["file.damaged"]
    disk.remove(f"{path}.damaged")
    disk.remove(f"{path}.damaged")
    assert names_in(tmp_path) == []


# Folders


@pytest.mark.parametrize("mode", [0o700, 0o711, 0o755])
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_every_folder_made_has_the_mode(tmp_path: Path, mode: int, mask: int) -> None:
    """Whatever the umask, several levels, a trailing slash or none."""
    with umask(mask):
        disk.make_folder(f"{tmp_path}/a/b/c/", mode)
    assert [mode_of(tmp_path / level) for level in ("a", "a/b", "a/b/c")] == [mode] * 3


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    """The mode of a volume is its owner's decision."""
    tmp_path.chmod(0o750)
    disk.make_folder(str(tmp_path), 0o711)
    assert mode_of(tmp_path) == 0o750


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    """The message names the folder that can't be made."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StateError, match=r'cannot make the folder ".*/file"'):
        disk.make_folder(str(tmp_path / "file"), 0o700)
    with pytest.raises(StateError, match=r'cannot make the folder ".*/file/below"'):
        disk.make_folder(str(tmp_path / "file" / "below"), 0o700)


def test_a_folder_gets_its_name_when_it_is_complete(tmp_path: Path) -> None:
    """An unfinished folder is a leftover until it is renamed, and never replaces one with files."""
    for expected in (True, False):
        folder = disk.new_folder(str(tmp_path), 0o700)
        assert disk.is_leftover(os.path.basename(folder))
        assert mode_of(folder) == 0o700
        (Path(folder) / "file").write_bytes(b"")
        assert disk.rename_folder(folder, str(tmp_path / "final")) is expected
    disk.sweep(str(tmp_path), older_than=0)
    assert names_in(tmp_path) == ["final"]
    disk.remove_folder(str(tmp_path / "final"))
    disk.remove_folder(str(tmp_path / "final"))
    assert names_in(tmp_path) == []


def test_sweep_leaves_what_is_young_or_not_ours(tmp_path: Path) -> None:
    """Another process may be writing a young file; other names are somebody else's."""
    young = tmp_path / ".nginx-acme-1-a"
    old = tmp_path / ".nginx-acme-1-b"
    future = tmp_path / ".nginx-acme-1-c"
    other = tmp_path / ".other"
    for path, age in ((young, 0), (old, 7200), (future, -7200), (other, 7200)):
        path.write_bytes(b"")
        os.utime(path, (time.time() - age,) * 2)
    disk.sweep(str(tmp_path))
    assert names_in(tmp_path) == [young.name, other.name]


def test_sync_folder(tmp_path: Path) -> None:
    """A folder can be synced; one that is missing is an error."""
    disk.sync_folder(str(tmp_path))
    with pytest.raises(StateError, match="missing"):
        disk.sync_folder(str(tmp_path / "missing"))


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    """Files written, folders probed: nothing stays open."""
    before = os.listdir("/proc/self/fd")
    disk.replace(str(tmp_path / "file"), NEW, mode=0o600, durable=True)
    disk.probe_writable(str(tmp_path))
    assert os.listdir("/proc/self/fd") == before


# Whether it can be written


def test_probe_leaves_nothing(tmp_path: Path) -> None:
    """A folder that can be written is tried and left as it was."""
    disk.probe_writable(str(tmp_path))
    assert names_in(tmp_path) == []


@CAN_MOUNT
def test_probe_of_a_full_disk(small_disk: Path) -> None:
    """A disk with less room than a certificate needs is full; the message names the folder."""
    (small_disk / "rest").write_bytes(bytes(60 * 1024))
    with pytest.raises(StateError, match="No space left") as caught:
        disk.probe_writable(str(small_disk))
    assert caught.value.path == str(small_disk)
    assert names_in(small_disk) == ["rest"]


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        pytest.param("/proc", "cannot write to", id="no files can be made there"),
        pytest.param("/missing/folder", "No such file", id="missing"),
    ],
)
def test_probe_of_what_cannot_be_written(folder: str, reason: str) -> None:
    """The message names the folder."""
    with pytest.raises(StateError, match=reason) as caught:
        disk.probe_writable(folder)
    assert caught.value.path == folder


def test_a_signal_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    """Ended by an exception from a signal handler, a write takes its temporary file with it."""
    program = """
from nginx_acme import disk
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print(flush=True)
while True:
    disk.replace(sys.argv[1], bytes(5_000_000), mode=0o600, durable=False)
"""
    path = tmp_path / "file"
    with running(program, str(path)) as process:
        eventually(path.exists, "the first write")
        process.terminate()
        assert process.wait(PATIENCE) == 7
    assert names_in(tmp_path) == ["file"]
