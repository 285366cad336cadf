"""What an account waits for outlives the process that learned it."""

from __future__ import annotations

import json
import os
import stat
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nginx_acme.certificate import new_key
from nginx_acme.errors import StateError
from nginx_acme.policy.limits import Kind, Limits, Scope, Stop
from nginx_acme.store import Store
from tests.store.bundles import NOW

if TYPE_CHECKING:
    from nginx_acme.store.limits import KeptLimits

CA = "https://ca.example/directory"
KEY = new_key("ecdsa:256")
HOUR = timedelta(hours=1)
LIMITS = Limits(
    stops={
        Scope(Kind.CA): Stop(NOW + HOUR, "Connection refused", failures=3),
        Scope(Kind.BELOW, "example.com"): Stop(NOW, "too many", said=True, renewals=True, at=NOW),
    },
    full={"": NOW + HOUR, "example.com": NOW},
    failed={"www.example.com": (NOW - HOUR, NOW)},
)


@pytest.fixture
def store(store: Store) -> Store:
    """One with an account."""
    store.create_account("letsencrypt", CA, KEY, NOW)
    return store


def kept(store: Store) -> KeptLimits:
    """Those of the account, as the next process finds them; the store is open for writing."""
    store = Store(store.root)
    store.open_for_writing()
    account = store.find_account(CA)
    assert account is not None
    return account.limits


def test_round_trip(store: Store) -> None:
    """Everything comes back, and nothing is remembered before there is anything."""
    assert kept(store).load() == Limits()
    kept(store).save(LIMITS)
    assert kept(store).load() == LIMITS
    assert stat.S_IMODE(os.stat(kept(store).path).st_mode) == 0o600


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda text: text[: len(text) // 2], id="cut off"),
        pytest.param(lambda _: "", id="empty"),
        pytest.param(lambda _: "\0" * 4096, id="zeros"),
        pytest.param(lambda _: "[]", id="something else"),
        pytest.param(lambda _: "[" * 100_000, id="bottomless"),
    ],
)
def test_damaged(store: Store, damage: object) -> None:
    """A damaged file is told apart from none, and set aside by the next who writes."""
    kept(store).save(LIMITS)
    path = Path(kept(store).path)
    assert callable(damage)
    path.write_text(damage(path.read_text()))
    assert kept(store).load() is None
    kept(store).save(LIMITS)
    assert kept(store).load() == LIMITS
    assert path.with_name("limits.json.damaged").exists()


def test_nonsense_inside(store: Store) -> None:
    """Each field that makes no sense is as good as missing; the others count."""
    kept(store).save(LIMITS)
    path = Path(kept(store).path)
    fields = json.loads(path.read_text())
    fields["stops"] += [
        {"kind": "nobody", "until": NOW.isoformat()},
        {"kind": "ca", "until": "soon"},
        "nothing",
    ]
    fields["full"] |= {"a.example": 5, "b.example": "2027-03-01T12:00:00"}
    fields["failed"] |= {"a.example": "now", "b.example": [1, 2]}
    path.write_text(json.dumps(fields))
    found = kept(store).load()
    assert found is not None
    assert (found.stops, found.full) == (LIMITS.stops, LIMITS.full)
    assert {name: at for name, at in found.failed.items() if at} == LIMITS.failed
    path.write_text(json.dumps({"stops": 1, "full": [], "failed": None}))
    assert kept(store).load() == Limits()


def test_of_a_newer_program(store: Store) -> None:
    """What a newer program noted beside it stays."""
    Path(kept(store).path).write_text('{"pace": 5}')
    kept(store).save(LIMITS)
    assert json.loads(Path(kept(store).path).read_text())["pace"] == 5


def test_unwritable(store: Store) -> None:
    """What can't be written is said to be."""
    Path(kept(store).path).mkdir()
    with pytest.raises(StateError, match=r"limits\.json"):
        kept(store).save(LIMITS)
    account = Store(store.root).find_account(CA)
    assert account is not None
    with pytest.raises(StateError, match="not open for writing"):
        account.limits.save(LIMITS)
