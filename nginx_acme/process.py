"""Programs: run beside us, or become in our place, and what signals do until then.

What may live here: what any program needs of us, nginx or not. Which one nginx is, is `binary`'s;
what outlives us, `spawning`'s. After exec nothing may tell that Python was there; what it would
leave behind is undone in `become`.

Imported at every start, so its data are plain classes with slots, and what is not needed at
every start is imported where it is needed. subprocess is not used at all: importing it costs
more than asking nginx for its version.
"""

from __future__ import annotations

import _thread
import os
import sys
import time

from nginx_acme.errors import NginxMissing

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType
    from typing import NoReturn
else:
    # `signal` makes enums of all that is in it, and takes longer than the rest of a start with
    # nothing to do.
    import _signal as signal

ENDING = ("SIGTERM", "SIGINT", "SIGQUIT")
"""Signals that end us, as they end nginx."""
_IGNORED = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH")
_CHANGED_BY_PYTHON = ("SIGPIPE", "SIGXFSZ")
_FAREWELL_SECONDS = 1


# --- beside us ------------------------------------------------------------------------------


class Run:
    """A program that runs beside us, with the environment and signals that we were started with.

    NginxMissing where it can't be started. Nobody reads what it writes before `result`; what
    doesn't fit into a pipe (64 KiB) waits until then.
    """

    __slots__ = ("_child", "_err", "_out", "path")

    def __init__(self, path: str, argv: Sequence[str]) -> None:
        self.path = path
        self._out, out_of_child = os.pipe()
        self._err, err_of_child = os.pipe()
        try:
            self._child = _spawn(path, argv, out_of_child, err_of_child)
        except OSError as error:
            self._close()
            raise _not_run(path, error) from error
        finally:
            os.close(out_of_child)
            os.close(err_of_child)

    def result(self) -> tuple[int, bytes, bytes]:
        """Once: its exit code (of a signal: its number, negative), stdout and stderr to the end."""
        try:
            output, messages = _read_all(self._out, self._err)
        finally:
            self._close()
            _, status = os.waitpid(self._child, 0)
        return os.waitstatus_to_exitcode(status), output, messages

    def _close(self) -> None:
        os.close(self._out)
        os.close(self._err)


def _spawn(path: str, argv: Sequence[str], stdout: int, stderr: int) -> int:
    return os.posix_spawn(
        path,
        [path, *argv],
        found_environ(),
        file_actions=[(os.POSIX_SPAWN_DUP2, stdout, 1), (os.POSIX_SPAWN_DUP2, stderr, 2)],
        setsigmask=[],
        setsigdef=[getattr(signal, name) for name in (*_IGNORED, *_CHANGED_BY_PYTHON)],
    )


def _read_all(*descriptors: int) -> list[bytes]:
    """What comes through these pipes, read as it comes: a child never waits for us to read."""
    import select

    chunks: dict[int, list[bytes]] = {descriptor: [] for descriptor in descriptors}
    waiting = set(descriptors)
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    while waiting:
        for descriptor, _ in poll.poll():
            chunk = os.read(descriptor, 65536)
            chunks[descriptor].append(chunk)
            if not chunk:
                poll.unregister(descriptor)
                waiting.remove(descriptor)
    return [b"".join(chunks[descriptor]) for descriptor in descriptors]


def _not_run(path: str, error: OSError) -> NginxMissing:
    return NginxMissing(f'"{path}" can\'t be run ({error.errno}: {error.strerror})')


# --- in our place ---------------------------------------------------------------------------


def found_environ() -> dict[str, str]:
    """The environment that we were started with.

    os.environ may have more: without a locale Python puts LC_CTYPE=C.UTF-8 there (PEP 538).
    """
    try:
        with open("/proc/self/environ", "rb") as file:
            entries = file.read().split(b"\0")
    except OSError:
        return dict(os.environ)
    pairs = (os.fsdecode(entry).partition("=") for entry in entries if b"=" in entry)
    return {name: value for name, _, value in pairs}


def become(
    path: str, argv: Sequence[str], environ: Mapping[str, str], signals: Signals
) -> NoReturn:
    """Be this program from now on, with the same pid; NginxMissing if it can't be run.

    argv[0] is its absolute path: nginx's binary upgrade (USR2) starts that again. Our own files
    are closed by exec (PEP 446); descriptors that we were started with stay open.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError):  # there is none, or nobody reads it
            continue
    signals.put_back()
    try:
        os.execve(path, [path, *argv], environ)  # noqa: S606 - what a launcher is for
    except OSError as error:
        raise _not_run(path, error) from error


# --- signals --------------------------------------------------------------------------------


class Signals:
    """What signals do until nginx runs; made by `end_on_signals`.

    `hung_up`: a HUP has come; nginx, which we become, is to read its configuration again then.
    """

    __slots__ = ("_farewells", "_found", "hung_up")

    def __init__(self) -> None:
        self.hung_up = False
        self._farewells: list[Callable[[], object]] = []
        self._found = {
            number: signal.signal(number, action)
            for names, action in ((ENDING, self._end), (_IGNORED, signal.SIG_IGN))
            for number in (getattr(signal, name) for name in names)
        }
        if self._found[signal.SIGHUP] != signal.SIG_IGN:  # nohup(1)
            signal.signal(signal.SIGHUP, self._hang_up)
        knock, knock_of_signals = os.pipe()
        os.set_blocking(knock_of_signals, False)
        signal.set_wakeup_fd(knock_of_signals, warn_on_full_buffer=False)
        _thread.start_new_thread(self._end_soon, (knock,))

    def before_end(self, farewell: Callable[[], object]) -> None:
        """Call this when a signal ends us, the last one first: a cursor to show, a folder to remove.

        It has to bear being called at any moment. It has a second; another signal doesn't wait.
        """
        self._farewells.append(farewell)

    def put_back(self) -> None:
        """Make signals what they were, for a program that is about to take our place.

        TERM, INT and QUIT end us until then, which as PID 1 the default would not: those with a
        handler are made default by exec itself (execve(2)).
        """
        default_signals()
        for number, found in self._found.items():
            if found == signal.SIG_IGN:
                signal.signal(number, signal.SIG_IGN)

    def _hang_up(self, _number: int, _frame: FrameType | None) -> None:
        self.hung_up = True

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        farewells, self._farewells = self._farewells, []
        try:
            for farewell in reversed(farewells):
                farewell()
        finally:
            os._exit(0)

    def _end_soon(self, knock: int) -> None:
        """In a thread: end us a second after such a signal if the main thread didn't.

        Python calls handlers between two of its instructions. A signal that comes just before a
        system call that waits, or into a library, is not seen until that returns. Then farewells
        are called from here, in one more thread, since they may hang as well.
        """
        ending = {getattr(signal, name) for name in ENDING}
        while ending.isdisjoint(os.read(knock, 1)):
            continue
        time.sleep(_FAREWELL_SECONDS)
        _thread.start_new_thread(self._end, (0, None))
        time.sleep(_FAREWELL_SECONDS)
        os._exit(0)


def end_on_signals() -> Signals:
    """From now on TERM, INT and QUIT end us with exit code 0, as they end nginx, at any moment.

    USR1, USR2 and WINCH, which mean something to nginx, are ignored, a HUP is remembered. Raising SystemExit in
    the handler was no way: asyncio would first wait for its tasks, and an exception out of
    nowhere can be swallowed. So the process ends here; a child of ours ends with its stdin.
    """
    return Signals()


def default_signals(*names: str) -> None:
    """Let none be held back; these do what they do by default, as do those that are ignored here."""
    for name in (*names, *_IGNORED, *_CHANGED_BY_PYTHON):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
