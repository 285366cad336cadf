"""How an agent gets into the world: as nobody's child, with facts that it can't find out itself.

Imported at every start; see `process`.
"""

from __future__ import annotations

import os
import sys

from nginx_acme.process import spawn_detached
from nginx_acme.state_path import STATE_PATH_VARIABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from nginx_acme.log import Log
    from nginx_acme.process import Nginx


def spawn(
    facts: str,
    nginx: Nginx,
    environ: Mapping[str, str],
    log: Log,
    *,
    error_log: str,
    starter: int,
    hung_up: bool,
) -> int | None:
    """Start an agent and return its pid; None where it can't be, which is told.

    Args:
        facts: what is the same at each start: a JSON object, as `process.Agent` has them.
        nginx: the binary.
        environ: ours.
        log: gets a word where it can't be started.
        error_log: of nginx.
        starter: the process that is nginx, or becomes it.
        hung_up: somebody has told that one to read its configuration already.
    """
    kept = {name: environ[name] for name in _KEPT if name in environ}
    stderr = logs_to_stderr(error_log)
    moving = {
        "starter": str(starter),
        "with_nginx": _json(starter == os.getpid()),
        "hung_up": _json(hung_up),
        "stderr": _json(stderr),
    }
    said = ", ".join(f'"{name}": {value}' for name, value in moving.items())
    try:
        return spawn_detached(
            [*program(), "agent", f"{facts[:-1]}, {said}}}"],
            {**kept, "NGINX_ACME_NGINX": nginx.path},
            stderr_of=starter if stderr else None,
        )
    except OSError as error:
        log.error(f"the agent can't be started, nobody renews until it is: {error}")
        return None


def program() -> list[str]:
    """The command that is this program, whatever its name is and wherever it is installed."""
    return [sys.executable, "-I", "-c", _RUN, *sys.path, "--"]


def logs_to_stderr(error_log: str) -> bool:
    """Whether nginx logs to our stderr, by that name or by a link as in the official image."""
    if error_log == "stderr":
        return True
    try:
        return os.path.samestat(os.stat(error_log), os.fstat(2))
    except OSError:
        return False


def _json(value: bool) -> str:  # noqa: FBT001 - what it is for
    return "true" if value else "false"


_RUN = (
    "import sys; end = sys.argv.index('--'); sys.path[:] = sys.argv[1:end];"
    " sys.argv[1:end + 1] = []; from nginx_acme.__main__ import run; run()"
)
"""Not ``-m``: isolated (-I), it would not find what is installed for one user alone."""

_KEPT = (
    "NGINX_ACME_DEBUG",
    STATE_PATH_VARIABLE,
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
)
"""What the agent gets of our environment: where the state is, and how a CA is reached."""
