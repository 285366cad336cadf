"""What of a certificate is revoked, and what is about to be.

    certificates/LABEL/
      revoked.json                serial numbers, with the reason and when
      revoking/                   a revocation that is under way; there in one rename
        SERIAL.pem                each bundle that is to be revoked
        reason.json

The bundle is kept, since it takes its own key to revoke a certificate whose account is lost, and
since the next renewals may come before the next attempt. Both are durable, and apart from
`state.json`, which may be lost: a certificate that is good but for the CA's word looks good.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from nginx_acme import disk
from nginx_acme.errors import BadBundle
from nginx_acme.store import records

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from nginx_acme.bundle import Bundle
    from nginx_acme.store.records import Access, Fields


class Revocations:
    """Those of one certificate's folder. What is revoked is read once and again by `refresh`."""

    def __init__(self, path: str, access: Access) -> None:
        self._path = os.path.join(path, "revoking")
        self.noted_at = os.path.join(path, "revoked.json")
        self._access = access
        self._revoked: Fields | None = None

    def __contains__(self, bundle: Bundle) -> bool:
        """Whether a certificate is revoked."""
        return f"{bundle.facts.serial:x}" in self._noted()

    def refresh(self) -> None:
        """Read again what is revoked."""
        self._revoked = None

    def under_way(self) -> tuple[Bundle, ...]:
        """What is still to be revoked."""
        found = (disk.read(os.path.join(self._path, name)) for name in self._names())
        return tuple(bundle for data in found if data and (bundle := _read_bundle(data)))

    def reason(self) -> str | None:
        """Why it is to be revoked; None where that is lost, and where nothing is."""
        return records.text((records.load(self._reason_path) or {}).get("reason"))

    def begin(self, bundles: Iterable[Bundle], reason: str) -> None:
        """Keep what is to be revoked, these and no others, before anything is done about it."""
        self._access.demand()
        wanted = {_name(bundle): bundle for bundle in bundles}
        if self.under_way():
            self._fill(self._path, wanted, reason)
            for name in set(self._names()) - wanted.keys():
                disk.remove(os.path.join(self._path, name))
            return
        disk.remove_folder(self._path)
        parent = os.path.dirname(self._path)
        folder = disk.new_folder(parent, records.PRIVATE_FOLDER)
        self._fill(folder, wanted, reason)
        disk.rename_folder(folder, self._path)
        disk.sync_folder(parent)

    def _fill(self, folder: str, wanted: Mapping[str, Bundle], reason: str) -> None:
        for name, bundle in wanted.items():
            path = os.path.join(folder, name)
            disk.replace(path, bundle.pem, mode=records.PRIVATE_FILE, durable=True)
        records.save(os.path.join(folder, "reason.json"), {"reason": reason}, durable=True)

    def finish(self, bundle: Bundle, reason: str, now: datetime) -> None:
        """Note that one that was to be revoked is."""
        self._access.demand()
        note = {"reason": reason, "at": records.time_text(now)}
        self._revoked = {**self._noted(), f"{bundle.facts.serial:x}": note}
        records.save(self.noted_at, self._revoked, durable=True)
        disk.remove(os.path.join(self._path, _name(bundle)))
        if not self.under_way():
            disk.remove_folder(self._path)

    def _names(self) -> list[str]:
        return [name for name in disk.names_in(self._path) if name.endswith(".pem")]

    def _noted(self) -> Fields:
        if self._revoked is None:
            self._revoked = records.load(self.noted_at) or {}
        return self._revoked

    @property
    def _reason_path(self) -> str:
        return os.path.join(self._path, "reason.json")


def _name(bundle: Bundle) -> str:
    return f"{bundle.facts.serial:x}.pem"


def _read_bundle(data: bytes) -> Bundle | None:
    """None for what is damaged: nobody could revoke it."""
    from nginx_acme.certificate import read_bundle  # noqa: PLC0415 - 60 ms, for nothing if empty

    try:
        return read_bundle(data)
    except BadBundle:
        return None
