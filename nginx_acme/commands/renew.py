"""``nginx-acme renew [--force NAME] [--dry-run]``: get what is due, and let the running nginx take it up.

A no-op where nothing is due, so a timer may call it as often as it likes. With `--agent` it is a
turn of the agent's (`turn`).
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from nginx_acme import locks
from nginx_acme.agent.alarms import REASONS
from nginx_acme.beside import start_agent
from nginx_acme.commands import parser_for
from nginx_acme.errors import NginxAcmeError
from nginx_acme.identifiers import NotCertifiable, name_of
from nginx_acme.reload import settled_workers
from nginx_acme.running import needed_home, needed_work, running_master, why_silent
from nginx_acme.store import Identity
from nginx_acme.turn import turn

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nginx_acme.launch import Home, Launch
    from nginx_acme.orders.ports import Outcome
    from nginx_acme.work import Work


_OOM_SCORE_ADJ = "500"
"""Where memory is short this ends before nginx does (proc(5))."""


def run(launch: Launch) -> int:
    """Do it; the exit code is 1 where something failed, 0 where nothing had to be done."""
    parser = parser_for(
        "renew",
        "Get what is due, and let the running nginx take it up. Does nothing where nothing is due.",
    )
    parser.add_argument(
        "--force",
        metavar="NAME",
        action="append",
        default=[],
        help="ask for the certificate with this name now, whatever the time and the failures",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="rehearse all of it at the staging authority, through nginx as it runs, and install"
        " nothing; with --force that one alone",
    )
    parser.add_argument("--instance", metavar="PATH", help=argparse.SUPPRESS)
    parser.add_argument("--agent", choices=REASONS, help=argparse.SUPPRESS)
    given = parser.parse_args(launch.command.rest)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write(_OOM_SCORE_ADJ)
    if given.agent:
        sys.stdout.write(json.dumps(turn(launch, given.instance, given.agent)))
        return 0
    home = needed_home(launch)
    work = needed_work(home)
    launch.log.add_file(work.error_log)
    force = _named(given.force, work)
    if (why := why_silent(home, work)) is not None:
        if force or given.dry_run:
            raise NginxAcmeError(why)
        launch.log.notice(why)
    if given.dry_run:
        return 0 if _rehearse(home, force) else 1
    outcome = _renew(home, force)
    _bring_back_agent(home)
    return 1 if outcome is None or outcome.failed else 0


def _renew(home: Home, force: frozenset[Identity]) -> Outcome | None:
    from nginx_acme.rounds import go_round  # noqa: PLC0415 - 0.04 s, for nothing in many turns

    return go_round(home, home.launch.log, force)


def _rehearse(home: Home, only: frozenset[Identity]) -> bool:
    from nginx_acme.rehearsal import Rehearsal  # noqa: PLC0415 - 0.2 s, seldom needed

    return Rehearsal(home, home.launch.log).run(only)


def _bring_back_agent(home: Home) -> None:
    """Start the agent of an nginx that has lost it: whoever calls us is the one who sees that."""
    work, master = needed_work(home), running_master(home)
    if master is None or not work.agent:
        return
    if locks.held_by(home.instance.agent_lock) is None:
        home.launch.log.notice("the agent was gone, it is started again")
        home.instance.note_workers(
            settled_workers(master.pid)
        )  # what nobody saw is not asked about
        start_agent(home, work, master.pid)


def _named(force: Iterable[str], work: Work) -> frozenset[Identity]:
    """The certificates that have one of these names; NginxAcmeError for one that none has."""
    try:
        names = frozenset(name_of(text) for text in force)
    except NotCertifiable as reason:
        raise NginxAcmeError(str(reason)) from reason
    unknown = names - {name for one in work.certificates for name in one.names}
    if unknown:
        words = ", ".join(sorted(name.value for name in unknown))
        raise NginxAcmeError(f"no certificate has the name {words}")
    wanted = (one for one in work.certificates if names & set(one.names))
    return frozenset(Identity(*one.identity) for one in wanted)
