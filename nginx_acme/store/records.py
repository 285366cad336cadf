"""The small JSON files of the store: what they have in common.

What may live here: bytes to fields and back, and the right to write at all. A file may have been
written by a newer program, cut off by a power cut or edited by hand, so every field is looked at
when it is used; one that is not what it should be is as good as missing. Fields that are not
known here stay in the file when it is written again: a rollback must not cost what the newer
program had noted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from nginx_acme import disk
from nginx_acme.errors import StateError

if TYPE_CHECKING:
    from nginx_acme.store.proved import Proved

Fields = dict[str, Any]

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700
DAMAGED = ".damaged"


@dataclass(slots=True)
class Access:
    """Whether a store may be written; shared by everything that hangs on it."""

    root: str
    proved: Proved
    writable: bool = False

    def demand(self) -> None:
        """Raise StateError unless the store was opened for writing."""
        if not self.writable:
            raise StateError(f'"{self.root}" is not open for writing', self.root)


def load(path: str) -> Fields | None:
    """The fields of a file: {} where there is no file, None where it is broken."""
    data = disk.read(path)
    if data is None:
        return {}
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def save(path: str, fields: Fields, *, durable: bool) -> None:
    """Write the fields of a file; for the owner's eyes only."""
    text = json.dumps(fields, indent=1, sort_keys=True) + "\n"
    disk.replace(path, text.encode(), mode=PRIVATE_FILE, durable=durable)


def table(value: object) -> Fields:
    """A JSON object; {} for anything else."""
    return value if isinstance(value, dict) else {}


def text(value: object) -> str | None:
    """A string; None for anything else."""
    return value if isinstance(value, str) else None


def texts(value: object) -> tuple[str, ...]:
    """A list of strings; () for anything else."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    return ()


def count(value: object) -> int:
    """A number that counts; 0 for anything else."""
    return value if isinstance(value, int) and value > 0 else 0


def time(value: object) -> datetime | None:
    """A time with its zone, in UTC; None for anything else."""
    try:
        found = datetime.fromisoformat(text(value) or "")
        return None if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def time_text(moment: datetime | None) -> str | None:
    """A time as `time` reads it."""
    return None if moment is None else moment.astimezone(UTC).isoformat()
