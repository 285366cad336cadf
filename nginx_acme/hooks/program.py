"""A program of the operator's, run for a limited time.

What may live here: the process and what it writes. What it is told, and what follows from its
exit code, is decided elsewhere.

Rules
- The facts come from a file in memory: a program that doesn't read them, or not all, neither
  blocks us nor gets SIGPIPE, and it is told of a full disk, too.
- What it starts in the background and leaves running (a service that it restarts) is its own
  business, so its output isn't waited for when it has ended itself. Only when its time is up its
  whole process group is ended.
- The signals that a launcher ignores are not ignored there: a daemon that a hook restarts would
  never reload again.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, cast

from nginx_acme.spawning import DETACHED_PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType

LIMIT = 60.0
"""Seconds for one program."""
GRACE = 5.0
"""Seconds from TERM to KILL."""
MOST_LINES = 20
LONGEST_LINE = 500  # characters
_KEPT = 16384  # bytes
_PIPE = 65536  # bytes
_LOOK = 0.05  # seconds

_IGNORED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)


class Ran:
    """How it went: the exit code (of a signal: its number, negative), and the lines it wrote.

    `late` is whether its time was over.
    """

    def __init__(self, returncode: int, output: bytes, written: int, *, late: bool) -> None:
        self.returncode = returncode
        self.late = late
        lines = [line for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
        self.lines = [line[:LONGEST_LINE] for line in lines[:MOST_LINES]]
        if len(lines) > MOST_LINES or written > len(output):
            self.lines.append(f"({written} bytes in all)")


class Runner:
    """Runs programs, one after the other; a signal that ends us ends the one that runs.

    Args:
        before_end: remembers what is to be done then (`Signals.before_end`).
        limit: seconds for each.
        grace: seconds from TERM to KILL, when they are over.
    """

    def __init__(
        self,
        before_end: Callable[[Callable[[], object]], object],
        *,
        limit: float = LIMIT,
        grace: float = GRACE,
    ) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self.limit = limit
        self._grace = grace
        before_end(lambda: self._signal(signal.SIGTERM))

    def run(self, program: str, facts: bytes, environ: Mapping[str, str]) -> Ran:
        """Run it, without a shell and with `/` as its folder.

        Args:
            program: a path.
            facts: for its stdin.
            environ: what it gets beside PATH, LANG and TZ.

        Raises:
            OSError: it can't be run.
        """
        with _in_memory(facts) as stdin:
            child, pipe = _start(program, stdin, environ)
        self._child = child
        try:
            with pipe:
                output = _read(child, pipe, time.monotonic() + self.limit)
                late = child.poll() is None
                if late:
                    self._end(child)
            return Ran(child.wait(), bytes(output.kept), output.written, late=late)
        finally:
            self._child = None

    def _end(self, child: subprocess.Popen[bytes]) -> None:
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            child.wait(self._grace)
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        """To the whole group: the process is its leader."""
        if self._child is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid, number)


@contextmanager
def _in_memory(data: bytes) -> Iterator[int]:
    with _memory() as file:
        file.write(data)
        file.seek(0)
        yield file.fileno()


def _memory() -> IO[bytes]:
    """A file without a name; in /tmp only where there is neither of the ways to memory.

    Pythons that were built with an old C library (conda's) lack the first one, old kernels, too.
    """
    try:
        return open(os.memfd_create("nginx-acme"), "w+b")
    except (AttributeError, OSError):
        shared = "/dev/shm"  # noqa: S108 - ours alone, and without a name
        return tempfile.TemporaryFile(dir=shared if os.access(shared, os.W_OK) else None)


def _start(
    program: str, stdin: int, environ: Mapping[str, str]
) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    """The process, and the pipe for what it writes."""
    timezone = {"TZ": os.environ["TZ"]} if "TZ" in os.environ else {}
    with _heeded():
        child = subprocess.Popen(
            [program],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={"PATH": DETACHED_PATH, "LANG": "C", **timezone, **environ},
            start_new_session=True,
        )
    return child, cast("IO[bytes]", child.stdout)


@contextmanager
def _heeded() -> Iterator[None]:
    """Signals that we ignore have a handler meanwhile, which exec makes the default.

    To be ignored would be inherited, and what runs between fork and exec must not be Python.
    """

    def nothing(_number: int, _frame: FrameType | None) -> None:
        """Ignore it by hand."""

    found = {number: signal.signal(number, nothing) for number in _IGNORED}
    try:
        yield
    finally:
        for number, action in found.items():
            signal.signal(number, action)


class _Output:
    """The first of what comes through a pipe, and how much that was."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self.kept = bytearray()
        self.written = 0
        self._pipe = pipe.fileno()
        self._poll = select.poll()
        self._poll.register(self._pipe, select.POLLIN)
        os.set_blocking(self._pipe, False)
        self._open = True

    def wait(self) -> None:
        """For something to come, or a moment."""
        if not self._open:
            time.sleep(_LOOK)
        elif self._poll.poll(_LOOK * 1000):
            self.take()

    def take(self) -> None:
        """What has come, but no more than a pipe holds: who writes all the time ends, too."""
        try:
            chunk = os.read(self._pipe, _PIPE)
        except BlockingIOError:
            return
        self._open = bool(chunk)
        self.written += len(chunk)
        self.kept += chunk[: max(0, _KEPT - len(self.kept))]


def _read(child: subprocess.Popen[bytes], pipe: IO[bytes], end: float) -> _Output:
    """What it writes until it has ended, or its time has."""
    output = _Output(pipe)
    while child.poll() is None and time.monotonic() < end:
        output.wait()
    output.take()
    return output
