"""argv and the environment in; one line on stderr and an exit code out.

The only place that catches everything: whatever goes wrong, the operator reads one line.
"""

from __future__ import annotations

import os
import sys

from nginx_acme.errors import NginxAcmeError, NginxRejected
from nginx_acme.log import Log
from nginx_acme.main import main

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def run() -> None:
    """Be `nginx-acme`: what the console script calls.

    In an 8-bit locale once more, with what Python calls UTF-8 mode: a path on the command line and
    the same one in the configuration are the same bytes, whatever the locale says of them.
    """
    if sys.getfilesystemencoding() != "utf-8":
        _run_in_utf8()
    if sys.stdout is None:  # it was closed; nginx, too, doesn't care whether anybody reads it
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until exec
    sys.exit(_exit_code(Log(sys.stderr)))


def _run_in_utf8() -> None:
    """Be the same program once more; where that can't be, go on as it is.

    With the very bytes that we were given: not every encoding gives back what Python made of them.
    """
    try:
        with open("/proc/self/cmdline", "rb") as file:
            _, *given, _ = file.read().split(b"\0")
        python = os.fsencode(sys.executable)
        os.execv(python, [python, b"-X", b"utf8", *given])  # noqa: S606 - a list, no shell
    except OSError:  # there is no /proc
        pass


def _exit_code(log: Log) -> int:
    try:
        return main(sys.argv[1:], os.environ, sys.argv[0], log)
    except NginxRejected as rejected:
        log.relay(*rejected.lines, *_notes(rejected))
        return rejected.exit_code
    except NginxAcmeError as error:
        log.emerg(str(error))
        log.relay(*_notes(error))
        return error.exit_code
    except BrokenPipeError:
        # Nobody reads our output any more; Python would complain once more when it closes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except Exception as error:
        if "NGINX_ACME_DEBUG" in os.environ:
            raise
        cause = _first(error)
        kind = type(cause).__name__
        log.emerg(f"internal error: {kind}: {cause} (NGINX_ACME_DEBUG=1 shows where)")
        return 1


def _notes(error: NginxAcmeError) -> Sequence[str]:
    """What nginx says after such a mistake (PEP 678)."""
    notes: Sequence[str] = getattr(error, "__notes__", ())
    return notes


def _first(error: BaseException) -> BaseException:
    """The error itself; of a group, which says nothing, the first one."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    run()
