"""How an agent gets into the world: as nobody's child, with facts that it can't find out itself.

Imported at every start; see `process`.
"""

from __future__ import annotations

import os
import sys

from nginx_acme.process import spawn_detached

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from nginx_acme.process import Nginx


def spawn(
    facts: str,
    nginx: Nginx,
    environ: Mapping[str, str],
    *,
    error_log: str,
    starter: int,
    hung_up: bool,
) -> int:
    """Start an agent and return its pid.

    Args:
        facts: what is the same at each start: a JSON object, as `process.Agent` has them.
        nginx: the binary.
        environ: ours.
        error_log: of nginx.
        starter: the process that is nginx, or becomes it.
        hung_up: somebody has told that one to read its configuration already.

    Raises:
        OSError: it can't be started.
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
    return spawn_detached(
        [*program(), "agent", f"{facts[:-1]}, {said}}}"],
        {**kept, "NGINX_ACME_NGINX": nginx.path},
        stderr_of=starter if stderr else None,
    )


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
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
)
"""What the agent gets of our environment: how a CA is reached."""
