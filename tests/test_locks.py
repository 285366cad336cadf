"""Locks, tried with real processes."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nginx_acme import locks
from nginx_acme.errors import StateError
from tests.mounts import CAN_MOUNT, in_memory
from tests.programs import heard, running, tell
from tests.servers import PATIENCE

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

HOLDS = f"""
from nginx_acme import locks
held = locks.try_lock(sys.argv[1])
if held is None:
    print("waits", flush=True)
    held = locks.lock(sys.argv[1], wait={PATIENCE})
with held:
    print("held", flush=True)
    sys.stdin.read(1)
print("released", flush=True)
sys.stdin.read(1)
"""


@contextmanager
def held_elsewhere(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds a lock until a byte comes on its standard input."""
    with running(HOLDS, str(path)) as process:
        assert heard(process) == b"held\n"
        yield process


def test_one_process_at_a_time(tmp_path: Path) -> None:
    """What another process holds can't be had; the message says which process, and since when."""
    path = tmp_path / "lock"
    with held_elsewhere(path) as process:
        assert locks.try_lock(str(path)) is None
        with pytest.raises(
            StateError, match=rf"process {process.pid} on .* since \d{{4}}-"
        ) as caught:
            locks.lock(str(path), wait=0.1)
    assert caught.value.path == str(path)


def test_a_shared_lock(tmp_path: Path) -> None:
    """Any number may share it; they and who wants it alone keep each other out."""
    path = str(tmp_path / "lock")
    with locks.lock(path, wait=0, shared=True), locks.lock(path, wait=0, shared=True):
        assert locks.try_lock(path) is None
    with locks.lock(path, wait=0):
        assert locks.try_lock(path, shared=True) is None


def test_one_task_at_a_time(tmp_path: Path) -> None:
    """Several certificates are worked on in one process, so a lock counts inside of it, too."""
    path = str(tmp_path / "lock")
    with locks.lock(path, wait=0):
        assert locks.try_lock(path) is None
    again = locks.try_lock(path)
    assert again is not None
    again.release()


def test_the_wait_ends_when_the_lock_is_free(tmp_path: Path) -> None:
    """A waiting process gets the lock when the other gives it back."""
    path = tmp_path / "lock"
    with held_elsewhere(path) as process, running(HOLDS, str(path)) as waiting:
        assert heard(waiting) == b"waits\n"
        tell(process)
        assert heard(waiting) == b"held\n"
        assert locks.holder(str(path)).startswith(f"process {waiting.pid} ")


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    """No lock is left by a killed process, however its file looks."""
    path = tmp_path / "lock"
    with held_elsewhere(path) as process:
        process.kill()
        process.wait()
        locks.lock(str(path), wait=PATIENCE).release()


def test_who_holds_a_lock_is_known_without_trying_it(tmp_path: Path) -> None:
    """Its pid as long as it does; nobody before and after, also if a process has that pid still."""
    path = str(tmp_path / "lock")
    assert locks.held_by(path) is None
    with held_elsewhere(Path(path)) as other:
        assert locks.held_by(path) == other.pid
        assert locks.try_lock(path) is None
    assert locks.held_by(path) is None
    with locks.lock(path, wait=0):
        assert locks.held_by(path) == os.getpid()
    assert locks.held_by(path) is None


def test_a_lock_is_not_inherited(tmp_path: Path) -> None:
    """A child that a process forked while it held the lock doesn't hold it afterwards."""
    path = str(tmp_path / "lock")
    reading, writing = os.pipe()
    held = locks.lock(path, wait=0)
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    try:
        held.release()
        again = locks.try_lock(path)
        assert again is not None
        again.release()
    finally:
        os.close(reading)
        os.close(writing)
        os.waitpid(child, 0)


def test_a_lock_file_that_was_removed_is_no_lock(tmp_path: Path) -> None:
    """Whoever locks after the file was removed locks a new file, and that one excludes others."""
    path = tmp_path / "lock"
    with locks.lock(str(path), wait=0) as first:
        assert first.lasts()
        path.unlink()
        assert not first.lasts()
        second = locks.try_lock(str(path))
        assert second is not None
        assert locks.try_lock(str(path)) is None
        second.release()


def test_a_lock_of_a_removed_folder(tmp_path: Path) -> None:
    """Nor is one whose folder was removed, or is something else by now."""
    folder = tmp_path / "locks"
    folder.mkdir()
    with locks.lock(str(folder / "lock"), wait=0) as held:
        folder.rename(tmp_path / "elsewhere")
        assert not held.lasts()
        folder.write_text("")
        assert not held.lasts()
        folder.unlink()
        (tmp_path / "elsewhere").rename(folder)
        assert held.lasts()
    assert not held.lasts()


REMOVES = """
from nginx_acme import locks
path = sys.argv[1]
inside = path + ".inside"
for _ in range(500):
    while not (held := locks.try_lock(path)):
        pass
    with held:
        os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
        os.unlink(inside)
        os.unlink(path)
"""


def test_locks_that_are_removed_under_those_who_wait(tmp_path: Path) -> None:
    """However often the file is removed, no two processes hold the lock at once."""
    path = str(tmp_path / "lock")
    with running(REMOVES, path) as one, running(REMOVES, path) as other:
        assert (one.wait(PATIENCE), other.wait(PATIENCE)) == (0, 0)


def test_releasing_twice_is_harmless(tmp_path: Path) -> None:
    """The second time does nothing, even when the descriptor's number is in use again."""
    held = locks.lock(str(tmp_path / "lock"), wait=0)
    held.release()
    with open(tmp_path / "other", "wb") as other:
        held.release()
        other.write(b"still open")
    assert (tmp_path / "other").read_bytes() == b"still open"


@CAN_MOUNT
def test_a_lock_on_a_full_disk(tmp_path: Path) -> None:
    """The lock holds although its holder can't be written down."""
    path = str(tmp_path / "lock")
    with in_memory(tmp_path, "64k"):
        locks.lock(path, wait=0).release()
        os.truncate(path, 0)
        room = os.statvfs(tmp_path)
        (tmp_path / "rest").write_bytes(bytes(room.f_bavail * room.f_bsize))
        with locks.lock(path, wait=0):
            assert locks.try_lock(path) is None
            assert locks.holder(path) == "another process"


def test_a_lock_in_a_folder_that_is_missing(tmp_path: Path) -> None:
    """The message names the lock and the reason."""
    with pytest.raises(StateError, match=r"cannot lock .*missing/lock.*No such file"):
        locks.try_lock(str(tmp_path / "missing" / "lock"))


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    """Locks held, refused and given back: nothing stays open."""
    before = os.listdir("/proc/self/fd")
    path = str(tmp_path / "lock")
    with locks.lock(path, wait=0):
        assert locks.try_lock(path) is None
    assert os.listdir("/proc/self/fd") == before
