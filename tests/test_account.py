"""Which account an issuer means: found, made, made anew."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from nginx_acme.account import find_account, key_of, make_account, replace_account
from nginx_acme.certificate import fingerprint, new_key
from nginx_acme.errors import ConfigError
from nginx_acme.plan import Issuer
from nginx_acme.store import Store

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
ISSUER = Issuer("corp", "https://ca.example/directory", public=False)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty one."""
    store = Store(str(tmp_path / "state"))
    store.open_for_writing()
    return store


def with_file(tmp_path: Path, pem: bytes) -> Issuer:
    """The issuer with a key of the operator's."""
    path = tmp_path / "account.pem"
    path.write_bytes(pem)
    return Issuer("corp", ISSUER.directory_url, public=False, account_key=str(path))


def test_once(store: Store) -> None:
    """An account is made once, and is the same under another name of the issuer."""
    assert find_account(store, ISSUER) is None
    made = make_account(store, ISSUER, NOW)
    again = Issuer("renamed", ISSUER.directory_url, public=False)
    assert make_account(store, again, NOW) == find_account(store, ISSUER) == made
    elsewhere = Issuer("corp", "https://other.example/directory", public=False)
    assert make_account(store, elsewhere, NOW).key_pem != made.key_pem


def test_key_of_the_operator(store: Store, tmp_path: Path) -> None:
    """A key in a file is the account's, and another key is another account."""
    pem = new_key("ecdsa:384")
    issuer = with_file(tmp_path, pem)
    made = make_account(store, issuer, NOW)
    assert fingerprint(made.key_pem) == fingerprint(pem)
    with_file(tmp_path, new_key("ecdsa:256"))
    assert find_account(store, issuer) is None


def test_no_key_of_the_operator(store: Store, tmp_path: Path) -> None:
    """A file that is missing, or no key, is told with its path."""
    issuer = with_file(tmp_path, b"no key")
    with pytest.raises(ConfigError, match=r"account\.pem\" is no account key"):
        make_account(store, issuer, NOW)
    os.unlink(issuer.account_key)
    with pytest.raises(ConfigError, match=r"account\.pem\" of issuer \"corp\" is missing"):
        make_account(store, issuer, NOW)


def test_damaged_key(store: Store) -> None:
    """A damaged key is no account; one that is damaged later is told, and nothing of it shown."""
    account = make_account(store, ISSUER, NOW)
    assert key_of(account).algorithm == "ES256"
    damaged = replace(account, key_pem=account.key_pem[:100])
    with pytest.raises(ConfigError, match=rf"key of account {account.name} is no account key"):
        key_of(damaged)
    assert "PRIVATE" not in repr(account)
    Path(account.path, "key.pem").write_bytes(damaged.key_pem)
    assert find_account(store, ISSUER) is None


def test_replaced_once_a_day(store: Store) -> None:
    """A forgotten account gets a successor with a fresh key, and that one not before tomorrow."""
    first = make_account(store, ISSUER, NOW)
    second = replace_account(store, ISSUER, first, NOW)
    assert second is not None
    assert second.key_pem != first.key_pem
    assert replace_account(store, ISSUER, first, NOW) == second
    assert replace_account(store, ISSUER, second, NOW + timedelta(hours=23)) is None
    third = replace_account(store, ISSUER, second, NOW + timedelta(hours=25))
    assert third is not None
    assert find_account(store, ISSUER) == third


def test_what_operators_leave(store: Store) -> None:
    """A folder that somebody moved aside by hand is in nobody's way."""
    account = make_account(store, ISSUER, NOW)
    os.mkdir(f"{account.path}.forgotten-by-hand")
    assert replace_account(store, ISSUER, account, NOW) is not None
