"""What programs have been told, as it is noted in the instance: one entry for each hook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nginx_acme.hooks.due import Told
from nginx_acme.plan import Hook
from nginx_acme.store import records

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nginx_acme.store.records import Fields

_VERSION = 1
_TRIPLE = 3
"""Label, key type and mark."""


def to_fields(told: Mapping[Hook, Told]) -> Fields:
    """For `from_fields`."""
    entries = [
        {
            "event": hook.event,
            "program": hook.program,
            "at": records.time_text(one.at),
            "taken": one.taken,
            "marks": [[*subject, mark] for subject, mark in one.marks.items()],
        }
        for hook, one in told.items()
    ]
    return {"version": _VERSION, "hooks": entries}


def from_fields(fields: Fields) -> dict[Hook, Told]:
    """What `to_fields` noted; what is broken in it was never told."""
    found: dict[Hook, Told] = {}
    entries = fields.get("hooks")
    for entry in map(records.table, entries if isinstance(entries, list) else ()):
        event, program = records.text(entry.get("event")), records.text(entry.get("program"))
        if event is None or program is None:
            continue
        marks = entry.get("marks")
        texts = map(records.texts, marks if isinstance(marks, list) else ())
        found[Hook(event, program)] = Told(
            at=records.time(entry.get("at")),
            taken=entry.get("taken") is not False,
            marks={(each[0], each[1]): each[2] for each in texts if len(each) == _TRIPLE},
        )
    return found
