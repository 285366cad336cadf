"""The line of a monitoring plugin, and its exit code."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from nginx_acme.report.plugin import State, line, to_line
from tests.report.rows import (
    DAY,
    DEGRADED,
    EXPIRED,
    FAILING,
    HOUR,
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
    from nginx_acme.report import Overview, Row

SEEN = replace(VALID, served=True)
LATE = replace(FAILING, failures=0, problem=None)

_NUMBERS = re.compile(r"(?:'[^']+'|[a-z_]+)=-?[0-9.]+(?:;[^; ]*){0,4}")


def watched(*rows: Row) -> Overview:
    """An nginx with these certificates and an agent."""
    return replace(of(*rows), agent_pid=8)


@pytest.mark.parametrize(
    ("row", "state", "words"),
    [
        pytest.param(SEEN, State.OK, "1 certificate, example.com expires in 60 d", id="good"),
        pytest.param(
            replace(VALID, served=None),
            State.OK,
            "1 certificate, example.com expires in 60 d, 1 not seen",
            id="not to be seen",
        ),
        pytest.param(
            replace(SEEN, failures=2, problem="x"),
            State.OK,
            "1 certificate, example.com expires in 60 d",
            id="failed twice",
        ),
        pytest.param(
            FAILING,
            State.WARNING,
            "failing.example failed 3 times: failing.example: no such host (dns)",
            id="failed thrice",
        ),
        pytest.param(
            replace(LATE, not_after=LATE.not_after and LATE.not_after - HOUR),
            State.WARNING,
            "failing.example expires in 14 d",
            id="half of the margin gone",
        ),
        pytest.param(
            replace(LATE, renewal=NOW - 26 * DAY, not_after=NOW + 8 * DAY, problem="x"),
            State.CRITICAL,
            "failing.example expires in 8 d: x",
            id="three quarters gone",
        ),
        pytest.param(
            DEGRADED, State.WARNING, "half.example is without www.half.example", id="degraded"
        ),
        pytest.param(
            STAND_IN,
            State.WARNING,
            "another certificate stands in for other.example: too many (rateLimited)",
            id="another one stands in",
        ),
        pytest.param(
            replace(STAND_IN, not_after=NOW - DAY, problem=None),
            State.CRITICAL,
            "other.example expired on 2027-02-28",
            id="an expired one stands in",
        ),
        pytest.param(NEW, State.CRITICAL, "new.example is missing", id="missing"),
        pytest.param(
            TEMPORARY,
            State.CRITICAL,
            "dead.example is temporary: too many (rateLimited)",
            id="temporary",
        ),
        pytest.param(
            EXPIRED,
            State.CRITICAL,
            "old.example expired on 2027-02-27: failing.example: no such host (dns)",
            id="expired",
        ),
        pytest.param(
            replace(REVOKED, problem=None),
            State.CRITICAL,
            "stolen.example is revoked",
            id="revoked",
        ),
        pytest.param(
            UNSERVED,
            State.CRITICAL,
            "behind.example is not served, another certificate is shown",
            id="not served",
        ),
    ],
)
def test_one_certificate(row: Row, state: State, words: str) -> None:
    """Critical is what visitors see or soon will, a warning what hasn't gone well so far."""
    found, text = to_line(watched(row), agent=True)
    assert (found, text.partition(" | ")[0]) == (state, f"NGINX-ACME {state.name} - {words}")


@pytest.mark.parametrize(
    ("overview", "agent", "state", "words"),
    [
        pytest.param(
            replace(watched(SEEN), nginx_pid=None),
            True,
            State.CRITICAL,
            "nginx does not run",
            id="no nginx",
        ),
        pytest.param(
            of(SEEN),
            True,
            State.CRITICAL,
            "the agent does not run, nginx-acme renew brings it back",
            id="no agent",
        ),
        pytest.param(
            of(SEEN),
            False,
            State.OK,
            "1 certificate, example.com expires in 60 d",
            id="none wanted",
        ),
        pytest.param(
            replace(watched(SEEN), last_look=NOW - 49 * HOUR),
            True,
            State.CRITICAL,
            "nobody has looked since 2027-02-27 11:00",
            id="nobody looks",
        ),
        pytest.param(
            replace(watched(SEEN), last_look=None),
            True,
            State.OK,
            "1 certificate, example.com expires in 60 d",
            id="not yet looked",
        ),
        pytest.param(watched(), True, State.OK, "no certificates", id="nothing to look at"),
    ],
)
def test_who_looks(overview: Overview, agent: bool, state: State, words: str) -> None:  # noqa: FBT001
    """That nobody looks any more is critical, whatever the certificates are like."""
    found, text = to_line(overview, agent=agent)
    assert (found, text.partition(" | ")[0]) == (state, f"NGINX-ACME {state.name} - {words}")


def test_many() -> None:
    """The gravest come first, few are told, and all are counted."""
    rows = [*[FAILING] * 4, *[TEMPORARY] * 3, SEEN]
    state, text = to_line(watched(*rows), agent=True)
    words, _, numbers = text.partition(" | ")
    assert state is State.CRITICAL
    assert words.count("is temporary") == 3
    assert words.endswith("; and 2 more")
    assert numbers == "days_left=15.0 certificates=8;;;0 warning=4;;;0 critical=3;;;0"
    assert all(map(_NUMBERS.fullmatch, numbers.split(" ")))


def test_words_of_others() -> None:
    """A CA's words are one line, cut, and can't begin the part with the numbers."""
    row = replace(FAILING, problem="one\ntwo | three=1 " + "x" * 5000)
    _, text = to_line(watched(row), agent=True)
    assert "one two / three=1 xxx" in text
    assert text.count("|") == 1
    assert "\n" not in text
    assert len(text) < 500


def test_unknown() -> None:
    """What can't be found out has a line, too."""
    assert line(State.UNKNOWN, "no way") == "NGINX-ACME UNKNOWN - no way"
    assert int(State.UNKNOWN) == 3
