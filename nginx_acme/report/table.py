"""The table of ``status``, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nginx_acme.report import span

if TYPE_CHECKING:
    from datetime import datetime

    from nginx_acme.report import Overview, Row


def to_text(overview: Overview) -> str:
    """One line for each certificate, and one more for what is wrong with it."""
    rows, now = overview.rows, overview.now
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
