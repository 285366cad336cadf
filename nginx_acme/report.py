"""What is known of each certificate, for people and for programs.

What may live here: shapes and words. The facts come in as values; nothing is looked up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime, timedelta

SCHEMA = 1
"""Of the JSON; raised when a field changes its meaning or goes away."""


@dataclass(frozen=True, slots=True)
class Row:
    """One key type of one certificate.

    `state` is one of: valid, due (valid, and it is time for the next), expired, temporary (a
    stand-in that nobody trusts), other (another certificate of the store stands in), missing.
    """

    label: str
    names: tuple[str, ...]
    issuer: str
    directory_url: str
    key_type: str
    profile: str | None
    state: str
    not_before: datetime | None
    not_after: datetime | None
    issued_by: str | None
    renewal: datetime | None
    next_attempt: datetime | None
    failures: int
    problem: str | None
    path: str
    places: tuple[str, ...]


def to_json(rows: Iterable[Row], *, nginx_pid: int | None, now: datetime) -> dict[str, Any]:
    """The document of ``status --json``; times are RFC 3339 in UTC, absent facts are null."""
    return {
        "schema": SCHEMA,
        "now": _time(now),
        "nginx_pid": nginx_pid,
        "certificates": [
            {
                "label": row.label,
                "names": list(row.names),
                "issuer": row.issuer,
                "directory_url": row.directory_url,
                "key_type": row.key_type,
                "profile": row.profile,
                "state": row.state,
                "not_before": _time(row.not_before),
                "not_after": _time(row.not_after),
                "issued_by": row.issued_by,
                "renewal": _time(row.renewal),
                "next_attempt": _time(row.next_attempt),
                "failures": row.failures,
                "problem": row.problem,
                "path": row.path,
                "servers": list(row.places),
            }
            for row in rows
        ],
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def to_text(rows: Sequence[Row], now: datetime) -> str:
    """A table: one line for each certificate, and one more for what is wrong with it."""
    if not rows:
        return "no certificates\n"
    table = [("CERTIFICATE", "ISSUER", "KEY", "STATE", "EXPIRES", "NEXT")]
    table += [_cells(row, now) for row in rows]
    widths = [max(len(cells[i]) for cells in table) for i in range(len(table[0]))]
    lines = [
        "  ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)).rstrip()
        for cells in table
    ]
    text = [lines[0]]
    for row, line in zip(rows, lines[1:], strict=True):
        text.append(line)
        if len(row.names) > 1:
            text.append(f"    names: {', '.join(row.names)}")
        if row.problem:
            text.append(f"    {_failed(row.failures)}{row.problem}")
    return "\n".join(text) + "\n"


def _failed(failures: int) -> str:
    """How often; nothing where it has not failed, but may not be asked for."""
    if not failures:
        return ""
    return f"failed {failures} time{'s' * (failures != 1)}: "


def _cells(row: Row, now: datetime) -> tuple[str, str, str, str, str, str]:
    expires = (
        "-" if row.not_after is None else f"{row.not_after:%Y-%m-%d} ({span(row.not_after - now)})"
    )
    moment = row.next_attempt or row.renewal
    following = "-" if moment is None else "now" if moment <= now else f"in {span(moment - now)}"
    return row.names[0], row.issuer, row.key_type, row.state, expires, following


def span(delta: timedelta) -> str:
    """A length of time in its largest unit: ``59 d``, ``7 h``, ``12 min``, ``3 s``, ``-2 d``."""
    seconds = round(delta.total_seconds())
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if abs(seconds) >= 2 * length:
            return f"{int(seconds / length)} {unit}"
    return f"{seconds} s"
