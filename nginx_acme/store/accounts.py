"""Accounts: a key at a CA, and what the CA calls it.

    accounts/NAME/
      key.pem         the account's key; without it there is no account
      account.json    directory URL, the account's URL, terms agreed to, contacts, when it was made
      limits.json     see `limits`

NAME is the issuer's name, made safe for an nginx variable, and a hash of directory URL and key.
So an account is found by what it is: a lost `account.json` costs a question to the CA (RFC 8555
§7.3.1 finds an account by its key), and another `uri` under the same issuer name is another
account. Folders named by the issuer alone gave the old account's key to the new CA.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nginx_acme import disk
from nginx_acme.errors import BadBundle
from nginx_acme.store import records
from nginx_acme.store.labels import variable_of
from nginx_acme.store.limits import KeptLimits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from nginx_acme.store.records import Access, Fields

_SHORT_HASH = 8
_NAME = re.compile(r"[a-z0-9_]+_[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class AccountFolder:
    """An account (RFC 8555 §7.1.2) as it is kept.

    `url` is the account's at the CA ("kid"); None as long as the CA has not told it. `terms` is
    the URL of the terms of service that were agreed to, at `agreed`. `made` is when the key was
    first used; None where that was lost.
    """

    path: str
    directory_url: str
    key_pem: bytes = field(repr=False)
    access: Access = field(repr=False, compare=False)
    url: str | None = None
    terms: str | None = None
    agreed: datetime | None = None
    contacts: tuple[str, ...] = ()
    made: datetime | None = None

    @property
    def name(self) -> str:
        """The folder's name; also that of its folder for challenges and of its nginx variable."""
        return os.path.basename(self.path)

    @property
    def limits(self) -> KeptLimits:
        """What it has to wait for."""
        return KeptLimits(self.path, self.access)

    def save(
        self,
        *,
        url: str,
        contacts: tuple[str, ...] | None = None,
        terms: str | None = None,
        agreed: datetime | None = None,
    ) -> AccountFolder:
        """Keep what the CA knows of us, durably; the account with it. None stays as it was."""
        known = replace(
            self,
            url=url,
            contacts=self.contacts if contacts is None else contacts,
            terms=terms or self.terms,
            agreed=agreed or self.agreed,
        )
        self.access.demand()
        path = os.path.join(self.path, "account.json")
        fields = {**(records.load(path) or {}), **_fields_of(known)}
        records.save(path, fields, durable=True)
        return known

    def forget(self, now: datetime) -> str:
        """Set the account aside: the CA doesn't know it any more. Its new path.

        The next one is made with a fresh key, loudly, and at most once a day: `made` of the one
        that is set aside says when this happened last.
        """
        self.access.demand()
        return disk.set_aside(self.path, f".forgotten-{now:%Y%m%dT%H%M%S}")


def find(
    accounts: str, access: Access, directory_url: str, key_fingerprint: str | None
) -> AccountFolder | None:
    """The account at a directory URL, with that key where one is given; of several the newest."""
    found = [
        account
        for account in _all(accounts, access, directory_url)
        if key_fingerprint in (None, _fingerprint(account.key_pem))
    ]
    return max(found, key=_age_rank, default=None)


def make(
    accounts: str,
    access: Access,
    *,
    issuer: str,
    directory_url: str,
    key_pem: bytes,
    now: datetime,
) -> AccountFolder:
    """Make an account's folder, complete with its key in one rename, durably.

    The same key at the same directory URL is the same account: the one that is there is returned.

    Raises:
        BadBundle: `key_pem` is no private key.
        StateError: it can't be written.
    """
    access.demand()
    there = find(accounts, access, directory_url, _fingerprint(key_pem))
    if there is not None:
        return there
    name = f"{variable_of(issuer)}_{_hash(directory_url, key_pem)}"
    account = AccountFolder(os.path.join(accounts, name), directory_url, key_pem, access, made=now)
    folder = disk.new_folder(accounts, records.PRIVATE_FOLDER)
    try:
        _fill(folder, account)
        if not disk.rename_folder(folder, account.path):
            # `find` passed it over, so its key is damaged.
            disk.set_aside(account.path, f"{records.DAMAGED}-{now:%Y%m%dT%H%M%S}")
            disk.rename_folder(folder, account.path)
    finally:
        disk.remove_folder(folder)
    disk.sync_folder(accounts)
    return account


def _fill(folder: str, account: AccountFolder) -> None:
    key_path = os.path.join(folder, "key.pem")
    disk.replace(key_path, account.key_pem, mode=records.PRIVATE_FILE, durable=True)
    records.save(os.path.join(folder, "account.json"), _fields_of(account), durable=True)


def _all(accounts: str, access: Access, directory_url: str) -> Iterator[AccountFolder]:
    for name in disk.names_in(accounts):
        path = os.path.join(accounts, name)
        key_pem = disk.read(os.path.join(path, "key.pem")) if _NAME.fullmatch(name) else None
        if key_pem is not None and name.endswith("_" + _hash_or_none(directory_url, key_pem)):
            yield _read(path, access, directory_url, key_pem)


def _read(path: str, access: Access, directory_url: str, key_pem: bytes) -> AccountFolder:
    fields = records.load(os.path.join(path, "account.json")) or {}
    return AccountFolder(
        path,
        directory_url,
        key_pem,
        access,
        url=records.text(fields.get("url")),
        terms=records.text(fields.get("terms")),
        agreed=records.time(fields.get("agreed")),
        contacts=records.texts(fields.get("contacts")),
        made=records.time(fields.get("made")),
    )


def _fields_of(account: AccountFolder) -> Fields:
    return {
        "directory_url": account.directory_url,
        "url": account.url,
        "terms": account.terms,
        "agreed": records.time_text(account.agreed),
        "contacts": list(account.contacts),
        "made": records.time_text(account.made),
    }


def _age_rank(account: AccountFolder) -> tuple[bool, float, str]:
    """Known times before unknown ones, later before earlier."""
    made = account.made
    return made is not None, made.timestamp() if made else 0.0, account.name


def _hash(directory_url: str, key_pem: bytes) -> str:
    text = f"{directory_url}\n{_fingerprint(key_pem)}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_SHORT_HASH]


def _hash_or_none(directory_url: str, key_pem: bytes) -> str:
    """The hash, or what is none where the key is damaged."""
    try:
        return _hash(directory_url, key_pem)
    except BadBundle:
        return "damaged"


def _fingerprint(key_pem: bytes) -> str:
    """Raises BadBundle; see `certificate.fingerprint`."""
    from nginx_acme.certificate import fingerprint  # noqa: PLC0415 - 60 ms, for nothing if empty

    return fingerprint(key_pem)
