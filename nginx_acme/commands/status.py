"""``nginx-acme status [--json]``: each certificate, as it stands.

Of what the running generation wants; of what the configuration wants where none runs yet.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from nginx_acme import report
from nginx_acme.commands import parser_for
from nginx_acme.launch import understand, utc_now
from nginx_acme.master import find_master
from nginx_acme.policy import Keep, Wait
from nginx_acme.report import Row
from nginx_acme.running import current_work, find_home
from nginx_acme.standing import standings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from nginx_acme.launch import Home, Launch
    from nginx_acme.plan import Certificate
    from nginx_acme.standing import Standing


def run(launch: Launch) -> int:
    """Print it; the exit code is 0 as long as it could be found out."""
    parser = parser_for("status", "Show how each certificate stands.")
    parser.add_argument("--json", action="store_true", help="as a document for programs")
    given = parser.parse_args(launch.command.rest)
    home, now = find_home(launch), utc_now()
    certificates, pid_file = _wanted(home)
    rows = [_row(one, now) for one in standings(certificates, home.store, now)]
    if given.json:
        master = find_master(pid_file) if pid_file else None
        document = report.to_json(rows, nginx_pid=master.pid if master else None, now=now)
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        sys.stdout.write(report.to_text(rows, now))
    return 0


def _wanted(home: Home) -> tuple[Sequence[Certificate], str | None]:
    """Which certificates there are to be, and nginx's pid file."""
    work = current_work(home)
    if work is not None:
        return work.certificates, work.pid_file
    understood = understand(home.launch)
    return (understood.plan.certificates, understood.pid_file) if understood else ((), None)


def _row(one: Standing, now: datetime) -> Row:
    facts = one.shown.facts if one.shown else None
    certificate = one.certificate
    return Row(
        label=one.label,
        names=tuple(name.value for name in certificate.names),
        issuer=certificate.issuer.name,
        directory_url=certificate.issuer.directory_url,
        key_type=one.key_type,
        profile=certificate.profile,
        state=_state(one),
        not_before=facts.not_before if facts else None,
        not_after=facts.not_after if facts else None,
        issued_by=facts.issuer if facts else None,
        renewal=one.decision.until if isinstance(one.decision, Keep) else None,
        next_attempt=_next(one, now),
        failures=one.attempt.failures,
        problem=one.attempt.problem,
        path=one.folder.bundle_path(one.key_type) if one.folder else "",
        places=tuple(map(str, certificate.places)),
    )


def _state(one: Standing) -> str:
    if one.bundle is not None:
        if not one.usable:
            return "expired"
        return "valid" if isinstance(one.decision, Keep) else "due"
    if one.shown is None:
        return "missing"
    return "temporary" if one.shown.facts.temporary else "other"


def _next(one: Standing, now: datetime) -> datetime | None:
    match one.decision:
        case Keep():
            return None
        case Wait(until):
            return until
        case _:
            return now
