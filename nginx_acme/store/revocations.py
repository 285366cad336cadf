"""What of a certificate is revoked, and what is about to be.

    certificates/LABEL/
      revoked.json                serial numbers, with the reason and when
      revoking/                   a revocation that is under way; there in one rename
        ecdsa-256.pem             the bundle that is to be revoked, one for each key type
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
from nginx_acme.key_types import KEY_TYPES, file_name
from nginx_acme.store import records

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from nginx_acme.certificate import Bundle
    from nginx_acme.store.records import Access, Fields


class Revocations:
    """Those of one certificate's folder. What is revoked is read once and again by `refresh`."""

    def __init__(self, path: str, access: Access) -> None:
        self._path = os.path.join(path, "revoking")
        self._note_path = os.path.join(path, "revoked.json")
        self._access = access
        self._revoked: Fields | None = None

    def __contains__(self, bundle: Bundle) -> bool:
        """Whether a certificate is revoked."""
        return f"{bundle.facts.serial:x}" in self._noted()

    def refresh(self) -> None:
        """Read again what is revoked."""
        self._revoked = None

    def under_way(self) -> dict[str, Bundle]:
        """What is still to be revoked, by its key type."""
        found: dict[str, Bundle] = {}
        for key_type in KEY_TYPES:
            data = disk.read(self._bundle_path(key_type))
            if data is not None and (bundle := _read_bundle(data)) is not None:
                found[key_type] = bundle
        return found

    def reason(self) -> str | None:
        """Why it is to be revoked; None where that is lost, and where nothing is."""
        return records.text((records.load(self._reason_path) or {}).get("reason"))

    def begin(self, bundles: Mapping[str, Bundle], reason: str) -> None:
        """Keep what is to be revoked, by key type, before anything is done about it."""
        self._access.demand()
        disk.remove_folder(self._path)
        parent = os.path.dirname(self._path)
        folder = disk.new_folder(parent, records.PRIVATE_FOLDER)
        for key_type, bundle in bundles.items():
            path = os.path.join(folder, file_name(key_type))
            disk.replace(path, bundle.pem, mode=records.PRIVATE_FILE, durable=True)
        records.save(os.path.join(folder, "reason.json"), {"reason": reason}, durable=True)
        disk.rename_folder(folder, self._path)
        disk.sync_folder(parent)

    def finish(self, key_type: str, bundle: Bundle, reason: str, now: datetime) -> None:
        """Note that what was to be revoked of this key type is."""
        self._access.demand()
        note = {"reason": reason, "at": records.time_text(now)}
        self._revoked = {**self._noted(), f"{bundle.facts.serial:x}": note}
        records.save(self._note_path, self._revoked, durable=True)
        disk.remove(self._bundle_path(key_type))
        if not self.under_way():
            disk.remove_folder(self._path)

    def _noted(self) -> Fields:
        if self._revoked is None:
            self._revoked = records.load(self._note_path) or {}
        return self._revoked

    def _bundle_path(self, key_type: str) -> str:
        return os.path.join(self._path, file_name(key_type))

    @property
    def _reason_path(self) -> str:
        return os.path.join(self._path, "reason.json")


def _read_bundle(data: bytes) -> Bundle | None:
    """None for what is damaged: nobody could revoke it."""
    from nginx_acme.certificate import read_bundle  # noqa: PLC0415 - 60 ms, for nothing if empty

    try:
        return read_bundle(data)
    except BadBundle:
        return None
