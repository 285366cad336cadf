"""Files that save work: what is in them can be found out again, so they are believed or they are not.

Believed is what nobody else can have written, and what is to the last bit as it was written: a
digest is before it. Everything else is as good as no file. So damage costs time and never more, and
whoever reads the content needs no care about its form.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress

from nginx_acme import disk
from nginx_acme.errors import StateError

_MODE = 0o600


def keep(path: str, kind: bytes, content: bytes) -> None:
    """Write a file of this kind: a word, and a number that is another one with another form.

    No harm if it can't be written.
    """
    with suppress(StateError):
        data = b"".join((_seal(kind, content), content))
        disk.replace(path, data, mode=_MODE, durable=False)


def kept(path: str, kind: bytes) -> bytes | None:
    """The content of a file of this kind; None where there is none that can be believed."""
    data = disk.read_own(path)
    size = len(_seal(kind, b""))
    content = memoryview(data)[size:]
    return bytes(content) if data[:size] == _seal(kind, content) else None


def _seal(kind: bytes, content: bytes | memoryview) -> bytes:
    return b"nginx-acme %b %b\n" % (kind, hashlib.sha256(content).hexdigest().encode())
