"""A round: one look at all certificates, and what follows from it. Every `renew` is one.

    survey       how each of them stands                        `standing`
    get, take    what is due, or what another node has got      `renewal`
    conclude     the proof, what is published, the hooks        `conclusion`

Mostly nothing is due. Then nobody is asked, and nothing is imported that could: `renewal` pulls in
all that speaks with a CA, which takes as long as everything else does for a thousand certificates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nginx_acme.conclusion import conclude
from nginx_acme.errors import NginxAcmeError
from nginx_acme.hooks.program import Runner
from nginx_acme.launch import utc_now
from nginx_acme.loaded import behind
from nginx_acme.orders.foresight import is_idle, look_ahead
from nginx_acme.orders.ports import Outcome
from nginx_acme.reload import RELOAD_WAIT
from nginx_acme.running import needed_work, running_master, why_silent
from nginx_acme.standing import survey

if TYPE_CHECKING:
    from nginx_acme.launch import Home
    from nginx_acme.log import Log
    from nginx_acme.renewal import Renewal
    from nginx_acme.standing import Survey
    from nginx_acme.store import Identity


def go_round(home: Home, log: Log, force: frozenset[Identity] = frozenset()) -> Outcome | None:
    """Get what is due, reload what was got, see it served; None: nginx ended meanwhile.

    Args:
        home: of the nginx.
        log: gets what happens.
        force: certificates that are asked for now, whatever the time and the failures.

    Raises:
        NginxAcmeError: nobody could be asked, or nginx doesn't take what was got.
    """
    home.store.open_for_writing()
    runner = Runner(home.launch.signals.before_end)
    trouble: str | None = None
    known: Survey | None = None
    try:
        outcome, known = _get(home, log, force)
    except NginxAcmeError as error:
        trouble = "; ".join(str(error).splitlines())
        raise
    finally:
        concluded = conclude(home, log, runner, trouble, known)
    if outcome is not None:
        outcome.failed.extend(concluded.unserved)
        if concluded.next is not None:
            outcome.look_at(concluded.next)
    return outcome


def _get(home: Home, log: Log, force: frozenset[Identity]) -> tuple[Outcome | None, Survey | None]:
    """What came of it; and how everything stands, where nothing had to be done."""
    with home.store.lock_generation(home.instance, wait=RELOAD_WAIT):  # of a reload under way
        work, master = needed_work(home), running_master(home)
    if why_silent(home, work) is not None:
        return _renewal(home, log).take(work), None
    seen = survey(work.certificates, home.store, utc_now())
    is_behind = master is not None and bool(behind(home.instance, seen.found))
    if force or is_behind or not is_idle(seen.found, seen.at):
        return _renewal(home, log).get(work, master, seen.found, force), None
    outcome = Outcome()
    look_ahead(seen.found, outcome, seen.at)
    return outcome, seen


def _renewal(home: Home, log: Log) -> Renewal:
    from nginx_acme.renewal import Renewal  # noqa: PLC0415 - 0.15 s, for nothing in most rounds

    return Renewal(home, log)
