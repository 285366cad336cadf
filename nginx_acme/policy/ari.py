"""What a CA advises about the renewal of one certificate (RFC 9773), and when to ask it again.

What may live here: what is noted of the advice, and pure functions of it. Whether the advice is
followed is `policy`'s (`when_due`).

A moment is drawn once, and kept as long as it is inside of the window. Drawn anew with every
answer it would mostly be earlier than the one before, and all the world's certificates would be
renewed in the first part of their windows; worked out from the window by a hash, as some clients
do, it can't be put off nor be spread again by the CA.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from nginx_acme.policy import DAILY, HOURLY

if TYPE_CHECKING:
    from datetime import datetime

    from nginx_acme.acme.resources import RenewalInfo
    from nginx_acme.policy import Life

SOONEST = timedelta(minutes=1)
"""To the next question, whatever the CA says (§4.3.2)."""
AFTER_ERROR = timedelta(hours=6)
"""To the next question after none, or a wrong, answer (§4.3.3); Let's Encrypt says the same."""
FIRST = timedelta(hours=1)
"""To the first question: what was just issued is not to be renewed."""
PATIENCE = 1 / 6
"""Of the time between two questions: the next may be so much later, an hour at most, that one run
asks about all certificates. What starts for it takes half a second and 50 MB."""
LAST_PART = 1 / 10
"""Of a window, in which no moment is drawn: the order has to be made before it ends, by who sleeps
until then. Of the three hours for a certificate of 160 these are twenty minutes."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What is noted of a CA's advice about one certificate.

    `asked` is when it was asked last and `ask` when it may be asked again, `start` and `end` the
    window (§4.2) and `moment` the one that was drawn from it, None without one that counts.
    `problem` says why there is nothing newer.
    """

    asked: datetime
    ask: datetime
    start: datetime | None = None
    end: datetime | None = None
    moment: datetime | None = None
    explanation: str | None = None
    problem: str | None = None


def first(now: datetime) -> Advice:
    """About a certificate that has just been issued: nobody has been asked."""
    return Advice(now, now + FIRST)


def heard(
    info: RenewalInfo, before: Advice | None, life: Life, now: datetime, dice: float
) -> Advice:
    """What the CA has just said.

    Args:
        info: its answer.
        before: what was noted of the one before.
        life: of the certificate.
        now: the wall clock.
        dice: in [0, 1), draws the moment.
    """
    wait = info.retry_after - now if info.retry_after is not None else AFTER_ERROR
    drawn, problem = _moment(info, before, life, dice), None
    if drawn is None:
        problem = (
            f"the window from {info.start:%Y-%m-%d %H:%M} UTC is too late for a certificate that"
            f" expires on {life.not_after:%Y-%m-%d %H:%M} UTC"
        )
    return Advice(now, _after(wait, now), info.start, info.end, drawn, info.explanation, problem)


def _moment(info: RenewalInfo, before: Advice | None, life: Life, dice: float) -> datetime | None:
    """One inside of the window, the one before if it is; None where all of it is too late."""
    latest = life.latest_renewal
    if info.start > latest:
        return None
    kept = before.moment if before is not None else None
    if kept is not None and info.start <= kept < info.end and kept <= latest:
        return kept
    last = min(info.end - (info.end - info.start) * LAST_PART, latest)
    return info.start + (last - info.start) * dice


def unheard(before: Advice | None, problem: str, now: datetime, later: datetime | None) -> Advice:
    """There was no answer, or none that can be understood; the advice before it holds.

    `later` is when the CA wants to be asked again, where it says so.
    """
    wait = max(AFTER_ERROR, later - now) if later is not None else AFTER_ERROR
    return replace(before or Advice(now, now), asked=now, ask=_after(wait, now), problem=problem)


def put_off(before: Advice | None, now: datetime, until: datetime) -> Advice:
    """The CA wants to be asked nothing until then."""
    return replace(before or Advice(now, now), asked=now, ask=_after(until - now, now))


def _after(wait: timedelta, now: datetime) -> datetime:
    return now + min(max(wait, SOONEST), DAILY)


def not_given(now: datetime) -> Advice:
    """The CA gives no advice at all; some day it may."""
    return Advice(now, now + DAILY)


def is_to_be_asked(advice: Advice | None, life: Life, now: datetime) -> bool:
    """Whether the CA may be asked now: not before its time, and never of what is over (§4.3)."""
    return now < life.not_after and (advice is None or now >= advice.ask)


def next_look(advice: Advice, life: Life) -> datetime | None:
    """When to run for it; None: not any more. Who runs earlier asks if it is time."""
    patience = min((advice.ask - advice.asked) * PATIENCE, HOURLY)
    look = advice.ask + patience
    return look if look < life.not_after else None


def is_credible(advice: Advice, life: Life, now: datetime) -> bool:
    """Whether what was noted can be true; if not, a wrong clock or hand has written it."""
    on_time = advice.moment is None or advice.moment <= life.latest_renewal
    return on_time and advice.asked <= now + HOURLY and advice.ask <= advice.asked + DAILY
