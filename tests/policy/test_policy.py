"""When to renew and when to ask again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_acme import policy
from nginx_acme.errors import OrderFailed, Problem, Unreachable
from nginx_acme.policy import (
    Due,
    Keep,
    Life,
    Renew,
    Wait,
    Word,
    believed,
    decide,
    may_leave_out,
    renewal_time,
    rest_time,
    retry_time,
    when_due,
)

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


QUARTER = Life(NOW, NOW + 90 * DAY)
SHORT = Life(NOW, NOW + 160 * HOUR)


@pytest.mark.parametrize(
    ("one", "renew_before", "advised", "expected"),
    [
        pytest.param(QUARTER, None, None, Due(NOW + 60 * DAY, Word.LIFETIME), id="its life"),
        pytest.param(SHORT, None, None, Due(NOW + 80 * HOUR, Word.LIFETIME), id="a short life"),
        pytest.param(
            QUARTER, None, 55 * DAY, Due(NOW + 55 * DAY, Word.RENEWAL_INFORMATION), id="the CA's"
        ),
        pytest.param(
            QUARTER, None, 75 * DAY, Due(NOW + 75 * DAY, Word.RENEWAL_INFORMATION), id="late"
        ),
        pytest.param(
            QUARTER, None, 76 * DAY, Due(NOW + 60 * DAY, Word.LIFETIME), id="the CA's, too late"
        ),
        pytest.param(
            QUARTER,
            None,
            -DAY,
            Due(NOW + 0.9 * DAY, Word.RENEWAL_INFORMATION),
            id="at once, but not for ever",
        ),
        pytest.param(
            QUARTER, 20 * DAY, None, Due(NOW + 70 * DAY, Word.RENEW_BEFORE), id="the operator's"
        ),
        pytest.param(
            QUARTER,
            20 * DAY,
            55 * DAY,
            Due(NOW + 70 * DAY, Word.RENEW_BEFORE),
            id="the operator's before the CA's",
        ),
        pytest.param(
            QUARTER, HOUR, None, Due(NOW + 90 * DAY - HOUR, Word.RENEW_BEFORE), id="at the last"
        ),
        pytest.param(
            QUARTER, 75 * DAY, None, Due(NOW + 15 * DAY, Word.RENEW_BEFORE), id="at the first"
        ),
        pytest.param(
            SHORT, 30 * DAY, None, Due(NOW + 80 * HOUR, Word.LIFETIME), id="meant for longer ones"
        ),
        pytest.param(
            SHORT, 30 * DAY, 60 * HOUR, Due(NOW + 80 * HOUR, Word.LIFETIME), id="still not the CA's"
        ),
    ],
)
def test_when_due(
    one: Life, renew_before: timedelta | None, advised: timedelta | None, expected: Due
) -> None:
    """As the operator says, else the CA, else by its life; nobody makes it too late or too early."""
    moment = None if advised is None else NOW + advised
    assert when_due(one, renew_before=renew_before, advised=moment) == expected


LENGTHS = st.timedeltas(HOUR, 400 * DAY)


@given(
    LENGTHS,
    st.none() | st.timedeltas(timedelta(seconds=1), 400 * DAY),
    st.none() | st.datetimes(datetime(2025, 1, 1), datetime(2029, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_due_within_the_life(
    length: timedelta, renew_before: timedelta | None, advised: datetime | None
) -> None:
    """Whatever anybody says, it is renewed while it is valid, and doesn't come due."""
    one = Life(NOW, NOW + length)
    due = when_due(one, renew_before=renew_before, advised=advised)
    assert one.not_before < due.moment < one.not_after
    if due.word is not Word.RENEW_BEFORE:
        assert due.moment <= one.not_after - length / 6 + timedelta(microseconds=1)


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
    due = when_due(one) if one else None
    assert decide(one, due, next_attempt, NOW) == expected


@pytest.mark.parametrize(
    ("stored", "noted", "expected"),
    [
        pytest.param(None, NOW, False, id="none"),
        pytest.param(NOW + 8 * DAY, NOW, True, id="the longest"),
        pytest.param(NOW + 8 * DAY + MINUTE, NOW, False, id="longer"),
        pytest.param(NOW + DAY, NOW - 8 * DAY, False, id="longer, and long ago"),
        pytest.param(NOW + 8 * DAY, NOW + HOUR, True, id="the clock was set back an hour"),
        pytest.param(NOW + 2 * HOUR, NOW + HOUR + MINUTE, False, id="more than that"),
        pytest.param(NOW + 5 * DAY, NOW + 5 * DAY - MINUTE, False, id="five days ahead"),
        pytest.param(NOW + 8 * DAY, None, True, id="nobody knows when"),
        pytest.param(NOW + 9 * DAY, None, False, id="nobody knows when, but too late"),
    ],
)
def test_believed(stored: datetime | None, noted: datetime | None, expected: bool) -> None:  # noqa: FBT001
    """What a clock that was ahead has put off is not waited for."""
    assert believed(stored, noted, NOW) == (stored if expected else None)


def test_decide_as_advised() -> None:
    """Who hears of a renewal at an odd time hears that the CA wanted it."""
    one = life(DAY, 89 * DAY)
    due = Due(NOW, Word.RENEWAL_INFORMATION)
    assert decide(one, due, None, NOW) == Renew("it expires on 2027-05-29, its CA advises it now")


@pytest.mark.parametrize(
    ("age", "next_attempt", "expected"),
    [
        pytest.param(DAY, None, Renew("it is without www.example.com"), id="young"),
        pytest.param(
            DAY, NOW + HOUR, Wait(NOW + HOUR, "it is without www.example.com"), id="it has failed"
        ),
        pytest.param(70 * DAY, None, Renew("it expires on 2027-03-21"), id="due"),
        pytest.param(91 * DAY, None, Renew("it expired on 2027-02-28"), id="expired"),
    ],
)
def test_decide_without_a_name(
    age: timedelta, next_attempt: datetime | None, expected: policy.Decision
) -> None:
    """A certificate that lacks a name is asked for again, by the same retries as any other."""
    one = life(age, 90 * DAY - age)
    left_out = ("www.example.com",)
    assert decide(one, when_due(one), next_attempt, NOW, left_out=left_out) == expected


@pytest.mark.parametrize(
    ("age", "failures", "loses", "gains", "expected"),
    [
        pytest.param(None, 1, False, True, True, id="nothing to serve"),
        pytest.param(90, 1, True, False, True, id="expired"),
        pytest.param(60, 1, True, False, False, id="just due"),
        pytest.param(74, 99, True, False, False, id="life enough"),
        pytest.param(75, 1, True, False, False, id="half of the rest is gone, a first attempt"),
        pytest.param(75, 2, True, False, True, id="half of the rest is gone"),
        pytest.param(59, 9, True, True, False, id="not due, one name for another"),
        pytest.param(60, 1, False, False, True, id="due, and it lacked the name before"),
        pytest.param(30, 9, False, False, False, id="not due, nothing is gained"),
        pytest.param(30, 9, False, True, True, id="not due, one of two is good again"),
    ],
)
def test_may_leave_out(
    age: float | None,
    failures: int,
    loses: bool,  # noqa: FBT001
    gains: bool,  # noqa: FBT001
    expected: bool,  # noqa: FBT001
) -> None:
    """No name is dropped while the certificate that has it has life enough."""
    one = None if age is None else life(age * DAY, (90 - age) * DAY)
    due = None if one is None else renewal_time(one)
    assert may_leave_out(one, due, failures, NOW, loses=loses, gains=gains) is expected


DNS = Problem("dns", "NXDOMAIN", identifier="www.example.com")
LIMIT = Problem("rateLimited", "too many", identifier="www.example.com")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(OrderFailed({"www.example.com": DNS}), {"www.example.com"}, id="an order"),
        pytest.param(
            OrderFailed({"a": DNS, "b": Problem("serverInternal", "oops")}), {"a"}, id="not its own"
        ),
        pytest.param(
            Problem("rejectedIdentifier", "some", subproblems=(DNS,)),
            {"www.example.com"},
            id="CA's",
        ),
        pytest.param(Problem("rejectedIdentifier", "none is named"), set(), id="nobody named"),
        pytest.param(
            Problem("rejectedIdentifier", 'Cannot issue for "WWW.example.com": forbidden'),
            {"www.example.com"},
            id="named in the words alone",
        ),
        pytest.param(
            Problem("caa", "CAA record for www.example.com prevents issuance"),
            {"www.example.com"},
            id="forbidden by its CAA record",
        ),
        pytest.param(
            Problem("caa", "CAA record for ns.example prevents issuance"), set(), id="not asked for"
        ),
        pytest.param(
            Problem("rejectedIdentifier", "see https://www.example.com/policy"), set(), id="a page"
        ),
        pytest.param(
            Problem("caa", "no", identifier="www.example.com"), {"www.example.com"}, id="its own"
        ),
        pytest.param(Problem("badCSR", "www.example.com is no CN"), set(), id="the request's"),
        pytest.param(
            Problem("unauthorized", "no account for www.example.com"), set(), id="the account's"
        ),
        pytest.param(Problem("malformed", "", subproblems=(LIMIT,)), set(), id="a name's limit"),
        pytest.param(Problem("rateLimited", "", subproblems=(DNS,)), set(), id="a limit"),
        pytest.param(Unreachable("no route"), set(), id="nobody there"),
    ],
)
def test_dead_names(error: Unreachable | OrderFailed | Problem, expected: set[str]) -> None:
    """A name is dead by what the CA says of it, not by the CA's own trouble or limits."""
    assert policy.dead_names(error, ("example.com", "www.example.com")).keys() == expected


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
        pytest.param(1, None, False, NOW + 30 * DAY, 8 * DAY, id="absurd Retry-After"),
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


@pytest.mark.parametrize(
    ("due", "retry_after", "expected"),
    [
        pytest.param(NOW + HOUR, None, HOUR, id="it becomes due meanwhile"),
        pytest.param(NOW + 2 * DAY, None, DAY, id="it isn't due for long"),
        pytest.param(NOW - HOUR, None, DAY, id="it was due already"),
        pytest.param(NOW + HOUR, NOW + 5 * HOUR, 5 * HOUR, id="the CA wants to be left alone"),
    ],
)
def test_retry_until_due(due: datetime, retry_after: datetime | None, expected: timedelta) -> None:
    """Trying for a name that is lacking puts no renewal off."""
    one = life(60 * DAY, 30 * DAY)
    moment = retry_time(
        4, NOW, life=one, permanent=False, retry_after=retry_after, dice=0.5, due=due
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
    ("length", "expected"),
    [
        pytest.param(160 * HOUR, [1.6, 3.2, 6.4, 12.8, 24, 24], id="160 hours"),
        pytest.param(90 * DAY, [21.6, 24, 24], id="90 days"),
        pytest.param(DAY, [1, 2, 4, 8, 16, 24], id="a day"),
        pytest.param(4000 * DAY, [24, 24], id="years"),
    ],
)
def test_rest_time(length: timedelta, expected: list[float]) -> None:
    """What is due when it comes is asked for hourly at most, and soon once a day."""
    one = Life(NOW - length, NOW)
    found = [rest_time(number + 1, NOW, one) - NOW for number in range(len(expected))]
    assert found == [hours * HOUR for hours in expected]
    assert rest_time(10**6, NOW, one) == NOW + DAY


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


@pytest.mark.parametrize(
    ("due", "window_start", "expected"),
    [
        pytest.param(Due(NOW + HOUR, Word.LIFETIME), None, True, id="in an hour"),
        pytest.param(Due(NOW + HOUR + MINUTE, Word.LIFETIME), None, False, id="later"),
        pytest.param(Due(NOW + HOUR, Word.RENEW_BEFORE), None, True, id="by the operator's word"),
        pytest.param(Due(NOW + DAY, Word.RENEWAL_INFORMATION), NOW, True, id="in the CA's window"),
        pytest.param(
            Due(NOW + MINUTE, Word.RENEWAL_INFORMATION), NOW + MINUTE, False, id="before its window"
        ),
    ],
)
def test_comes_along(due: Due, window_start: datetime | None, expected: bool) -> None:  # noqa: FBT001
    """What is nearly due is renewed with others, but never before its CA's window."""
    assert policy.comes_along(due, window_start, NOW) is expected
