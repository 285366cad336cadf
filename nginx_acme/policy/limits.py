"""Who is next and who must wait: what a CA's refusal stops, and how fast an account may order.

What may live here: values and pure functions of them; the clock and the dice are arguments. Where
they are kept is `store`'s business, and whom to ask is `reconcile`'s.

A refusal is scoped by what it names. Taken as the account's, one customer's limit stopped all the
others; taken as the certificate's, a thousand certificates asked a thousand times for what all of
them were refused. A token bucket is kept as one time, when it will be full again, as Boulder does
it (ratelimits/gcra.go): nothing has to be filled up, so no restart can forget to.
"""

from __future__ import annotations

import ipaddress
import math
import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from nginx_acme.errors import NO_TYPE, Problem, Unreachable
from nginx_acme.policy import FARTHEST, HOURLY, JITTER, believed, heeded, retry_time
from nginx_acme.policy.words import names_in, without_urls

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from nginx_acme.acme.presets import Bucket, Rates
    from nginx_acme.errors import AcmeError
    from nginx_acme.policy import Life

AT_ONCE = 20
"""Orders of one account that are open at the same time."""
OUTAGE_RETRIES = tuple(timedelta(minutes=m) for m in (1, 10, 60))
"""After a CA didn't answer. It hears nothing of these, so the last one is for all further ones."""
TRIES = 4
"""Failures of a name within an hour, after which it has to wait; Let's Encrypt allows five."""
PAUSE = timedelta(minutes=10)
"""Between the turns of a queue, so that those that are near share one run and one reload."""
LONGEST_TURN = timedelta(days=7)
"""Whoever is further back in a queue gets another place in it then."""

_TOO_MANY_REQUESTS = 429
_UNAVAILABLE = 503
_ABOUT_ACCOUNT = frozenset({"userActionRequired", "accountDoesNotExist"})

# Boulder's words (ratelimits/limiter.go, wfe2/wfe.go), in lower case.
_BUSY = "service busy"
_NEW_ACCOUNTS = "new registrations"
_ONE_SET = "exact set of"
_ONE_NAME = re.compile("failed authorizations|prevented from requesting")
_CLOSED = re.compile(r"\baccount\b.*\b(?:not valid|deactivated|revoked)")
_SOME_NAME = re.compile(f"too many certificates|{_ONE_NAME.pattern}")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ACCOUNT = ""
"""Whose bucket it is that every order counts for."""


class Kind(StrEnum):
    """How far a refusal reaches."""

    CA = "ca"
    """Everything that is asked of this CA."""
    ACCOUNT = "account"
    """A new account."""
    ORDERS = "orders"
    """Orders of this account."""
    BELOW = "below"
    """A name, as a rule a registered one, and every name below it."""
    NAME = "name"
    """This very name."""


class Scope(NamedTuple):
    """What a refusal is about; `name` where it is about one."""

    kind: Kind
    name: str = ""


@dataclass(frozen=True, slots=True)
class Stop:
    """Nobody whom it concerns asks before `until`.

    `said`: the CA named the time. `failures`: how often in a row. `renewals`: one was refused that
    counts for no limit by `presets.Rates`, so these have to wait, too. `at`: when it was made.
    """

    until: datetime
    because: str
    said: bool = False
    failures: int = 1
    renewals: bool = False
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """What somebody would like to order.

    `free`: it counts for no bucket, as a renewal or an order that is made. `registered`: the account is known to the CA already.
    `forced`: the operator wants it now, whatever we think; what the CA says of the account holds.
    """

    names: frozenset[str]
    free: bool = False
    registered: bool = True
    forced: bool = False


def scopes(error: AcmeError, ask: Ask) -> tuple[Scope, ...]:
    """What an error stops besides the certificate that was asked for; as a rule nothing."""
    if isinstance(error, Unreachable):
        return (Scope(Kind.CA),)
    if not isinstance(error, Problem):
        return ()
    words = without_urls(error.detail)
    bare = error.type == NO_TYPE and error.status == _TOO_MANY_REQUESTS
    if error.status == _UNAVAILABLE or bare or _BUSY in words:
        return (Scope(Kind.CA),)
    if error.type in _ABOUT_ACCOUNT or _is_closed(error, words, ask):
        return (Scope(Kind.ORDERS),)
    if error.type != "rateLimited" or _ONE_SET in words:
        return ()
    if not ask.registered or _NEW_ACCOUNTS in words:
        return (Scope(Kind.ACCOUNT),)
    kind = Kind.NAME if _ONE_NAME.search(words) else Kind.BELOW
    said = {*names_in(error.detail), *(each.identifier or "" for each in error.subproblems)}
    named = tuple(Scope(kind, name) for name in sorted(said) if _is_about(kind, name, ask.names))
    return named if named or _SOME_NAME.search(words) else (Scope(Kind.ORDERS),)


def _is_closed(error: Problem, words: str, ask: Ask) -> bool:
    """Whether it is refused since the account isn't valid any more (RFC 8555 §7.3.6).

    The same type is for names that an account may not have certificates for.
    """
    named = any(name in words for name in ask.names)
    return error.type == "unauthorized" and not named and _CLOSED.search(words) is not None


def rank(life: Life | None, failures: int, *, second: bool) -> tuple[int, float]:
    """The place of a certificate in the queue; the smallest is next.

    First renewals by their expiry, then what isn't there yet, then second key types, then what
    has failed before.

    Args:
        life: of the certificate that is there.
        failures: in a row.
        second: another key type of it is there already.
    """
    end = life.not_after.timestamp() if life else math.inf
    if failures:
        return 3, end
    return (0 if life else 2 if second else 1), end


@dataclass(frozen=True, slots=True)
class Limits:
    """What is remembered of an account's limits.

    `full` is when each bucket will be full again: that of "" is the account's own, the others are
    those of names that the CA has refused for being too many. `failed` is when the CA found a
    name wanting, within the last hour.
    """

    stops: Mapping[Scope, Stop] = field(default_factory=dict)
    full: Mapping[str, datetime] = field(default_factory=dict)
    failed: Mapping[str, tuple[datetime, ...]] = field(default_factory=dict)

    # Questions

    def stop(self, ask: Ask, now: datetime) -> Stop | None:
        """What keeps `ask` from being asked now; of several the one that lasts longest."""
        found = [
            stop
            for scope, stop in self.stops.items()
            if now < stop.until and _holds(scope, stop, ask)
        ]
        found.extend(self._worn_out(ask.names, now))
        return max(found, key=lambda stop: stop.until, default=None)

    def outage(self, now: datetime) -> Stop | None:
        """What keeps everybody from asking this CA anything, also what is no order."""
        stop = self.stops.get(Scope(Kind.CA))
        return stop if stop is not None and now < stop.until else None

    def turn(self, ask: Ask, rates: Rates | None, now: datetime) -> datetime:
        """When `ask` may be ordered by every bucket that it counts for; not before `now`."""
        buckets = self._buckets(ask, rates)
        return max((_next(self.full.get(key), bucket, now) for key, bucket in buckets), default=now)

    def turns(self, asks: Sequence[Ask], rates: Rates | None, now: datetime) -> list[datetime]:
        """When each of a queue is to be asked, whoever is first in it first.

        At whole tens of minutes (`PAUSE`), so that those who are put off by several runs share
        the next ones all the same.
        """
        moments = self.moments(asks, rates, now)
        return [min(_next_pause(moment), now + LONGEST_TURN) for moment in moments]

    def moments(self, asks: Sequence[Ask], rates: Rates | None, now: datetime) -> list[datetime]:
        """When each of a queue could be ordered.

        Who has to wait for a name doesn't keep those behind from the account's orders meanwhile.
        """
        full, moments = dict(self.full), [now] * len(asks)
        for of_account in (False, True):
            for number in sorted(range(len(asks)), key=moments.__getitem__):
                buckets = {
                    key: bucket
                    for key, bucket in self._buckets(asks[number], rates)
                    if (key == _ACCOUNT) is of_account
                }
                moments[number] = _taken(full, buckets, moments[number])
        return moments

    def _buckets(self, ask: Ask, rates: Rates | None) -> Iterator[tuple[str, Bucket]]:
        """Those that an order counts for, and whose they are."""
        if rates is None or ask.free:
            return
        yield _ACCOUNT, rates.account
        if rates.registered_name is not None:
            for name in self.full:
                if name != _ACCOUNT and _is_about(Kind.BELOW, name, ask.names):
                    yield name, rates.registered_name

    def _worn_out(self, names: Iterable[str], now: datetime) -> Iterator[Stop]:
        for name in names:
            times = _lately(self.failed.get(name, ()), now)
            if len(times) >= TRIES:
                words = f"{name} has failed {len(times)} times within an hour"
                yield Stop(times[-TRIES] + HOURLY, words)

    # What happened; each returns what is to be remembered then

    def ordered(self, ask: Ask, rates: Rates | None, now: datetime) -> Limits:
        """An order is about to be made."""
        full = dict(self.full)
        for key, bucket in self._buckets(ask, rates):
            full[key] = max(full.get(key, now), now) + timedelta(seconds=bucket.seconds)
        return replace(self, full=full)

    def refused(
        self, error: AcmeError, ask: Ask, rates: Rates | None, now: datetime, dice: float
    ) -> Limits:
        """It was asked for, and the CA said no or nothing."""
        stops, full = dict(self.stops), dict(self.full)
        for scope in scopes(error, ask):
            stops[scope] = stop = self._longer(scope, error, ask, now, dice)
            full.update(_emptied(scope, stop, rates, now))
        return replace(self, stops=stops, full=full)

    def _longer(self, scope: Scope, error: AcmeError, ask: Ask, now: datetime, dice: float) -> Stop:
        """The stop of a scope after an error; several that were asked at once failed once."""
        before = self.stops.get(scope, Stop(now, "", failures=0))
        failures = before.failures + (before.until <= now)
        said = heeded(error.retry_after, now)
        until = said or now
        if until <= now:
            said, until = None, _own_time(scope.kind, error, failures, now, dice)
        stop = Stop(until, str(error), said is not None, failures, at=now)
        return replace(
            max(before, stop, key=lambda each: each.until), renewals=ask.free or before.renewals
        )

    def failing(self, names: Iterable[str], now: datetime) -> Limits:
        """The CA looked at these names and wasn't content."""
        failed = dict(self.failed)
        for name in names:
            failed[name] = (*failed.get(name, ()), now)
        return replace(self, failed=_all_lately(failed, now))

    def succeeded(self, ask: Ask, now: datetime) -> Limits:
        """It was issued, so what is over is over for good, and the CA is there."""
        gone = {
            scope
            for scope, stop in self.stops.items()
            if (stop.until <= now or (scope.kind is Kind.CA and not stop.said))
            and _holds(scope, stop, replace(ask, forced=False))
        }
        kept = {scope: stop for scope, stop in self.stops.items() if scope not in gone}
        return replace(self, stops=kept) if gone else self

    # As it comes from disk

    def believable(self, rates: Rates | None, now: datetime) -> tuple[Limits, bool]:
        """What of it can still matter, and whether all of it can be true (`believed`)."""
        times = [(stop.until, stop.at) for stop in self.stops.values()]
        times.extend((moment, None) for moment in self.full.values())
        stops = {
            scope: stop
            for scope, stop in self.stops.items()
            if believed(stop.until, stop.at, now) and stop.until + FARTHEST > now
        }
        full = {
            key: min(moment, _latest(key, bucket, stops, now))
            for key, moment in self.full.items()
            if moment > now and believed(moment, None, now) and (bucket := _bucket(key, rates))
        }
        failed = _all_lately(self.failed, now)
        return Limits(stops, full, failed), all(believed(*each, now) for each in times)


def _own_time(kind: Kind, error: AcmeError, failures: int, now: datetime, dice: float) -> datetime:
    """Until when something is stopped, where the CA doesn't say.

    A name that is paused has no such time: somebody has to follow the link in the CA's words.
    """
    if kind is Kind.CA:
        delay = OUTAGE_RETRIES[min(failures, len(OUTAGE_RETRIES)) - 1]
        return now + delay * (1 + JITTER * (2 * dice - 1))
    permanent = error.permanent or kind is Kind.NAME
    return retry_time(failures, now, life=None, permanent=permanent, retry_after=None, dice=dice)


def _holds(scope: Scope, stop: Stop, ask: Ask) -> bool:
    """Whether a stop concerns somebody."""
    exempt = ask.free and not stop.renewals
    match scope.kind:
        case Kind.CA:
            return stop.said or not ask.forced
        case Kind.ACCOUNT:
            return not ask.registered and (stop.said or not ask.forced)
        case Kind.ORDERS:
            return not exempt and (stop.said or not ask.forced)
        case Kind.BELOW:
            return not exempt and not ask.forced and _is_about(scope.kind, scope.name, ask.names)
        case Kind.NAME:
            return not ask.forced and _is_about(scope.kind, scope.name, ask.names)


def _is_about(kind: Kind, said: str, names: Iterable[str]) -> bool:
    """Whether what a CA said is one of these names, or above one of them.

    A word without a dot is above none: "in" is no domain there.
    """
    if said in names:
        return True
    if kind is Kind.NAME:
        return False
    if ":" in said or "/" in said:
        return any(_is_within(name, said) for name in names)
    return "." in said and any(name.endswith(f".{said}") for name in names)


def _is_within(name: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(name) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _bucket(key: str, rates: Rates | None) -> Bucket | None:
    if rates is None:
        return None
    return rates.account if key == _ACCOUNT else rates.registered_name


def _next(full: datetime | None, bucket: Bucket, now: datetime) -> datetime:
    """When a bucket that is full again at `full` lets the next order through."""
    if full is None:
        return now
    return max(now, full - timedelta(seconds=(bucket.orders - 1) * bucket.seconds))


def _next_pause(moment: datetime) -> datetime:
    return _EPOCH + math.ceil((moment - _EPOCH) / PAUSE) * PAUSE


def _taken(full: dict[str, datetime], buckets: Mapping[str, Bucket], now: datetime) -> datetime:
    """When all of these buckets let an order through; they have one less then."""
    moments = (_next(full.get(key), bucket, now) for key, bucket in buckets.items())
    moment = max(moments, default=now)
    for key, bucket in buckets.items():
        full[key] = max(full.get(key, moment), moment) + timedelta(seconds=bucket.seconds)
    return moment


def _emptied(scope: Scope, stop: Stop, rates: Rates | None, now: datetime) -> dict[str, datetime]:
    """The bucket that a refusal shows to be empty: when the stop is over, there is one order."""
    bucket = _bucket(scope.name, rates)
    if bucket is None or not stop.said or scope.kind not in {Kind.ORDERS, Kind.BELOW}:
        return {}
    return {scope.name: min(_full_after(stop, bucket), now + FARTHEST)}


def _full_after(stop: Stop, bucket: Bucket) -> datetime:
    """When a bucket is full again that gets its first order when a stop is over."""
    return stop.until + timedelta(seconds=(bucket.orders - 1) * bucket.seconds)


def _latest(key: str, bucket: Bucket, stops: Mapping[Scope, Stop], now: datetime) -> datetime:
    """When a bucket is full again at the latest, by a clock that may have been set back."""
    stop = stops.get(Scope(Kind.BELOW, key) if key else Scope(Kind.ORDERS))
    empty = now + timedelta(seconds=bucket.orders * bucket.seconds)
    return max(empty, _full_after(stop, bucket)) if stop else empty


def _lately(times: Iterable[datetime], now: datetime) -> tuple[datetime, ...]:
    return tuple(at for at in times if abs(now - at) < HOURLY)


def _all_lately(
    times: Mapping[str, tuple[datetime, ...]], now: datetime
) -> dict[str, tuple[datetime, ...]]:
    return {name: lately for name, at in times.items() if (lately := _lately(at, now))}
