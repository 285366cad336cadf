"""What is known of each certificate, as people and programs read it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from nginx_acme.report import Overview, Row, span
from nginx_acme.report.document import to_json
from nginx_acme.report.table import to_text

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)

ROW = Row(
    label="example.com",
    names=("example.com", "www.example.com"),
    issuer="letsencrypt",
    directory_url="https://ca.example/directory",
    key_type="ecdsa:256",
    profile=None,
    state="valid",
    not_before=NOW - 30 * DAY,
    not_after=NOW + 60 * DAY,
    issued_by="R11",
    renewal=NOW + 30 * DAY,
    next_attempt=None,
    failures=0,
    problem=None,
    path="/state/certificates/example.com/ecdsa-256.pem",
    places=("/etc/nginx/nginx.conf:7",),
)
MISSING = replace(
    ROW,
    names=("a.example",),
    state="missing",
    not_before=None,
    not_after=None,
    renewal=None,
    next_attempt=NOW + timedelta(minutes=10),
)


def of(*rows: Row) -> Overview:
    """An nginx with these certificates."""
    return Overview(
        now=NOW,
        instance="nginx.conf-3f2a",
        state="/state",
        nginx_pid=7,
        agent_pid=None,
        last_look=NOW - timedelta(hours=1),
        rows=rows,
    )


def test_table() -> None:
    """A line for each certificate, in columns, and its names where there are several."""
    assert to_text(of(ROW, MISSING)).splitlines() == [
        "CERTIFICATE  ISSUER       KEY        STATE    EXPIRES            NEXT",
        "example.com  letsencrypt  ecdsa:256  valid    2027-04-30 (60 d)  in 30 d",
        "    names: example.com, www.example.com",
        "a.example    letsencrypt  ecdsa:256  missing  -                  in 10 min",
    ]


@pytest.mark.parametrize(
    ("failures", "said"),
    [
        pytest.param(0, "    too many", id="kept from asking"),
        pytest.param(1, "    failed 1 time: too many", id="once"),
        pytest.param(2, "    failed 2 times: too many", id="twice"),
    ],
)
def test_problem(failures: int, said: str) -> None:
    """What is wrong stands below, and how often it was."""
    row = replace(MISSING, failures=failures, problem="too many")
    assert to_text(of(row)).splitlines()[-1] == said


def test_nothing() -> None:
    """No certificates are told in words."""
    assert to_text(of()) == "no certificates\n"


def test_document() -> None:
    """Every fact is in the document, times in UTC, absent ones null."""
    document = json.loads(json.dumps(to_json(of(MISSING))))
    assert document["schema"] == 1
    assert document.keys() - {"schema", "state_path", "certificates"} == set(Overview.__slots__) - {
        "state",
        "rows",
    }
    assert (document["nginx_pid"], document["agent_pid"]) == (7, None)
    assert document["now"] == "2027-03-01T12:00:00Z"
    assert document["last_look"] == "2027-03-01T11:00:00Z"
    (found,) = document["certificates"]
    assert found.keys() - {"servers"} == set(Row.__slots__) - {"places"}
    assert found["servers"] == ["/etc/nginx/nginx.conf:7"]
    assert found["next_attempt"] == "2027-03-01T12:10:00Z"
    assert (found["not_after"], found["served"], found["left_out"]) == (None, None, [])


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
