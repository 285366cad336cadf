"""A configuration's texts and paths as bytes, and back: UTF-8, in which any other byte survives.

Not `os.fsencode`: that goes by the locale, which may be another one at the next start. nginx knows
none.

Imported at every start; see `manifest`.
"""

from __future__ import annotations


def to_bytes(text: str) -> bytes:
    """A text or a path as it is on disk."""
    return text.encode("utf-8", "surrogateescape")


def to_text(data: bytes) -> str:
    """What `to_bytes` was given."""
    return data.decode("utf-8", "surrogateescape")
