"""What is revoked is remembered, and nothing brings it back."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nginx_acme.store import Identity, Store
from tests.store.bundles import NOW, issue, key_of, temporary

if TYPE_CHECKING:
    from nginx_acme.bundle import Bundle
    from nginx_acme.store import CertificateFolder

CA = "https://ca.example/directory"
NAMES = ("example.com", "www.example.com")
IDENTITY = Identity(CA, frozenset(NAMES), None)
KEY_TYPE = "ecdsa:256"


@pytest.fixture
def folder(store: Store) -> CertificateFolder:
    """The folder of a certificate with one key type."""
    made = store.create(IDENTITY, NAMES)
    made.install(KEY_TYPE, issue(NAMES), CA)
    return made


def again(store: Store, identity: Identity = IDENTITY) -> CertificateFolder:
    """The same folder, as the next process sees it."""
    found = Store(store.root).find(identity)
    assert found is not None
    return found


def by_serial(*bundles: Bundle) -> dict[int, Bundle]:
    """They, as their order means nothing."""
    return {bundle.facts.serial: bundle for bundle in bundles}


def revoke(folder: CertificateFolder) -> None:
    """Revoke what is there."""
    bundle = folder.own(KEY_TYPE)
    assert bundle is not None
    folder.begin_revocation([bundle], "superseded")
    folder.revocations.finish(bundle, "superseded", NOW)


def test_under_way(store: Store, folder: CertificateFolder) -> None:
    """What is to be revoked is kept with its keys, and is this certificate as long as it isn't."""
    folder.install("rsa:2048", issue(NAMES, "rsa:2048"), CA)
    bundles = {key: b for key in ("ecdsa:256", "rsa:2048") if (b := folder.own(key)) is not None}
    folder.begin_revocation(bundles.values(), "keyCompromise")
    found = again(store)
    assert by_serial(*found.revocations.under_way()) == by_serial(*bundles.values())
    assert found.revocations.reason() == "keyCompromise"
    assert found.own(KEY_TYPE) == bundles[KEY_TYPE]
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in Path(folder.path).glob("**")}
    assert modes["revoking"] == 0o700
    for path in Path(folder.path, "revoking").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_others_that_are_to_be_revoked(store: Store, folder: CertificateFolder) -> None:
    """One of the same key type may come to it; who is not named any more is not to be revoked."""
    one, other, third = issue(NAMES), issue(NAMES, days=91), issue(NAMES, days=92)
    folder.begin_revocation([one, third], "superseded")
    folder.begin_revocation([one, other], "keyCompromise")
    found = again(store).revocations
    assert by_serial(*found.under_way()) == by_serial(one, other)
    assert found.reason() == "keyCompromise"


def test_one_after_the_other(store: Store, folder: CertificateFolder) -> None:
    """Key types are revoked one by one; when all are, nothing is under way."""
    folder.install("rsa:2048", issue(NAMES, "rsa:2048"), CA)
    bundles = {key: b for key in ("ecdsa:256", "rsa:2048") if (b := folder.own(key)) is not None}
    folder.begin_revocation(bundles.values(), "superseded")
    folder.revocations.finish(bundles["ecdsa:256"], "superseded", NOW)
    found = again(store)
    assert found.revocations.under_way() == (bundles["rsa:2048"],)
    assert (found.own("ecdsa:256"), found.own("rsa:2048")) == (None, bundles["rsa:2048"])
    folder.revocations.finish(bundles["rsa:2048"], "superseded", NOW)
    assert again(store).revocations.under_way() == ()
    assert again(store).revocations.reason() is None
    assert not os.path.exists(os.path.join(folder.path, "revoking"))


def test_not_served_again(store: Store, folder: CertificateFolder) -> None:
    """It is no certificate of anybody's any more, wherever it lies."""
    bundle = folder.own(KEY_TYPE)
    assert bundle is not None
    other = store.create(Identity(CA, frozenset({"www.example.com"}), None), ("www.example.com",))
    assert store.nearest(other.identity, KEY_TYPE, NOW) == bundle
    other.place_nearest(KEY_TYPE, bundle)
    revoke(folder)
    for identity in (IDENTITY, other.identity):
        assert again(store, identity).own(KEY_TYPE) is None
        assert Store(store.root).nearest(identity, KEY_TYPE, NOW) is None


def test_not_put_back(store: Store, folder: CertificateFolder) -> None:
    """What nginx refuses stays where the one before it is revoked."""
    before = folder.own(KEY_TYPE)
    assert before is not None
    after = issue(NAMES, days=91)
    folder.install(KEY_TYPE, after, CA)
    assert folder.previous(KEY_TYPE) == before
    folder.begin_revocation([before], "superseded")
    folder.revocations.finish(before, "superseded", NOW)
    assert folder.previous(KEY_TYPE) is None
    assert not folder.put_back(KEY_TYPE)
    assert again(store).own(KEY_TYPE) == after


def test_a_lost_state_forgets_nothing(store: Store, folder: CertificateFolder) -> None:
    """Where everything else is forgotten, what is revoked is not."""
    revoke(folder)
    os.unlink(os.path.join(folder.path, "state.json"))
    assert again(store).own(KEY_TYPE) is None
    assert Store(store.root).nearest(IDENTITY, KEY_TYPE, NOW) is None


def test_a_key_that_is_revoked_is_not_ordered_with(folder: CertificateFolder) -> None:
    """The order that the certificate came from is over; another one goes on."""
    bundle = folder.own(KEY_TYPE)
    assert bundle is not None
    folder.pending.save_key(key_of("rsa:2048"))
    folder.begin_revocation([bundle], "keyCompromise")
    assert folder.pending.key_pem() == key_of("rsa:2048")
    folder.pending.save_key(key_of(KEY_TYPE))
    folder.begin_revocation([bundle], "keyCompromise")
    assert folder.pending.key_pem() is None


@pytest.mark.parametrize("broken", [b"", b"[]", b'{"a": 1}', b"\0"])
def test_damage(store: Store, folder: CertificateFolder, broken: bytes) -> None:
    """Damaged notes are none, and keep nobody from anything."""
    bundle = folder.own(KEY_TYPE)
    assert bundle is not None
    folder.begin_revocation([bundle], "superseded")
    Path(folder.path, "revoked.json").write_bytes(broken)
    Path(folder.path, "revoking", "reason.json").write_bytes(broken)
    next(Path(folder.path, "revoking").glob("*.pem")).write_bytes(broken)
    found = again(store)
    assert found.own(KEY_TYPE) == bundle
    assert found.revocations.under_way() == ()
    assert found.revocations.reason() is None
    folder.begin_revocation([bundle], "superseded")
    assert again(store).revocations.under_way() == (bundle,)


def test_a_temporary_certificate_may_take_its_place(folder: CertificateFolder) -> None:
    """What stands in for it is placed as ever, and the revoked one is kept nowhere."""
    revoke(folder)
    folder.place_nearest(KEY_TYPE, temporary(NAMES))
    assert sorted(os.listdir(folder.path)) == ["ecdsa-256.pem", "revoked.json", "state.json"]
