"""What is known of one nginx and its certificates, gathered in one place.

From it come `status` and its JSON, the files that nginx serves, and what hooks are told. So all
of them say the same. Reads and writes nothing; asks nobody.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nginx_acme import locks
from nginx_acme.draft import left_to_do
from nginx_acme.log import printable
from nginx_acme.master import find_master
from nginx_acme.policy import Keep, Wait
from nginx_acme.proof import about
from nginx_acme.report import Overview, Row
from nginx_acme.running import current_work, why_silent
from nginx_acme.standing import standings
from nginx_acme.understanding import understand

if TYPE_CHECKING:
    from datetime import datetime

    from nginx_acme.launch import Home
    from nginx_acme.plan import Certificate
    from nginx_acme.standing import Standing
    from nginx_acme.store import Proof

    _Wanted = tuple[tuple[Certificate, ...], str | None, str | None]


def gather(home: Home, now: datetime) -> Overview:
    """How everything stands that the current generation wants.

    Where none was made yet, what the configuration wants.

    Raises:
        ConfigError: a mistake in that.
        StateError: the state directory can't be read.
    """
    _, pid_file, _ = wanted = _wanted(home)
    master = find_master(pid_file) if pid_file else None
    return replace(
        _lasting(home, wanted, now),
        nginx_pid=master.pid if master else None,
        agent_pid=locks.held_by(home.instance.agent_lock),
        last_look=home.instance.last_look(),
    )


def gather_lasting(home: Home, now: datetime) -> Overview:
    """The same for whoever reads it later; now is the last look.

    The pids of nginx and of the agent are left out: they are true only for whoever asks now.
    """
    return _lasting(home, _wanted(home), now)


def _lasting(home: Home, wanted: _Wanted, now: datetime) -> Overview:
    certificates, _, silent = wanted
    proofs = home.instance.proofs()  # before what they are of: a newer one is of nothing seen here
    return Overview(
        now=now,
        instance=home.name,
        state=home.state.root,
        nginx_pid=None,
        agent_pid=None,
        last_look=now,
        rows=tuple(
            _row(one, about(one, proofs), now, silent=silent is not None)
            for one in standings(certificates, home.store, now)
        ),
        silent=silent,
    )


def _wanted(home: Home) -> _Wanted:
    """Which certificates there are to be, nginx's pid file, and why no CA is asked."""
    work = current_work(home)
    if work is not None:
        return work.certificates, work.pid_file, why_silent(home, work)
    understood = understand(home.launch)
    if understood is None:
        return (), None, None
    silent = why_silent(home, left_to_do(understood))
    return understood.plan.certificates, understood.pid_file, silent


def _row(one: Standing, proof: Proof | None, now: datetime, *, silent: bool) -> Row:
    """With words of others as they may be shown to anybody, on a terminal too."""
    facts = one.shown.facts if one.shown else None
    certificate = one.certificate
    return Row(
        label=one.label,
        names=tuple(name.value for name in certificate.names),
        issuer=printable(certificate.issuer.name),
        directory_url=certificate.issuer.directory_url,
        key_type=one.key_type,
        profile=certificate.profile and printable(certificate.profile),
        state=_state(one, now),
        not_before=facts.not_before if facts else None,
        not_after=facts.not_after if facts else None,
        issued_by=printable(facts.issuer) if facts else None,
        left_out=one.left_out,
        renewal=one.due.moment if one.due else None,
        renewal_by=one.due.word if one.due else None,
        explanation_url=_explanation(one),
        next_attempt=_next(one, None if silent else now),
        failures=one.attempt.failures,
        problem=_problem(one),
        path=one.folder.bundle_path(one.key_type) if one.folder else "",
        places=tuple(printable(str(place)) for place in certificate.places),
        served=proof.served if proof else None,
        unproved=proof.words if proof else None,
        serial=f"{facts.serial:x}" if facts else None,
    )


def _problem(one: Standing) -> str | None:
    """What speaks against it: the last attempt's, or that its file is damaged."""
    said = one.attempt.problem
    if said is None and one.shown is None and one.folder is not None:
        damage = one.folder.damage(one.key_type)
        said = damage and f'"{one.folder.bundle_path(one.key_type)}" is damaged: {damage}'
    return said and printable(said)


def _explanation(one: Standing) -> str | None:
    page = one.advice.explanation if one.advice else None
    return page and printable(page)


def _is_young(one: Standing, now: datetime) -> bool:
    """Whether it isn't to be renewed yet; one that lacks a name may be asked for all the same."""
    return one.due is not None and now < one.due.moment


def _state(one: Standing, now: datetime) -> str:
    if one.bundle is not None:
        if not one.usable:
            return "expired"
        return "valid" if _is_young(one, now) else "due"
    if one.shown is None:
        return "missing"
    if one.folder is not None and one.shown in one.folder.revocations:
        return "revoked"
    return "temporary" if one.shown.facts.temporary else "other"


def _next(one: Standing, now: datetime | None) -> datetime | None:
    match one.decision:
        case Keep():
            return None
        case Wait(until):
            return until
        case _:
            return now
