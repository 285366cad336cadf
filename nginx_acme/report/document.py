"""The JSON of ``status --json``: times are RFC 3339 in UTC, what isn't known is null."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    from nginx_acme.report import Overview, Row

SCHEMA = 1
"""Raised when a field changes its meaning or goes away."""


def to_json(overview: Overview) -> dict[str, Any]:
    """The whole document."""
    return {
        "schema": SCHEMA,
        "now": time_text(overview.now),
        "instance": overview.instance,
        "state_path": overview.state,
        "nginx_pid": overview.nginx_pid,
        "agent_pid": overview.agent_pid,
        "last_look": time_text(overview.last_look),
        "silent": overview.silent,
        "certificates": [certificate(row) for row in overview.rows],
    }


def certificate(row: Row) -> dict[str, Any]:
    """One of its certificates, of one key type."""
    return {
        "label": row.label,
        "names": list(row.names),
        "left_out": list(row.left_out),
        "issuer": row.issuer,
        "directory_url": row.directory_url,
        "key_type": row.key_type,
        "profile": row.profile,
        "state": row.state,
        "serial": row.serial,
        "not_before": time_text(row.not_before),
        "not_after": time_text(row.not_after),
        "issued_by": row.issued_by,
        "renewal": time_text(row.renewal),
        "renewal_by": row.renewal_by,
        "explanation_url": row.explanation_url,
        "next_attempt": time_text(row.next_attempt),
        "failures": row.failures,
        "problem": row.problem,
        "served": row.served,
        "unproved": row.unproved,
        "path": row.path,
        "servers": list(row.places),
    }


def time_text(moment: datetime | None) -> str | None:
    """A time as the document has it."""
    return None if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%SZ")
