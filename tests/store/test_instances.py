"""Instances share a state directory without knowing of each other."""

from __future__ import annotations

import os
import stat
from datetime import timedelta
from pathlib import Path

import pytest

from nginx_acme import locks
from nginx_acme.labels import family_name
from nginx_acme.store import Instance, Proof, Store
from tests.store.bundles import NOW

CONF, PREFIX, HOST = "/etc/nginx/nginx.conf", "/etc/nginx", "web1"
FAMILY = family_name(CONF, PREFIX)


@pytest.fixture
def instance(store: Store) -> Instance:
    """One nginx."""
    return store.instance(CONF, PREFIX, HOST)


def test_paths(store: Store, instance: Instance) -> None:
    """They are below the instance's folder, locks among the locks; asking makes nothing."""
    assert instance.path == f"{store.root}/instances/{instance.name}"
    assert instance.name.startswith("nginx.conf-")
    assert instance.generated == f"{instance.path}/generated"
    assert instance.generations == f"{instance.path}/generations"
    assert os.path.dirname(instance.generation_lock) == f"{store.root}/locks"
    assert len({instance.generation_lock, instance.agent_lock, instance.start_lock}) == 3
    assert not os.path.exists(instance.path)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(("/etc/nginx-b/nginx.conf", PREFIX, HOST), id="another main file"),
        pytest.param((CONF, "/srv", HOST), id="another prefix"),
        pytest.param((CONF, PREFIX, "web2"), id="another host"),
        pytest.param(("/etc/nginx/nginx", ".conf/etc/nginx", HOST), id="the same text in all"),
    ],
)
def test_two_instances_are_told_apart(
    store: Store, instance: Instance, other: tuple[str, str, str]
) -> None:
    """Whatever tells two of them apart gives another folder."""
    assert store.instance(*other).path != instance.path


def test_the_same_instance_after_a_restart(store: Store, instance: Instance) -> None:
    """The same folder each time; the hash is part of what never changes."""
    assert Store(store.root).instance(CONF, PREFIX, HOST).path == instance.path
    assert instance.name == "nginx.conf-0e53b505"


def test_a_main_file_with_an_odd_name(store: Store) -> None:
    """Spaces and bytes that are no UTF-8 are not in the folder's name."""
    name = store.instance("/etc/my conf \udcff$.conf", PREFIX, HOST).name
    assert name.startswith("my_conf___.conf-")


def test_workers_pass_through(instance: Instance) -> None:
    """The workers of nginx open files by paths that lead through a generation."""
    instance.make()
    instance.make()
    assert stat.S_IMODE(os.stat(instance.path).st_mode) == 0o711


def test_a_start_that_waits_is_noted(store: Store, instance: Instance) -> None:
    """One that never finished is known for an hour, also to the next process."""
    assert not instance.waited_recently(NOW, FAMILY)
    instance.begin_wait(NOW, FAMILY)
    next_start = Store(store.root).instance(CONF, PREFIX, HOST)
    assert next_start.waited_recently(NOW, FAMILY)
    assert next_start.waited_recently(NOW + timedelta(minutes=59), FAMILY)
    assert not next_start.waited_recently(NOW + timedelta(hours=1), FAMILY)


def test_a_start_that_waits_is_of_a_family(instance: Instance) -> None:
    """What is noted of another main file or prefix is another's."""
    instance.begin_wait(NOW, FAMILY)
    assert not instance.waited_recently(NOW, family_name("/etc/nginx-b/nginx.conf", PREFIX))
    assert not instance.waited_recently(NOW, family_name(CONF, "/srv"))


def test_a_start_under_way(instance: Instance) -> None:
    """It is known by its lock, which whoever asks doesn't keep."""
    with locks.lock(instance.start_lock, wait=0):
        assert instance.is_starting()
    assert not instance.is_starting()
    assert not instance.is_starting()


def test_a_start_that_finished_leaves_no_note(instance: Instance) -> None:
    """Its successor may wait again."""
    instance.begin_wait(NOW, FAMILY)
    instance.end_wait()
    instance.end_wait()
    assert not instance.waited_recently(NOW, FAMILY)


def test_a_wait_in_the_future_is_none(instance: Instance) -> None:
    """A clock that was wrong stops no start from waiting."""
    instance.begin_wait(NOW + timedelta(days=365), FAMILY)
    assert not instance.waited_recently(NOW, FAMILY)


def test_a_broken_note_of_a_wait_is_none(instance: Instance) -> None:
    """Nor does a file that a power cut left."""
    instance.begin_wait(NOW, FAMILY)
    Path(instance.path, "waiting.json").write_bytes(b"\0\0")
    assert not instance.waited_recently(NOW, FAMILY)


def test_what_nginx_has_read(store: Store, instance: Instance) -> None:
    """It is known to the next process, and unknown after a power cut."""
    assert instance.loaded() == {}
    instance.make()
    instance.note_loaded({"example.com": {"ecdsa:256": "1f"}})
    next_start = Store(store.root).instance(CONF, PREFIX, HOST)
    assert next_start.loaded() == {"example.com": {"ecdsa:256": "1f"}}
    Path(instance.path, "loaded.json").write_bytes(b'{"example.com"')
    assert instance.loaded() == {}


def test_what_nginx_was_seen_to_serve(store: Store, instance: Instance) -> None:
    """It is known to the next process, of each key type; what is broken in it is not known."""
    assert instance.proofs() == {}
    instance.make()
    proofs = {
        ("a.example", "ecdsa:256"): Proof("1f", True, None, NOW),
        ("a.example", "rsa:2048"): Proof("20", False, "a temporary one is shown", NOW),
        ("b.example", "ecdsa:256"): Proof("21", None, "only QUIC shows it", NOW),
    }
    instance.note_proofs(proofs)
    assert Store(store.root).instance(CONF, PREFIX, HOST).proofs() == proofs
    noted = Path(instance.path, "proofs.json")
    noted.write_text(noted.read_text().replace('"20"', "20").replace('"21"', "null"))
    assert instance.proofs().keys() == {("a.example", "ecdsa:256")}
    noted.write_text('{"a.example": 7, "b.example": {"ecdsa:256": []}}')
    assert instance.proofs() == {}


def test_what_hooks_were_told(store: Store, instance: Instance) -> None:
    """So is that."""
    assert instance.told() == {}
    instance.make()
    instance.note_told({"version": 1})
    assert Store(store.root).instance(CONF, PREFIX, HOST).told() == {"version": 1}


def test_whose_challenges_are_answered(store: Store, instance: Instance) -> None:
    """The accounts that were known; what isn't what was noted is passed over."""
    assert instance.accounts() == {}
    known = {"ca ecdsa:256": (("ca_1", "thumbprint"), ("ca_2", "the next one's"))}
    instance.make()
    instance.note_accounts(known)
    again = store.instance(CONF, PREFIX, HOST)
    assert again.accounts() == known
    note = Path(instance.path, "accounts.json")
    note.write_text('{"a": [["only a name"]], "b": 7, "c": [["x", "y"]], "d": [[1, 2]]}')
    assert again.accounts() == {"c": (("x", "y"),)}
    note.write_text("{")
    assert again.accounts() == {}
