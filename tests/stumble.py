"""Runs what a Python command runs, and something happens to it at one of its steps.

    python tests/stumble.py FOLDER TRACE DEED STEP NUMBER python -I -c CODE ARGUMENT…

The steps are the moments before and after each change below FOLDER, the state directory, the
middle of each file that is written there, and the moments before and after each request to a CA:

    before rename /certificates/example.com/ecdsa-256.pem
    half write /accounts/ca_12345678/.nginx-acme-1-2
    after POST /new-order

At the NUMBER-th one that begins with what the regular expression STEP says, DEED is done: "kill"
sends SIGKILL, "fill" leaves no room on FOLDER's disk and goes on. Every step is a line of TRACE.

The package has no hook for this and needs none: it changes files by the functions of `os` and asks
a CA through httpx, so these are wrapped here, in a process of its own. strace was tried; it counts
for each thread alone, and an event loop's threads take turns at writing.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable

_CHANGES = ("mkdir", "open", "rename", "rmdir", "symlink", "unlink")
_TO = frozenset({"rename", "symlink"})
"""What these make is their second argument."""

_write, _open, _readlink = os.write, os.open, os.readlink


class Steps:
    """Looks at each step, writes it down, and does the deed when it is time."""

    def __init__(
        self, folder: str, trace: str, deed: Callable[[], None], step: str, number: int
    ) -> None:
        self._folder = folder
        self._trace = _open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._deed = deed
        self._pattern = re.compile(step)
        self._left = number
        self._lock = threading.Lock()

    def changing(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """A function of `os`, with a step before and after it."""

        def wrapped(*arguments: Any, **more: Any) -> Any:
            path = _path(arguments[name in _TO], more.get("dir_fd"))
            reads = name == "open" and not arguments[1] & os.O_CREAT
            if reads or not self._is_watched(path):
                return real(*arguments, **more)
            self._step(f"before {name} {self._inside(path)}")
            value = real(*arguments, **more)
            self._step(f"after {name} {self._inside(path)}")
            return value

        return wrapped

    def writing(self, descriptor: int, data: bytes | memoryview) -> int:
        """`os.write`, which writes the first half of a file and leaves the rest to the next call."""
        path = _path("", descriptor)
        at_start = os.lseek(descriptor, 0, os.SEEK_CUR) == 0 if self._is_watched(path) else False
        if not at_start or not data[1:]:
            return _write(descriptor, data)
        written = _write(descriptor, data[: len(data) // 2])
        self._step(f"half write {self._inside(path)}")
        return written

    def asking(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """How httpx sends a request, with a step before it and one when its answer has begun."""

        async def wrapped(transport: httpx.AsyncHTTPTransport, request: httpx.Request) -> Any:
            what = f"{request.method} {request.url.path}"
            self._step(f"before {what}")
            response = await real(transport, request)
            self._step(f"after {what}")
            return response

        return wrapped

    def _step(self, what: str) -> None:
        with self._lock:
            _write(self._trace, f"{what}\n".encode())
            self._left -= self._pattern.match(what) is not None
            if self._left == 0:
                self._left = -1
                self._deed()

    def _is_watched(self, path: str) -> bool:
        return f"{path}/".startswith(f"{self._folder}/")

    def _inside(self, path: str) -> str:
        return path.removeprefix(self._folder).rstrip("/")


def _path(given: str | bytes, folder: int | None) -> str:
    path = os.fsdecode(given)
    return path if folder is None else os.path.join(_readlink(f"/proc/self/fd/{folder}"), path)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fill(folder: str) -> None:
    """Leave room for not one byte."""
    filler = _open(f"{folder}/filler", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for size in (1 << 20, 1 << 12, 1):
        while _fits(filler, b"\0" * size):
            continue
    os.close(filler)


def _fits(descriptor: int, data: bytes) -> bool:
    try:
        return _write(descriptor, data) > 0
    except OSError:
        return False


def main() -> None:
    """Wrap, and become the launcher."""
    folder, trace, deed, step, number = sys.argv[1:6]
    deeds = {"kill": _kill, "fill": lambda: _fill(folder)}
    steps = Steps(folder, trace, deeds[deed], step, int(number))
    for name in _CHANGES:
        setattr(os, name, steps.changing(name, getattr(os, name)))
    setattr(os, "write", steps.writing)  # noqa: B010 - mypy knows what it is
    transport: Any = httpx.AsyncHTTPTransport
    transport.handle_async_request = steps.asking(transport.handle_async_request)
    command = sys.argv[sys.argv.index("-c") :]
    code = command.pop(1)
    sys.argv = command
    exec(code)  # noqa: S102 - as python would


if __name__ == "__main__":
    main()
