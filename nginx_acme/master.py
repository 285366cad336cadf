"""The nginx that runs, seen from outside: who it is, what it was started with, its workers.

What may live here: what the pid file and /proc tell of a running master. The pid file alone was
not enough: it may be empty (`nginx -t` makes one), stale, or name a process that is something else
by now.

The agent asks this for years beside nginx, so plain classes with slots and nothing but the
interpreter are all that is needed.
"""

from __future__ import annotations

import os

from nginx_acme.binary import NAMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MASTER_TITLES = ("nginx: master process", "angie: master process")
WORKER_TITLES = ("nginx: worker process", "angie: worker process")
"""What ngx_setproctitle makes of the command line; of all relatives only Angie has its own name."""
_SHUTTING_DOWN = " is"
"""How the title of a worker goes on that only ends what it began."""
_ENDED = frozenset("ZXx")
_AT_WORK = frozenset("RD")
"""States of a process that runs, or waits for a disk (proc(5))."""
_STATE, _PARENT, _STARTED = 0, 1, 19
"""Places in `_stat`: fields 3, 4 and 22 of proc(5)."""


class Master:
    """A running nginx master, or the only process (`single`) where `master_process` is off.

    `command_line` has its arguments joined by spaces, since its title has them so.
    """

    __slots__ = ("command_line", "pid", "single")

    def __init__(self, pid: int, command_line: str, single: bool) -> None:  # noqa: FBT001 - a field
        self.pid = pid
        self.command_line = command_line
        self.single = single

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


def master_of(pid_file: str, main: str) -> Master | None:
    """The same, if it was started with this main file."""
    master = find_master(pid_file)
    return master if master is not None and master.uses(main) else None


def names_process(pid_file: str) -> bool:
    """Whether the pid file names a process that lives, whatever that is."""
    pid = _read_pid(pid_file)
    return pid is not None and exists(pid)


def exists(pid: int) -> bool:
    """Whether a process lives; one that has ended and isn't collected doesn't.

    Its command line doesn't tell: that is empty for a moment while it becomes another program.
    """
    fields = _stat(pid)
    return bool(fields) and fields[_STATE] not in _ENDED


def workers(pid: int) -> frozenset[int]:
    """The workers of this master that take new connections."""
    return frozenset(child for child in _children(pid) if serves(child))


def serves(pid: int) -> bool:
    """Whether this is a worker that is not shutting down."""
    for argument in _arguments(pid):
        for title in WORKER_TITLES:
            if argument.startswith(title):
                return not argument.startswith(_SHUTTING_DOWN, len(title))
    return False


def worker_marks(pid: int) -> frozenset[str]:
    """The same by what no later process has: the pid and when it was started, ``PID-TICKS``."""
    marks = ((child, _stat(child)) for child in workers(pid))
    return frozenset(f"{child}-{fields[_STARTED]}" for child, fields in marks if fields)


def is_forking(pid: int) -> bool:
    """Whether a child of this master has no title of its own yet, as a worker that begins.

    The master of a binary upgrade, which is a child as well, has children.
    """
    return any(
        _titled(_arguments(child), MASTER_TITLES) and not _children(child)
        for child in _children(pid)
    )


def is_reading(pid: int, path: str) -> bool:
    """Whether a process is at work, or has this file open, or one below this folder.

    A master that waits is neither. nginx keeps the main file open while it reads what that
    includes, and asks DNS, asleep.
    """
    fields = _stat(pid)
    return bool(fields) and (
        fields[_STATE] in _AT_WORK
        or any(f"{found}/".startswith(f"{path}/") for found in _open_files(pid))
    )


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
    fields = _stat(pid)
    return int(fields[_PARENT]) if fields else None


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat (proc(5)) from the third on; nothing of one that has ended.

    The second one, before them, may have anything in its parentheses.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].decode("ascii").split()
    except OSError:
        return []


def _open_files(pid: int) -> set[str]:
    folder = f"/proc/{pid}/fd"
    found: set[str] = set()
    try:
        for descriptor in os.listdir(folder):
            found.add(os.readlink(f"{folder}/{descriptor}"))
    except OSError:  # of another user, or closed by now
        return found
    return found
