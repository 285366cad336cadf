"""The nginx that runs: which configuration it was started with, and a reload that is proved.

What may live here: what can be learned of a running master from outside, by its pid file and
/proc, and the one thing that we tell it (HUP). `nginx -s reload` was not enough: it exits with 0
when the signal is sent, also if the master then refuses the configuration. Neither was the pid
file alone: it may be empty (`nginx -t` makes one), stale, or name a process that is something else
by now.
"""

from __future__ import annotations

import ipaddress
import os
import signal
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nginx_acme.errors import ReloadFailed
from nginx_acme.nginx.listen import Address
from nginx_acme.process import NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MASTER_TITLES = ("nginx: master process", "angie: master process")
WORKER_TITLES = ("nginx: worker process", "angie: worker process")
"""What ngx_setproctitle makes of the command line; of all relatives only Angie has its own name."""
_SHUTTING_DOWN = " is"
"""How the title of a worker goes on that only ends what it began."""

_POLL = 0.02
"""Seconds between two looks; a reload takes nginx 0.1 s at least."""

_TRIES_AGAIN = (b"bind() to ", b"listen() to ")
_GIVES_UP = b"still could not bind()"
_LONGEST_LOG = 1 << 16  # bytes

_LISTEN = "0A"
"""The state of a socket in /proc/net/tcp (TCP_LISTEN)."""


@dataclass(frozen=True, slots=True)
class Master:
    """A running nginx master, or the only process (`single`) where `master_process` is off.

    `command_line` has its arguments joined by spaces, since its title has them so.
    """

    pid: int
    command_line: str
    single: bool

    def uses(self, path: str) -> bool:
        """Whether it was started with `-c path`; the path may have spaces in it."""
        ended = f"{self.command_line} "
        return any(f" -c{gap}{path}{end}" in ended for gap in (" ", "") for end in (" ", "] "))

    @property
    def conf(self) -> str | None:
        """The argument of its -c, as far as its title tells; None without -c.

        A space before a dash is taken for the end: to ask for a certain path there is `uses`.
        """
        before, found, rest = self.command_line.rpartition(" -c")
        if not found or not before:
            return None
        return rest.lstrip(" ").partition(" -")[0].removesuffix("]")


def find_master(pid_file: str) -> Master | None:
    """The master that the pid file names, if that is one.

    None where there is no file or nothing in it, and where the process is gone, is another
    program by now, or is ourselves (a container's nginx is PID 1 each time).
    """
    pid = _read_pid(pid_file)
    if pid is None or pid == os.getpid():
        return None
    arguments = _arguments(pid)
    single = not _titled(arguments, (*MASTER_TITLES, *WORKER_TITLES)) and _is_nginx(pid)
    if not single and not _titled(arguments, MASTER_TITLES):
        return None
    return Master(pid, " ".join(arguments), single)


def workers(pid: int) -> frozenset[int]:
    """The workers of this master that take new connections."""
    return frozenset(child for child in _children(pid) if _serves(child))


def listening(pid: int) -> frozenset[Address]:
    """The TCP addresses on which this process listens; none where we may not know."""
    sockets = frozenset(_sockets(pid))
    return frozenset(address for inode, address in _listeners(pid) if inode in sockets)


def reload(master: Master, seconds: float, *, error_log: str) -> bool:
    """Make the master read its configuration again, and wait until it serves by it.

    True: proved, new workers serve and no old one does any more. False: the signal is sent, and
    there is nothing to prove it by (`single`). ReloadFailed: neither within so many seconds, or
    `error_log` (its path, as far as that is a file) says sooner that it won't be; the old
    configuration is still served.
    """
    end = time.monotonic() + seconds
    if master.single:
        _hang_up(master)
        return False
    words = _Words(error_log, master.pid)
    while not (old := workers(master.pid)):  # it has only just started
        _wait_until(end, master, words)
    _hang_up(master)
    while any(map(_serves, old)) or not workers(master.pid):
        _wait_until(end, master, words)
    return True


def _hang_up(master: Master) -> None:
    try:
        os.kill(master.pid, signal.SIGHUP)
    except OSError as error:
        reason = f"({error.errno}: {error.strerror})"
        raise ReloadFailed(f"nginx (pid {master.pid}) can't be told to reload {reason}") from error


def _wait_until(end: float, master: Master, words: _Words) -> None:
    """Wait a moment; ReloadFailed when there is no more time, no more master, or its refusal."""
    look = f"its error log says why: {words.path}"
    if not _arguments(master.pid):
        raise ReloadFailed(f"nginx (pid {master.pid}) ended during the reload; {look}")
    refusal = words.refusal()
    if refusal is not None:
        look = f"it says: {refusal}"
    if refusal is not None or time.monotonic() > end:
        raise ReloadFailed(f"nginx (pid {master.pid}) did not take the new configuration; {look}")
    time.sleep(_POLL)


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


# --- what /proc says ------------------------------------------------------------------------


def _read_pid(path: str) -> int | None:
    """What nginx itself reads there (ngx_signal_process): digits, and the ends of lines."""
    try:
        with open(path, "rb") as file:
            digits = file.read(32).rstrip(b"\r\n")
    except OSError:
        return None
    return int(digits) or None if digits.isdigit() else None


def _arguments(pid: int) -> list[str]:
    """The command line, or the title in its place; nothing of a process that has ended."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return [os.fsdecode(argument) for argument in file.read().split(b"\0") if argument]
    except OSError:
        return []


def _titled(arguments: Iterable[str], titles: tuple[str, ...]) -> bool:
    """Whether there is such a title; before it are the arguments of ld.so, if that started it."""
    return any(argument.startswith(titles) for argument in arguments)


def _is_nginx(pid: int) -> bool:
    """Whether the program is nginx by its file; a launcher by that name would be Python."""
    try:
        program = os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return False
    return os.path.basename(program).removesuffix(" (deleted)") in NAMES


def _serves(pid: int) -> bool:
    """Whether this is a worker that is not shutting down."""
    for argument in _arguments(pid):
        for title in WORKER_TITLES:
            if argument.startswith(title):
                return not argument.startswith(_SHUTTING_DOWN, len(title))
    return False


def _children(pid: int) -> list[int]:
    try:
        return _listed_children(pid)
    except OSError:  # it has ended, or this kernel keeps no such list
        return _children_by_parent(pid)


def _listed_children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
        return [int(child) for child in file.read().split()]


def _children_by_parent(pid: int) -> list[int]:
    processes = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return [process for process in processes if _parent(process) == pid]


def _parent(pid: int) -> int | None:
    """The parent by /proc/PID/stat, whose second field may have anything in its parentheses."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError):
        return None


def _sockets(pid: int) -> Iterator[str]:
    """The inodes of its sockets, as /proc/net/tcp has them."""
    folder = f"/proc/{pid}/fd"
    try:
        descriptors = os.listdir(folder)
    except OSError:
        return
    for descriptor in descriptors:
        try:
            target = os.readlink(f"{folder}/{descriptor}")
        except OSError:  # closed by now
            continue
        if target.startswith("socket:["):
            yield target[len("socket:[") : -1]


def _listeners(pid: int) -> Iterator[tuple[str, Address]]:
    """Everybody's listening sockets in the network of this process, by inode."""
    for table in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{table}", encoding="ascii") as file:
                rows = file.read().splitlines()[1:]
        except OSError:  # no IPv6 here
            continue
        for row in rows:
            _, local, _, state, _, _, _, _, _, inode, *_ = row.split()
            if state == _LISTEN:
                yield inode, _address(local)


def _address(local: str) -> Address:
    """From `0100007F:0050`: words of 32 bits as this machine has them in memory, and the port."""
    digits, _, port = local.partition(":")
    words = (int(digits[at : at + 8], 16) for at in range(0, len(digits), 8))
    packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    return Address(str(ipaddress.ip_address(packed)), int(port, 16))
