"""Which programs are told what and when, by how certificates stand and what was told before."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_acme.hooks.due import (
    AGAIN,
    ANEW,
    Told,
    calls,
    deployed,
    expiring,
    failed,
    heard,
    next_look,
    settled,
)
from nginx_acme.hooks.told import from_fields, to_fields
from nginx_acme.plan import Hook
from nginx_acme.report import Row

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
SUBJECT = ("a.example", "ecdsa:256")

DEPLOYED, FAILED, EXPIRING, RECOVERED = (
    Hook(event, "/hook") for event in ("deployed", "failed", "expiring", "recovered")
)


def row(label: str = "a.example", *, left: timedelta = 60 * DAY, **facts: Any) -> Row:
    """A certificate of 90 days that is renewed with 30 days left."""
    end = NOW + left
    due = end - 30 * DAY
    good = Row(
        label=label,
        names=(label,),
        issuer="letsencrypt",
        directory_url="https://ca.example/directory",
        key_type="ecdsa:256",
        profile=None,
        state="valid" if due > NOW else "due" if end > NOW else "expired",
        not_before=end - 90 * DAY,
        not_after=end,
        issued_by="R11",
        renewal=due,
        next_attempt=None,
        failures=0,
        problem=None,
        path=f"/state/certificates/{label}/ecdsa-256.pem",
        places=("/etc/nginx/nginx.conf:7",),
        served=True,
        serial="1f",
    )
    return replace(good, **facts)


MISSING: dict[str, Any] = {
    "state": "missing",
    "not_before": None,
    "not_after": None,
    "renewal": None,
    "serial": None,
}
TEMPORARY: dict[str, Any] = {"state": "temporary", "renewal": None, "served": None}


@pytest.mark.parametrize(
    ("one", "is_deployed", "wrong", "near"),
    [
        pytest.param(row(), True, None, None, id="good"),
        pytest.param(row(served=None), True, None, None, id="not to be seen"),
        pytest.param(row(served=False), False, "not served", None, id="not served"),
        pytest.param(row(failures=2, problem="x"), True, None, None, id="failed twice"),
        pytest.param(row(failures=3, problem="x"), True, "not renewed", None, id="failed thrice"),
        pytest.param(row(left=29 * DAY), True, None, None, id="due"),
        pytest.param(row(left=16 * DAY, problem="x"), True, None, "1/4", id="half is not yet gone"),
        pytest.param(row(left=15 * DAY, problem="x"), True, "not renewed", "1/4", id="half gone"),
        pytest.param(row(left=15 * DAY), True, None, "1/4", id="half gone, nobody tried"),
        pytest.param(row(left=23 * DAY), True, None, None, id="more than a quarter left"),
        pytest.param(row(left=22 * DAY), True, None, "1/4", id="a quarter left"),
        pytest.param(row(left=9 * DAY), True, None, "1/10", id="a tenth left"),
        pytest.param(row(left=-DAY), False, None, "1/10", id="expired"),
        pytest.param(row(left=-DAY, problem="x"), False, "not renewed", "1/10", id="lost"),
        pytest.param(
            row(left=20 * DAY, state="valid", renewal=NOW + DAY),
            True,
            None,
            None,
            id="renewed later",
        ),
        pytest.param(row(**MISSING), False, None, None, id="missing"),
        pytest.param(
            row(**MISSING, failures=3, problem="x"), False, "not renewed", None, id="never came"
        ),
        pytest.param(row(**TEMPORARY), False, None, None, id="temporary"),
        pytest.param(row(**TEMPORARY, left=DAY), False, None, None, id="an old temporary one"),
    ],
)
def test_what_there_is_to_say(
    one: Row,
    is_deployed: bool,  # noqa: FBT001
    wrong: str | None,
    near: str | None,
) -> None:
    """Of each certificate, whatever was told before."""
    assert deployed([one]) == ({SUBJECT: "1f"} if is_deployed else {})
    assert failed([one], NOW) == ({SUBJECT: wrong} if wrong else {})
    assert expiring([one], NOW) == ({SUBJECT: f"1f {near}"} if near else {})


class Operator:
    """Programs for these events, told run by run; they end as `exits` says."""

    def __init__(self, *hooks: Hook) -> None:
        self._hooks = hooks
        self._told: dict[Hook, Told] = {}
        self.exits = True

    def run(self, now: datetime, *rows: Row) -> list[tuple[str, set[str]]]:
        """The events of a run and the labels of their certificates."""
        self._told = settled(from_fields(to_fields(self._told)), self._hooks, rows, now)
        made = [call for call in calls(self._told, rows, now) if call.earliest <= now]
        for call in made:
            self._told[call.hook] = heard(self._told[call.hook], call, now, taken=self.exits)
        return [(call.hook.event, {label for label, _ in call.marks}) for call in made]

    def next(self, now: datetime, *rows: Row) -> datetime | None:
        """When there is more."""
        return next_look(self._told, rows, now)


A, B = {"a.example"}, {"b.example"}
GOOD, OTHER = row(), row("b.example")
BAD, OTHER_BAD = row(failures=3, problem="x"), row("b.example", failures=3, problem="x")


def test_deployed_again_until_taken() -> None:
    """Each run tells it until it is taken; without another run it is an hour to the next."""
    operator = Operator(DEPLOYED)
    operator.exits = False
    assert operator.run(NOW, GOOD) == [("deployed", A)]
    assert operator.next(NOW, GOOD) == NOW + HOUR
    assert operator.run(NOW + MINUTE, GOOD, OTHER) == [("deployed", A | B)]
    operator.exits = True
    assert operator.run(NOW + HOUR, GOOD, OTHER) == [("deployed", A | B)]
    assert operator.next(NOW + HOUR, GOOD, OTHER) is None
    assert operator.run(NOW + 2 * HOUR, GOOD, OTHER) == []
    assert operator.run(NOW + DAY, row(serial="20"), OTHER) == [("deployed", A)]


def test_deployed_once_for_each() -> None:
    """What was seen to be served, then not for a while, is not told as new again."""
    operator = Operator(DEPLOYED)
    assert operator.run(NOW, GOOD) == [("deployed", A)]
    assert operator.run(NOW + HOUR, row(served=False), OTHER) == [("deployed", B)]
    assert operator.run(NOW + DAY, GOOD, OTHER) == []


def test_failed_daily() -> None:
    """All of them in one call, once a day; others that join are told after an hour at least."""
    operator = Operator(FAILED)
    assert operator.run(NOW, BAD, OTHER_BAD) == [("failed", A | B)]
    assert operator.next(NOW, BAD, OTHER_BAD) == NOW + AGAIN
    assert operator.run(NOW + 23 * HOUR, BAD, OTHER_BAD) == []
    assert operator.run(NOW + 24 * HOUR, BAD) == [("failed", A)]
    assert operator.run(NOW + 24 * HOUR + MINUTE, BAD, OTHER_BAD) == []
    assert operator.next(NOW + 24 * HOUR + MINUTE, BAD, OTHER_BAD) == NOW + AGAIN + ANEW
    assert operator.run(NOW + 25 * HOUR, BAD, OTHER_BAD) == [("failed", A | B)]
    worse = replace(BAD, served=False)
    assert operator.run(NOW + 26 * HOUR, worse, OTHER_BAD) == [("failed", A | B)]


def test_failed_daily_though_it_is_not_taken() -> None:
    """A program that mails and then fails is no reason for a mail with each run."""
    operator = Operator(FAILED)
    operator.exits = False
    assert operator.run(NOW, BAD) == [("failed", A)]
    assert operator.run(NOW + 2 * HOUR, BAD) == []


def test_expiring_twice() -> None:
    """With a quarter and with a tenth of the life left, each once, and again for the next one."""
    operator = Operator(EXPIRING)
    days = {day: operator.run(NOW, row(left=day * DAY)) for day in range(30, -5, -1)}
    assert [day for day, told in days.items() if told] == [22, 9]
    assert operator.run(NOW, GOOD) == []
    assert operator.run(NOW, row(left=20 * DAY, serial="20")) == [("expiring", A)]


def test_expiring_is_tried_again() -> None:
    """Once a day until it is taken."""
    operator, late = Operator(EXPIRING), row(left=20 * DAY)
    operator.exits = False
    assert operator.run(NOW, late) == [("expiring", A)]
    assert operator.run(NOW + 23 * HOUR, late) == []
    assert operator.next(NOW, late) == NOW + AGAIN
    operator.exits = True
    assert operator.run(NOW + DAY, late) == [("expiring", A)]
    assert operator.run(NOW + 3 * DAY, late) == []


@pytest.mark.parametrize("bad", [BAD, row(left=20 * DAY), row(served=False)])
def test_recovered_once(bad: Row) -> None:
    """When what was told is over; never of what wasn't told."""
    operator = Operator(FAILED, EXPIRING, RECOVERED)
    assert operator.run(NOW, GOOD, OTHER) == []
    assert len(operator.run(NOW, bad, OTHER)) == 1
    operator.exits = False
    assert operator.run(NOW + DAY, GOOD, OTHER) == [("recovered", A)]
    assert operator.next(NOW + DAY, GOOD, OTHER) == NOW + DAY + AGAIN
    operator.exits = True
    assert operator.run(NOW + 2 * DAY, GOOD, OTHER) == [("recovered", A)]
    assert operator.run(NOW + 4 * DAY, GOOD, OTHER) == []


def test_recovered_only_when_all_is_well() -> None:
    """One that doesn't fail any more and is near its end has not recovered."""
    operator = Operator(FAILED, EXPIRING, RECOVERED)
    events = operator.run(NOW, row(left=15 * DAY, failures=3, problem="x"))
    assert events == [("failed", A), ("expiring", A)]
    assert operator.run(NOW + DAY, row(left=15 * DAY)) == []
    assert operator.run(NOW + 2 * DAY, GOOD) == [("recovered", A)]


def test_bad_again_before_recovery_was_told() -> None:
    """It is told as failed; a recovery that is over already isn't told."""
    operator = Operator(FAILED, RECOVERED)
    assert operator.run(NOW, BAD) == [("failed", A)]
    operator.exits = False
    assert operator.run(NOW + HOUR, GOOD) == [("recovered", A)]
    operator.exits = True
    assert operator.run(NOW + 25 * HOUR, BAD) == [("failed", A)]
    assert operator.run(NOW + 27 * HOUR, GOOD) == [("recovered", A)]


def test_no_longer_wanted() -> None:
    """Of a certificate that the configuration gave up nothing is told."""
    operator = Operator(DEPLOYED, FAILED, RECOVERED)
    operator.run(NOW, BAD, OTHER)
    assert operator.run(NOW + DAY, OTHER) == []
    assert operator.next(NOW + DAY, OTHER) is None


def test_a_new_program_knows_nothing() -> None:
    """What is there is told to a program that is new in the configuration, and to no other one."""
    operator = Operator(DEPLOYED)
    operator.run(NOW, GOOD)
    new = Hook("deployed", "/other")
    operator._hooks = (DEPLOYED, new)
    assert operator.run(NOW, GOOD) == [("deployed", A)]
    assert operator.run(NOW, GOOD) == []


def test_a_clock_that_was_wrong() -> None:
    """A call in the future was made long ago."""
    operator = Operator(FAILED)
    assert operator.run(NOW + 365 * DAY, BAD) == [("failed", A)]
    assert operator.run(NOW, BAD) == [("failed", A)]
    assert operator.run(NOW + HOUR, BAD) == []


ROWS = st.builds(
    row,
    st.sampled_from(["a.example", "b.example", "c.example"]),
    left=st.integers(-5, 80).map(lambda day: day * DAY),
    failures=st.integers(0, 5),
    problem=st.sampled_from([None, "x"]),
    served=st.sampled_from([True, False, None]),
    serial=st.sampled_from(["1f", "20"]),
)
RUNS = st.lists(
    st.tuples(
        st.integers(0, 3000), st.lists(ROWS, max_size=3, unique_by=lambda x: x.label), st.booleans()
    ),
    max_size=12,
)


@given(RUNS)
def test_whatever_happens(runs: list[tuple[int, list[Row], bool]]) -> None:
    """Failures are told daily at most where nothing is new, recoveries only of what was told."""
    operator, now, last = Operator(DEPLOYED, FAILED, EXPIRING, RECOVERED), NOW, NOW - 9 * DAY
    troubled: set[str] = set()
    for minutes, rows, exits in runs:
        now += minutes * MINUTE
        operator.exits = exits
        told = dict(operator.run(now, *rows))
        assert told.get("recovered", set()) <= troubled
        if "failed" in told:
            assert now - last >= ANEW
            last = now
        troubled |= told.get("failed", set()) | told.get("expiring", set())
        again = operator.next(now, *rows)
        assert again is None or now < again <= now + AGAIN


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"hooks": 7},
        {"hooks": [7, {}, {"event": "failed"}]},
        {"hooks": [{"event": "failed", "program": "/hook", "at": 7, "marks": [["a"], 7]}]},
    ],
)
def test_broken_notes(fields: dict[str, object]) -> None:
    """What is broken on disk was never told."""
    assert all(told == Told() for told in from_fields(fields).values())
