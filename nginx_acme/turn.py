"""One turn of the agent: what its short-lived child does, and what the agent has to know then.

    to look      where somebody told nginx to read its configuration, the user's files are taken up
    to renew     what is due is got (`rounds`)

What goes wrong is said where nginx says it, and the agent learns when to go on.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nginx_acme.agent.alarms import LOOK, STARTED, SURELY
from nginx_acme.binary import error_log_path
from nginx_acme.errors import NginxAcmeError, NginxRejected, StateError
from nginx_acme.hangup import take_up
from nginx_acme.launch import utc_now
from nginx_acme.log import Log
from nginx_acme.reload import BETWEEN_RELOADS, settled_workers
from nginx_acme.running import home_of, is_edited, needed_work, running_master
from nginx_acme.spawning import logs_to_stderr

if TYPE_CHECKING:
    from nginx_acme.launch import Home, Launch
    from nginx_acme.work import Work


def turn(launch: Launch, instance: str, why: str) -> dict[str, Any]:
    """Do what there is to do.

    Args:
        launch: what we were started with.
        instance: the folder of the instance.
        why: one of `alarms.REASONS`.

    Returns:
        What the agent takes in. `fault`: it failed as it should not. If the user's files were
        looked at, `new` and `again` (`hangup.TakenUp`). If it was no mere look, `next`: when to go
        on, in seconds since the epoch, None where nothing will be due. And, if it knows, what may
        be another than before: `agent`, `pid_file`, `error_log`, `stderr`.
    """
    log = Log(sys.stderr, dated=True, error_log=error_log_path(launch.nginx, launch.command, None))
    home = home_of(replace(launch, log=log), instance)
    said: dict[str, Any] = {"fault": False}
    try:
        log.add_file(needed_work(home).error_log)
        home.runtime.open_for_writing()
        if why in {LOOK, SURELY}:
            said.update(_taken_up(home, log, surely=why == SURELY))
        else:
            if why == STARTED and _begin(home):
                said.update(_taken_up(home, log, surely=True))
            said["next"] = _renew(home, log)
        said.update(_facts(needed_work(home)))
    except NginxRejected as rejected:
        log.relay(*rejected.lines)
        said["fault"] = True
    except NginxAcmeError as error:
        log.error(str(error))
        said["fault"] = True
    return said


def _facts(work: Work) -> dict[str, Any]:
    """What the agent knows of its nginx."""
    return {
        "agent": work.agent,
        "pid_file": work.pid_file,
        "error_log": work.error_log,
        "stderr": logs_to_stderr(work.error_log),
    }


def _taken_up(home: Home, log: Log, *, surely: bool) -> dict[str, bool]:
    """What the user's files brought; a mistake in them is said as nginx says it.

    Raises:
        StateError: it is no mistake in them, so they are to be looked at again.
    """
    try:
        return take_up(home, surely=surely)._asdict()
    except StateError:
        raise
    except NginxRejected as rejected:
        log.relay(*rejected.lines)
    except NginxAcmeError as error:
        log.emerg(str(error))
    return {}


def _begin(home: Home) -> bool:
    """Note who works for nginx now; whether a start of this moment would be another one.

    What came before the agent could see a HUP is not asked about. What was edited until now might
    as well have been read by the start itself.
    """
    master = running_master(home)
    if master is None:
        return False
    home.instance.note_workers(settled_workers(master.pid))
    return is_edited(home)


def _renew(home: Home, log: Log) -> float | None:
    """When to go on: as soon as something is due, but not with one reload after the other.

    Renewals that are due within minutes are one turn, unless something is missing.
    """
    from nginx_acme.rounds import go_round  # noqa: PLC0415 - 0.04 s, for nothing in a mere look

    outcome = go_round(home, log)
    if outcome is None or outcome.next is None:
        return None
    moment = outcome.next.timestamp()
    if outcome.installed and not outcome.missing:
        return max(moment, utc_now().timestamp() + BETWEEN_RELOADS)
    return moment
