"""An issuer's account in the store: the one for a configuration, made, found and made anew.

What may live here: which account an issuer of the configuration means, and its key. What the CA
is told of it is `issuance`'s business. nginx answers with an account's thumbprint and the CA is
asked with its key, so both have to find the same one; each looking for itself did not.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nginx_acme import disk
from nginx_acme.acme.jws import AccountKey
from nginx_acme.certificate import fingerprint, new_key
from nginx_acme.errors import BadBundle, ConfigError
from nginx_acme.policy import DAILY

if TYPE_CHECKING:
    from nginx_acme.plan import Issuer
    from nginx_acme.store import AccountFolder, Store

_FORGOTTEN = ".forgotten-"
_TIME = "%Y%m%dT%H%M%S"


def find_account(store: Store, issuer: Issuer) -> AccountFolder | None:
    """The issuer's account, as far as the store has one.

    Raises:
        ConfigError: its key is to be a file's, and that isn't one.
    """
    if not has_own_key(issuer):
        return store.find_account(issuer.directory_url)
    return store.find_account(issuer.directory_url, _fingerprint(issuer, _key_of_file(issuer)))


def make_account(store: Store, issuer: Issuer, now: datetime) -> AccountFolder:
    """The issuer's account; its key is on disk before the CA hears of it.

    Raises:
        ConfigError: its key is to be a file's, and that isn't one.
        StateError: it can't be written.
    """
    with store.lock_accounts(issuer.directory_url):
        known = find_account(store, issuer)
        if known is not None:
            return known
        return store.create_account(issuer.name, issuer.directory_url, _key_for(issuer), now)


def replace_account(
    store: Store, issuer: Issuer, account: AccountFolder, now: datetime
) -> AccountFolder | None:
    """A new account in place of one that the CA knows no more; None: not yet again.

    With a fresh key, unless it is the operator's: the CA may have closed the account, and then
    takes its key no more. Once a day at most: a CA that forgets each one would get a new one with
    every attempt. Another process may have done it meanwhile; then that account is it.

    Raises:
        StateError: it can't be written.
    """
    with store.lock_accounts(issuer.directory_url):
        current = find_account(store, issuer)
        if current is not None and current.name != account.name:
            return current
        if _replaced_lately(account, now):
            return None
        if current is not None:
            current.set_aside("forgotten", now)
        return store.create_account(issuer.name, issuer.directory_url, _key_for(issuer), now)


def key_of(account: AccountFolder) -> AccountKey:
    """What signs for an account.

    Raises:
        ConfigError: its key, a file of the operator's, is of a kind that no CA knows.
    """
    try:
        return AccountKey(account.key_pem)
    except ValueError as error:
        raise ConfigError(f"the key of account {account.name} is no account key: {error}") from None


def has_own_key(issuer: Issuer) -> bool:
    """Whether the account's key is a file of the operator's."""
    return issuer.account_key.startswith("/")


def _replaced_lately(account: AccountFolder, now: datetime) -> bool:
    """Whether an account of this issuer was set aside less than a day ago."""
    issuer = account.name.rpartition("_")[0]
    for name in disk.names_in(os.path.dirname(account.path)):
        old, _, when = name.partition(_FORGOTTEN)
        moment = _time_of(when) if old.rpartition("_")[0] == issuer else None
        if moment is not None and abs(now - moment) < DAILY:
            return True
    return False


def _time_of(text: str) -> datetime | None:
    """When a folder was set aside; None where its name doesn't say."""
    try:
        return datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    except ValueError:
        return None


def _key_for(issuer: Issuer) -> bytes:
    return _key_of_file(issuer) if has_own_key(issuer) else new_key(issuer.account_key)


def _key_of_file(issuer: Issuer) -> bytes:
    pem = disk.read(issuer.account_key)
    if pem is None:
        raise ConfigError(
            f'the account key "{issuer.account_key}" of issuer "{issuer.name}" is missing'
        )
    return pem


def _fingerprint(issuer: Issuer, pem: bytes) -> str:
    try:
        return fingerprint(pem)
    except BadBundle as error:
        raise ConfigError(f'"{issuer.account_key}" is no account key: {error}') from error
