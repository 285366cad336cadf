"""What a run will do, by how certificates stand, and when the next one is to be.

Apart from `reconcile`, which does it: mostly there is nothing to do, and who only wants to know
that imports nothing that speaks with a CA.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nginx_acme import policy
from nginx_acme.policy import Keep, Renew, Wait, ari
from nginx_acme.standing import advised, life_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from nginx_acme.orders.ports import Outcome
    from nginx_acme.standing import Standing


def is_idle(found: Iterable[Standing], now: datetime) -> bool:
    """Whether a run would ask nobody and have nothing to say."""
    return policy.clock_is_set(now) and not any(_is_looked_into(one, now) for one in found)


def look_ahead(found: Iterable[Standing], outcome: Outcome, now: datetime) -> None:
    """Note of these what is missing after a run, and when to look again."""
    for one in found:
        match one.decision:
            case Keep(until):
                outcome.look_at(until)
            case Wait(until):
                # The preflight may find it good long before.
                outcome.look_at(min(until, now + policy.HOURLY) if one.attempt.blocked else until)
            case Renew():
                outcome.look_at(now)
        asking = _next_question(one, now)
        if asking is not None:
            outcome.look_at(asking)
        if not one.usable:
            outcome.missing.append(one.label)


def _is_looked_into(one: Standing, now: datetime) -> bool:
    """Whether a CA or the preflight is asked about it now, or what is noted of it is dropped."""
    if one.to_ask is not None or (isinstance(one.decision, Wait) and one.attempt.blocked):
        return True
    life, advice = life_of(advised(one)), one.advice
    if life is None:
        return False
    wrong = advice is not None and not ari.is_credible(advice, life, now)
    return wrong or ari.is_to_be_asked(advice, life, now)


def _next_question(one: Standing, now: datetime) -> datetime | None:
    """When a run should ask its CA for advice; None: not at all."""
    life, advice = life_of(advised(one)), one.advice
    if life is None:
        return None
    return now + policy.HOURLY if advice is None else ari.next_look(advice, life)
