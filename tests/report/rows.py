"""Certificates in every state, for what is told of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from nginx_acme.report import Overview, Row

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)

VALID = Row(
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
    renewal_by="lifetime",
    next_attempt=None,
    failures=0,
    problem=None,
    path="/state/certificates/example.com/ecdsa-256.pem",
    places=("/etc/nginx/nginx.conf:7",),
)
FAILING = replace(
    VALID,
    label="failing.example",
    names=("failing.example",),
    state="due",
    not_before=NOW - 75 * DAY,
    not_after=NOW + 15 * DAY,
    renewal=NOW - 15 * DAY,
    next_attempt=NOW + timedelta(minutes=100),
    failures=3,
    problem="failing.example: no such host (dns)",
)
NEW = replace(
    VALID,
    label="new.example",
    names=("new.example",),
    state="missing",
    not_before=None,
    not_after=None,
    issued_by=None,
    renewal=None,
    renewal_by=None,
    next_attempt=NOW + timedelta(minutes=10),
)
TEMPORARY = replace(
    NEW,
    label="dead.example",
    names=("dead.example",),
    state="temporary",
    not_before=NOW,
    not_after=NOW + 90 * DAY,
    issued_by="nginx-acme temporary certificate",
    failures=4,
    problem="too many (rateLimited)",
)
STAND_IN = replace(TEMPORARY, label="other.example", names=("other.example",), state="other")
EXPIRED = replace(
    FAILING,
    label="old.example",
    names=("old.example",),
    state="expired",
    not_before=NOW - 92 * DAY,
    not_after=NOW - 2 * DAY,
)
REVOKED = replace(FAILING, label="stolen.example", names=("stolen.example",), state="revoked")
DEGRADED = replace(
    VALID, label="half.example", names=("half.example",), left_out=("www.half.example",)
)
UNSERVED = replace(
    VALID,
    label="behind.example",
    names=("behind.example",),
    served=False,
    unproved="another certificate is shown",
)
ALL = (VALID, FAILING, NEW, TEMPORARY, STAND_IN, EXPIRED, REVOKED, DEGRADED, UNSERVED)


def of(*rows: Row) -> Overview:
    """An nginx with these certificates."""
    return Overview(
        now=NOW,
        instance="nginx.conf-3f2a",
        state="/state",
        nginx_pid=7,
        agent_pid=None,
        last_look=NOW - HOUR,
        rows=rows,
    )
