"""What a program is told: a document, the main things in its environment, and one sentence.

Words of others (a CA's) are escaped where they come from and cut here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nginx_acme.report import span
from nginx_acme.report.document import certificate, time_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nginx_acme.hooks.due import Call
    from nginx_acme.report import Overview, Row

SCHEMA = 1
"""Raised when a field changes its meaning or goes away."""
LONGEST_WORDS = 2000  # characters
LONGEST_VALUE = 1 << 16
"""Bytes of a variable; the kernel takes no more than twice as many (MAX_ARG_STRLEN)."""
_FEW = 3


def document(call: Call, overview: Overview, host: str) -> dict[str, Any]:
    """The JSON on stdin: certificates as in ``status --json``, each with the `reason`."""
    rows = _rows(call, overview)
    return {
        "schema": SCHEMA,
        "event": call.hook.event,
        "message": sentence(call, overview),
        "now": time_text(overview.now),
        "host": host,
        "instance": overview.instance,
        "state_path": overview.state,
        "certificates": [
            {
                **certificate(row),
                "problem": row.problem and row.problem[:LONGEST_WORDS],
                "reason": _reason(call, row),
            }
            for row in rows
        ],
    }


def variables(call: Call, overview: Overview) -> dict[str, str]:
    """The main things in the environment; lists have a space between."""
    rows = _rows(call, overview)
    return {
        "NGINX_ACME_EVENT": call.hook.event,
        "NGINX_ACME_MESSAGE": sentence(call, overview),
        "NGINX_ACME_NAMES": _list(name for row in rows for name in row.names),
        "NGINX_ACME_FILES": _list(row.path for row in rows if row.serial),
    }


def sentence(call: Call, overview: Overview) -> str:
    """What there is to say, for the subject of a mail or a pager."""
    rows = _rows(call, overview)
    names = _some([row.names[0] for row in rows])
    first = rows[0]
    match call.hook.event:
        case "deployed":
            words = f"new certificate for {names}"
        case "failed":
            said = first.unproved if first.served is False else first.problem
            kinds = " and ".join(sorted(set(call.marks.values())))
            words = f"{kinds}: {names}" + (f": {said}" if said else "")
        case "expiring":
            end = min((row.not_after for row in rows if row.not_after), default=overview.now)
            left = end - overview.now
            words = (
                f"expires in {span(left)}: {names}" if end > overview.now else f"expired: {names}"
            )
        case _:
            words = f"all is well again: {names}"
    return words[:LONGEST_WORDS]


def _reason(call: Call, row: Row) -> str:
    """Why it is told: `new`, `not renewed` or `not served`, the share left, or what is over."""
    mark = call.marks[row.label, row.key_type]
    match call.hook.event:
        case "deployed":
            return "new"
        case "expiring":
            return mark.rpartition(" ")[2]
        case _:
            return mark


def _rows(call: Call, overview: Overview) -> list[Row]:
    return [row for row in overview.rows if (row.label, row.key_type) in call.marks]


def _some(names: Sequence[str]) -> str:
    few = list(dict.fromkeys(names))
    more = f" and {len(few) - _FEW} more" if len(few) > _FEW else ""
    return ", ".join(few[:_FEW]) + more


def _list(words: Iterable[str]) -> str:
    """As many of them, each once, as fit; all of them are in the document."""
    text = " ".join(dict.fromkeys(words))
    if len(text) <= LONGEST_VALUE:
        return text
    return text[: LONGEST_VALUE + 1].rpartition(" ")[0]
