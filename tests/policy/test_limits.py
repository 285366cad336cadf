"""Whom a refusal stops and for how long, and whose turn it is."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_acme.acme.presets import LETSENCRYPT, LETSENCRYPT_STAGING, rates
from nginx_acme.errors import AcmeError, OrderFailed, Problem, UnexpectedAnswer, Unreachable
from nginx_acme.policy import FARTHEST, Life
from nginx_acme.policy.limits import (
    LONGEST_TURN,
    PAUSE,
    TRIES,
    Ask,
    Kind,
    Limits,
    Scope,
    Stop,
    rank,
    scopes,
)

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
RATES = rates(LETSENCRYPT)
SITE = Ask(frozenset({"www.example.co.uk", "*.example.co.uk", "203.0.113.7", "2001:db8::1"}))
CA, ACCOUNT, ORDERS = Scope(Kind.CA), Scope(Kind.ACCOUNT), Scope(Kind.ORDERS)


def ask(*names: str) -> Ask:
    """Somebody who wants a certificate for these."""
    return Ask(frozenset(names))


def limited(detail: str, seconds: float | None = None) -> Problem:
    """A rate limit of Boulder's."""
    later = None if seconds is None else NOW + seconds * SECOND
    return Problem("rateLimited", detail, status=429, retry_after=later)


def refused(limits: Limits, error: AcmeError, who: Ask = SITE, now: datetime = NOW) -> Limits:
    """What is remembered, with dice that spread nothing."""
    return limits.refused(error, who, RATES, now, 0.5)


# --- whom a refusal stops -------------------------------------------------------------------

SEE = ", retry after 2027-03-01 23:00:00 UTC: see https://letsencrypt.org/docs/rate-limits/#"


# ratelimits/limiter.go, wfe2/wfe.go; the exact set was one of "domains" until 2025.
@pytest.mark.parametrize(
    ("detail", "expected"),
    [
        pytest.param(
            f"too many new registrations (10) from this IP address in the last 3h0m0s{SEE}new",
            [ACCOUNT],
            id="accounts of an address",
        ),
        pytest.param(
            "too many new registrations (500) from this /48 subnet of IPv6 addresses in the last"
            f" 3h0m0s{SEE}new-registrations-per-ipv6-range",
            [ACCOUNT],
            id="accounts of a subnet",
        ),
        pytest.param(
            f"too many new orders (300) from this account in the last 3h0m0s{SEE}new-orders",
            [ORDERS],
            id="orders",
        ),
        pytest.param(
            'too many certificates (50) already issued for "example.co.uk" in the last'
            f" 168h0m0s{SEE}new-certificates-per-registered-domain",
            [Scope(Kind.BELOW, "example.co.uk")],
            id="a registered name",
        ),
        pytest.param(
            f'too many certificates (50) already issued for "ample.co.uk" in the last{SEE}new',
            [],
            id="a part of a name is no name",
        ),
        pytest.param(
            f'too many certificates (50) already issued for "203.0.113.7" in the last{SEE}new',
            [Scope(Kind.BELOW, "203.0.113.7")],
            id="an address",
        ),
        pytest.param(
            f'too many certificates (50) already issued for "2001:db8::/64" in the last{SEE}new',
            [Scope(Kind.BELOW, "2001:db8::/64")],
            id="a network",
        ),
        pytest.param(
            "too many certificates (5) already issued for this exact set of identifiers in the last"
            f" 168h0m0s{SEE}new-certificates-per-exact-set-of-identifiers",
            [],
            id="this set",
        ),
        pytest.param(
            f"too many certificates (5) already issued for this exact set of domains in the{SEE}",
            [],
            id="this set, as it was called before",
        ),
        pytest.param(
            f'too many failed authorizations (5) for "www.example.co.uk" in the last 1h0m0s{SEE}',
            [Scope(Kind.NAME, "www.example.co.uk")],
            id="failures of a name",
        ),
        pytest.param(
            "Your account is temporarily prevented from requesting certificates for"
            " *.example.co.uk, www.example.co.uk and possibly others. Please visit:"
            " https://portal.letsencrypt.org/sfe/v1/unpause?jwt=ey.ey.ey",
            [Scope(Kind.NAME, "*.example.co.uk"), Scope(Kind.NAME, "www.example.co.uk")],
            id="paused names",
        ),
        pytest.param("Service busy; retry later.", [CA], id="the load balancer"),
        pytest.param(
            "quota of domain example.co.uk. exceeded",
            [Scope(Kind.BELOW, "example.co.uk")],
            id="another CA, of a name",
        ),
        pytest.param("quota exceeded in the last hour", [ORDERS], id="another CA"),
        pytest.param("", [ORDERS], id="no words"),
        pytest.param(
            f"too many things{SEE}", [ORDERS], id="a name in a URL is nobody's, see letsencrypt.org"
        ),
    ],
)
def test_scopes_of_rate_limits(detail: str, expected: list[Scope]) -> None:
    """A rate limit stops what it names: new accounts, orders, a name and what is below it."""
    who = replace(SITE, names=SITE.names | {"www.letsencrypt.org"})
    assert list(scopes(limited(detail), who)) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(Unreachable("ca.example: Connection refused"), [CA], id="no answer"),
        pytest.param(Problem("about:blank", "", status=503), [CA], id="load balancer"),
        pytest.param(Problem("serverInternal", "maintenance", status=503), [CA], id="maintenance"),
        pytest.param(Problem("about:blank", "", status=429), [CA], id="too many requests"),
        pytest.param(Problem("userActionRequired", "Terms have changed"), [ORDERS], id="terms"),
        pytest.param(Problem("about:blank", "", status=500), [], id="a fault"),
        pytest.param(Problem("about:blank", "", status=403), [], id="a firewall"),
        pytest.param(Problem("unauthorized", "403", status=403), [], id="a name's fault"),
        pytest.param(
            Problem("unauthorized", 'Account is not valid, has status "revoked"', status=403),
            [ORDERS],
            id="a closed account",
        ),
        pytest.param(
            Problem("unauthorized", "account 1: www.example.co.uk is not valid for it", status=403),
            [],
            id="a name that is not the account's",
        ),
        pytest.param(UnexpectedAnswer("not JSON"), [], id="nonsense"),
        pytest.param(OrderFailed({"a.example": limited("")}), [], id="a failed order"),
        pytest.param(
            Problem(
                "rateLimited",
                "some are limited",
                subproblems=(Problem("rateLimited", "", identifier="www.example.co.uk"),),
            ),
            [Scope(Kind.BELOW, "www.example.co.uk")],
            id="named by a subproblem alone",
        ),
    ],
)
def test_scopes_of_errors(error: AcmeError, expected: list[Scope]) -> None:
    """A CA that is gone or too busy is so for all; a fault is the certificate's it was said to."""
    assert list(scopes(error, SITE)) == expected


def test_scope_without_account() -> None:
    """What an applicant is refused who has no account yet is about accounts."""
    assert scopes(limited("slow down"), replace(SITE, registered=False)) == (ACCOUNT,)


# --- for how long ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("detail", "stopped", "free_to_ask"),
    [
        pytest.param("for this account", [ask("b.example")], [], id="orders"),
        pytest.param(
            'too many certificates (50) already issued for "example.co.uk"',
            [ask("example.co.uk"), ask("b.example", "a.b.example.co.uk")],
            [ask("b.example"), ask("badexample.co.uk")],
            id="a registered name",
        ),
        pytest.param(
            'too many failed authorizations (5) for "www.example.co.uk"',
            [ask("www.example.co.uk"), ask("b.example", "www.example.co.uk")],
            [ask("a.www.example.co.uk"), ask("example.co.uk")],
            id="one name",
        ),
    ],
)
def test_stop(detail: str, stopped: list[Ask], free_to_ask: list[Ask]) -> None:
    """Learned from one certificate, a limit stops everybody whom it concerns, and nobody else."""
    limits = refused(Limits(), limited(detail, 5000))
    for who in stopped:
        stop = limits.stop(who, NOW + 4999 * SECOND)
        assert stop is not None
        assert stop.because == f"{detail} (rateLimited)"
        assert limits.stop(who, NOW + 5000 * SECOND) is None
    assert all(limits.stop(who, NOW) is None for who in free_to_ask)


@pytest.mark.parametrize(
    ("error", "delays"),
    [
        pytest.param(Unreachable("gone"), [1, 10, 60, 60, 60], id="no answer"),
        pytest.param(limited("orders"), [1, 10, 100, 180, 360, 720, 1440, 1440], id="no time"),
        pytest.param(
            limited("prevented from requesting certificates for www.example.co.uk"),
            [1440, 1440],
            id="paused",
        ),
        pytest.param(Problem("userActionRequired", "terms"), [1440, 1440], id="terms"),
        pytest.param(limited("orders", -5), [1, 10], id="a time that is over"),
    ],
)
def test_own_time(error: AcmeError, delays: list[float]) -> None:
    """Where the CA names no time, stops grow longer with each that was in vain."""
    limits, now = Limits(), NOW
    for minutes in delays:
        limits = refused(limits, error, now=now)
        stop = limits.stop(SITE, now)
        assert stop is not None
        assert not stop.said
        assert stop.until - now == minutes * MINUTE
        now = stop.until


def test_absurd_time() -> None:
    """A CA that wants to be left alone for a month is, for as long as a stored time is believed."""
    limits = refused(Limits(), Problem("about:blank", "", status=503, retry_after=NOW + 30 * DAY))
    stop = limits.stop(SITE, NOW)
    assert stop is not None
    assert (stop.until, stop.said) == (NOW + FARTHEST, True)
    assert limits.believable(RATES, NOW) == (limits, True)


def test_at_once() -> None:
    """Twenty who were refused side by side are one failure, and the longest time counts."""
    limits = Limits()
    for seconds in (30, 90, 60):
        limits = refused(limits, limited("orders", seconds))
    assert limits.stops[ORDERS] == Stop(
        NOW + 90 * SECOND, "orders (rateLimited)", said=True, at=NOW
    )


def test_success() -> None:
    """What was issued ends the failures in a row, and a CA that answers is not gone."""
    limits = refused(Limits(), Unreachable("gone"))
    limits = refused(limits, limited("orders", 60))
    limits = limits.succeeded(SITE, NOW + 30 * SECOND)
    assert set(limits.stops) == {ORDERS}
    assert limits.succeeded(SITE, NOW + 60 * SECOND).stops == {}


@pytest.mark.parametrize(
    ("error", "who", "stopped"),
    [
        pytest.param(limited("orders", 60), {"free": True}, False, id="orders, a renewal"),
        pytest.param(Unreachable("gone"), {"free": True}, True, id="no answer, a renewal"),
        pytest.param(limited("orders", 60), {"forced": True}, True, id="orders, forced"),
        pytest.param(limited("orders"), {"forced": True}, False, id="no time, forced"),
        pytest.param(Unreachable("gone"), {"forced": True}, False, id="no answer, forced"),
        pytest.param(limited("a.example", 60), {"forced": True}, False, id="a name, forced"),
        pytest.param(limited("a.example", 60), {"free": True}, False, id="a name, a renewal"),
        pytest.param(
            limited("failed authorizations a.example", 60), {"free": True}, True, id="bad name"
        ),
        pytest.param(limited("new registrations", 60), {}, False, id="accounts, has one"),
        pytest.param(
            limited("new registrations", 60), {"registered": False}, True, id="accounts, has none"
        ),
    ],
)
def test_exempt(error: AcmeError, who: dict[str, bool], stopped: bool) -> None:  # noqa: FBT001
    """Renewals don't count for orders, and an operator may ask again what only we had put off."""
    limits = refused(Limits(), error, ask("a.example"))
    one = Ask(frozenset({"a.example"}), **who)
    assert (limits.stop(one, NOW) is not None) is stopped


def test_renewal_refused() -> None:
    """A CA where renewals do count says so once, and then they wait like all the others."""
    limits = refused(Limits(), limited("orders", 60), replace(SITE, free=True))
    assert limits.stop(replace(ask("b.example"), free=True), NOW) is not None


def test_worn_out() -> None:
    """A name that the CA found wanting four times waits until an hour after the first of them."""
    limits = Limits()
    for minute in range(TRIES):
        assert limits.stop(ask("a.example", "b.example"), NOW + minute * MINUTE) is None
        limits = limits.failing(["a.example"], NOW + minute * MINUTE)
    forced = replace(ask("a.example"), forced=True)
    for who in (ask("a.example", "b.example"), forced):
        stop = limits.stop(who, NOW + TRIES * MINUTE)
        assert stop is not None
        assert stop.until == NOW + HOUR
        assert limits.stop(who, stop.until) is None
    assert limits.stop(ask("b.example"), NOW + TRIES * MINUTE) is None
    later = NOW + 2 * HOUR
    assert limits.failing(["b.example"], later).failed == {"b.example": (later,)}


# --- whose turn it is -----------------------------------------------------------------------


def life(left: timedelta) -> Life:
    """A certificate that expires then."""
    return Life(NOW - DAY, NOW + left)


def test_rank() -> None:
    """Renewals by expiry, what is not there yet, second key types, what has failed before."""
    in_order = [
        rank(life(-DAY), 0, second=False),
        rank(life(DAY), 0, second=False),
        rank(life(20 * DAY), 0, second=True),
        rank(None, 0, second=False),
        rank(None, 0, second=True),
        rank(life(-DAY), 3, second=False),
        rank(life(DAY), 1, second=False),
        rank(None, 2, second=False),
    ]
    assert in_order == sorted(in_order)
    assert len(set(in_order)) == len(in_order)


def test_bucket() -> None:
    """300 orders at once and one every 36 seconds after them; a renewal is none of them."""
    limits, who = Limits(), ask("a.example")
    for _ in range(300):
        assert limits.turn(who, RATES, NOW) == NOW
        limits = limits.ordered(who, RATES, NOW)
    assert limits.turn(who, RATES, NOW) == NOW + 36 * SECOND
    renewal = replace(who, free=True)
    assert limits.turn(renewal, RATES, NOW) == NOW
    assert limits.ordered(renewal, RATES, NOW) == limits
    limits = limits.ordered(who, RATES, NOW + 36 * SECOND)
    assert limits.turn(who, RATES, NOW + 36 * SECOND) == NOW + 72 * SECOND
    assert limits.turn(who, RATES, NOW + 4 * HOUR) == NOW + 4 * HOUR
    assert Limits().ordered(who, None, NOW) == Limits()


@pytest.mark.parametrize(
    ("detail", "every"),
    [
        pytest.param("too many new orders (300) from this account", 36, id="orders"),
        pytest.param("too many certificates (50) already for example.co.uk", 12096, id="a name"),
    ],
)
def test_bucket_after_a_refusal(detail: str, every: float) -> None:
    """The CA knows better how full a bucket is: after its time there is one, and not fifty."""
    limits = refused(Limits(), limited(detail, 100))
    after = NOW + 100 * SECOND
    assert limits.turn(SITE, RATES, NOW) == limits.turn(SITE, RATES, after) == after
    limits = limits.ordered(SITE, RATES, after)
    assert limits.turn(SITE, RATES, after) == after + every * SECOND


def test_no_bucket_for_names() -> None:
    """Where registered names are unlimited, a refusal that names one has no bucket."""
    staging = rates(LETSENCRYPT_STAGING)
    limits = Limits().refused(limited("example.co.uk", 100), SITE, staging, NOW, 0.5)
    assert limits.turn(SITE, staging, NOW) == NOW


def test_turns() -> None:
    """A queue at an empty bucket is served at whole tens of minutes."""
    limits = refused(Limits(), limited("orders", 36))
    queue = [ask(f"n{number}.example") for number in range(40)]
    first = 600 // 36
    turns = [NOW + PAUSE] * first + [NOW + 2 * PAUSE] * (first + 1) + [NOW + 3 * PAUSE] * 7
    assert limits.turns(queue, RATES, NOW) == turns
    assert limits.turns(queue, RATES, NOW + MINUTE)[:first] == turns[:first]


def test_turns_of_weeks() -> None:
    """Nobody is told to come back later than a stored time is believed."""
    limits = refused(Limits(), limited("example.co.uk", 36))
    moments = limits.turns([SITE] * 1000, RATES, NOW)
    assert moments[0] == NOW + PAUSE
    assert moments[-1] == NOW + LONGEST_TURN
    assert moments == sorted(moments)


def test_turns_beside_a_crowded_name() -> None:
    """Who waits a week for a name keeps nobody behind from ordering meanwhile."""
    limits = refused(Limits(), limited("example.co.uk", 36))
    others = [ask(f"n{number}.example") for number in range(3)]
    assert limits.turns([*[SITE] * 100, *others], RATES, NOW)[-3:] == [NOW] * 3


@given(st.lists(st.booleans(), max_size=60), st.floats(0, 3e5), st.sampled_from([LETSENCRYPT, ""]))
def test_turns_keep_the_limit(free: list[bool], seconds: float, url: str) -> None:
    """Whoever keeps the turns never finds a bucket empty, and who is first is not served last."""
    known = rates(url)
    limits = refused(Limits(), limited("for example.co.uk", seconds))
    queue = [replace(SITE, free=one) for one in free]
    moments = limits.turns(queue, known, NOW)
    for who, moment in zip(queue, moments, strict=True):
        if moment < NOW + LONGEST_TURN:
            assert limits.turn(who, known, moment) == moment
            limits = limits.ordered(who, known, moment)
    waiting = [moment for one, moment in zip(free, moments, strict=True) if not one]
    assert waiting == sorted(waiting)


# --- what comes from disk -------------------------------------------------------------------


def test_believable() -> None:
    """What a wrong clock wrote is dropped, and said to be; what is over is forgotten in silence."""
    good = Stop(NOW + DAY, "busy", said=True)
    limits = Limits(
        {CA: good, ORDERS: Stop(NOW - 9 * DAY, "long ago")},
        {"": NOW + HOUR, "a.example": NOW - HOUR},
        {"a.example": (NOW - 2 * HOUR,), "b.example": (NOW - 2 * HOUR, NOW - MINUTE)},
    )
    kept = Limits({CA: good}, {"": NOW + HOUR}, {"b.example": (NOW - MINUTE,)})
    assert limits.believable(RATES, NOW) == (kept, True)
    assert kept.believable(RATES, NOW) == (kept, True)
    assert kept.believable(None, NOW) == (replace(kept, full={}), True)
    refusal = limited("www.example.co.uk", 5 * 86400)
    assert refused(Limits(), refusal).believable(RATES, NOW)[1]
    for wrong in (
        replace(kept, stops={CA: good, ORDERS: replace(good, until=NOW + 9 * DAY)}),
        replace(kept, stops={CA: good, ORDERS: replace(good, at=NOW + 2 * HOUR)}),
        replace(kept, full={"": NOW + HOUR, "a.example": NOW + 9 * DAY}),
    ):
        assert wrong.believable(RATES, NOW) == (kept, False)


def test_believable_bucket() -> None:
    """With the clock set back a day the bucket is empty, and full again after its own time."""
    limits = Limits().ordered(SITE, RATES, NOW + DAY)
    kept, _ = limits.believable(RATES, NOW)
    assert kept.turn(SITE, RATES, NOW) == NOW + 36 * SECOND
    assert kept.turn(SITE, RATES, NOW + 36 * SECOND) == NOW + 36 * SECOND


@given(st.integers(1, 300), st.integers(1, 100))
def test_restarts(orders: int, times: int) -> None:
    """However often it is read again, what is remembered is the same."""
    limits = refused(Limits(), limited("example.co.uk", 3600)).failing(["a.example"], NOW)
    for _ in range(orders):
        limits = limits.ordered(ask("b.example"), RATES, NOW)
    again = limits
    for _ in range(times):
        again, believed = again.believable(RATES, NOW)
        assert believed
    assert again == limits
