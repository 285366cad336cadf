"""The process beside nginx, the agent: started with nginx, and told what is new.

That it can't be started is never a reason for nginx not to be.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from nginx_acme import cgroup, locks
from nginx_acme.errors import StateError
from nginx_acme.spawning import program, spawn

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
    launch = home.launch
    agent = spawn(
        agent_facts(home, work),
        launch.nginx,
        launch.environ,
        launch.log,
        error_log=work.error_log,
        starter=starter,
        hung_up=launch.signals.hung_up,
    )
    if agent is not None:
        cgroup.join(agent, starter)  # we may be a timer's, or somebody's session


def agent_facts(home: Home, work: Work) -> str:
    """What an agent is started with each time, as `spawning` takes it."""
    launch = home.launch
    options = launch.command.settings(home.main, prefix=launch.prefix)
    facts = {
        "instance": home.instance.path,
        "lock": home.instance.agent_lock,
        "main": home.generated_main,
        "user_main": home.main,
        "pid_file": work.pid_file,
        "error_log": work.error_log,
        "turn": [*program(), *options, "renew", "--instance", home.instance.path, "--agent"],
    }
    return json.dumps(facts)


def wake_agent(home: Home, work: Work, nginx: int, *, look: bool) -> None:
    """Let the agent of the nginx with this pid see what is new; start it where it is gone.

    Args:
        home: of the nginx.
        work: what its generation leaves to do.
        nginx: its pid.
        look: the user's files may say something else by now, and nginx may have been told so.
    """
    if locks.held_by(home.instance.agent_lock) is None:
        start_agent(home, work, nginx)
        return
    try:
        home.instance.wake_agent(look=look)
    except StateError as error:
        home.launch.log.error(f"the agent does not know of it: {error}")
