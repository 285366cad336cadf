"""A round: one look at all certificates, and what follows from it. Every `renew` is one.

    look         how each of them stands                        `standing`
    get, take    what is due, or what another node has got      `renewal`
    conclude     the proof, what is published, the hooks        `conclusion`

Mostly nothing is due. Then nobody is asked, and nothing is imported that could: `renewal` pulls in
all that speaks with a CA, which takes as long as everything else does for a thousand certificates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nginx_acme.conclusion import conclude
from nginx_acme.errors import NginxAcmeError, StateError
from nginx_acme.hooks.program import Runner
from nginx_acme.launch import utc_now
from nginx_acme.loaded import behind
from nginx_acme.orders.foresight import is_idle, look_ahead
from nginx_acme.orders.ports import Outcome
from nginx_acme.reload import RELOAD_WAIT
from nginx_acme.running import needed_work, running_master, why_silent
from nginx_acme.standing import standings

if TYPE_CHECKING:
    from datetime import datetime

    from nginx_acme.launch import Home
    from nginx_acme.log import Log
    from nginx_acme.renewal import Renewal
    from nginx_acme.standing import Standing
    from nginx_acme.store import Identity
    from nginx_acme.work import Work


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
    try:
        outcome = _get(home, log, force)
    except NginxAcmeError as error:
        trouble = "; ".join(str(error).splitlines())
        raise
    finally:
        concluded = conclude(home, log, runner, trouble)
    if outcome is not None:
        outcome.failed.extend(concluded.unserved)
        if concluded.next is not None:
            outcome.look_at(concluded.next)
    return outcome


def _get(home: Home, log: Log, force: frozenset[Identity]) -> Outcome | None:
    with home.store.lock_generation(home.instance, wait=RELOAD_WAIT):  # of a reload under way
        work, master = needed_work(home), running_master(home)
    if why_silent(home, work) is not None:
        return _renewal(home, log).take(work)
    now = utc_now()
    found, all_read = _look(home, work, now)
    if (
        force
        or not all_read
        or not is_idle(found, now)
        or (master is not None and behind(home.instance, found))
    ):
        return _renewal(home, log).get(work, master, found, force)
    outcome = Outcome()
    look_ahead(found, outcome, now)
    return outcome


def _look(home: Home, work: Work, now: datetime) -> tuple[list[Standing], bool]:
    """How the certificates stand, and whether all could be read; who gets them keeps those apart."""
    found: list[Standing] = []
    all_read = True
    for one in work.certificates:
        try:
            found += standings([one], home.store, now)
        except StateError:
            all_read = False
    return found, all_read


def _renewal(home: Home, log: Log) -> Renewal:
    from nginx_acme.renewal import Renewal  # noqa: PLC0415 - 0.15 s, for nothing in most rounds

    return Renewal(home, log)
