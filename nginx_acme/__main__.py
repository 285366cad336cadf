"""argv and the environment in; one line on stderr and an exit code out.

The only place that catches everything: whatever goes wrong, the operator reads one line.
"""

from __future__ import annotations

import os
import sys

from nginx_acme.errors import NginxAcmeError, NginxRejected
from nginx_acme.log import Log
from nginx_acme.main import main


def run() -> None:
    """Be `nginx-acme`: what the console script calls."""
    sys.exit(_exit_code(Log(sys.stderr)))


def _exit_code(log: Log) -> int:
    try:
        return main(sys.argv[1:], os.environ, sys.argv[0], log)
    except NginxRejected as rejected:
        log.relay(*rejected.lines)
        return rejected.exit_code
    except NginxAcmeError as error:
        log.emerg(str(error))
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


def _first(error: BaseException) -> BaseException:
    """The error itself; of a group, which says nothing, the first one."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    run()
