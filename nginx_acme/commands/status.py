"""``nginx-acme status [--json]``: each certificate, as it stands.

Of what the running generation wants; of what the configuration wants where none runs yet.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from nginx_acme import report
from nginx_acme.launch import current_work, understand, utc_now
from nginx_acme.policy import Keep, Wait
from nginx_acme.reload import find_master
from nginx_acme.report import Row
from nginx_acme.standing import standings

if TYPE_CHECKING:
    from datetime import datetime

    from nginx_acme.launch import Launch
    from nginx_acme.plan import Certificate
    from nginx_acme.standing import Standing


def run(launch: Launch) -> int:
    """Print it; the exit code is 0 as long as it could be found out."""
    parser = argparse.ArgumentParser("nginx-acme status", description=__doc__)
    parser.add_argument("--json", action="store_true", help="as a document for programs")
    given = parser.parse_args(launch.command.rest)
    understood = understand(launch, always=True)
    if understood is None:
        return 1
    now = utc_now()
    running = current_work(understood)
    wanted = running.certificates if running else understood.plan.certificates
    rows = [_row(one, now) for one in standings(wanted, understood.store, now)]
    known = {row.names for row in rows}
    rows += [_missing(c, k) for c in wanted for k in c.key_types if _names(c) not in known]
    master = find_master(understood.pid_file)
    if given.json:
        pid = master.pid if master else None
        document = report.to_json(rows, nginx_pid=pid, now=now)
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        sys.stdout.write(report.to_text(rows, now))
    return 0


def _row(one: Standing, now: datetime) -> Row:
    facts = one.shown.facts if one.shown else None
    certificate = one.certificate
    return Row(
        label=one.folder.label,
        names=_names(certificate),
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
        path=one.folder.bundle_path(one.key_type),
        places=tuple(map(str, certificate.places)),
    )


def _missing(certificate: Certificate, key_type: str) -> Row:
    return Row(
        label=certificate.names[0].value,
        names=_names(certificate),
        issuer=certificate.issuer.name,
        directory_url=certificate.issuer.directory_url,
        key_type=key_type,
        profile=certificate.profile,
        state="missing",
        not_before=None,
        not_after=None,
        issued_by=None,
        renewal=None,
        next_attempt=None,
        failures=0,
        problem=None,
        path="",
        places=tuple(map(str, certificate.places)),
    )


def _names(certificate: Certificate) -> tuple[str, ...]:
    return tuple(name.value for name in certificate.names)


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
