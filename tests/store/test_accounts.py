"""Accounts are found by directory URL and key, and never lost with their notes."""

from __future__ import annotations

import json
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from nginx_acme.certificate import fingerprint, new_key
from nginx_acme.errors import BadBundle
from nginx_acme.store import AccountFolder, Store
from tests.store.bundles import NOW

CA = "https://ca.example/directory"
OTHER_CA = "https://other.example/directory"
URL = "https://ca.example/account/1"
KEY, OTHER_KEY = new_key("ecdsa:256"), new_key("rsa:2048")


def again(store: Store) -> Store:
    """The same, as the next process sees it."""
    return Store(store.root)


def test_an_account_is_kept_before_the_ca_hears_of_it(store: Store) -> None:
    """Its key is on disk and private, its name fits a variable of nginx, it has no URL yet."""
    made = store.create_account("letsencrypt-staging", CA, KEY, NOW)
    assert re.fullmatch(r"letsencrypt_staging_[0-9a-f]{8}", made.name)
    assert again(store).find_account(CA) == made
    assert (made.url, made.terms, made.contacts, made.made) == (None, None, (), NOW)
    modes = {
        name: stat.S_IMODE(os.stat(Path(made.path, name)).st_mode) for name in os.listdir(made.path)
    }
    assert modes == {"key.pem": 0o600, "account.json": 0o600}
    assert stat.S_IMODE(os.stat(made.path).st_mode) == 0o700


def test_its_challenges_can_be_reached_by_workers(store: Store) -> None:
    """The workers of nginx may pass through to a token and list nothing."""
    made = store.create_account("ca", CA, KEY, NOW)
    folder = store.challenges(made.name)
    assert folder == f"{store.root}/public/challenges/{made.name}"
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o711
    os.rmdir(folder)
    assert store.make_challenges(made.name) == folder
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o711


def test_what_the_ca_said_is_kept(store: Store) -> None:
    """URL, terms, contacts, and what the operator was told."""
    made = store.create_account("ca", CA, KEY, NOW)
    assert made.wanted is None
    known = replace(
        made,
        url=URL,
        contacts=("mailto:a@example.com",),
        wanted=("mailto:a@example.com", "tel:+49123"),
        terms="https://ca.example/terms",
        agreed=NOW,
        told_terms="https://ca.example/terms/2",
    )
    assert known.save() == known == again(store).find_account(CA)


def test_an_account_is_a_directory_url_and_a_key(store: Store) -> None:
    """Another of either is another account; the issuer's name is only a name."""
    first = store.create_account("ca", CA, KEY, NOW)
    elsewhere = store.create_account("ca", OTHER_CA, KEY, NOW)
    rolled = store.create_account("ca", CA, OTHER_KEY, NOW + timedelta(days=1))
    assert len({first.name, elsewhere.name, rolled.name}) == 3
    assert store.create_account("renamed", CA, KEY, NOW) == first
    assert store.find_account(OTHER_CA) == elsewhere
    assert store.find_account(CA, fingerprint(KEY)) == first
    assert store.find_account(CA, fingerprint(OTHER_KEY)) == rolled
    assert store.find_account(CA) == rolled, "the newest"
    assert store.find_account(OTHER_CA, fingerprint(OTHER_KEY)) is None


@pytest.mark.parametrize("broken", [None, b"", b"\0\0", b"[]", b'{"url": 1, "made": "x"}'])
def test_a_lost_note_loses_no_account(store: Store, broken: bytes | None) -> None:
    """The key is the account; its URL is asked from the CA again and kept again."""
    made = replace(store.create_account("ca", CA, KEY, NOW), url=URL).save()
    note = Path(made.path, "account.json")
    note.unlink()
    if broken is not None:
        note.write_bytes(broken)
    found = store.find_account(CA)
    assert found is not None
    assert (found.name, found.key_pem, found.url, found.made) == (made.name, KEY, None, None)
    assert store.find_account(OTHER_CA) is None
    replace(found, url=URL).save()
    kept = again(store).find_account(CA)
    assert kept is not None
    assert kept.url == URL


def test_a_damaged_key_is_no_account(store: Store) -> None:
    """There is none then, and making it anew with the same key sets the damaged one aside."""
    made = store.create_account("ca", CA, KEY, NOW)
    Path(made.path, "key.pem").write_bytes(b"damaged")
    assert store.find_account(CA) is None
    assert store.create_account("ca", CA, KEY, NOW).key_pem == KEY
    assert store.find_account(CA) is not None
    assert Path(made.path + ".damaged-20260102T030405", "key.pem").read_bytes() == b"damaged"


def test_an_account_that_the_ca_forgot(store: Store) -> None:
    """It is set aside with its key, and not found again; when the next was made is known."""
    made = store.create_account("ca", CA, KEY, NOW)
    aside = made.set_aside("forgotten", NOW + timedelta(days=3))
    assert Path(aside, "key.pem").read_bytes() == KEY
    assert store.find_account(CA) is None
    anew = store.create_account("ca", CA, OTHER_KEY, NOW + timedelta(days=3))
    found = again(store).find_account(CA)
    assert found == anew
    assert found.made == NOW + timedelta(days=3)


def test_a_key_of_the_operator_can_be_forgotten_twice(store: Store) -> None:
    """The same key gives the same name, and both old ones are kept."""
    for day in range(2):
        now = NOW + timedelta(days=day)
        store.create_account("ca", CA, KEY, now).set_aside("forgotten", now)
    assert len(os.listdir(Path(store.root, "accounts"))) == 2


def test_no_account_without_a_key(store: Store) -> None:
    """What is no key is refused, and nothing is left behind."""
    with pytest.raises(BadBundle):
        store.create_account("ca", CA, b"no key", NOW)
    assert os.listdir(Path(store.root, "accounts")) == []


def test_what_a_newer_program_noted_stays(store: Store) -> None:
    """Unknown fields survive a rollback."""
    made = store.create_account("ca", CA, KEY, NOW)
    note = Path(made.path, "account.json")
    note.write_text(json.dumps({**json.loads(note.read_bytes()), "orders": 5}))
    made.save()
    assert json.loads(note.read_bytes())["orders"] == 5


def test_other_things_among_the_accounts(store: Store) -> None:
    """Files, and folders of other names, are no accounts and no error."""
    Path(store.root, "accounts", "ca_12345678").touch()
    Path(store.root, "accounts", "ca_87654321").mkdir()
    Path(store.root, "accounts", "notes").mkdir()
    assert store.find_account(CA) is None


def test_no_key_in_a_repr(store: Store) -> None:
    """What shows up in a traceback shows no key."""
    shown = repr(store.create_account("ca", CA, KEY, NOW))
    assert "PRIVATE" not in shown
    assert CA in shown


# --- another key ----------------------------------------------------------------------------


def with_next_key(store: Store) -> tuple[AccountFolder, AccountFolder]:
    """An account, and as it will be."""
    made = replace(store.create_account("ca", CA, KEY, NOW), url=URL).save()
    assert made.following() is None
    made.save_next_key(OTHER_KEY)
    following = made.following()
    assert following is not None
    return made, following


def found_again(store: Store) -> AccountFolder:
    """The account, as the next process finds it."""
    found = again(store).find_account(CA)
    assert found is not None
    return found


def test_a_next_key_changes_nothing_yet(store: Store) -> None:
    """As long as the CA is told of it the account is the one that it was."""
    made, following = with_next_key(store)
    found = found_again(store)
    assert found == made
    assert found.following() == following
    assert (following.url, following.key_pem) == (URL, OTHER_KEY)
    assert following.name != made.name
    assert following.name.rpartition("_")[0] == "ca"
    assert store.find_account(CA, fingerprint(OTHER_KEY)) is None
    made.keep_key()
    assert made.following() is None
    assert sorted(os.listdir(made.path)) == ["account.json", "key.pem"]


def test_an_account_with_its_next_key(store: Store) -> None:
    """It is the same account with another name, and knows that it had the first one."""
    made, following = with_next_key(store)
    rolled = made.become(following)
    assert found_again(store) == rolled
    assert (rolled.key_pem, rolled.url, rolled.made) == (OTHER_KEY, URL, NOW)
    assert rolled.following() is None
    assert rolled.names == {made.name, rolled.name}
    assert rolled.name == store.create_account("ca", CA, OTHER_KEY, NOW).name
    assert sorted(os.listdir(rolled.path)) == ["account.json", "key.pem"]
    assert os.listdir(Path(store.root, "accounts")) == [rolled.name]


def test_two_find_out_about_its_next_key(store: Store) -> None:
    """Whoever is second takes the account as the first has made it."""
    made, following = with_next_key(store)
    with ThreadPoolExecutor(2) as threads, store.lock_accounts(CA):
        both = [threads.submit(made.become, following) for _ in range(2)]
        assert found_again(store) == made
    assert [each.result() for each in both] == [found_again(store)] * 2
    assert os.listdir(Path(store.root, "accounts")) == [following.name]


def test_killed_right_after_the_new_name(store: Store) -> None:
    """The name says which key it is, and a next key can't take the place of the only copy."""
    made, following = with_next_key(store)
    os.rename(made.path, following.path)
    found = store.find_account(CA)
    assert found is not None
    assert (found.key_pem, found.url, found.following()) == (OTHER_KEY, URL, None)
    found.save_next_key(KEY)
    found = found_again(store)
    assert found.key_pem == OTHER_KEY == Path(found.path, "key.pem").read_bytes()
    third = found.following()
    assert third is not None
    assert (third.key_pem, third.name) == (KEY, made.name)


@pytest.mark.parametrize("damaged", [b"", b"damaged"])
def test_a_damaged_next_key_is_none(store: Store, damaged: bytes) -> None:
    """The account goes on as it was."""
    made = store.create_account("ca", CA, KEY, NOW)
    Path(made.path, "key.next.pem").write_bytes(damaged)
    found = found_again(store)
    assert found == made
    assert found.following() is None
