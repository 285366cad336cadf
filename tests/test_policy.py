"""When to renew and when to ask again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_acme import policy
from nginx_acme.errors import Problem
from nginx_acme.policy import Keep, Life, Renew, Wait, decide, renewal_time, retry_time

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


def life(age: timedelta, left: timedelta) -> Life:
    """A validity seen from now."""
    return Life(NOW - age, NOW + left)


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        pytest.param(90 * DAY, 60 * DAY, id="two thirds of 90 days"),
        pytest.param(45 * DAY, 30 * DAY, id="two thirds of 45 days"),
        pytest.param(10 * DAY, 20 * DAY / 3, id="ten days are not short"),
        pytest.param(160 * HOUR, 80 * HOUR, id="half of 160 hours"),
        pytest.param(7 * DAY, 3.5 * DAY, id="half of a week"),
    ],
)
def test_renewal_time(length: timedelta, expected: timedelta) -> None:
    """A certificate is renewed with a third of its life left, a short one with half of it."""
    assert renewal_time(Life(NOW, NOW + length)) == NOW + expected


@given(st.timedeltas(timedelta(0), 400 * DAY))
def test_renewal_time_is_inside_the_validity(length: timedelta) -> None:
    """No renewal before the certificate is valid or after it has expired."""
    moment = renewal_time(Life(NOW, NOW + length))
    assert NOW <= moment <= NOW + length


@pytest.mark.parametrize(
    ("one", "next_attempt", "expected"),
    [
        pytest.param(life(DAY, 89 * DAY), None, Keep(NOW + 59 * DAY), id="young"),
        pytest.param(
            life(DAY, 89 * DAY), NOW + DAY, Keep(NOW + 59 * DAY), id="young, failed in the past"
        ),
        pytest.param(life(60 * DAY, 30 * DAY), None, Renew("it expires on 2027-03-31"), id="due"),
        pytest.param(life(90 * DAY, -DAY), None, Renew("it expired on 2027-02-28"), id="expired"),
        pytest.param(None, None, Renew("there is no certificate yet"), id="missing"),
        pytest.param(
            None, NOW + HOUR, Wait(NOW + HOUR, "there is no certificate yet"), id="missing, failed"
        ),
        pytest.param(None, NOW, Renew("there is no certificate yet"), id="the wait is over"),
        pytest.param(
            None, NOW + 9 * DAY, Renew("there is no certificate yet"), id="an absurd stored time"
        ),
    ],
)
def test_decide(one: Life | None, next_attempt: datetime | None, expected: policy.Decision) -> None:
    """A right certificate is kept until it is due; nothing is asked before its next attempt."""
    due = renewal_time(one) if one else None
    assert decide(one, due, next_attempt, NOW) == expected


@pytest.mark.parametrize(
    ("failures", "one", "permanent", "retry_after", "expected"),
    [
        pytest.param(1, None, False, None, MINUTE, id="first"),
        pytest.param(2, None, False, None, 10 * MINUTE, id="second"),
        pytest.param(3, None, False, None, 100 * MINUTE, id="third"),
        pytest.param(4, None, False, None, 3 * HOUR, id="fourth, nothing to serve"),
        pytest.param(7, None, False, None, DAY, id="seventh, nothing to serve"),
        pytest.param(99, None, False, None, DAY, id="daily for ever"),
        pytest.param(4, life(60 * DAY, 30 * DAY), False, None, DAY, id="much life left"),
        pytest.param(4, life(60 * DAY, 2 * DAY), False, None, 4.8 * HOUR, id="a tenth of the rest"),
        pytest.param(9, life(60 * DAY, HOUR), False, None, HOUR, id="at most hourly"),
        pytest.param(9, life(90 * DAY, -DAY), False, None, DAY, id="expired is nothing to serve"),
        pytest.param(1, None, True, None, DAY, id="permanent"),
        pytest.param(1, None, False, NOW + 5 * HOUR, 5 * HOUR, id="Retry-After"),
        pytest.param(3, None, False, NOW + MINUTE, 100 * MINUTE, id="Retry-After is a lower bound"),
        pytest.param(1, None, False, NOW + 30 * DAY, MINUTE, id="absurd Retry-After"),
    ],
)
def test_retry_time(
    failures: int,
    one: Life | None,
    permanent: bool,  # noqa: FBT001
    retry_after: datetime | None,
    expected: timedelta,
) -> None:
    """Retries grow rare by the integration guide's steps, and the CA's word is a lower bound."""
    moment = retry_time(
        failures, NOW, life=one, permanent=permanent, retry_after=retry_after, dice=0.5
    )
    assert moment - NOW == expected


@given(st.integers(1, 50), st.floats(0, 1, exclude_max=True))
def test_retries_are_bounded(failures: int, dice: float) -> None:
    """Whatever the dice say: never sooner than 48 seconds, never later than 29 hours."""
    moment = retry_time(failures, NOW, life=None, permanent=False, retry_after=None, dice=dice)
    assert 48 * timedelta(seconds=1) <= moment - NOW <= 28.8 * HOUR


def test_four_attempts_an_hour_at_most() -> None:
    """A name that fails and fails is not validated five times in an hour, whatever the dice say."""
    moment, attempts = NOW, 1
    while moment <= NOW + HOUR:
        moment = retry_time(
            attempts, moment, life=None, permanent=False, retry_after=None, dice=0.0
        )
        attempts += moment <= NOW + HOUR
    assert attempts == 3


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        pytest.param(datetime(1970, 1, 1, tzinfo=UTC), False, id="no battery"),
        pytest.param(NOW, True, id="set"),
    ],
)
def test_clock_is_set(now: datetime, expected: bool) -> None:  # noqa: FBT001
    """A clock before the release was made is no clock."""
    assert policy.clock_is_set(now) is expected


# The words are Boulder's (ratelimits/limiter.go, wfe2/wfe.go).
@pytest.mark.parametrize(
    ("refusal", "all_of_them"),
    [
        pytest.param(
            ("rateLimited", "too many new orders (300) from this account in the last 3h0m0s,"), True
        ),
        pytest.param(
            ("rateLimited", "too many new registrations (10) from this IP address in the last"),
            True,
        ),
        pytest.param(
            ("rateLimited", 'too many certificates (50) already issued for "example.co.uk" in'),
            False,
            id="a domain above",
        ),
        pytest.param(
            ("rateLimited", 'too many certificates (50) already issued for "ample.co.uk" in'),
            True,
            id="a part of a name is no name",
        ),
        pytest.param(
            ("rateLimited", "too many certificates (5) already issued for this exact set of"),
            False,
            id="these names",
        ),
        pytest.param(
            ("rateLimited", 'too many failed authorizations (5) for "www.example.co.uk" in'),
            False,
            id="one name",
        ),
        pytest.param(
            ("rateLimited", "prevented from requesting certificates for *.example.co.uk. Please"),
            False,
            id="paused",
        ),
        pytest.param(("rateLimited", "too many for [2001:db8::1]"), False, id="address"),
        pytest.param(("rateLimited", ""), True, id="no words"),
        pytest.param(("userActionRequired", "Terms have changed"), True),
        pytest.param(("unauthorized", "403"), False),
        pytest.param(("serverInternal", "500"), False),
    ],
)
def test_whom_a_refusal_stops(refusal: tuple[str, str], all_of_them: bool) -> None:  # noqa: FBT001
    """A limit that names a name is that name's; any other one, and terms, are everybody's."""
    names = ("www.example.co.uk", "*.example.co.uk", "2001:db8::1")
    assert policy.stops_all(Problem(*refusal), names) is all_of_them


@pytest.mark.parametrize(
    ("type_", "status", "all_of_them"),
    [
        pytest.param("about:blank", 503, True, id="load balancer"),
        pytest.param("serverInternal", 503, True, id="maintenance"),
        pytest.param("about:blank", 429, True, id="too many requests"),
        pytest.param("about:blank", 500, False, id="a fault"),
        pytest.param("about:blank", 403, False, id="a firewall"),
    ],
)
def test_whom_a_status_stops(type_: str, status: int, all_of_them: bool) -> None:  # noqa: FBT001
    """A CA that is too busy is so for everybody."""
    assert policy.stops_all(Problem(type_, "", status=status), ["a.example"]) is all_of_them


def test_subproblem_names() -> None:
    """A name may be said by a subproblem alone."""
    about = Problem("rateLimited", "too many", identifier="a.example")
    refusal = Problem("rateLimited", "some are limited", subproblems=(about,))
    assert not policy.stops_all(refusal, ["a.example"])
    assert policy.stops_all(refusal, ["b.example"])
