"""What is said of a certificate, and of all of them, in one word and one sentence."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from nginx_acme.report import span
from nginx_acme.report.verdict import ACT, WATCH, WELL, coming, gravest, headline, trouble, verdict
from tests.report.rows import (
    ALL,
    DEGRADED,
    EXPIRED,
    FAILING,
    NEW,
    NOW,
    REVOKED,
    STAND_IN,
    TEMPORARY,
    UNSERVED,
    VALID,
    of,
)

if TYPE_CHECKING:
    from nginx_acme.report import Row


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param(VALID, WELL, id="valid"),
        pytest.param(replace(VALID, state="due"), WELL, id="due, and nothing has gone wrong"),
        pytest.param(replace(VALID, served=True), WELL, id="seen to be served"),
        pytest.param(FAILING, WATCH, id="not renewed yet"),
        pytest.param(replace(VALID, problem="not now"), WATCH, id="kept from asking"),
        pytest.param(NEW, WATCH, id="on its way"),
        pytest.param(DEGRADED, WATCH, id="without a name"),
        pytest.param(TEMPORARY, ACT, id="a temporary one in its place, and no way to another"),
        pytest.param(STAND_IN, ACT, id="another one in its place"),
        pytest.param(EXPIRED, ACT, id="expired"),
        pytest.param(replace(EXPIRED, failures=0, problem=None), ACT, id="expired untried"),
        pytest.param(replace(REVOKED, failures=0, problem=None), ACT, id="revoked"),
        pytest.param(UNSERVED, ACT, id="not served"),
    ],
)
def test_verdict(row: Row, expected: str) -> None:
    """What visitors get decides, and whether it is being put right by itself."""
    assert verdict(row) == expected


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param((), "There are no certificates", id="none"),
        pytest.param((VALID,), "The certificate is well", id="one"),
        pytest.param((VALID, VALID), "All 2 certificates are well", id="all"),
        pytest.param((VALID, NEW), "1 of 2 certificates is being worked on", id="one of two"),
        pytest.param((NEW,), "The certificate is being worked on", id="the only one"),
        pytest.param((EXPIRED, EXPIRED), "All 2 certificates need you", id="all of them"),
        pytest.param(ALL, "5 of 9 certificates need you", id="the gravest are counted"),
    ],
)
def test_headline(rows: tuple[Row, ...], expected: str) -> None:
    """One sentence says whether there is anything to do."""
    assert headline(of(*rows)) == expected


def test_gravest() -> None:
    """The gravest of all is that of the whole."""
    assert gravest(of()) == WELL
    assert gravest(of(VALID, NEW)) == WATCH
    assert gravest(of(VALID, EXPIRED, NEW)) == ACT


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param(VALID, "renewal in 30 d", id="renewal"),
        pytest.param(FAILING, "next renewal in 100 min", id="renewal again"),
        pytest.param(NEW, "request in 10 min", id="the first one"),
        pytest.param(replace(NEW, next_attempt=NOW), "request now", id="now"),
        pytest.param(TEMPORARY, "next request in 10 min", id="again"),
        pytest.param(replace(NEW, next_attempt=None), "", id="nobody knows"),
    ],
)
def test_coming(row: Row, expected: str) -> None:
    """What comes next is said, and when."""
    assert coming(row, NOW) == expected


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param(VALID, None, id="nothing"),
        pytest.param(replace(NEW, problem="too many"), "too many", id="kept from asking"),
        pytest.param(
            replace(NEW, failures=1, problem="too many"), "failed 1 time: too many", id="once"
        ),
        pytest.param(TEMPORARY, "failed 4 times: too many (rateLimited)", id="often"),
        pytest.param(DEGRADED, "without www.half.example", id="degraded"),
        pytest.param(UNSERVED, "not served: another certificate is shown", id="not served"),
        pytest.param(replace(VALID, served=False), "not served", id="not served, without words"),
        pytest.param(
            replace(DEGRADED, failures=2, problem="no such host"),
            "without www.half.example; failed 2 times: no such host",
            id="both",
        ),
    ],
)
def test_trouble(row: Row, expected: str | None) -> None:
    """What is wrong is said in the words of who knows, and how often it went wrong."""
    assert trouble(row) == expected


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        pytest.param(3, "3 s", id="seconds"),
        pytest.param(119, "119 s", id="not yet minutes"),
        pytest.param(720, "12 min", id="minutes"),
        pytest.param(7 * 3600, "7 h", id="hours"),
        pytest.param(59 * 86400 + 1, "59 d", id="days"),
        pytest.param(-2 * 86400, "-2 d", id="past"),
    ],
)
def test_span(seconds: float, words: str) -> None:
    """A length of time is told in its largest unit that it has twice."""
    assert span(timedelta(seconds=seconds)) == words
