"""When: renewal, retries, and how far a stored time is believed.

What may live here: named numbers and pure functions of them. The clock and the dice are
arguments, so that a table shows every case and a simulation runs years in a second; a predicate
that asked the clock itself is what made certmagic's `certNeedsRenewal` untestable.

The numbers are Let's Encrypt's integration guide's and those of `6-orders` in the design: retries
after 1, 10 and 100 minutes, then more and more rarely, daily at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from nginx_acme.errors import AcmeError, OrderFailed, Problem
from nginx_acme.policy.words import names_in

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

SHORT_LIFE = timedelta(days=10)
LATEST = 1 / 6
"""Of the life, before its end: no advice makes a renewal later than that."""
EARLIEST = 1 / 100
"""Of the life, after its beginning: a CA that says "at once" of whatever it has just issued gets an
order a day for a certificate of 90 days, not one a minute."""
FIRST_RETRIES = tuple(timedelta(minutes=m) for m in (1, 10, 100))
RETRIES_WITHOUT_CERTIFICATE = tuple(timedelta(hours=h) for h in (3, 6, 12, 24))
DAILY = timedelta(hours=24)
HOURLY = timedelta(hours=1)
JITTER = 0.2
FARTHEST = timedelta(days=8)
"""No CA is left alone for longer, whatever it says."""
_NOT_OF_A_NAME = frozenset({"rateLimited", "serverInternal"})
_OF_NAMES = frozenset({"rejectedIdentifier", "unsupportedIdentifier", "caa", "dns", "malformed"})
"""What an order or its CSR is refused with for the names that the CA's words name."""
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

    @property
    def latest_renewal(self) -> datetime:
        """What no advice puts off."""
        return self.not_after - self.length * LATEST


class Word(StrEnum):
    """By whose word a certificate is renewed when it is."""

    RENEW_BEFORE = "renew_before"
    RENEWAL_INFORMATION = "renewal information"
    LIFETIME = "lifetime"


@dataclass(frozen=True, slots=True)
class Due:
    """When a certificate is to be renewed, and by whose word."""

    moment: datetime
    word: Word


def when_due(
    life: Life, *, renew_before: timedelta | None = None, advised: datetime | None = None
) -> Due:
    """When to renew a certificate: as the operator says, else its CA, else by its life.

    Args:
        life: its validity.
        renew_before: the operator's, before its end; not followed where that is within the first
            sixth of the life: it is meant for longer ones, and each would be due when it comes.
        advised: the moment that was drawn from the CA's window (RFC 9773 §4.2); not followed where
            it is in the last sixth.
    """
    if renew_before is not None and renew_before <= life.length * (1 - LATEST):
        return Due(life.not_after - renew_before, Word.RENEW_BEFORE)
    if renew_before is None and advised is not None and advised <= life.latest_renewal:
        earliest = life.not_before + life.length * EARLIEST
        return Due(max(advised, earliest), Word.RENEWAL_INFORMATION)
    return Due(renewal_time(life), Word.LIFETIME)


def renewal_time(life: Life) -> datetime:
    """When two thirds of the life are over; half of it where it is shorter than ten days."""
    share = 1 / 2 if life.length < SHORT_LIFE else 2 / 3
    return life.not_before + life.length * share


def decide(
    life: Life | None,
    due: Due | None,
    next_attempt: datetime | None,
    now: datetime,
    *,
    noted: datetime | None = None,
    left_out: Sequence[str] = (),
) -> Decision:
    """What to do about one certificate.

    Args:
        life: of the certificate that is there and right; None where there is none.
        due: when that is to be renewed (`when_due`).
        next_attempt: not before this time, after failures; None without.
        now: the wall clock, aware.
        noted: when `next_attempt` was written (`believed`).
        left_out: names that it should have and hasn't. It is asked for with them again and again,
            also while it is not due.
    """
    if due is None or now >= due.moment:
        reason = _reason(life, due, now)
    elif left_out:
        reason = f"it is without {', '.join(left_out)}"
    else:
        return Keep(due.moment)
    blocked = believed(next_attempt, noted, now)
    if blocked is not None and now < blocked:
        return Wait(blocked, reason)
    return Renew(reason)


def comes_along(due: Due, window_start: datetime | None, now: datetime) -> bool:
    """Whether what isn't due is renewed with others that are, for one reload in place of many.

    Never before the CA's window; without one, up to an hour early.

    Args:
        due: when and by whose word it is renewed otherwise.
        window_start: of the CA's advice, if there is any.
        now: the wall clock.
    """
    if due.word is Word.RENEWAL_INFORMATION:
        return window_start is not None and window_start <= now
    return due.moment <= now + HOURLY


def _reason(life: Life | None, due: Due | None, now: datetime) -> str:
    if life is None:
        return "there is no certificate yet"
    if now >= life.not_after:
        return f"it expired on {life.not_after:%Y-%m-%d}"
    advised = due is not None and due.word is Word.RENEWAL_INFORMATION
    return f"it expires on {life.not_after:%Y-%m-%d}{', its CA advises it now' if advised else ''}"


def dead_names(error: AcmeError, asked: Collection[str]) -> Mapping[str, Problem]:
    """The names that an order failed for, each with its problem; none where it wasn't for names.

    An order is refused for names, too (RFC 8555 §6.7.1: subproblems). What the CA is to blame for,
    or what only takes time, is no fault of a name.

    Args:
        error: what came of the order.
        asked: the names that it was for.
    """
    found: Mapping[str, Problem] = {}
    if isinstance(error, OrderFailed):
        found = error.problems
    elif isinstance(error, Problem) and error.type not in _NOT_OF_A_NAME:
        found = {each.identifier: each for each in error.subproblems if each.identifier}
        found = found or _named_alone(error, asked)
    return {name: problem for name, problem in found.items() if problem.type not in _NOT_OF_A_NAME}


def _named_alone(problem: Problem, asked: Collection[str]) -> Mapping[str, Problem]:
    """Of the names asked for those that a problem without subproblems is about.

    Boulder makes subproblems only of two bad names or more (policy/pa.go); the words name one.
    """
    if problem.type not in _OF_NAMES:
        return {}
    said = {problem.identifier} if problem.identifier else names_in(problem.detail)
    return {name: problem for name in asked if name in said}


def may_leave_out(
    life: Life | None,
    due: datetime | None,
    failures: int,
    now: datetime,
    *,
    loses: bool,
    gains: bool,
) -> bool:
    """Whether to order the rest where some names are dead.

    At once where nothing can be served. A certificate with all names is better than a new one
    without some, as long as it lives: so only when half of the time between renewal and expiry is
    gone, and never for what a first attempt says; a name server that restarts is no dead name.

    Args:
        life: of the certificate that there is; None where there is none.
        due: when that is to be renewed.
        failures: attempts that failed in a row, this one included.
        now: the wall clock.
        loses: whether the certificate that there is has one of the names that would be left out.
        gains: whether it lacks one of the others.
    """
    if life is None or due is None or now >= life.not_after:
        return True
    if loses:
        return failures > 1 and now >= due + (life.not_after - due) / 2
    return gains or now >= due


def believed(stored: datetime | None, noted: datetime | None, now: datetime) -> datetime | None:
    """A time from disk until which nobody is asked, None where a wrong clock or hand wrote it.

    By itself a time some days ahead can be right, and for a certificate of six days that is its
    whole life. So what counts is when it was noted: not later than now, but for an hour.

    Args:
        stored: the time; more than `FARTHEST` after `noted` it is nobody's.
        noted: when it was written, by the clock of then; None where that isn't known.
        now: the wall clock.
    """
    begin = now if noted is None else noted
    if stored is None or begin > now + HOURLY or stored > begin + FARTHEST:
        return None
    return stored


def heeded(retry_after: datetime | None, now: datetime) -> datetime | None:
    """Until when a CA is left alone that has just said so; not for more than `FARTHEST`.

    Who asks for a month is not asked after a minute.
    """
    return None if retry_after is None else min(retry_after, now + FARTHEST)


def clock_is_set(now: datetime) -> bool:
    """Whether the clock can be right: certificates and stored times mean nothing before."""
    return now >= EARLIEST_CLOCK


def retry_time(
    failures: int,
    now: datetime,
    *,
    life: Life | None,
    permanent: bool,
    retry_after: datetime | None,
    dice: float,
    due: datetime | None = None,
) -> datetime:
    """When to ask again after the `failures`-th failure in a row (the first is 1).

    Args:
        failures: how many attempts have failed since the last success.
        now: the wall clock.
        life: of the certificate that is served meanwhile, if there is one.
        permanent: asking again can't change the answer; once a day.
        retry_after: the CA's own word; `heeded`.
        dice: in [0, 1), spreads the retries by `JITTER` to both sides.
        due: when it has to be renewed in any case. What is asked for earlier, since it lacks a
            name, doesn't put that off.
    """
    delay = DAILY if permanent else _delay(failures, now, life)
    moment = now + delay * (1 + JITTER * (2 * dice - 1))
    if due is not None and due > now:
        moment = min(moment, due)
    asked = heeded(retry_after, now)
    return max(moment, asked) if asked else moment


def rest_time(in_vain: int, now: datetime, life: Life) -> datetime:
    """When to ask again after the `in_vain`-th certificate in a row that was due when it came.

    By our clock, which is probably wrong: asked again by the steps of failures, a CA that has none
    to tell would give one a minute, to its limits.

    Args:
        in_vain: how many there were, this one included.
        now: the wall clock.
        life: of this one.
    """
    rest = max(HOURLY, life.length * EARLIEST)
    return now + min(DAILY, rest * 2.0 ** min(in_vain - 1, 10))


def _delay(failures: int, now: datetime, life: Life | None) -> timedelta:
    if failures <= len(FIRST_RETRIES):
        return FIRST_RETRIES[max(failures, 1) - 1]
    if life is None or life.not_after <= now:
        return _last_of(RETRIES_WITHOUT_CERTIFICATE, failures - len(FIRST_RETRIES))
    return min(DAILY, max(HOURLY, (life.not_after - now) / 10))


def _last_of(delays: Sequence[timedelta], number: int) -> timedelta:
    return delays[min(number, len(delays)) - 1]
