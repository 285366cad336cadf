"""The process beside nginx, the agent: started with nginx, and told what is new.

That it can't be started is never a reason for nginx not to be.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from nginx_acme import cgroup, disk
from nginx_acme.errors import StateError
from nginx_acme.process import spawn_detached

if TYPE_CHECKING:
    from nginx_acme.launch import Home
    from nginx_acme.work import Work


def start_agent(home: Home, work: Work, starter: int) -> None:
    """Start the agent of an nginx, if there is to be one; beside another one it ends by itself.

    Args:
        home: of the nginx.
        work: what its generation leaves to do.
        starter: the process that is it, or becomes it.
    """
    if not work.agent:
        return
    launch, root = home.launch, home.runtime.root
    options = launch.command.settings(home.main, prefix=launch.prefix)
    program = [sys.executable, "-I", "-c", _RUN, *sys.path, "--"]
    environ = {name: launch.environ[name] for name in _KEPT if name in launch.environ}
    environ["NGINX_ACME_NGINX"] = launch.nginx.path
    stderr = logs_to_stderr(work.error_log)
    facts = {
        "instance": home.instance.path,
        "lock": home.instance.agent_lock,
        "main": home.generated_main,
        "user_main": home.main,
        "starter": starter,
        "hung_up": launch.signals.hung_up,
        "pid_file": work.pid_file,
        "error_log": work.error_log,
        "stderr": stderr,
        "turn": [*program, *options, "renew", "--state", root, "--agent"],
    }
    try:
        stderr_of = starter if stderr else None
        agent = spawn_detached([*program, "agent", json.dumps(facts)], environ, stderr_of=stderr_of)
    except OSError as error:
        launch.log.error(f"the agent can't be started, nobody renews until it is: {error}")
        return
    cgroup.join(agent, starter)  # we may be a timer's, or somebody's session


def wake_agent(home: Home, work: Work, nginx: int, *, look: bool) -> None:
    """Let the agent of the nginx with this pid see what is new; start it where it is gone.

    Args:
        home: of the nginx.
        work: what its generation leaves to do.
        nginx: its pid.
        look: the user's files may say something else by now, and nginx may have been told so.
    """
    if disk.held_by(home.instance.agent_lock) is None:
        start_agent(home, work, nginx)
        return
    try:
        home.instance.wake_agent(look=look)
    except StateError as error:
        home.launch.log.error(f"the agent does not know of it: {error}")


def logs_to_stderr(error_log: str) -> bool:
    """Whether nginx logs to our stderr, by that name or by a link as in the official image."""
    if error_log == "stderr":
        return True
    try:
        return os.path.samestat(os.stat(error_log), os.fstat(2))
    except OSError:
        return False


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
