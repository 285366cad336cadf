"""Locks among processes, on a file each.

They are flock's, which end with the process that holds them. A file with a pid in it was not
enough: the pid is somebody else's after a reboot, and unknown in another container. So what is in
the file is only told.

Imported at every start; see `disk`.
"""

from __future__ import annotations

import fcntl
import os
import time

from nginx_acme.disk import Doing, read
from nginx_acme.errors import StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

_POLL = 0.05  # seconds between two looks at a lock that somebody holds


class Lock:
    """A lock that is held, until the end of its `with`, `release`, or the end of the process.

    Held by one, or shared by any number who keep that one out.

    Not taken over by a child: the lock is given back by name, whatever descriptors of it a
    forked child still has open.
    """

    __slots__ = ("_descriptor", "path")

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def release(self) -> None:
        """Give it back; a second time does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)

    def lasts(self) -> bool:
        """Whether it keeps anybody off, as far as can be seen.

        It doesn't any more if somebody removed its file, with all of its folder perhaps.
        """
        try:
            return self._descriptor >= 0 and _is_still(self.path, self._descriptor)
        except NotADirectoryError:
            return False
        except OSError:
            return True

    def __enter__(self) -> Self:
        """The lock is held already; `with` says until when."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give it back."""
        self.release()


def lock(path: str, *, wait: float, shared: bool = False) -> Lock:
    """Take the lock `path` (a file in a folder that exists), waiting `wait` seconds at most.

    This blocks, so an event loop asks `try_lock` again and again instead. A thread would do for
    the waiting, but a task that is cancelled meanwhile could not give back what its thread gets.

    Args:
        path: made if need be.
        wait: seconds.
        shared: others who want it shared may have it, too.

    Raises:
        StateError: the wait is over; the message names who holds it and since when.
    """
    end = time.monotonic() + wait
    while True:
        held = try_lock(path, shared=shared)
        if held is not None:
            return held
        left = end - time.monotonic()
        if left <= 0:
            raise StateError(f'"{path}" is locked by {holder(path)}', path)
        time.sleep(min(_POLL, left))


def try_lock(path: str, *, shared: bool = False) -> Lock | None:
    """Take the lock `path` now; None where somebody holds it, in this process or another."""
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with Doing("lock", path):
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
                if _is_still(path, descriptor):
                    _sign(descriptor)
                    return Lock(path, descriptor)
            except BlockingIOError:
                os.close(descriptor)
                return None
            except BaseException:
                os.close(descriptor)
                raise
            # Somebody removed the file between our open and our flock: a lock on nothing.
            os.close(descriptor)


def holder(path: str) -> str:
    """Who holds the lock `path`, in words, as far as it could be written down."""
    try:
        signature = read(path)
    except StateError:
        signature = None
    return (signature or b"another process").decode("utf-8", "replace").strip()


def held_by(path: str) -> int | None:
    """The pid of the process on this machine that holds the lock `path`; None where none is seen.

    It isn't tried: who wanted it in that moment would think that it is held. Who signed it and has
    it open still has it, whatever the name of this machine is by now.
    """
    try:
        words = (read(path) or b"").split(maxsplit=2)
        pid = int(words[1]) if words[:1] == [b"process"] else 0
        return pid if _has_open(pid, os.stat(path)) else None
    except (StateError, OSError, ValueError, IndexError):  # of another user, or gone meanwhile
        return None


def _has_open(pid: int, file: os.stat_result) -> bool:
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        try:
            if os.path.samestat(os.stat(f"{folder}/{name}"), file):
                return True
        except FileNotFoundError:  # closed by now
            continue
    return False


def _is_still(path: str, descriptor: int) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))


def _sign(descriptor: int) -> None:
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    text = f"process {os.getpid()} on {os.uname().nodename} since {since}\n".encode()
    try:
        os.pwrite(descriptor, text, 0)
        os.ftruncate(descriptor, len(text))
    except OSError:
        # A full disk. The lock holds all the same; only the message of who waits is poorer.
        pass
