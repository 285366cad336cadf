"""What is noted of bundles is what they say themselves, or nothing at all."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from nginx_acme import sealed
from nginx_acme.errors import BadBundle, StateError
from nginx_acme.key_types import KEY_TYPES
from nginx_acme.store import Identity, Store
from nginx_acme.store.proved import _KIND, Proved
from tests.store.bundles import NOW, issue, temporary

if TYPE_CHECKING:
    from nginx_acme.bundle import Bundle

NAMES = ("example.com", "*.example.com", "2001:db8::1")


def noted(store: Store) -> dict[str, list[Any]]:
    """What is on disk."""
    content = sealed.kept(f"{store.root}/proved", _KIND) or b""
    lines = (line.split(b" ", 1) for line in content.splitlines())
    return {digest.decode(): json.loads(fields) for digest, fields in lines}


def prove(store: Store, *bundles: Bundle) -> None:
    """Read bundles and note what they are."""
    proved = Proved(f"{store.root}/proved")
    for bundle in bundles:
        assert proved.read_bundle(bundle.pem) == bundle
    proved.keep(NOW)


@pytest.mark.parametrize(
    "bundle",
    [
        *(pytest.param(issue(NAMES, key_type), id=key_type) for key_type in KEY_TYPES),
        pytest.param(temporary(NAMES), id="temporary"),
        pytest.param(temporary(()), id="no names"),
        pytest.param(issue(NAMES, since=datetime(1951, 1, 1, tzinfo=UTC), days=99999), id="old"),
        pytest.param(issue(NAMES, days=365.25 * 7900), id="for ever"),
    ],
)
def test_the_same(store: Store, bundle: Bundle) -> None:
    """What is noted of a bundle is all that it says."""
    prove(store, bundle)
    assert len(noted(store)) == 1
    assert Proved(f"{store.root}/proved").read_bundle(bundle.pem) == bundle


def test_it_is_used(store: Store) -> None:
    """A bundle that is known is not taken apart again."""
    bundle = issue(NAMES)
    prove(store, bundle)
    (digest,), (fields,) = noted(store).keys(), noted(store).values()
    changed = [*fields[:4], "as it was noted", *fields[5:]]
    sealed.keep(f"{store.root}/proved", _KIND, f"{digest} {json.dumps(changed)}".encode())
    again = Proved(f"{store.root}/proved").read_bundle(bundle.pem)
    assert again.facts.issuer == "as it was noted"


def test_another_content(store: Store) -> None:
    """What is known of a bundle is not said of one that has a byte more or another key."""
    bundle, other = issue(NAMES), issue(NAMES, "ecdsa:384")
    prove(store, bundle, other)
    key, _, _ = other.pem.partition(b"-----BEGIN CERTIFICATE")
    _, begin, chain = bundle.pem.partition(b"-----BEGIN CERTIFICATE")
    proved = Proved(f"{store.root}/proved")
    with pytest.raises(BadBundle, match="not that of the certificate"):
        proved.read_bundle(key + begin + chain)
    assert proved.read_bundle(bundle.pem + b"\n").facts == bundle.facts


def test_no_bundle(store: Store) -> None:
    """What is no bundle is refused each time, and not noted."""
    proved = Proved(f"{store.root}/proved")
    for _ in range(2):
        with pytest.raises(BadBundle):
            proved.read_bundle(b"")
    proved.keep(NOW)
    assert not Path(store.root, "proved").exists()


def test_what_is_over_is_forgotten(store: Store) -> None:
    """A certificate that has expired is not noted any more."""
    prove(store, issue(("a.example",), days=1), issue(("b.example",), days=9))
    proved = Proved(f"{store.root}/proved")
    proved.read_bundle(issue(("c.example",), days=9).pem)
    proved.keep(NOW + timedelta(days=2))
    assert [names for names, *_ in noted(store).values()] == [["b.example"], ["c.example"]]


def test_of_a_store(store: Store) -> None:
    """A store notes what it has read, for its owner alone; another process reads it."""
    identity = Identity("https://ca.example/", frozenset(NAMES), None)
    bundle = issue(NAMES)
    store.create(identity, NAMES).install("ecdsa:256", bundle, identity.directory_url)
    for _ in range(2):
        again = Store(store.root)
        folder = again.find(identity)
        assert folder is not None
        assert folder.own("ecdsa:256") == bundle
        with pytest.raises(StateError, match="not open for writing"):
            again.keep_proved(NOW)
        again.open_for_writing()
        again.keep_proved(NOW)
    path = Path(store.root, "proved")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(noted(store)) == 1


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-9]), id="cut off"),
        pytest.param(lambda path: path.write_bytes(bytes(999)), id="zeros"),
        pytest.param(lambda path: path.chmod(0o640), id="others may read it"),
        pytest.param(lambda path: sealed.keep(str(path), b"kept 1", b"{}"), id="something else"),
    ],
)
def test_damaged(store: Store, damage: Any) -> None:
    """What can't be believed is found out again, and noted again."""
    bundle = issue(NAMES)
    prove(store, bundle)
    damage(Path(store.root, "proved"))
    assert not noted(store)
    prove(store, bundle)
    assert len(noted(store)) == 1
