"""How long a big first issue takes, before anybody is asked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from nginx_acme.acme.presets import LETSENCRYPT, LETSENCRYPT_STAGING, Rates, rates
from nginx_acme.policy.forecast import forecast, likely_registered
from nginx_acme.policy.limits import Ask, Limits

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def known(url: str) -> Rates:
    """What is known of an issuer."""
    found = rates(url)
    assert found is not None
    return found


def queue(number: int, below: str) -> list[Ask]:
    """So many, for one name each."""
    return [Ask(frozenset({f"n{each}.{below.format(each)}"})) for each in range(number)]


@pytest.mark.parametrize(
    ("waiting", "hours"),
    [
        pytest.param(queue(300, "site{}.example"), 0, id="all at once"),
        pytest.param(queue(1000, "site{}.example"), 7, id="a thousand"),
        pytest.param([], 0, id="none"),
    ],
)
def test_last(waiting: list[Ask], hours: float) -> None:
    """300 orders are there at once, a thousand in seven hours."""
    assert forecast(waiting, Limits(), known(LETSENCRYPT), NOW).last == NOW + hours * HOUR


def test_crowded() -> None:
    """A thousand below one registered name take 133 days, and keep nobody else behind."""
    waiting = [*queue(1000, "example.co.uk"), *queue(50, "site.example"), *queue(9, "co.uk")]
    expected = forecast(waiting, Limits(), known(LETSENCRYPT), NOW)
    number, last = expected.crowded["example.co.uk"]
    assert (number, (last - NOW).days) == (1000, 133)
    assert list(expected.crowded) == ["example.co.uk"]
    assert expected.last == last


def test_crowded_where_that_is_no_limit() -> None:
    """At a CA that doesn't count registered names, only the account's orders take time."""
    expected = forecast(queue(1000, "example.org"), Limits(), known(LETSENCRYPT_STAGING), NOW)
    assert (expected.last, expected.crowded) == (NOW, {})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("example.org", "example.org"),
        ("*.www.example.org", "example.org"),
        ("www.example.co.uk", "example.co.uk"),
        ("example.com.br", "example.com.br"),
        ("a.b.example.de", "example.de"),
        ("co.uk", "co.uk"),
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("localhost", "localhost"),
    ],
)
def test_likely_registered(name: str, expected: str) -> None:
    """The last labels are a guess, and not a bad one."""
    assert likely_registered(name) == expected
