"""The state directory as a whole: layout, look-up, the nearest certificate, locks."""

from __future__ import annotations

import os
import stat
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nginx_acme import locks
from nginx_acme.errors import StateError
from nginx_acme.policy.ari import Advice
from nginx_acme.store import Attempt, Identity, Store
from nginx_acme.store.certificates import possible_labels
from tests.mounts import CAN_MOUNT, in_memory
from tests.programs import answers, heard, python, running, tell
from tests.servers import PATIENCE
from tests.store.bundles import NOW, issue, temporary

if TYPE_CHECKING:
    from collections.abc import Callable

    from nginx_acme.bundle import Bundle

CA = "https://ca.example/directory"
OTHER_CA = "https://other.example/directory"
NAMES = ("example.com", "www.example.com")


def identity(*names: str, ca: str = CA, profile: str | None = None) -> Identity:
    """A certificate of `CA` for these names, or for `NAMES`."""
    return Identity(ca, frozenset(names or NAMES), profile)


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file and folder with its mode and content."""
    return {
        str(path.relative_to(folder)): (
            stat.S_IMODE(path.lstat().st_mode),
            path.read_bytes() if path.is_file() else b"",
        )
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store, open for writing."""
    made = Store(str(tmp_path / "state"))
    made.open_for_writing()
    return made


def reopened(store: Store, *, writing: bool = True) -> Store:
    """The same state directory, as the next process sees it."""
    again = Store(store.root)
    if writing:
        again.open_for_writing()
    return again


# Layout


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_the_layout_of_the_design(tmp_path: Path, mask: int) -> None:
    """Folders and modes as documented, whatever the umask of who starts nginx."""
    before = os.umask(mask)
    try:
        Store(str(tmp_path / "state")).open_for_writing()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o711
    assert {name: oct(mode) for name, (mode, _) in tree(tmp_path / "state").items()} == {
        "accounts": "0o700",
        "certificates": "0o700",
        "instances": "0o711",
        "layout": "0o644",
        "local": "0o700",
        "locks": "0o700",
        "public": "0o755",
        "public/challenges": "0o711",
        "public/instances": "0o755",
    }
    store = Store(str(tmp_path / "state"))
    assert Path(store.root, "layout").read_bytes() == b"1\n"
    assert (store.local, store.public) == (f"{store.root}/local", f"{store.root}/public")


def test_opening_again_changes_nothing(store: Store) -> None:
    """A second start finds the layout as the first left it."""
    before = tree(Path(store.root))
    reopened(store)
    assert tree(Path(store.root)) == before


def test_a_store_that_is_not_there_is_empty(tmp_path: Path) -> None:
    """Asking before the first start is no error and makes nothing."""
    store = Store(str(tmp_path / "state"))
    assert store.folders() == ()
    assert store.find(identity()) is None
    assert store.nearest(identity(), "ecdsa:256", NOW) is None
    assert store.find_account(CA) is None
    assert not store.newer
    assert os.listdir(tmp_path) == []


def full(store: Store) -> None:
    """Put one of everything into a store, some of it broken."""
    folder = store.create(identity(), NAMES)
    folder.install("ecdsa:256", issue(NAMES), CA)
    folder.place_nearest("rsa:2048", temporary(NAMES, "rsa:2048"))
    folder.pending.save_key(b"key")
    Path(folder.bundle_path("ecdsa:384")).write_bytes(b"damaged")
    orphan = store.create(identity("lost.example"), ["lost.example"])
    orphan.install("ecdsa:256", issue(("lost.example",)), CA)
    Path(orphan.path, "state.json").write_bytes(b"\0\0\0")
    (Path(store.root) / "certificates" / ".nginx-acme-1-2").mkdir()
    (Path(store.root) / "certificates" / "file").touch()


def test_queries_write_nothing(store: Store) -> None:
    """Whatever is asked of a store, whole or broken, not one byte of it changes."""
    full(store)
    before = tree(Path(store.root))
    reading = reopened(store, writing=False)
    for folder in reading.folders():
        for key_type in ("ecdsa:256", "ecdsa:384", "rsa:2048"):
            folder.read(key_type)
            folder.damage(key_type)
            folder.own(key_type)
            folder.previous(key_type)
            folder.issued(key_type)
            folder.attempt(key_type)
        folder.pending.order()
        folder.pending.key_pem()
        folder.refresh()
    assert reading.find(identity("lost.example")) is not None
    assert reading.nearest(identity("a.example"), "ecdsa:256", NOW) is None
    assert reading.find_account(CA) is None
    instance = reading.instance("/etc/nginx/nginx.conf", "/etc/nginx", "host")
    assert not instance.waited_recently(NOW, "")
    assert tree(Path(store.root)) == before


def test_a_store_opened_for_reading_is_not_written(store: Store) -> None:
    """Every way of writing is refused with one sentence that names the folder."""
    full(store)
    before = tree(Path(store.root))
    reading = reopened(store, writing=False)
    folder = reading.find(identity())
    assert folder is not None
    instance = reading.instance("/etc/nginx/nginx.conf", "/etc/nginx", "host")
    writes: list[Callable[[], object]] = [
        lambda: reading.create(identity("new.example"), ["new.example"]),
        lambda: folder.install("ecdsa:256", issue(NAMES), CA),
        lambda: folder.place_nearest("ecdsa:256", issue(NAMES)),
        lambda: folder.put_back("ecdsa:256"),
        lambda: folder.record("ecdsa:256", Attempt()),
        lambda: folder.note_advice("ecdsa:256", issue(NAMES), Advice(NOW, NOW)),
        lambda: folder.pending.save_key(b""),
        folder.pending.clear,
        lambda: reading.create_account("ca", CA, b"", NOW),
        lambda: reading.make_challenges("ca"),
        reading.lock_challenges,
        lambda: reading.lock_certificate(folder),
        lambda: reading.try_lock_certificate(folder),
        lambda: reading.lock_accounts(CA),
        lambda: reading.lock_generation(instance),
        instance.make,
        lambda: instance.begin_wait(NOW, ""),
        instance.end_wait,
        lambda: instance.note_loaded({}),
    ]
    for write in writes:
        with pytest.raises(StateError, match="is not open for writing") as caught:
            write()
        assert caught.value.path == store.root
    assert tree(Path(store.root)) == before


@pytest.mark.parametrize(
    ("layout", "newer"),
    [
        pytest.param(b"1\n", False, id="ours"),
        pytest.param(b"2\n", True, id="the next"),
        pytest.param(b"10", True, id="no newline"),
        pytest.param(b"", False, id="emptied by a power cut"),
        pytest.param(b"\0\0", False, id="broken"),
    ],
)
def test_newer(store: Store, layout: bytes, *, newer: bool) -> None:
    """A layout is newer when it says so; a broken note says nothing."""
    (Path(store.root) / "layout").write_bytes(layout)
    assert reopened(store, writing=False).newer is newer


def test_a_newer_layout_is_served_and_never_written(store: Store) -> None:
    """After a rollback the certificates are there, and opening for writing says why not."""
    full(store)
    (Path(store.root) / "layout").write_bytes(b"2\n")
    before = tree(Path(store.root))
    reading = reopened(store, writing=False)
    with pytest.raises(StateError, match="newer nginx-acme"):
        reading.open_for_writing()
    folder = reading.find(identity())
    assert folder is not None
    assert folder.own("ecdsa:256") is not None
    assert not reading.writable
    assert tree(Path(store.root)) == before


def test_a_root_that_cannot_be_made(tmp_path: Path) -> None:
    """A file in its place is a sentence that names it."""
    (tmp_path / "state").touch()
    with pytest.raises(StateError, match="state"):
        Store(str(tmp_path / "state")).open_for_writing()


READS = """
from nginx_acme.errors import StateError
from nginx_acme.store import Store
os.setuid(12345)
try:
    Store(sys.argv[1]).folders()
except StateError as error:
    print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming somebody else needs root")
def test_a_root_that_cannot_be_read(open_path: Path) -> None:
    """An unprivileged user is told which folder can't be read."""
    root = str(open_path / "state")
    Store(root).open_for_writing()
    said = answers([*python(READS), root]).decode()
    assert said == f'cannot read "{root}/certificates": Permission denied\n'


@CAN_MOUNT
def test_a_full_disk_is_noticed_before_an_order(tmp_path: Path) -> None:
    """Opening for writing fails when no certificate could be kept; reading goes on."""
    folder = tmp_path / "small"
    folder.mkdir()
    with in_memory(folder, "64k"):
        store = Store(str(folder))
        store.open_for_writing()
        made = store.create(identity(), NAMES)
        made.install("ecdsa:256", issue(NAMES), CA)
        room = os.statvfs(folder)
        (folder / "rest").write_bytes(bytes(room.f_bavail * room.f_bsize))
        before = tree(folder)
        again = Store(str(folder))
        with pytest.raises(StateError, match="No space left"):
            again.open_for_writing()
        with pytest.raises(StateError, match="No space left"):
            made.install("ecdsa:256", issue(NAMES), CA)
        found = again.find(identity())
        assert found is not None
        assert found.own("ecdsa:256") == made.own("ecdsa:256")
        assert {k: v for k, v in tree(folder).items() if "previous" not in k} == before


def leave_behind(store: Store, *places: str) -> list[Path]:
    """What a process leaves that was killed two hours ago, in these folders."""
    left = [Path(store.root, place, ".nginx-acme-1-2") for place in places]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (time.time() - 7200,) * 2)
    return left


def test_opening_sweeps_what_killed_processes_left(store: Store) -> None:
    """Nothing unfinished stays for ever, wherever the process was that was killed."""
    left = leave_behind(
        store,
        *("", "accounts", "accounts/ca_12345678", "certificates", "local", "public"),
        *("instances/nginx.conf-12345678", "instances/nginx.conf-12345678/generations"),
        "public/challenges/ca_12345678",
    )
    reopened(store)
    assert [path for path in left if path.exists()] == []


def test_opening_disarms_challenges_of_nobody(store: Store) -> None:
    """What a killed process has armed is disarmed by the next, but not what somebody works on."""
    armed = Path(store.make_challenges("ca_12345678"), "a" * 43)
    armed.touch()
    with store.lock_challenges(wait=0), store.lock_challenges(wait=0):
        reopened(store)
        assert armed.exists()
    with reopened(store, writing=False).lock_probes():
        reopened(store)
        assert armed.exists()
    reopened(store)
    assert not armed.exists()
    reopened(store).lock_challenges(wait=0).release()


# Look-up


def test_a_certificate_is_found_by_its_identity(store: Store) -> None:
    """Reordered names are the same certificate; another issuer, name or profile is another."""
    made = store.create(identity(), NAMES)
    for where in (store, reopened(store)):
        found = where.find(identity(*NAMES[::-1]))
        assert found is not None
        assert found.path == made.path
        assert where.find(identity(ca=OTHER_CA)) is None
        assert where.find(identity(profile="shortlived")) is None
        assert where.find(identity("example.com")) is None


def test_what_another_process_made_is_found(store: Store) -> None:
    """A process that stays finds the certificates of a reload when it opens the store again."""
    assert store.folders() == ()
    other = reopened(store)
    made = other.create(identity(), NAMES)
    made.record("ecdsa:256", Attempt(3, NOW, "no", NOW))
    store.open_for_writing()
    found = store.find(identity())
    assert found is not None
    assert found.attempt("ecdsa:256").failures == 3


def test_a_label_stays(store: Store) -> None:
    """The label is the first name's when it was made, and isn't changed by another order."""
    assert store.create(identity(), NAMES).label == "example.com"
    assert store.create(identity(), NAMES[::-1]).label == "example.com"
    assert reopened(store).create(identity(), NAMES[::-1]).label == "example.com"


def test_two_certificates_with_one_first_name(store: Store) -> None:
    """They get two folders, whose labels are the same after every start."""
    wanted = [identity(), identity(ca=OTHER_CA), identity(profile="a"), identity("example.com")]
    labels = [store.create(one, ["example.com"]).label for one in wanted]
    assert len(set(labels)) == 4
    assert labels[0] == "example.com"
    assert all(label.startswith("example.com-") for label in labels[1:])
    again = reopened(store)
    assert [again.create(one, ["example.com"]).label for one in wanted] == labels


def test_two_processes_make_the_same_certificate(store: Store) -> None:
    """Whoever comes second gets the folder of the first."""
    other = reopened(store)
    assert other.folders() == ()
    first = store.create(identity(), NAMES)
    assert other.create(identity(), NAMES).path == first.path
    assert os.listdir(Path(store.root) / "certificates") == ["example.com"]


CREATES = """
from nginx_acme.store import Identity, Store
store = Store(sys.argv[1])
store.open_for_writing()
store.folders()
print(flush=True)
sys.stdin.readline()
for number in range(100):
    name = f"{number}.example"
    print(store.create(Identity("https://ca.example", frozenset([name]), None), [name]).label)
"""


def test_two_processes_make_a_hundred_certificates_at_once(tmp_path: Path) -> None:
    """Each certificate has one folder in the end, and both processes know it by its name."""
    root = tmp_path / "state"
    with running(CREATES, str(root)) as one, running(CREATES, str(root)) as other:
        for process in (one, other):
            heard(process)
        for process in (one, other):
            tell(process)
        outputs = [
            process.communicate(timeout=PATIENCE)[0].decode().split() for process in (one, other)
        ]
    expected = [f"{number}.example" for number in range(100)]
    assert outputs == [expected, expected]
    assert sorted(os.listdir(root / "certificates")) == sorted(expected)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(None, id="missing"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\0" * 100, id="zeros"),
        pytest.param(b"{", id="cut off"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b'{"directory_url": 1, "names": ["example.com"]}', id="wrong type"),
        pytest.param(b'{"directory_url": "x", "names": [1]}', id="wrong names"),
    ],
)
def test_a_lost_state_loses_no_certificate(store: Store, broken: bytes | None) -> None:
    """Who wants exactly the names that are in the certificate finds it, for any issuer."""
    made = store.create(identity(), NAMES)
    bundle = issue(NAMES)
    made.install("ecdsa:256", bundle, CA)
    state = Path(made.path, "state.json")
    state.unlink()
    if broken is not None:
        state.write_bytes(broken)
    again = reopened(store)
    assert again.find(identity("example.com")) is None
    found = again.find(identity(profile="p"))
    assert found is not None
    assert found.own("ecdsa:256") == bundle
    assert found.issued("ecdsa:256") is None
    assert again.find(identity()) is None, "it belongs to the first who asked"
    assert again.find(identity(profile="p")) is found


def test_an_adopted_certificate_is_remembered(store: Store) -> None:
    """With the first thing that is noted it has its identity again; the broken note is kept."""
    made = store.create(identity(), NAMES)
    made.install("ecdsa:256", issue(NAMES), CA)
    Path(made.path, "state.json").write_bytes(b"broken")
    adopted = reopened(store).find(identity())
    assert adopted is not None
    adopted.record("ecdsa:256", Attempt(failures=1))
    assert Path(made.path, "state.json.damaged").read_bytes() == b"broken"
    again = reopened(store).find(identity())
    assert again is not None
    assert again.attempt("ecdsa:256").failures == 1


def test_an_orphan_of_a_temporary_certificate(store: Store) -> None:
    """Its folder is used again, so that nginx's path stays the same; it is no certificate."""
    made = store.create(identity(), NAMES)
    made.place_nearest("ecdsa:256", temporary(NAMES))
    Path(made.path, "state.json").unlink()
    found = reopened(store).find(identity())
    assert found is not None
    assert found.own("ecdsa:256") is None


def test_an_empty_folder_is_used(store: Store) -> None:
    """A folder without anything in it has nothing to lose."""
    (Path(store.root) / "certificates" / "example.com").mkdir()
    assert store.folders() == ()
    assert store.create(identity(), NAMES).label == "example.com"


def test_a_folder_that_is_not_ours_is_left_alone(store: Store) -> None:
    """A file, and a folder with other things in it, stay as they are."""
    parent = Path(store.root) / "certificates"
    (parent / "example.com").mkdir()
    (parent / "example.com" / "notes").write_bytes(b"mine")
    (parent / "www.example.com").write_bytes(b"mine, too")
    assert store.create(identity(), NAMES).label.startswith("example.com-")
    one = identity("www.example.com")
    assert store.create(one, ["www.example.com"]).label.startswith("www.example.com-")
    assert (parent / "example.com" / "notes").read_bytes() == b"mine"
    assert (parent / "www.example.com").read_bytes() == b"mine, too"


def test_no_label_is_left(store: Store) -> None:
    """When all its labels are somebody else's, making it is an error, and nothing is overwritten."""
    parent = Path(store.root) / "certificates"
    taken = list(possible_labels(identity(), NAMES))
    for label in taken:
        (parent / label).mkdir()
        (parent / label / "notes").touch()
    with pytest.raises(StateError, match=r'has no name left for a certificate of "example\.com"$'):
        store.create(identity(), NAMES)
    assert sorted(os.listdir(parent)) == sorted(taken)


def test_a_thousand_certificates(store: Store) -> None:
    """They are made, read and found in a second or two."""
    wanted = [identity(f"{number}.example", "shared.example") for number in range(1000)]
    begin = time.monotonic()
    for one in wanted:
        store.create(one, sorted(one.names))
    again = reopened(store)
    assert len(again.folders()) == 1000
    assert all(again.find(one) is not None for one in wanted)
    assert time.monotonic() - begin < 10, "linear in their number"


# The nearest certificate


def stored(store: Store, one: Identity, bundle: Bundle) -> None:
    """Put a bundle into a store as issued for `one`."""
    folder = store.create(one, sorted(one.names))
    folder.install(bundle.facts.key_type, bundle, one.directory_url)


EXPIRED = NOW - timedelta(days=100)
FUTURE = NOW + timedelta(days=100)
WANTED = identity("a.example", "b.example", "c.example")
ALL = ("a.example", "b.example", "c.example")
TWO = ("a.example", "b.example")


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        pytest.param([(TWO, {}), (ALL, {"ca": OTHER_CA})], 1, id="right names before most names"),
        pytest.param([(TWO, {}), (ALL, {"key_type": "rsa:2048"})], 1, id="any key type"),
        pytest.param(
            [(ALL, {"key_type": "ecdsa:384"}), (ALL, {})], 1, id="the same key type before another"
        ),
        pytest.param(
            [(ALL, {"ca": OTHER_CA, "days": 99}), (ALL, {})], 1, id="the same issuer before another"
        ),
        pytest.param([(ALL, {"since": FUTURE}), (TWO, {})], 0, id="not yet valid is valid"),
        pytest.param([(TWO, {}), (ALL, {"since": EXPIRED})], 0, id="most names before expired"),
        pytest.param([(ALL, {"since": EXPIRED})], 0, id="expired with the right names"),
        pytest.param(
            [(ALL, {"since": EXPIRED, "days": 1}), (ALL, {"since": EXPIRED, "ca": OTHER_CA})],
            0,
            id="of expired ones the same issuer's",
        ),
        pytest.param([(TWO, {"since": EXPIRED})], None, id="expired without all names"),
        pytest.param([(("a.example",), {}), (TWO, {"ca": OTHER_CA})], 1, id="most names"),
        pytest.param(
            [(TWO, {}), (("*.example",), {"ca": OTHER_CA})], 1, id="a wildcard covers most names"
        ),
        pytest.param([(("other.example",), {})], None, id="no name in common"),
        pytest.param([((*ALL, "d.example"), {}), (TWO, {})], 0, id="more names than wanted"),
        pytest.param([], None, id="nothing there"),
    ],
)
def test_nearest(
    store: Store, there: list[tuple[tuple[str, ...], dict[str, object]]], expected: int | None
) -> None:
    """The order of the design: right names, most names, expired with right names."""
    bundles = []
    for names, special in there:
        ca = str(special.pop("ca", CA))
        bundle = issue(names, **special)  # type: ignore[arg-type]
        bundles.append(bundle)
        stored(store, identity(*names, ca=ca), bundle)
    found = reopened(store).nearest(WANTED, "ecdsa:256", NOW)
    assert found == (None if expected is None else bundles[expected])


def test_a_temporary_certificate_is_never_the_nearest(store: Store) -> None:
    """Not even the one with all the names; a new one says better what it is."""
    store.create(WANTED, ALL).place_nearest("ecdsa:256", temporary(ALL))
    assert reopened(store).nearest(WANTED, "ecdsa:256", NOW) is None


def test_a_damaged_bundle_is_never_the_nearest(store: Store) -> None:
    """What nginx couldn't start with is as good as absent; then the one before it is near."""
    folder = store.create(WANTED, ALL)
    first, second = issue(ALL), issue(ALL)
    folder.install("ecdsa:256", first, CA)
    Path(folder.bundle_path("ecdsa:256")).write_bytes(b"damaged")
    assert reopened(store).nearest(WANTED, "ecdsa:256", NOW) is None
    folder.install("ecdsa:256", first, CA)
    folder.install("ecdsa:256", second, CA)
    Path(folder.bundle_path("ecdsa:256")).write_bytes(b"damaged")
    again = reopened(store)
    assert again.nearest(WANTED, "ecdsa:256", NOW) == first
    found = again.find(WANTED)
    assert found is not None
    found.place_nearest("ecdsa:256", first)
    assert found.read("ecdsa:256") == first
    assert found.own("ecdsa:256") is None, "it is served, and a new one is asked for"


def test_an_expired_certificate_that_gave_way_is_near_again(store: Store) -> None:
    """When the nearer one has expired as well, the one with the right names is served."""
    expired = issue(ALL, since=EXPIRED)
    folder = store.create(WANTED, ALL)
    folder.install("ecdsa:256", expired, CA)
    folder.place_nearest("ecdsa:256", issue(TWO, days=1))
    later = NOW + timedelta(days=2)
    assert reopened(store).nearest(WANTED, "ecdsa:256", later) == expired


def test_an_expired_certificate_without_a_name_is_better_than_none(store: Store) -> None:
    """What was issued for this very certificate is served on, though a name was left out."""
    expired = issue(TWO, since=EXPIRED)
    store.create(WANTED, ALL).install("ecdsa:256", expired, CA)
    assert reopened(store).nearest(WANTED, "ecdsa:256", NOW) == expired


def test_a_new_certificate_counts_at_once(store: Store) -> None:
    """What was installed a moment ago is near to those who come after."""
    assert store.nearest(WANTED, "ecdsa:256", NOW) is None
    bundle = issue(TWO)
    stored(store, identity(*TWO), bundle)
    assert store.nearest(WANTED, "ecdsa:256", NOW) == bundle


# Locks

HOLDS = """
from nginx_acme.store import Attempt, Identity, Store
store = Store(sys.argv[1])
store.open_for_writing()
folder = store.create(Identity(sys.argv[2], frozenset(["example.com"]), None), ["example.com"])
with store.lock_certificate(folder), store.lock_accounts(sys.argv[2]):
    print(flush=True)
    sys.stdin.readline()
    folder.record("ecdsa:256", Attempt(failures=7))
    print(flush=True)
    sys.stdin.readline()
"""


def test_one_process_works_on_a_certificate(store: Store) -> None:
    """The second is told who does; when it gets the lock it knows what the first has noted."""
    folder = store.create(identity("example.com"), ["example.com"])
    with running(HOLDS, store.root, CA) as process:
        heard(process)
        assert store.try_lock_certificate(folder) is None
        with pytest.raises(StateError, match=f"process {process.pid} "):
            store.lock_certificate(folder, wait=0)
        with pytest.raises(StateError, match=f"process {process.pid} "):
            store.lock_accounts(CA, wait=0)
        store.lock_accounts(OTHER_CA, wait=0).release()
        tell(process)
        heard(process)
        assert folder.attempt("ecdsa:256").failures == 0
    with store.lock_certificate(folder, wait=PATIENCE):
        assert folder.attempt("ecdsa:256").failures == 7


def test_locks_of_two_certificates_and_an_instance(store: Store) -> None:
    """Each is its own; the same one is not had twice in one process."""
    one = store.create(identity(), NAMES)
    other = store.create(identity("other.example"), ["other.example"])
    instance = store.instance("/etc/nginx/nginx.conf", "/etc/nginx", "host")
    with store.lock_certificate(one), store.lock_generation(instance):
        held = store.try_lock_certificate(other)
        assert held is not None
        held.release()
        assert store.try_lock_certificate(one) is None
        assert locks.try_lock(instance.generation_lock) is None
    assert tree(Path(store.root) / "locks").keys() == {
        "certificate-example.com.lock",
        "certificate-other.example.lock",
        os.path.basename(instance.generation_lock),
    }


def test_a_lock_is_given_back_when_the_state_cannot_be_read(store: Store) -> None:
    """An error right after locking leaves nothing locked."""
    folder = store.create(identity(), NAMES)
    state = Path(folder.path, "state.json")
    state.unlink()
    state.mkdir()
    with pytest.raises(StateError, match="cannot read"):
        store.lock_certificate(folder)
    state.rmdir()
    store.lock_certificate(folder, wait=0).release()
