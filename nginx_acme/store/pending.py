"""An order that is under way: its key, and where it is at the CA.

The key is on disk, fsynced, before the order is made (a CA may issue for it the moment it gets the
CSR); the note of the order is written as the order grows and may be lost in a power cut, which
costs one order. The folder goes away when the certificate is safe.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nginx_acme import disk
from nginx_acme.store import records

if TYPE_CHECKING:
    from datetime import datetime

    from nginx_acme.store.records import Access


@dataclass(frozen=True, slots=True)
class PendingOrder:
    """What is needed to go on with an order after a restart (RFC 8555 §7.1.3, RFC 9773 §5).

    No `order_url`: the order was about to be made; whether it was, only the CA knows.
    """

    directory_url: str
    names: frozenset[str]
    key_type: str
    profile: str | None = None
    account_url: str | None = None
    order_url: str | None = None
    finalize_url: str | None = None
    replaces: str | None = None
    expires: datetime | None = None


class Pending:
    """The folder of one certificate's order; at most one is open at a time."""

    def __init__(self, path: str, access: Access) -> None:
        self.path = path
        self._access = access
        self._saved: PendingOrder | None = None

    def key_pem(self) -> bytes | None:
        """The private key of the order; None where none was made."""
        return disk.read(self._key_path)

    def save_key(self, key_pem: bytes) -> None:
        """Write the private key, before the order is made; it survives a power cut."""
        self._access.demand()
        disk.make_folder(self.path, records.PRIVATE_FOLDER)
        disk.replace(self._key_path, key_pem, mode=records.PRIVATE_FILE, durable=True)
        certificate = os.path.dirname(self.path)
        disk.sync_folder(certificate)
        disk.sync_folder(os.path.dirname(certificate))

    def order(self) -> PendingOrder | None:
        """The order; None where there is none, its note is broken, or its key is missing."""
        fields = records.load(self._order_path) or {}
        directory_url = records.text(fields.get("directory_url"))
        names = records.texts(fields.get("names"))
        key_type = records.text(fields.get("key_type"))
        if not (directory_url and names and key_type) or self.key_pem() is None:
            return None
        return PendingOrder(
            directory_url=directory_url,
            names=frozenset(names),
            key_type=key_type,
            profile=records.text(fields.get("profile")),
            account_url=records.text(fields.get("account_url")),
            order_url=records.text(fields.get("order_url")),
            finalize_url=records.text(fields.get("finalize_url")),
            replaces=records.text(fields.get("replaces")),
            expires=records.time(fields.get("expires")),
        )

    def save_order(self, order: PendingOrder) -> None:
        """Write down how far the order is, if that is new; without fsync, since it is said often."""
        self._access.demand()
        if order == self._saved:
            return
        fields = {
            "directory_url": order.directory_url,
            "names": sorted(order.names),
            "key_type": order.key_type,
            "profile": order.profile,
            "account_url": order.account_url,
            "order_url": order.order_url,
            "finalize_url": order.finalize_url,
            "replaces": order.replaces,
            "expires": records.time_text(order.expires),
        }
        records.save(self._order_path, fields, durable=False)
        self._saved = order

    def clear(self) -> None:
        """Forget the order and its key: the certificate is safe, or the order is given up.

        The order first: one without a key would be of no use, a key without an order is.
        """
        self._access.demand()
        self._saved = None
        disk.remove(self._order_path)
        disk.remove_folder(self.path)

    @property
    def _key_path(self) -> str:
        return os.path.join(self.path, "key.pem")

    @property
    def _order_path(self) -> str:
        return os.path.join(self.path, "order.json")
