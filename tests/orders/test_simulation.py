"""Years of renewals and a first start of a thousand names, at a CA with Let's Encrypt's limits."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from nginx_acme.errors import Problem
from nginx_acme.policy.forecast import forecast
from nginx_acme.policy.limits import PAUSE, Ask, Limits
from tests import virtual_time
from tests.simulation import (
    DAY,
    HOUR,
    MINUTE,
    PROFILE,
    YEAR,
    Clock,
    Machine,
    Outage,
    SimulatedCa,
    certificate,
)

BEGIN = datetime(2027, 1, 1, tzinfo=UTC)
BUSY = Problem("about:blank", "HTTP status 503 Service Unavailable")
LONG, SHORT = 98, 2
"""Certificates of 90 days and less, and of 160 hours."""


def at(years: float) -> datetime:
    """So many years after the beginning."""
    return BEGIN + years * YEAR


WEEK_WITHOUT = Outage(at(8.5), at(8.5) + 7 * DAY)
"""No certificate of 160 hours outlives it."""
OUTAGES = [
    *(Outage(at(year + 0.3), at(year + 0.3) + 5 * HOUR) for year in range(10)),
    *(Outage(at(year + 0.7), at(year + 0.7) + 20 * HOUR, BUSY) for year in range(10)),
    Outage(at(2.5), at(2.5) + 14 * DAY),
    Outage(at(6.5), at(6.5) + 30 * DAY),
    WEEK_WITHOUT,
]
CLOCKS = [
    (at(1.4), -DAY),
    (at(1.4) + 2 * DAY, 0 * DAY),
    (at(3.4), 40 * DAY),
    (at(3.4) + 3 * HOUR, 0 * DAY),
    (at(5.4), datetime(1970, 1, 1, tzinfo=UTC) - at(5.4)),
    (at(5.4) + 5 * HOUR, 0 * DAY),
    (at(8.4), 3 * YEAR),
    (at(8.4) + HOUR, 0 * DAY),
]
"""Set back a day, weeks ahead, before the clock is set, years ahead; each time put right again."""


@pytest.mark.timeout(900)
def test_ten_years() -> None:
    """A hundred certificates for ten years: no lapse, nothing before its time, few reloads.

    Through lives of 90, 64, 45 days and 160 hours, outages up to a month, wrong clocks, hundreds
    of restarts, and a CA that calls fifty certificates back at once.
    """

    def lifetime(now: datetime) -> timedelta:
        return (90 if now < at(3) else 64 if now < at(6) else 45) * DAY

    ca = SimulatedCa(Clock(BEGIN, CLOCKS), lifetime=lifetime, outages=OUTAGES)
    long = [certificate(f"www.n{number}.example") for number in range(LONG)]
    short = [certificate(f"s{number}.example", profile=PROFILE) for number in range(SHORT)]
    dice = random.Random(2)  # noqa: S311 - the same restarts in every run
    restarts = [at(10 * dice.random()) for _ in range(300)]
    machine = Machine(ca)

    async def live() -> int:
        machine.add(long)
        await machine.live(at(7), restarts)
        machine.add(short)
        await machine.live(at(9.5), restarts)
        ca.call_back([frozenset(name.value for name in one.names) for one in long[:50]])
        before = len(machine.reloads)
        await machine.live(at(9.5) + 2 * DAY, restarts)
        called_back = len(machine.reloads) - before
        await machine.live(at(10), restarts)
        return called_back

    called_back = virtual_time.run(live())
    assert ca.wrong == []
    assert not ca.refused
    lapses = machine.lapses(at(10))
    assert {name for name, _, _ in lapses} <= {one.names[0].value for one in short}
    for _, expired, came in lapses:
        assert WEEK_WITHOUT.start < expired < WEEK_WITHOUT.end
        assert came - WEEK_WITHOUT.end < 2 * HOUR
    issued, reloads = len(ca.issued), len(machine.reloads)
    needed = LONG * (3 * 365 / 60 + 3 * 365 / 42.6 + 4 * 365 / 30) + SHORT * 3 * 365 / 3.33
    assert issued < 1.1 * needed
    assert reloads < 800
    assert called_back <= 6
    assert ca.requests.total() - ca.requests["renewalInfo"] < 9 * issued
    assert ca.requests["renewalInfo"] < (LONG * 10 + SHORT * 3) * 365 * 1.1
    assert machine.runs < 12000


def test_first_start_of_a_thousand() -> None:
    """Who is first and how long it takes: 300 at once, the rest by the hour, one name by the day.

    One refusal tells the limit of a registered name, and none is heard twice. Restarts in between
    change nothing, and what trickles in shares a reload every ten minutes.
    """
    clock = Clock(BEGIN)
    ca = SimulatedCa(clock)
    dead = [certificate(f"www.d{number}.example") for number in range(10)]
    crowd = [certificate(f"n{number}.crowd.example") for number in range(60)]
    sites = [certificate(f"www.n{number}.example") for number in range(930)]
    ca.dead |= {one.names[0].value for one in dead}
    machine = Machine(ca)
    machine.add([*dead, *crowd, *sites])
    restarts = [BEGIN + (number + 0.4) * HOUR for number in range(30)]
    virtual_time.run(machine.live(BEGIN + 36 * HOUR, restarts))
    there = {name: moment - BEGIN for moment, name in ca.issued}
    crowded = sorted(there[one.names[0].value] for one in crowd)
    others = sorted(there[one.names[0].value] for one in sites)
    assert crowded[49] < MINUTE < 3 * HOUR < crowded[50]
    assert others[300 - 10 - 51 - 1] < MINUTE < PAUSE <= others[300 - 10 - 51]
    assert others[-1] < 7 * HOUR + MINUTE
    asks = [Ask(one.identity[1]) for one in machine.certificates]
    expected = forecast(asks, Limits(), ca.rates, BEGIN)
    assert BEGIN + crowded[-1] - expected.last < PAUSE + MINUTE
    assert ca.wrong == []
    assert ca.refused == {"too many certificates (50) already issued for": 1}
    assert ca.requests["newOrder"] < len(ca.issued) + 1 + 10 * 10
    gaps = [later - sooner for sooner, later in pairwise(machine.reloads)]
    assert sum(gap < 9 * MINUTE for gap in gaps) <= 2  # the CA's own time for the crowded name
    assert len(machine.reloads) < 60
