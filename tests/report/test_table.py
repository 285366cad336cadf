"""The table of `status`, as people read it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from nginx_acme.report.table import to_text
from tests.report.rows import ALL, DAY, EXPIRED, FAILING, NEW, NOW, TEMPORARY, VALID, of

if TYPE_CHECKING:
    from nginx_acme.report import Overview

SGR = re.compile(r"\x1b\[[0-9;]*m")


def test_table() -> None:
    """What there is to do, who looks after it, and a line for each certificate, in columns."""
    assert to_text(of(VALID, FAILING, NEW)).splitlines() == [
        "2 of 3 certificates are being worked on",
        "nginx runs (pid 7), no agent beside it, last look 60 min ago",
        "",
        "  CERTIFICATE      ISSUER       STATE    EXPIRES            NEXT",
        "  example.com      letsencrypt  valid    2027-04-30 (60 d)  in 30 d",
        "    www.example.com",
        "* failing.example  letsencrypt  due      2027-03-16 (15 d)  in 100 min",
        "    failed 3 times: failing.example: no such host (dns); next renewal in 100 min",
        "* new.example      letsencrypt  missing  -                  in 10 min",
    ]


def test_what_needs_somebody() -> None:
    """It is marked, a stand-in's end is not told, and two words say what can be done."""
    lines = to_text(of(TEMPORARY, EXPIRED)).splitlines()
    assert lines[0] == "All 2 certificates need you"
    assert lines[4:] == [
        "! dead.example  letsencrypt  temporary  -                  in 10 min",
        "    failed 4 times: too many (rateLimited); next request in 10 min",
        "! old.example   letsencrypt  expired    2027-02-27 (-2 d)  in 100 min",
        "    failed 3 times: failing.example: no such host (dns); next request in 100 min",
        "",
        "What is in the way is shown by: nginx-acme doctor",
        "One is asked for at once by: nginx-acme renew --force NAME",
    ]


def test_nobody_looks() -> None:
    """When the last look is long ago, it is said that nobody looks, and what can be done."""
    stale = replace(of(VALID), last_look=NOW - 3 * DAY)
    lines = to_text(stale).splitlines()
    assert lines[1].endswith("last look 3 d ago")
    assert lines[2].startswith("Nobody looks after them")
    assert to_text(replace(stale, last_look=NOW - DAY)).splitlines()[2] == ""


def test_key_types() -> None:
    """Where they differ, they are told."""
    lines = to_text(of(VALID, replace(VALID, key_type="rsa:2048"))).splitlines()
    assert lines[3].split() == ["CERTIFICATE", "ISSUER", "KEY", "STATE", "EXPIRES", "NEXT"]
    assert [line.split()[2] for line in (lines[4], lines[6])] == ["ecdsa:256", "rsa:2048"]


@pytest.mark.parametrize(
    ("overview", "around"),
    [
        pytest.param(of(), "nginx runs (pid 7), no agent beside it, last look 60 min ago", id="it"),
        pytest.param(
            replace(of(), agent_pid=8),
            "nginx runs (pid 7), the agent too (pid 8), last look 60 min ago",
            id="agent",
        ),
        pytest.param(
            replace(of(), nginx_pid=None, last_look=None),
            "nginx does not run, nobody has looked yet",
            id="nothing",
        ),
    ],
)
def test_around(overview: Overview, around: str) -> None:
    """Who runs and who looks is told also where there is no certificate."""
    assert to_text(overview).splitlines() == ["There are no certificates", around]


@pytest.mark.parametrize("width", [80, 100, 120])
def test_terminal(width: int) -> None:
    """No line is longer than the terminal, however long the names and the words of a CA are."""
    names = tuple(f"{letter * 50}.a-long-name.example" for letter in "abcdefghij")
    rows = [replace(row, names=names, issuer="letsencrypt-staging") for row in ALL]
    wordy = [replace(row, problem=f"https://{'x' * 200} " + 30 * "words ") for row in rows]
    rsa = replace(rows[0], key_type="rsa:2048")
    lines = to_text(of(*rows, *wordy, rsa), width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert any(line.endswith("10 names in all") for line in lines)
    assert any(line[2:].startswith("aaaaaaaaaa") and "..." in line for line in lines)


def test_colors() -> None:
    """Colours change nothing of what is said, and are in nothing where nobody wants them."""
    plain, colored = to_text(of(*ALL), width=80), to_text(of(*ALL), width=80, colored=True)
    assert SGR.sub("", colored) == plain
    assert not SGR.search(plain)
    assert "\x1b[31mexpired" in colored
    assert "\x1b[32mvalid" in colored
