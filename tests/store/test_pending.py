"""An order under way survives the process that made it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nginx_acme.store import Identity, PendingOrder, Store
from tests.programs import heard, running
from tests.store.bundles import NOW

if TYPE_CHECKING:
    from nginx_acme.store import Pending

ORDER = PendingOrder(
    directory_url="https://ca.example/directory",
    names=frozenset({"example.com", "192.0.2.1"}),
    key_type="ecdsa:256",
    profile="shortlived",
    account_url="https://ca.example/account/1",
    order_url="https://ca.example/order/1",
    finalize_url="https://ca.example/order/1/finalize",
    replaces="aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE",
    expires=NOW,
)


@pytest.fixture
def pending(store: Store) -> Pending:
    """The place of a certificate's order; there is none yet."""
    identity = Identity(ORDER.directory_url, frozenset({"example.com"}), None)
    return store.create(identity, ["example.com"]).pending


def again(store: Store) -> Pending:
    """The same, as the next process sees it."""
    (folder,) = Store(store.root).folders()
    return folder.pending


def test_nothing_pending(pending: Pending) -> None:
    """Before the first order there is nothing, and forgetting it is no error."""
    assert pending.key_pem() is None
    assert pending.order() is None
    pending.clear()


def test_the_key_comes_first(store: Store, pending: Pending) -> None:
    """It is private, and there without an order: whether one was made, only the CA knows."""
    pending.save_key(b"the key")
    assert again(store).key_pem() == b"the key"
    assert again(store).order() is None
    assert stat.S_IMODE(os.stat(pending.path).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(Path(pending.path, "key.pem")).st_mode) == 0o600


@pytest.mark.parametrize(
    "order",
    [
        pytest.param(ORDER, id="everything"),
        pytest.param(
            PendingOrder("https://ca.example/directory", frozenset({"a"}), "rsa:2048"),
            id="as it is before newOrder",
        ),
    ],
)
def test_an_order_is_known_after_a_restart(
    store: Store, pending: Pending, order: PendingOrder
) -> None:
    """All that is needed to go on with it."""
    pending.save_key(b"the key")
    pending.save_order(order)
    assert again(store).order() == order


def test_nothing_new_is_not_written(store: Store, pending: Pending) -> None:
    """An order is written again when something of it is new, and after it was forgotten."""
    note = Path(pending.path) / "order.json"
    pending.save_key(b"key")
    pending.save_order(ORDER)
    first = note.stat().st_mtime_ns, note.stat().st_ino
    pending.save_order(replace(ORDER))
    assert (note.stat().st_mtime_ns, note.stat().st_ino) == first
    newer = replace(ORDER, finalize_url="https://ca.example/order/2/finalize")
    pending.save_order(newer)
    assert again(store).order() == newer
    pending.clear()
    pending.save_key(b"key")
    pending.save_order(newer)
    assert again(store).order() == newer


def test_an_order_without_its_key_is_of_no_use(pending: Pending) -> None:
    """Its certificate would be for nobody."""
    pending.save_key(b"the key")
    pending.save_order(ORDER)
    Path(pending.path, "key.pem").unlink()
    assert pending.order() is None


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{}", id="no fields"),
        pytest.param(b"[1]", id="no object"),
        pytest.param(json.dumps({"directory_url": "x", "names": ["a"]}).encode(), id="no key type"),
        pytest.param(b'{"directory_url": 1, "names": 2, "key_type": 3}', id="wrong types"),
    ],
)
def test_a_broken_note_is_no_order(pending: Pending, content: bytes) -> None:
    """Its key stays, and the next order is written over it."""
    pending.save_key(b"the key")
    Path(pending.path, "order.json").write_bytes(content)
    assert pending.order() is None
    assert pending.key_pem() == b"the key"
    pending.save_order(ORDER)
    assert pending.order() == ORDER


def test_clear(store: Store, pending: Pending) -> None:
    """Nothing of an order is left, and a new one can begin."""
    pending.save_key(b"the key")
    pending.save_order(ORDER)
    pending.clear()
    pending.clear()
    assert not os.path.exists(pending.path)
    assert again(store).order() is None
    pending.save_key(b"another key")
    assert again(store).key_pem() == b"another key"


ORDERS = """
from nginx_acme.store import PendingOrder, Store
store = Store(sys.argv[1])
store.open_for_writing()
(folder,) = store.folders()
print(flush=True)
while True:
    folder.pending.save_key(b"the key")
    for url in (None, "https://ca.example/1"):
        names = frozenset(["example.com"])
        folder.pending.save_order(PendingOrder("https://ca.example", names, "rsa:2048", order_url=url))
    folder.pending.clear()
"""


def test_a_kill_leaves_no_order_without_a_key(store: Store, pending: Pending) -> None:
    """Killed anywhere between the first key and the last removal, key and order fit."""
    for number in range(8):
        with running(ORDERS, store.root) as process:
            heard(process)
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.001 * number)
            process.kill()
        assert pending.key_pem() in (None, b"the key")
        if Path(pending.path, "order.json").exists():
            assert pending.order() is not None
    pending.save_key(b"another key")
    pending.clear()
    assert not os.path.exists(pending.path)
