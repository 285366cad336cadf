"""Accounts: a key at a CA, and what the CA calls it.

    accounts/NAME/
      key.pem         the account's key; without it there is no account
      key.next.pem    the key that is to take its place, as long as the CA is told of it
      account.json    directory URL, the account's URL, terms agreed to, contacts, when it was made
      limits.json     see `limits`

NAME is the issuer's name, made safe for an nginx variable, and a hash of directory URL and key.
So an account is found by what it is: a lost `account.json` costs a question to the CA (RFC 8555
§7.3.1 finds an account by its key), and another `uri` under the same issuer name is another
account. Folders named by the issuer alone gave the old account's key to the new CA.

An account whose key changes gets another name. So nginx answers for both keys as it does for any
two accounts, where a name that stayed would have to answer the same token in two ways; and one
rename decides which of the two keys it is.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nginx_acme import disk, locks
from nginx_acme.errors import BadBundle, StateError
from nginx_acme.labels import variable_of
from nginx_acme.store import records
from nginx_acme.store.limits import KeptLimits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from nginx_acme.store.records import Access, Fields

_SHORT_HASH = 8
_DAMAGED = "damaged"
_LOCK_WAIT = 10.0  # seconds
_NAME = re.compile(r"[a-z0-9_]+_[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class AccountFolder:
    """An account (RFC 8555 §7.1.2) as it is kept.

    `url` is the account's at the CA ("kid"); None as long as the CA has not told it. `terms` is
    the URL of the terms of service that were agreed to, at `agreed`, `told_terms` that of the
    newest ones that the operator was told of. `contacts` are those that the CA has taken, `wanted`
    those that it was asked to take; None where that isn't known. `made` is when it was made; None
    where that was lost. `formerly` are the names that it had with earlier keys.
    """

    path: str
    directory_url: str
    key_pem: bytes = field(repr=False)
    access: Access = field(repr=False, compare=False)
    url: str | None = None
    terms: str | None = None
    agreed: datetime | None = None
    told_terms: str | None = None
    contacts: tuple[str, ...] = ()
    wanted: tuple[str, ...] | None = None
    made: datetime | None = None
    formerly: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The folder's name; also that of its folder for challenges and of its nginx variable."""
        return os.path.basename(self.path)

    @property
    def limits(self) -> KeptLimits:
        """What it has to wait for."""
        return KeptLimits(self.path, self.access)

    @property
    def names(self) -> frozenset[str]:
        """All names that it has had: what it was asked for with an earlier key is its own, too."""
        return frozenset({self.name, *self.formerly})

    def following(self) -> AccountFolder | None:
        """The account as it will be with the key of `save_next_key`; None where there is none."""
        key_pem = disk.read(self._next_key_path)
        digest = _hash_or_none(self.directory_url, key_pem or b"")
        if key_pem is None or digest in {_DAMAGED, self.name.rpartition("_")[2]}:
            return None
        name = f"{self.name.rpartition('_')[0]}_{digest}"
        path = os.path.join(os.path.dirname(self.path), name)
        return replace(self, path=path, key_pem=key_pem, formerly=(*self.formerly, self.name))

    def save(self) -> AccountFolder:
        """Keep what is known of the account, durably; the account."""
        self.access.demand()
        path = os.path.join(self.path, "account.json")
        fields = {**(records.load(path) or {}), **_fields_of(self)}
        records.save(path, fields, durable=True)
        return self

    def save_next_key(self, key_pem: bytes) -> None:
        """Keep the key that is to take the place of this one, before the CA hears of it."""
        self.keep_key()
        disk.replace(self._next_key_path, key_pem, mode=records.PRIVATE_FILE, durable=True)

    def keep_key(self) -> None:
        """Have this account's key in its usual place, and no other: what was next is forgotten."""
        self.access.demand()
        path = os.path.join(self.path, "key.pem")
        if disk.read(path) != self.key_pem:
            disk.replace(path, self.key_pem, mode=records.PRIVATE_FILE, durable=True)
        disk.remove(self._next_key_path)

    def become(self, following: AccountFolder) -> AccountFolder:
        """Have the key of the `following` one from now on; the account, as it was said there.

        The folder gets its new name in one step, and only the name says which key is the account's:
        whoever is killed then leaves that key in the other place. Others may find out at the same
        time that the CA has taken it; the account is what the first of them has made of it.
        """
        accounts, key = os.path.dirname(self.path), _fingerprint(following.key_pem)
        with lock(self.access, self.directory_url):
            there = find(accounts, self.access, self.directory_url, key)
            if there is not None:
                return there
            replace(following, path=self.path).save()
            if not disk.rename_folder(self.path, following.path):
                raise StateError(f'"{following.path}" is there already', following.path)
            disk.sync_folder(accounts)
            following.keep_key()
        return following

    def set_aside(self, why: str, now: datetime) -> str:
        """Move the account out of the way, with its key and all: its new path.

        `why` is "forgotten" (by the CA) or "deactivated". The one that takes the place of a
        forgotten account is made with a fresh key, loudly, and at most once a day.
        """
        self.access.demand()
        return disk.set_aside(self.path, f".{why}-{now:%Y%m%dT%H%M%S}")

    @property
    def _next_key_path(self) -> str:
        return os.path.join(self.path, "key.next.pem")


def lock(access: Access, directory_url: str, *, wait: float = _LOCK_WAIT) -> locks.Lock:
    """Take the lock under which accounts at a directory URL are made and renamed."""
    access.demand()
    digest = hashlib.sha256(directory_url.encode("utf-8", "surrogatepass")).hexdigest()
    path = os.path.join(access.root, "locks", f"account-{digest[:16]}.lock")
    return locks.lock(path, wait=wait)


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
    for name in filter(_NAME.fullmatch, disk.names_in(accounts)):
        path = os.path.join(accounts, name)
        for file_name in ("key.pem", "key.next.pem"):
            key_pem = disk.read(os.path.join(path, file_name))
            if key_pem and name.endswith("_" + _hash_or_none(directory_url, key_pem)):
                yield _read(path, access, directory_url, key_pem)
                break


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
        told_terms=records.text(fields.get("told_terms")),
        contacts=records.texts(fields.get("contacts")),
        wanted=records.texts(fields["wanted"]) if fields.get("wanted") is not None else None,
        made=records.time(fields.get("made")),
        formerly=records.texts(fields.get("formerly")),
    )


def _fields_of(account: AccountFolder) -> Fields:
    return {
        "directory_url": account.directory_url,
        "url": account.url,
        "terms": account.terms,
        "agreed": records.time_text(account.agreed),
        "told_terms": account.told_terms,
        "contacts": list(account.contacts),
        "wanted": None if account.wanted is None else list(account.wanted),
        "made": records.time_text(account.made),
        "formerly": list(account.formerly),
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
        return _DAMAGED


def _fingerprint(key_pem: bytes) -> str:
    """Raises BadBundle; see `certificate.fingerprint`."""
    from nginx_acme.certificate import fingerprint  # noqa: PLC0415 - 60 ms, for nothing if empty

    return fingerprint(key_pem)
