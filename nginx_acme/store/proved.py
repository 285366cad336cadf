"""What is known of bundles by their content, which takes seconds to find out for ten thousand.

    STATE/proved    a line for each: the digest of its file, and its names, times and key

To take a bundle apart, and to prove that the key is the certificate's, are ten times as long as to
read it. Its content is read all the same: a note of the file's size and times would miss what a
broken disk makes of it. What is no bundle is not noted, and looked at each time.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

from nginx_acme import __version__, sealed
from nginx_acme.bundle import Bundle, Facts

_NOT_AFTER = 2
"""Its place among the fields."""
_KIND = f"proved 2 {__version__}".encode()
"""With a number for the form of the file, and the release, for another may prove something else."""


class Proved:
    """Those of a store; `path` is where they are noted."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._known: dict[str, str] | None = None
        self._is_new = False

    def read_bundle(self, pem: bytes) -> Bundle:
        """As `certificate.read_bundle`."""
        if self._known is None:
            lines = (sealed.kept(self._path, _KIND) or b"").decode().splitlines()
            self._known = dict(line.split(" ", 1) for line in lines)
        digest = hashlib.sha256(pem).hexdigest()
        if digest in self._known:
            return Bundle(pem, _facts(json.loads(self._known[digest])))
        from nginx_acme.certificate import read_bundle  # noqa: PLC0415 - 60 ms, if any is new

        bundle = read_bundle(pem)
        self._known[digest] = json.dumps(_fields(bundle.facts))
        self._is_new = True
        return bundle

    def keep(self, now: datetime) -> None:
        """Note what is new; what is over is not needed any more."""
        if self._known is None or not self._is_new:
            return
        over = int(now.timestamp())
        noted = (
            f"{digest} {fields}\n"
            for digest, fields in self._known.items()
            if json.loads(fields)[_NOT_AFTER] > over
        )
        sealed.keep(self._path, _KIND, "".join(noted).encode())
        self._is_new = False


def _fields(facts: Facts) -> list[Any]:
    """For `_facts`, in its order; certificates know no parts of a second."""
    return [
        sorted(facts.names),
        int(facts.not_before.timestamp()),
        int(facts.not_after.timestamp()),
        facts.key_type,
        facts.issuer,
        facts.serial,
        facts.temporary,
        None if facts.authority_key_id is None else facts.authority_key_id.hex(),
    ]


def _facts(fields: list[Any]) -> Facts:
    names, not_before, not_after, key_type, issuer, serial, temporary, key_id = fields
    return Facts(
        names=frozenset(names),
        not_before=datetime.fromtimestamp(not_before, UTC),
        not_after=datetime.fromtimestamp(not_after, UTC),
        key_type=key_type,
        issuer=issuer,
        serial=serial,
        temporary=temporary,
        authority_key_id=None if key_id is None else bytes.fromhex(key_id),
    )
