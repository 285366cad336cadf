"""When: renewal, retries, whom a refusal stops, and how far a stored time is believed.

What may live here: named numbers and pure functions of them. The clock and the dice are
arguments, so that a table shows every case and a simulation runs years in a second; a predicate
that asked the clock itself is what made certmagic's `certNeedsRenewal` untestable.

The numbers are Let's Encrypt's integration guide's and those of `6-orders` in the design: retries
after 1, 10 and 100 minutes, then more and more rarely, daily at most.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from nginx_acme.errors import NO_TYPE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nginx_acme.errors import Problem

SHORT_LIFE = timedelta(days=10)
FIRST_RETRIES = tuple(timedelta(minutes=m) for m in (1, 10, 100))
RETRIES_WITHOUT_CERTIFICATE = tuple(timedelta(hours=h) for h in (3, 6, 12, 24))
DAILY = timedelta(hours=24)
HOURLY = timedelta(hours=1)
JITTER = 0.2
FARTHEST = timedelta(days=8)
"""A stored time later than this from now was written by a wrong clock or a wrong CA."""
_WORD = re.compile(r"[a-z0-9_*:-]+(?:\.[a-z0-9_-]+)*")
"""What may be a name in a CA's words: without quotes around it and the full stop behind it."""
_ONE_SET = "exact set of"
"""Of names; Boulder's limit of certificates with the same ones, which it doesn't repeat."""
_TOO_MANY_REQUESTS = 429
_UNAVAILABLE = 503
EARLIEST_CLOCK = datetime(2026, 11, 1, tzinfo=UTC)
"""A clock before this release was made has not been set yet."""


@dataclass(frozen=True, slots=True)
class Keep:
    """Nothing to do before `until`."""

    until: datetime


@dataclass(frozen=True, slots=True)
class Renew:
    """Ask for it now; the reason is what is logged."""

    because: str


@dataclass(frozen=True, slots=True)
class Wait:
    """It is wanted, but not to be asked for before `until`; `because` says why."""

    until: datetime
    because: str


Decision = Keep | Renew | Wait


@dataclass(frozen=True, slots=True)
class Life:
    """The validity of a certificate."""

    not_before: datetime
    not_after: datetime

    @property
    def length(self) -> timedelta:
        """How long it is valid, never negative."""
        return max(self.not_after - self.not_before, timedelta(0))


def renewal_time(life: Life) -> datetime:
    """When two thirds of the life are over; half of it where it is shorter than ten days."""
    share = 1 / 2 if life.length < SHORT_LIFE else 2 / 3
    return life.not_before + life.length * share


def decide(life: Life | None, next_attempt: datetime | None, now: datetime) -> Decision:
    """What to do about one certificate.

    Args:
        life: of the certificate that is there and right; None where there is none.
        next_attempt: not before this time, after failures; None without.
        now: the wall clock, aware.
    """
    if life is not None and now < (due := renewal_time(life)):
        return Keep(due)
    reason = _reason(life, now)
    blocked = believed(next_attempt, now)
    if blocked is not None and now < blocked:
        return Wait(blocked, reason)
    return Renew(reason)


def _reason(life: Life | None, now: datetime) -> str:
    if life is None:
        return "there is no certificate yet"
    if now >= life.not_after:
        return f"it expired on {life.not_after:%Y-%m-%d}"
    return f"it expires on {life.not_after:%Y-%m-%d}"


def believed(stored: datetime | None, now: datetime) -> datetime | None:
    """A time from disk or from a CA, None where it can't be right (`FARTHEST`)."""
    return None if stored is None or stored > now + FARTHEST else stored


def clock_is_set(now: datetime) -> bool:
    """Whether the clock can be right: certificates and stored times mean nothing before."""
    return now >= EARLIEST_CLOCK


def stops_all(refusal: Problem, names: Iterable[str]) -> bool:
    """Whether a refusal is the account's or everybody's, and not that of these names alone.

    A rate limit is scoped by what it names: one of these names, a domain above them (limits count
    registered domains), or the set of them. A CA that is down or too busy says 503, or 429 without
    a problem document, for all. Terms are accepted by an account.
    """
    if refusal.type == "rateLimited":
        return not _speaks_of(refusal, tuple(names))
    too_many = refusal.type == NO_TYPE and refusal.status == _TOO_MANY_REQUESTS
    return too_many or refusal.status == _UNAVAILABLE or refusal.type == "userActionRequired"


def _speaks_of(refusal: Problem, names: tuple[str, ...]) -> bool:
    words = refusal.detail.lower()
    said = {*_WORD.findall(words), *(each.identifier for each in refusal.subproblems)}
    above = tuple("." + word for word in said if word and "." in word)
    return _ONE_SET in words or any(n in said or f".{n}".endswith(above) for n in names)


def retry_time(
    failures: int,
    now: datetime,
    *,
    life: Life | None,
    permanent: bool,
    retry_after: datetime | None,
    dice: float,
) -> datetime:
    """When to ask again after the `failures`-th failure in a row (the first is 1).

    Args:
        failures: how many attempts have failed since the last success.
        now: the wall clock.
        life: of the certificate that is served meanwhile, if there is one.
        permanent: asking again can't change the answer; once a day.
        retry_after: the CA's own word; believed up to `FARTHEST`.
        dice: in [0, 1), spreads the retries by `JITTER` to both sides.
    """
    delay = DAILY if permanent else _delay(failures, now, life)
    spread = delay * (1 + JITTER * (2 * dice - 1))
    asked = believed(retry_after, now)
    return max(now + spread, asked) if asked else now + spread


def _delay(failures: int, now: datetime, life: Life | None) -> timedelta:
    if failures <= len(FIRST_RETRIES):
        return FIRST_RETRIES[max(failures, 1) - 1]
    if life is None or life.not_after <= now:
        return _last_of(RETRIES_WITHOUT_CERTIFICATE, failures - len(FIRST_RETRIES))
    return min(DAILY, max(HOURLY, (life.not_after - now) / 10))


def _last_of(delays: Sequence[timedelta], number: int) -> timedelta:
    return delays[min(number, len(delays)) - 1]
