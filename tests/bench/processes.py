"""Programs that are measured: run to their end, or started until they accept connections.

What is left beside a server, such as the agent, is nobody's child. We are the reaper of such
orphans (prctl(2), PR_SET_CHILD_SUBREAPER), so its CPU time is told when it ends, and nothing is
measured before it is gone.

Wall time is what a user waits; CPU time says the same on a machine that has other things to do.
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.servers import ServerFailed, dies_with_us, listens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

SHORTEST_LOOK = 0.0003
"""Seconds between two looks whether somebody listens, at first."""
PRECISION = 0.002
"""Of the time that has passed, between two looks after that."""
MEMORY_LOOK = 0.01
"""Seconds between two looks at a process's memory."""
CALM = 0.1
"""Seconds without a step, after which what stays beside a server is done."""
ENDING = 60.0
"""Seconds for a server and what is beside it to end."""

_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, slots=True)
class Took:
    """What a program took.

    - `seconds`: to its end, or for a server until it accepts a connection;
    - `cpu`: seconds, user and system, to its end, with the children that it has waited for;
    - `memory`: bytes, the most that it had itself, without children; 0 where nobody looked;
    - `beside`: CPU seconds of what it left behind.
    """

    seconds: float
    cpu: float
    memory: int = 0
    beside: float = 0


def seconds(runs: Iterable[Took]) -> tuple[float, ...]:
    """The wall time of each."""
    return tuple(one.seconds for one in runs)


def cpu(runs: Iterable[Took]) -> tuple[float, ...]:
    """The CPU time of each."""
    return tuple(one.cpu for one in runs)


def adopt_orphans() -> None:
    """Be the parent of what is left behind by what we start."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def run(argv: Sequence[str], environ: Mapping[str, str], log: Path) -> Took:
    """Run a program to its end.

    Raises:
        ServerFailed: its exit code is another than 0.
    """
    begin = time.perf_counter()
    pid = _spawn(argv, environ, log)
    with _Memory(pid) as memory:
        _, status, usage = os.wait4(pid, 0)
        seconds = time.perf_counter() - begin
    code = os.waitstatus_to_exitcode(status)
    if code != 0:
        raise ServerFailed(f"{' '.join(argv)}: exit code {code}\n{_end_of(log)}")
    return Took(seconds, _cpu(usage), memory.most)


class Server:
    """A program that becomes the nginx `binary` and listens on a port of loopback."""

    _all: set[int] = set()  # noqa: RUF012 - none of them is what another left behind
    """The pid of each that was started."""

    def __init__(
        self, argv: Sequence[str], environ: Mapping[str, str], log: Path, *, binary: str, port: int
    ) -> None:
        self._argv = argv
        self._log = log
        self._binary = os.path.realpath(binary)
        self._port = port
        self._took: tuple[float, float] | None = None
        self._others = children()
        self._begin = time.perf_counter()
        self.pid = _spawn((*dies_with_us(), *argv), environ, log)
        self._all.add(self.pid)

    def __enter__(self) -> Self:
        """It was started already."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop it, unless that is done."""
        self.stop()

    def accepting(self, seconds: float) -> float:
        """Wait until it is nginx and accepts a connection; seconds since it was started.

        What becomes nginx may have let `nginx -t` look before, which listens, too.

        Raises:
            ServerFailed: it doesn't within so many seconds.
        """
        while not (self._is_nginx() and listens(self._port)):
            passed = time.perf_counter() - self._begin
            self._look_after(passed, seconds, "a connection")
            time.sleep(max(SHORTEST_LOOK, PRECISION * passed))
        return time.perf_counter() - self._begin

    def until(self, is_so: Callable[[], bool], seconds: float, what: str = "an answer") -> float:
        """Wait until something is so; the seconds that it took.

        Raises:
            ServerFailed: it isn't within so many seconds, or the server has ended.
        """
        begin = time.perf_counter()
        while not is_so():
            passed = time.perf_counter() - begin
            self._look_after(passed, seconds, what)
            time.sleep(max(SHORTEST_LOOK, PRECISION * passed))
        return time.perf_counter() - begin

    def beside(self) -> list[int]:
        """What it has left behind and what still runs of that."""
        return sorted(children() - self._others - self._all)

    def calm(self, seconds: float) -> None:
        """Wait until what it has left behind has nothing more to do for now."""
        steps: list[str | None] = [None]
        since = time.perf_counter()

        def is_calm() -> bool:
            nonlocal steps, since
            before, steps = steps, list(map(_steps, self.beside()))
            if steps != before or None in steps:
                since = time.perf_counter()
            return time.perf_counter() - since > CALM

        self.until(is_calm, seconds, "the agent to rest")

    def stop(self) -> tuple[float, float]:
        """End it and collect it; CPU seconds of it, and of what it left behind."""
        if self._took is None:
            os.kill(self.pid, signal.SIGTERM)
            cpu, beside = _collect(self.pid), 0.0
            while left := self.beside():
                beside += sum(map(_collect, left))
            self._took = cpu, beside
        return self._took

    def _is_nginx(self) -> bool:
        try:
            return os.readlink(f"/proc/{self.pid}/exe") == self._binary
        except OSError:
            return False

    def _look_after(self, passed: float, seconds: float, what: str) -> None:
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is not None:
            how = "exit code" if ended.si_code == os.CLD_EXITED else "signal"
            raise ServerFailed(
                f"{' '.join(self._argv)}: {how} {ended.si_status}\n{_end_of(self._log)}"
            )
        if passed > seconds:
            raise ServerFailed(
                f"{self._argv[0]}: waited {seconds:.0f} s for {what}\n{_end_of(self._log)}"
            )


def children(pid: int | None = None) -> set[int]:
    """The processes that a process (we ourselves) has started or adopted."""
    found: set[int] = set()
    for path in Path(f"/proc/{pid or os.getpid()}/task").glob("*/children"):
        with suppress(OSError):  # of a thread that has just ended
            found.update(map(int, path.read_text().split()))
    return found


def resident(pid: int) -> int:
    """Bytes of a process in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _spawn(argv: Sequence[str], environ: Mapping[str, str], log: Path) -> int:
    """Start a program with its output in a file; its pid."""
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawn(
        argv[0],
        list(argv),
        environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
    )


def _collect(pid: int) -> float:
    """Wait for the end of a child of ours; its CPU seconds."""
    end = time.monotonic() + ENDING
    while True:
        ended, _, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            return _cpu(usage)
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def _cpu(usage: resource.struct_rusage) -> float:
    return usage.ru_utime + usage.ru_stime


def _steps(pid: int) -> str | None:
    """How often a process was given a CPU; None while it, or a child of it, has something to do."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        busy = children(pid)
    except OSError:
        return "gone"
    if busy or not re.search(r"^State:\s+[SZ]", status, re.MULTILINE):
        return None
    return str(re.findall(r"_switches:\s+(\d+)", status))


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:]


class _Memory:
    """Looks at the most memory that a process had, as long as it is the same program.

    The kernel tells it of a child that has ended only together with that of its children, and of
    one that has become another program not at all.
    """

    def __init__(self, pid: int) -> None:
        self.most = 0
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """End."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(MEMORY_LOOK):
            self.most = max(self.most, _high_water(self._pid))


def _high_water(pid: int) -> int:
    """Bytes, the most that a process had in memory; 0 where it has ended."""
    try:
        found = re.search(
            r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE
        )
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0
