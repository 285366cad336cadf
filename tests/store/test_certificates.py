"""The folder of one certificate: what is installed, placed, kept, damaged and noted."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nginx_acme import disk
from nginx_acme.certificate import read_bundle
from nginx_acme.errors import StateError
from nginx_acme.policy.ari import Advice
from nginx_acme.store import Attempt, Identity, Issued, Store
from tests.programs import heard, running
from tests.store.bundles import NOW, issue, temporary

if TYPE_CHECKING:
    from nginx_acme.store import CertificateFolder

CA = "https://ca.example/directory"
OTHER_CA = "https://other.example/directory"
NAMES = ("example.com", "www.example.com")
IDENTITY = Identity(CA, frozenset(NAMES), None)
KEY_TYPE = "ecdsa:256"


@pytest.fixture
def folder(store: Store) -> CertificateFolder:
    """The folder of a certificate that was never issued."""
    return store.create(IDENTITY, NAMES)


def again(store: Store) -> CertificateFolder:
    """The same folder, as the next process sees it."""
    reopened = Store(store.root)
    reopened.open_for_writing()
    found = reopened.find(IDENTITY)
    assert found is not None
    return found


def files(folder: CertificateFolder) -> set[str]:
    """The names of all files in a folder."""
    return set(os.listdir(folder.path))


def bundle_file(folder: CertificateFolder) -> Path:
    """The file that nginx is given."""
    return Path(folder.bundle_path(KEY_TYPE))


# Installing


def test_an_installed_certificate(store: Store, folder: CertificateFolder) -> None:
    """It lies at nginx's path, is private, is this certificate, and who issued it is known."""
    bundle = issue(NAMES)
    folder.install(KEY_TYPE, bundle, CA, "ca_1234")
    assert stat.S_IMODE(os.stat(folder.path).st_mode) == 0o700
    assert {
        name: stat.S_IMODE(os.stat(Path(folder.path, name)).st_mode) for name in files(folder)
    } == {
        "ecdsa-256.pem": 0o600,
        "state.json": 0o600,
    }
    for seen in (folder, again(store)):
        assert seen.read(KEY_TYPE) == seen.own(KEY_TYPE) == bundle
        assert seen.previous(KEY_TYPE) is None
        assert seen.damage(KEY_TYPE) is None
        assert seen.issued(KEY_TYPE) == Issued(CA, "ca_1234", bundle.facts.not_after)


def test_the_one_before_is_kept(folder: CertificateFolder) -> None:
    """After a renewal the previous one is beside it; the one before that is gone."""
    bundles = [issue(NAMES) for _ in range(3)]
    for bundle in bundles:
        folder.install(KEY_TYPE, bundle, CA)
    assert folder.own(KEY_TYPE) == bundles[2]
    assert folder.previous(KEY_TYPE) == bundles[1]
    assert files(folder) == {"ecdsa-256.pem", "ecdsa-256.previous.pem", "state.json"}
    state = json.loads(Path(folder.path, "state.json").read_bytes())
    assert len(state["key_types"][KEY_TYPE]["issued"]) == 2


def test_installing_twice_is_the_same_as_once(folder: CertificateFolder) -> None:
    """Downloaded again after a kill, a certificate doesn't become its own predecessor."""
    first, second = issue(NAMES), issue(NAMES)
    folder.install(KEY_TYPE, first, CA)
    folder.install(KEY_TYPE, second, CA)
    folder.install(KEY_TYPE, second, CA)
    assert folder.previous(KEY_TYPE) == first


def test_key_types_have_nothing_to_do_with_each_other(folder: CertificateFolder) -> None:
    """Each has its file, its issuer and its attempts."""
    ecdsa, rsa = issue(NAMES), issue(NAMES, "rsa:2048")
    folder.install("ecdsa:256", ecdsa, CA)
    folder.record("rsa:2048", Attempt(failures=2))
    folder.install("ecdsa:384", issue(NAMES, "ecdsa:384"), OTHER_CA)
    assert folder.attempt("rsa:2048").failures == 2
    folder.install("rsa:2048", rsa, CA)
    assert (folder.own("ecdsa:256"), folder.own("rsa:2048")) == (ecdsa, rsa)
    issued = folder.issued("ecdsa:384")
    assert issued is not None
    assert issued.directory_url == OTHER_CA


def test_success_ends_the_attempts(folder: CertificateFolder) -> None:
    """After a certificate was installed the next failure is the first."""
    folder.record(KEY_TYPE, Attempt(3, NOW, "no", NOW))
    folder.install(KEY_TYPE, issue(NAMES), CA)
    assert folder.attempt(KEY_TYPE) == Attempt()


def test_a_certificate_without_a_dead_name_is_ours(store: Store, folder: CertificateFolder) -> None:
    """One that was issued for fewer names counts, as long as it is known that it was."""
    bundle = issue(NAMES[:1])
    folder.install(KEY_TYPE, bundle, CA)
    assert again(store).own(KEY_TYPE) == bundle


def test_leftovers_of_a_killed_process_go_away(folder: CertificateFolder) -> None:
    """The next certificate sweeps its folder."""
    left = Path(folder.path, ".nginx-acme-1-2")
    left.write_bytes(b"half a key")
    os.utime(left, (0, 0))
    folder.install(KEY_TYPE, issue(NAMES), CA)
    assert not left.exists()


# Trust files, not notes


def test_a_restored_file_is_known_by_its_own_serial(folder: CertificateFolder) -> None:
    """Who issued the newer certificate says nothing about the older one put in its place."""
    old, new = issue(NAMES), issue(NAMES)
    folder.install(KEY_TYPE, old, OTHER_CA)
    folder.install(KEY_TYPE, new, CA)
    bundle_file(folder).write_bytes(old.pem)
    issued = folder.issued(KEY_TYPE)
    assert issued is not None
    assert issued.directory_url == OTHER_CA
    bundle_file(folder).write_bytes(issue(NAMES).pem)
    assert folder.issued(KEY_TYPE) is None
    assert folder.own(KEY_TYPE) is not None, "the names are right, so the operator brought it"


def test_a_file_of_another_certificate_is_not_ours(folder: CertificateFolder) -> None:
    """A file for other names, or with another key type, can be served and is not this one."""
    for stranger in (issue(("other.example",)), issue(NAMES, "rsa:2048")):
        bundle_file(folder).write_bytes(stranger.pem)
        assert folder.read(KEY_TYPE) == stranger
        assert folder.own(KEY_TYPE) is None


def test_a_change_of_the_file_is_seen(folder: CertificateFolder) -> None:
    """What another process put there counts, also after this one has looked."""
    first, second = issue(NAMES), issue(NAMES)
    assert folder.read(KEY_TYPE) is None
    disk.replace(folder.bundle_path(KEY_TYPE), first.pem, mode=0o600, durable=False)
    assert folder.read(KEY_TYPE) == first
    disk.replace(folder.bundle_path(KEY_TYPE), second.pem, mode=0o600, durable=False)
    assert folder.read(KEY_TYPE) == second
    bundle_file(folder).unlink()
    assert folder.read(KEY_TYPE) is None


# Damage


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "0 private keys", id="empty"),
        pytest.param(b"\0" * 4096, "0 private keys", id="zeros"),
        pytest.param(issue(NAMES).pem[:-100], "no certificate", id="cut off"),
    ],
)
def test_a_damaged_file_is_absent_and_kept(
    store: Store, folder: CertificateFolder, content: bytes, reason: str
) -> None:
    """It is no bundle, the reason is told, and the next certificate sets it aside."""
    folder.install(KEY_TYPE, issue(NAMES), CA)
    bundle_file(folder).write_bytes(content)
    seen = again(store)
    assert seen.read(KEY_TYPE) is None
    assert seen.own(KEY_TYPE) is None
    assert seen.issued(KEY_TYPE) is None
    damage = seen.damage(KEY_TYPE)
    assert damage is not None
    assert reason in damage
    bundle = issue(NAMES)
    seen.install(KEY_TYPE, bundle, CA)
    assert seen.own(KEY_TYPE) == bundle
    assert Path(folder.path, "ecdsa-256.pem.damaged").read_bytes() == content
    assert seen.previous(KEY_TYPE) is None


def test_a_damaged_file_gives_way_to_the_nearest(folder: CertificateFolder) -> None:
    """The same when there is no new certificate yet."""
    bundle_file(folder).write_bytes(b"damaged")
    folder.place_nearest(KEY_TYPE, temporary(NAMES))
    assert folder.damage(KEY_TYPE) is None
    assert Path(folder.path, "ecdsa-256.pem.damaged").read_bytes() == b"damaged"


def test_a_damaged_predecessor_is_none(folder: CertificateFolder) -> None:
    """It can't be put back, and costs the new certificate nothing."""
    folder.install(KEY_TYPE, issue(NAMES), CA)
    folder.install(KEY_TYPE, issue(NAMES), CA)
    Path(folder.path, "ecdsa-256.previous.pem").write_bytes(b"damaged")
    assert folder.previous(KEY_TYPE) is None
    assert not folder.put_back(KEY_TYPE)
    assert folder.own(KEY_TYPE) is not None


def test_a_file_that_cannot_be_read_is_an_error(folder: CertificateFolder) -> None:
    """Not "absent": a certificate would be ordered in place of one that is there."""
    bundle_file(folder).mkdir()
    with pytest.raises(StateError, match="cannot read"):
        folder.read(KEY_TYPE)
    bundle_file(folder).rmdir()
    bundle_file(folder).symlink_to("ecdsa-256.pem")
    with pytest.raises(StateError, match="cannot read"):
        folder.read(KEY_TYPE)


# The nearest


def test_a_temporary_certificate_is_not_ours(folder: CertificateFolder) -> None:
    """It is served, and it is neither this certificate nor kept when that comes."""
    folder.place_nearest(KEY_TYPE, temporary(NAMES))
    assert folder.read(KEY_TYPE) is not None
    assert folder.own(KEY_TYPE) is None
    folder.install(KEY_TYPE, issue(NAMES), CA)
    assert folder.previous(KEY_TYPE) is None


def test_another_issuers_certificate_is_not_ours(store: Store, folder: CertificateFolder) -> None:
    """Same names and key type, placed because it is near: it must not stop the order."""
    staging = issue(NAMES)
    folder.place_nearest(KEY_TYPE, staging)
    for seen in (folder, again(store)):
        assert seen.read(KEY_TYPE) == staging
        assert seen.own(KEY_TYPE) is None
        assert seen.issued(KEY_TYPE) is None
    bundle = issue(NAMES)
    folder.install(KEY_TYPE, bundle, CA)
    assert folder.own(KEY_TYPE) == bundle
    assert folder.previous(KEY_TYPE) is None


def test_an_expired_certificate_gives_way_and_is_kept(folder: CertificateFolder) -> None:
    """The nearest takes the place of our own expired one, which becomes the previous."""
    expired = issue(NAMES, since=NOW - timedelta(days=100))
    folder.install(KEY_TYPE, expired, CA)
    folder.place_nearest(KEY_TYPE, issue(("example.com",)))
    assert folder.own(KEY_TYPE) is None
    assert folder.previous(KEY_TYPE) == expired


def test_placing_what_is_there_changes_nothing(folder: CertificateFolder) -> None:
    """Our own expired certificate can be the nearest there is; it stays our own."""
    expired = issue(NAMES, since=NOW - timedelta(days=100))
    folder.install(KEY_TYPE, expired, CA)
    folder.place_nearest(KEY_TYPE, expired)
    assert folder.own(KEY_TYPE) == expired
    assert folder.previous(KEY_TYPE) is None


def test_the_nearest_is_replaced_by_one_that_is_nearer(folder: CertificateFolder) -> None:
    """What was placed before is nothing to keep."""
    for bundle in (temporary(NAMES), issue(("example.com",)), issue(NAMES, "rsa:2048")):
        folder.place_nearest(KEY_TYPE, bundle)
        assert folder.read(KEY_TYPE) == bundle
    assert files(folder) == {"ecdsa-256.pem", "state.json"}


# Putting back


def test_put_back(store: Store, folder: CertificateFolder) -> None:
    """What nginx refused is set aside and the one before is served, as what it was."""
    old, refused = issue(NAMES), issue(NAMES)
    folder.install(KEY_TYPE, old, OTHER_CA)
    folder.install(KEY_TYPE, refused, CA)
    assert folder.put_back(KEY_TYPE)
    seen = again(store)
    assert seen.own(KEY_TYPE) == old
    issued = seen.issued(KEY_TYPE)
    assert issued is not None
    assert issued.directory_url == OTHER_CA
    assert read_bundle(Path(folder.path, "ecdsa-256.pem.refused").read_bytes()) == refused


def test_put_back_where_nothing_is(folder: CertificateFolder) -> None:
    """The previous one is enough, whatever happened to the current one."""
    old = issue(NAMES)
    folder.install(KEY_TYPE, old, CA)
    folder.install(KEY_TYPE, issue(NAMES), CA)
    bundle_file(folder).unlink()
    assert folder.put_back(KEY_TYPE)
    assert folder.own(KEY_TYPE) == old


def test_nothing_to_put_back(folder: CertificateFolder) -> None:
    """Without a previous one, what is there stays."""
    folder.install(KEY_TYPE, issue(NAMES), CA)
    assert not folder.put_back(KEY_TYPE)
    assert folder.own(KEY_TYPE) is not None


# Notes


@pytest.mark.parametrize(
    "attempt",
    [
        pytest.param(Attempt(), id="never tried"),
        pytest.param(
            Attempt(3, NOW, "DNS problem: NXDOMAIN\n\x1b", NOW, ("a.example",), 2), id="everything"
        ),
        pytest.param(Attempt(1, None, "surrogate \udcff and ünïcödé"), id="odd words"),
    ],
)
def test_attempts_are_kept(store: Store, folder: CertificateFolder, attempt: Attempt) -> None:
    """What was noted is known after a restart, to the microsecond."""
    folder.record(KEY_TYPE, attempt)
    assert folder.attempt(KEY_TYPE) == attempt
    assert again(store).attempt(KEY_TYPE) == attempt


def test_attempts_that_go_on(store: Store, folder: CertificateFolder) -> None:
    """A certificate without some of its names is recognized, and no end of the attempts."""
    attempt = Attempt(3, NOW, "www.example.com: NXDOMAIN", NOW)
    folder.install(KEY_TYPE, issue(("example.com",)), CA, attempt=attempt)
    found = again(store)
    assert found.attempt(KEY_TYPE) == attempt
    own = found.own(KEY_TYPE)
    assert own is not None
    assert own.facts.names == {"example.com"}


ADVICE = Advice(
    NOW,
    NOW + timedelta(hours=6),
    start=NOW + timedelta(days=1),
    end=NOW + timedelta(days=2),
    moment=NOW + timedelta(days=1.5),
    explanation="https://ca.example/why",
    problem="no route",
)


@pytest.mark.parametrize(
    "advice",
    [
        pytest.param(ADVICE, id="everything"),
        pytest.param(Advice(NOW, NOW + timedelta(hours=1)), id="not asked yet"),
    ],
)
def test_advice_is_kept(store: Store, folder: CertificateFolder, advice: Advice) -> None:
    """What a CA said of a renewal is known after a restart, and says nothing of another one."""
    bundle = issue(NAMES)
    folder.install(KEY_TYPE, bundle, CA)
    assert folder.advice(KEY_TYPE) is None
    folder.note_advice(KEY_TYPE, bundle, advice)
    assert again(store).advice(KEY_TYPE) == advice
    assert again(store).advice("rsa:2048") is None
    folder.install(KEY_TYPE, issue(NAMES), CA)
    assert again(store).advice(KEY_TYPE) is None
    assert folder.put_back(KEY_TYPE)
    assert again(store).advice(KEY_TYPE) == advice


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        pytest.param("ask", "soon", None, id="no time"),
        pytest.param("asked", 7, None, id="a number"),
        pytest.param("moment", "soon", replace(ADVICE, moment=None), id="no moment"),
        pytest.param("explanation", [], replace(ADVICE, explanation=None), id="no page"),
    ],
)
def test_advice_by_hand(
    store: Store, folder: CertificateFolder, field: str, value: object, expected: Advice | None
) -> None:
    """A field that isn't what it should be is missing."""
    bundle = issue(NAMES)
    folder.install(KEY_TYPE, bundle, CA)
    folder.note_advice(KEY_TYPE, bundle, ADVICE)
    state = Path(folder.path, "state.json")
    fields = json.loads(state.read_bytes())
    fields["key_types"][KEY_TYPE]["advice"][field] = value
    state.write_text(json.dumps(fields))
    assert again(store).advice(KEY_TYPE) == expected


def test_times_are_kept_in_utc(store: Store, folder: CertificateFolder) -> None:
    """Another zone is the same moment."""
    local = NOW.astimezone(timezone(timedelta(hours=2)))
    folder.record(KEY_TYPE, Attempt(next=local))
    found = again(store).attempt(KEY_TYPE).next
    assert found == NOW
    assert found.tzinfo is UTC


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(None, id="null"),
        pytest.param([], id="a list"),
        pytest.param({"failures": "3", "next": 5, "problem": [], "at": {}}, id="wrong types"),
        pytest.param({"failures": -1, "next": "soon", "at": ""}, id="wrong values"),
        pytest.param({"next": "2026-01-02T03:04:05"}, id="a time without zone"),
        pytest.param({"next": "0001-01-01T00:00:00+23:59"}, id="a time before all time"),
        pytest.param({"issued": 1, "placed": {}}, id="nothing issued"),
        pytest.param({"issued": {"1": {"directory_url": None}}}, id="issued by nobody"),
    ],
)
def test_a_broken_note_is_no_note(store: Store, folder: CertificateFolder, entry: object) -> None:
    """Fields that are not what they should be are as good as missing, one by one."""
    bundle = issue(NAMES)
    folder.install(KEY_TYPE, bundle, CA)
    state = Path(folder.path, "state.json")
    fields = json.loads(state.read_bytes())
    state.write_text(json.dumps({**fields, "key_types": {KEY_TYPE: entry}}))
    seen = again(store)
    assert seen.attempt(KEY_TYPE) == Attempt()
    assert seen.own(KEY_TYPE) == bundle
    assert seen.issued(KEY_TYPE) is None


def test_what_a_newer_program_noted_stays(store: Store, folder: CertificateFolder) -> None:
    """Unknown fields survive a rollback, at every depth that is written, and so does the version."""
    folder.record(KEY_TYPE, Attempt(failures=1))
    state = Path(folder.path, "state.json")
    fields = json.loads(state.read_bytes())
    fields["version"] = 2
    fields["ari"] = {"window": 1}
    fields["key_types"][KEY_TYPE]["renewal"] = "soon"
    state.write_text(json.dumps(fields))
    again(store).record(KEY_TYPE, Attempt(failures=2))
    fields["key_types"][KEY_TYPE]["failures"] = 2
    assert json.loads(state.read_bytes()) == fields


def test_two_processes_note_different_things(store: Store, folder: CertificateFolder) -> None:
    """A note is added to what is on disk, not to what was read an hour ago."""
    other = again(store)
    folder.record("rsa:2048", Attempt(failures=1))
    other.record(KEY_TYPE, Attempt(failures=2))
    seen = again(store)
    assert seen.attempt("rsa:2048").failures == 1
    assert seen.attempt(KEY_TYPE).failures == 2


def test_refresh(store: Store, folder: CertificateFolder) -> None:
    """What others noted is seen when it is asked for, and a broken file is no error."""
    again(store).record(KEY_TYPE, Attempt(failures=1))
    assert folder.attempt(KEY_TYPE).failures == 0
    folder.refresh()
    assert folder.attempt(KEY_TYPE).failures == 1
    Path(folder.path, "state.json").write_bytes(b"broken")
    folder.refresh()
    assert folder.attempt(KEY_TYPE) == Attempt()
    assert folder.identity == IDENTITY


def test_no_key_in_a_repr(folder: CertificateFolder) -> None:
    """Nothing that shows up in a traceback shows a key."""
    folder.install(KEY_TYPE, issue(NAMES), CA)
    for thing in (folder, folder.own(KEY_TYPE), folder._looks, folder.pending):
        assert "PRIVATE" not in repr(thing)


# Killed

INSTALLS = """
from nginx_acme.certificate import read_bundle
from nginx_acme.store import Store
store = Store(sys.argv[1])
store.open_for_writing()
(folder,) = store.folders()
bundles = [read_bundle(open(path, "rb").read()) for path in sys.argv[2:]]
print(flush=True)
while True:
    for bundle in bundles:
        folder.install("ecdsa:256", bundle, "https://ca.example/directory")
"""


def test_a_kill_in_the_middle_of_installing(
    tmp_path: Path, store: Store, folder: CertificateFolder
) -> None:
    """At any moment nginx's path has a whole certificate, and the store knows it as ours."""
    bundles = [issue(NAMES), issue(NAMES)]
    folder.install(KEY_TYPE, bundles[0], CA)
    paths = [tmp_path / "0", tmp_path / "1"]
    for path, bundle in zip(paths, bundles, strict=True):
        path.write_bytes(bundle.pem)
    for number in range(8):
        with running(INSTALLS, store.root, *map(str, paths)) as process:
            heard(process)
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.002 * number)
            process.kill()
        seen = again(store)
        assert seen.own(KEY_TYPE) in bundles
        assert seen.damage(KEY_TYPE) is None
        assert seen.previous(KEY_TYPE) in (None, *bundles)
        seen.install(KEY_TYPE, bundles[0], CA)
    names = files(folder) - {"ecdsa-256.pem", "ecdsa-256.previous.pem", "state.json"}
    assert all(map(disk.is_leftover, names))


def test_an_attempt_is_a_value() -> None:
    """The next attempt is made from the last one."""
    later = replace(Attempt(), failures=1, next=datetime(2026, 1, 1, tzinfo=UTC))
    assert later != Attempt()
