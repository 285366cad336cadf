"""What befalls the files of an nginx that runs: it serves on, `status` is right, `renew` heals it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.launcher import eventually, requests
from tests.mounts import CAN_MOUNT, bound, in_memory

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from cryptography import x509

    from tests.launcher import Site
    from tests.servers import Pebble

    MakeSite = Callable[..., Site]
    StartPebble = Callable[..., Pebble]


def bundle(site: Site, name: str) -> Path:
    """The file of a certificate."""
    return site.state / "certificates" / name / "ecdsa-256.pem"


def leaves(site: Site, names: tuple[str, ...]) -> list[x509.Certificate]:
    """What nginx shows for each."""
    return [site.shown(name).leaf for name in names]


# --- certificate files ----------------------------------------------------------------------


def test_certificate_files(make_site: MakeSite, pebble: Pebble) -> None:
    """Damaged, truncated, deleted or another's: nginx serves on, and the next run gets a new one."""
    names = "damaged.example", "truncated.example", "deleted.example", "swapped.example"
    site = make_site(pebble)
    site.configure(*map(site.block, (*names, "well.example")))
    site.start()
    site.quiet()
    before = leaves(site, names)
    damaged, truncated, deleted, swapped = (bundle(site, name) for name in names)
    damaged.write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n" + damaged.read_bytes()[33:])
    truncated.write_bytes(truncated.read_bytes()[:700])
    deleted.unlink()
    shutil.copyfile(bundle(site, "well.example"), swapped)
    rows = site.status()
    states = [rows[f"{name} ecdsa:256"]["state"] for name in names]
    assert states == ["missing", "missing", "missing", "other"]
    assert f'"{damaged}" is damaged' in rows["damaged.example ecdsa:256"]["problem"]
    assert rows["well.example ecdsa:256"]["state"] == "valid"
    assert leaves(site, names) == before
    healed = site.run("renew")
    assert healed.returncode == 0, healed.stderr
    for name, leaf in zip(names, before, strict=True):
        assert site.verified(name).leaf != leaf
        row = site.status()[f"{name} ecdsa:256"]
        assert (row["state"], row["served"], row["problem"]) == ("valid", True, None)
    for path in (damaged, truncated):
        assert path.with_name(f"{path.name}.damaged").exists()


def is_renewed_beside(site: Site, broken: Path) -> None:
    """See that a.example is got anew beside a file that can't be read, and that this is told."""
    before = bundle(site, "a.example").read_bytes()
    broken.unlink()
    broken.mkdir()
    renewed = site.run("renew", "--force", "a.example")
    assert renewed.returncode == 1
    assert f'"{broken}"' in renewed.stderr
    assert bundle(site, "a.example").read_bytes() != before


def test_unreadable_beside_a_renewal(make_site: MakeSite, pebble: Pebble) -> None:
    """A certificate that can't be read at all is no reason not to get another one without nginx."""
    site = make_site(pebble)
    site.configure(site.block("a.example"), site.block("b.example"))
    site.start()
    site.quiet()
    site.stop()
    is_renewed_beside(site, bundle(site, "b.example"))


def test_unreadable_note_beside_a_renewal(make_site: MakeSite, pebble: Pebble) -> None:
    """Nor is it one that nobody knows what nginx has read: what is due is got, and then that is said."""
    site = make_site(pebble)
    site.configure(site.block("a.example"))
    site.start()
    site.quiet()
    is_renewed_beside(site, site.instance / "loaded.json")


def test_damage_beside_a_renewal(make_site: MakeSite, pebble: Pebble) -> None:
    """A file that can't be had anew for now keeps no other certificate from being served."""
    site = make_site(pebble)
    site.configure(site.block("a.example"), site.block("b.example"))
    site.start()
    site.quiet()
    assert site.run("renew", "--force", "b.example").returncode == 0
    a = site.verified("a.example").leaf
    put_off(site, "b.example")
    bundle(site, "b.example").write_bytes(b"")
    renewed = site.run("renew", "--force", "a.example")
    assert renewed.returncode == 0, renewed.stderr
    assert site.verified("a.example").leaf != a
    assert site.verified("b.example").body == b"b.example"
    assert "b.example: another certificate is served in place of what is damaged" in renewed.stderr
    row = site.status()["b.example ecdsa:256"]
    assert row["problem"] == "the CA is away"


def put_off(site: Site, name: str) -> None:
    """As if an attempt had failed just now."""
    note = site.state / "certificates" / name / "state.json"
    fields = json.loads(note.read_text())
    now = datetime.now(UTC)
    fields["key_types"]["ecdsa:256"] |= {
        "failures": 1,
        "problem": "the CA is away",
        "at": now.isoformat(),
        "next": (now + timedelta(hours=1)).isoformat(),
    }
    note.write_text(json.dumps(fields))


# --- the state directory --------------------------------------------------------------------


@contextmanager
def full(folder: Path) -> Iterator[str]:
    """No room for anything."""
    filler = folder / "filler"
    room = os.statvfs(folder)
    filler.write_bytes(bytes(room.f_bavail * room.f_bsize))
    yield "No space left on device"
    filler.unlink()


@contextmanager
def read_only(folder: Path) -> Iterator[str]:
    """No right to write anything."""
    with bound(folder, folder, read_only=True):
        yield "Read-only file system"


@CAN_MOUNT
@pytest.mark.parametrize("trouble", [full, read_only])
def test_unwritable(
    make_site: MakeSite,
    pebble: Pebble,
    open_path: Path,
    trouble: Callable[[Path], AbstractContextManager[str]],
) -> None:
    """nginx-acme says what is wrong in one line and asks no CA; nginx serves, and it goes on."""
    folder = open_path / "small"
    folder.mkdir()
    with in_memory(folder, "1m"):
        site = make_site(pebble)
        site.configure(site.block("a.example"), settings=f"acme_state_path {folder}/state;")
        site.start()
        site.runtime = folder
        site.quiet()
        leaf, kept = site.verified("a.example").leaf, contents(folder)
        asked = requests(pebble)
        with trouble(folder) as reason:
            refused = site.run("renew", "--force", "a.example")
            assert refused.returncode == 1
            (line,) = refused.stderr.splitlines()
            assert reason in line
            assert str(folder) in line
            site.hang_up()
            eventually(lambda: reason in site.error_log())
            assert site.verified("a.example").leaf == leaf
            assert site.one_status()["state"] == "valid"
        assert contents(folder).items() >= kept.items()
        assert site.error_log().count(reason) == 2
        assert requests(pebble) == asked
        assert site.run("renew", "--force", "a.example").returncode == 0
        assert site.verified("a.example").leaf != leaf
        site.stop()


def contents(folder: Path) -> dict[Path, bytes]:
    """What must not be lost."""
    names = ("accounts/*/key.pem", "certificates/*/ecdsa-256.pem")
    return {path: path.read_bytes() for name in names for path in folder.glob(f"state/{name}")}


def test_emptied(make_site: MakeSite, start_pebble: StartPebble) -> None:
    """All of it removed: nginx serves on, what is missing is told, a reload begins anew."""
    pebble = start_pebble()
    site = make_site(pebble)
    site.configure(site.block("a.example"))
    site.start()
    site.quiet()
    leaf = site.verified("a.example").leaf
    shutil.rmtree(site.state)
    assert site.verified("a.example").leaf == leaf
    assert site.one_status()["state"] == "missing"
    renewed = site.run("renew")
    assert renewed.returncode == 1
    assert "has no generation" in renewed.stderr
    reloaded = site.run("-s", "reload")
    assert reloaded.returncode == 0, reloaded.stderr
    eventually(lambda: site.one_status()["state"] == "valid")
    # What is served from the reload on until then is the temporary one.
    eventually(lambda: site.issued("a.example"))
    eventually(lambda: site.verified("a.example").leaf != leaf)
    eventually(lambda: len(site.agents()) == 1, "the end of the first agent")
    assert site.error_log().count("is gone, and so is the agent, until nginx is reloaded") == 1


# --- the clock ------------------------------------------------------------------------------


def test_clock(make_site: MakeSite, pebble: Pebble, faketime: str) -> None:
    """A clock that is a day behind, or years, orders nothing and forgets nothing."""
    site = make_site(pebble)
    site.configure(site.block("a.example"), site.block("b.example"))
    site.start()
    site.quiet()
    put_off(site, "b.example")
    before, asked, rows = leaves(site, ("a.example", "b.example")), orders(pebble), site.status()
    for clock in ("-1d", "2001-01-01 00:00:00"):
        command = (faketime, "-f", clock, *site.argv("renew"))
        subprocess.run(command, env=site.environ, capture_output=True, check=False, timeout=60)
    assert orders(pebble) == asked
    assert leaves(site, ("a.example", "b.example")) == before
    after = site.status()
    for row in (*rows.values(), *after.values()):
        row.pop("next_attempt")
    assert after == rows
    assert site.run("renew").returncode == 0
    assert orders(pebble) == asked


def orders(pebble: Pebble) -> Counter[str]:
    """What it was asked for, but for its directory: whether it advises renewals is asked again."""
    found = requests(pebble)
    del found["GET /dir"]
    return found
