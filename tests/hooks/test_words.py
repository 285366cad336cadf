"""What a program is told: a document, a few variables, a sentence."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from nginx_acme.hooks.due import Call
from nginx_acme.hooks.words import LONGEST_VALUE, LONGEST_WORDS, document, sentence, variables
from nginx_acme.plan import Hook
from nginx_acme.report import Overview, Row

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)

ROW = Row(
    label="example.com",
    names=("example.com", "www.example.com"),
    issuer="letsencrypt",
    directory_url="https://ca.example/directory",
    key_type="ecdsa:256",
    profile=None,
    state="due",
    not_before=NOW - 80 * DAY,
    not_after=NOW + 10 * DAY,
    issued_by="R11",
    renewal=NOW - 20 * DAY,
    next_attempt=NOW + DAY,
    failures=3,
    problem="no such name",
    path="/state/certificates/example.com/ecdsa-256.pem",
    places=("/etc/nginx/nginx.conf:7",),
    served=True,
    serial="1f",
)


def numbered(count: int) -> list[Row]:
    """So many certificates."""
    names = [f"{n}.example" for n in range(count)]
    return [
        replace(ROW, label=name, names=(name,), path=f"/{name}", failures=n)
        for n, name in enumerate(names)
    ]


def told(event: str, reason: str, *rows: Row) -> tuple[Call, Overview]:
    """A call about these; there is one more certificate, which it isn't about."""
    marks = {(row.label, row.key_type): reason for row in rows}
    other = replace(ROW, label="other", names=("other.example",))
    overview = Overview(NOW, "nginx.conf-3f2a", "/state", 7, 8, NOW, (other, *rows))
    return Call(Hook(event, "/hook"), marks, NOW), overview


@pytest.mark.parametrize(
    ("event", "reason", "rows", "expected"),
    [
        ("deployed", "1f", [ROW], "new certificate for example.com"),
        (
            "deployed",
            "1f",
            numbered(5),
            "new certificate for 0.example, 1.example, 2.example and 2 more",
        ),
        ("failed", "not renewed", [ROW], "not renewed: example.com: no such name"),
        ("failed", "not renewed", [replace(ROW, problem=None)], "not renewed: example.com"),
        (
            "failed",
            "not served",
            [replace(ROW, served=False, unproved="127.0.0.1:443 shows another one")],
            "not served: example.com: 127.0.0.1:443 shows another one",
        ),
        ("expiring", "1f 1/4", [ROW], "expires in 10 d: example.com"),
        ("expiring", "1f 1/10", [replace(ROW, not_after=NOW - DAY)], "expired: example.com"),
        (
            "recovered",
            "failed",
            [ROW, replace(ROW, key_type="rsa:2048")],
            "all is well again: example.com",
        ),
    ],
)
def test_sentence(event: str, reason: str, rows: list[Row], expected: str) -> None:
    """One for all certificates of a call, for the subject of a mail."""
    assert sentence(*told(event, reason, *rows)) == expected


def test_document() -> None:
    """Certificates are told as in `status --json`, each with the reason; of no other one."""
    call, overview = told("failed", "not renewed", ROW)
    text = json.loads(json.dumps(document(call, overview, "web1")))
    (certificate,) = text.pop("certificates")
    assert text == {
        "schema": 1,
        "event": "failed",
        "message": "not renewed: example.com: no such name",
        "now": "2027-03-01T12:00:00Z",
        "host": "web1",
        "instance": "nginx.conf-3f2a",
        "state_path": "/state",
    }
    assert certificate["names"] == ["example.com", "www.example.com"]
    assert (certificate["reason"], certificate["problem"]) == ("not renewed", "no such name")
    assert (certificate["serial"], certificate["renewal"]) == ("1f", "2027-02-09T12:00:00Z")


@pytest.mark.parametrize(
    ("event", "mark", "reason"),
    [
        ("deployed", "1f", "new"),
        ("failed", "not served", "not served"),
        ("expiring", "1f 1/4", "1/4"),
        ("recovered", "expiring", "expiring"),
    ],
)
def test_reason(event: str, mark: str, reason: str) -> None:
    """Each certificate has the reason why it is told."""
    (certificate,) = document(*told(event, mark, ROW), "web1")["certificates"]
    assert certificate["reason"] == reason


def test_variables() -> None:
    """The main things are variables; of what isn't there, there is no file."""
    missing = replace(ROW, label="b.example", names=("b.example",), serial=None)
    assert variables(*told("failed", "not renewed", ROW, missing)) == {
        "NGINX_ACME_EVENT": "failed",
        "NGINX_ACME_MESSAGE": "not renewed: example.com, b.example: no such name",
        "NGINX_ACME_NAMES": "example.com www.example.com b.example",
        "NGINX_ACME_FILES": "/state/certificates/example.com/ecdsa-256.pem",
    }


def test_bounds() -> None:
    """No words of a CA and no number of names are more than a program can be given."""
    rows = [replace(row, problem="x" * 9999) for row in numbered(20_000)]
    call, overview = told("failed", "not renewed", *rows)
    given = variables(call, overview)
    assert all(len(value) <= LONGEST_VALUE for value in given.values())
    names = given["NGINX_ACME_NAMES"].split(" ")
    assert names == [row.names[0] for row in rows[: len(names)]]
    assert len(names) > 1000
    assert len(sentence(call, overview)) == LONGEST_WORDS
    text = document(call, overview, "web1")
    assert len(text["certificates"]) == 20_000
    assert len(text["certificates"][0]["problem"]) == LONGEST_WORDS
