"""Python that runs our code as a process of its own, and what the kernel tells of a process."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.servers import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_START = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import asyncio, os, signal, time; "
_IMPORT = "from nginx_acme.{} import *; "


def python(code: str, *modules: str) -> list[str]:
    """Argv of a Python that runs this code with everything of these modules at hand."""
    return [sys.executable, "-c", f"{_START}{''.join(map(_IMPORT.format, modules))}\n{code}"]


def answers(
    argv: Sequence[str], env: Mapping[str, str] | None = None, pass_fds: Sequence[int] = ()
) -> bytes:
    """What a program writes to stdout."""
    return subprocess.run(
        argv, stdout=subprocess.PIPE, check=True, env=env, pass_fds=pass_fds
    ).stdout


def signals_of(status: bytes) -> list[bytes]:
    """The lines of /proc/PID/status that tell what its signals do."""
    return [line for line in status.split(b"\n") if line.startswith((b"SigI", b"SigB", b"SigC"))]


@contextmanager
def running(program: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process that runs `program`, as `python` does; killed at the end."""
    command = [*python(program), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def heard(process: subprocess.Popen[bytes]) -> bytes:
    """The next line that it writes."""
    assert process.stdout is not None
    return process.stdout.readline()


def tell(process: subprocess.Popen[bytes]) -> None:
    """Give it the line that it waits for."""
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
