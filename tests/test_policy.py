"""When to renew and when to ask again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_acme import policy
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
    assert decide(one, next_attempt, NOW) == expected


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
