"""A reload that is proved.

What may live here: the one thing that we tell a running master (HUP), and whether it did it.
`nginx -s reload` was not enough: it exits with 0 when the signal is sent, also if the master then
refuses the configuration.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

from nginx_acme.agent import linux
from nginx_acme.errors import ReloadFailed
from nginx_acme.master import exists, is_forking, is_reading, serves, worker_marks, workers

if TYPE_CHECKING:
    from nginx_acme.master import Master

RELOAD_WAIT = 30.0
"""Seconds for nginx to take up a reload that it accepted in a test."""
BETWEEN_RELOADS = 600.0
"""Seconds between two reloads for what is no more than renewed: each costs nginx its workers."""
LONGEST_READING = 300.0
"""Seconds that it may take to read its configuration, with names that DNS doesn't know at once."""
RESPAWN_WAIT = 2.0
"""Seconds for old workers to be told to go; those that stay have got a new one beside them."""
BEGIN_WAIT = 10.0
"""Seconds for a new worker to begin on a machine that has other things to do; else it is none."""
_POLL = 0.02
"""Seconds between two looks; a reload takes nginx 0.1 s at least."""

_TRIES_AGAIN = (b"bind() to ", b"listen() to ")
_GIVES_UP = b"still could not bind()"
_LONGEST_LOG = 1 << 16  # bytes


def reload(master: Master, seconds: float, *, error_log: str) -> bool:
    """Make the master read its configuration again, and wait until it serves by it.

    True: proved, new workers serve and no old one does any more. False: the signal is sent, and
    there is nothing to prove it by (`single`). ReloadFailed: neither within so many seconds, or
    `error_log` (its path, as far as that is a file) says sooner that it won't be; the old
    configuration is still served.
    """
    if master.single:
        _hang_up(master)
        return False
    patience = _Patience(master, seconds, _Words(error_log, master.pid))
    _let_begin(master.pid)
    while not (old := workers(master.pid)):  # it has only just started
        patience.wait()
    _hang_up(master)
    while any(map(serves, old)) or not workers(master.pid):
        patience.wait()
    return True


def was_reloaded(pid: int, noted: frozenset[str], generations: str) -> bool:
    """Whether this master has read its configuration since `noted` were its workers, or does now.

    Waits for a reload that is under way: a master that has read its main file has new workers
    before it sleeps again, which may take their time to be known as such, and tells all of the old
    ones to go. A crash leaves some.

    Args:
        pid: of the master.
        noted: its workers then (`master.worker_marks`).
        generations: the folder of what it reads, by its real path.
    """
    read = time.monotonic()
    end = read + LONGEST_READING
    while True:
        reading, forking, now = is_reading(pid, generations), is_forking(pid), worker_marks(pid)
        if now and not now & noted:
            return True
        if reading:
            read = time.monotonic()
        elif forking:
            end = min(end, read + BEGIN_WAIT)
        elif not now <= noted:
            end = min(end, time.monotonic() + RESPAWN_WAIT)
        else:
            return False
        if time.monotonic() > end:
            return False
        time.sleep(_POLL)


def settled_workers(pid: int) -> frozenset[str]:
    """The marks of a master's workers (`master.worker_marks`), with those that only begin."""
    _let_begin(pid)
    return worker_marks(pid)


def _let_begin(pid: int) -> None:
    """Wait until all workers that a master has started can be told to be workers."""
    end = time.monotonic() + BEGIN_WAIT
    while is_forking(pid) and time.monotonic() < end:
        time.sleep(_POLL)


def _hang_up(master: Master) -> None:
    try:
        os.kill(master.pid, signal.SIGHUP)
    except OSError as error:
        reason = f"({error.errno}: {error.strerror})"
        raise ReloadFailed(f"nginx (pid {master.pid}) can't be told to reload {reason}") from error


class _Patience:
    """Waits for a master: so many seconds, and longer while it reads what it was told to read.

    Told by now that it failed, it would go on to take it. It takes its time after that, too: new
    workers have to begin, and old ones to be told to go.
    """

    def __init__(self, master: Master, seconds: float, words: _Words) -> None:
        self._master = master
        self._words = words
        self._end = time.monotonic() + seconds
        self._last = self._end + LONGEST_READING

    def wait(self) -> None:
        """Wait a moment; ReloadFailed where there is no more time, no more master, or it refuses."""
        pid, look = self._master.pid, f"its error log says why: {self._words.path}"
        if not exists(pid):
            raise ReloadFailed(f"nginx (pid {pid}) ended during the reload; {look}")
        refusal = self._words.refusal()
        if refusal is not None:
            look = f"it says: {refusal}"
        now = time.monotonic()
        if self._end < now < self._last and self._is_busy():
            self._end = now + BEGIN_WAIT
        if refusal is not None or now > self._end:
            raise ReloadFailed(f"nginx (pid {pid}) did not take the new configuration; {look}")
        time.sleep(_POLL)

    def _is_busy(self) -> bool:
        """Whether it reads its configuration."""
        conf = self._master.conf
        return conf is not None and is_reading(self._master.pid, os.path.realpath(conf))


class Opens:
    """How often a file is opened from now on, by anybody on this machine.

    nginx opens its main file exactly once for a HUP. That it is closed is watched, too: events that
    are equal and follow each other become one.
    """

    def __init__(self, path: str) -> None:
        self._inotify: linux.Inotify | None = None
        try:
            self._inotify = linux.Inotify()
            self._inotify.watch(path, linux.IN_OPEN | linux.IN_CLOSE_NOWRITE)
        except OSError:  # a sandbox, or no watch left
            self.close()

    def count(self) -> int | None:
        """So often so far since the last time; None where it can't be known."""
        if self._inotify is None:
            return None
        return sum(1 for _, mask, _ in self._inotify.read() if mask & linux.IN_OPEN)

    def close(self) -> None:
        """Watch no more."""
        if self._inotify is not None:
            os.close(self._inotify.descriptor)
            self._inotify = None


class _Words:
    """What the master writes to its error log from now on, if that is a file."""

    def __init__(self, path: str, pid: int) -> None:
        self.path = path
        self._mark = f" [emerg] {pid}#{pid}: ".encode()
        self._start = os.path.getsize(path) if os.path.isfile(path) else None

    def refusal(self) -> str | None:
        """Why it keeps its old configuration; None as long as it may still take the new one.

        An address that can't be had is tried five times, within 2.5 s (ngx_open_listening_sockets).
        """
        said = [line.partition(self._mark)[2] for line in self._lines() if self._mark in line]
        if not said or (said[-1].startswith(_TRIES_AGAIN) and _GIVES_UP not in said):
            return None
        reasons = [line for line in said if line != _GIVES_UP]
        return os.fsdecode((reasons or said)[-1])

    def _lines(self) -> list[bytes]:
        if self._start is None:
            return []
        try:
            with open(self.path, "rb") as file:
                file.seek(self._start)
                return file.read(_LONGEST_LOG).split(b"\n")[:-1]
        except OSError:
            return []
