"""Several nodes: one asks the CA, the others take what is in its state directory; real servers."""

from __future__ import annotations

import os
import shutil
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.launcher import eventually, requests
from tests.mounts import CAN_MOUNT
from tests.nodes import Pair, tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.launcher import Site
    from tests.servers import Pebble

    MakeSite = Callable[..., Site]

TOKEN = "a-Token_of-22-letters0"  # noqa: S105 - no secret


@pytest.fixture
def pair(make_site: MakeSite, pebble: Pebble, rsync: str, open_path: Path) -> Pair:
    """Two nodes; the second looks for the state in a folder that isn't there yet."""
    (open_path / "node").mkdir(mode=0o755)
    return Pair(make_site, pebble, open_path / "node" / "state", rsync)


def errors(site: Site) -> list[str]:
    """What it has said that is no notice."""
    return [line for line in site.output().splitlines() if "[error]" in line or "[warn]" in line]


def is_temporary(site: Site, name: str) -> bool:
    """Whether it shows a stand-in."""
    return "temporary" in site.shown(name).leaf.subject.rfc4514_string()


# --- what comes to the other node -----------------------------------------------------------


@CAN_MOUNT
def test_mounted(pair: Pair, pebble: Pebble) -> None:
    """A renewal is served by a node that has the state mounted read-only, and asks nobody."""
    pair.configure("a.example")
    pair.issuing.start()
    with pair.mounted():
        asked = requests(pebble)
        pair.other.start()
        leaf = pair.issuing.verified("a.example").leaf
        assert pair.other.verified("a.example").leaf == leaf
        assert not errors(pair.other)
        (pair.account() / TOKEN).touch()
        answer = pair.answer("a.example", TOKEN)
        assert answer is not None
        assert answer.startswith(f"{TOKEN}.")
        (pair.account() / TOKEN).unlink()
        assert pair.answer("a.example", TOKEN) is None
        assert requests(pebble) == asked
        pair.renew("a.example")
        asked = requests(pebble)
        taken = pair.other.run("renew")
        assert taken.returncode == 0, taken.stderr
        assert '"acme_issue" is off, another node asks the CA' in taken.stderr
        assert "nginx reloaded for a.example" in taken.stderr
        renewed = pair.issuing.verified("a.example").leaf
        assert renewed != leaf
        eventually(lambda: pair.other.verified("a.example").leaf == renewed)
        assert requests(pebble) == asked
        row = pair.other.one_status()
        assert (row["state"], row["served"], row["problem"]) == ("valid", True, None)
    pair.state.mkdir()
    unmounted = pair.other.run("renew")
    assert unmounted.returncode == 1
    assert "has no certificates any more, is it mounted?" in unmounted.stderr
    assert pair.other.verified("a.example").leaf == renewed


def test_copied(pair: Pair, pebble: Pebble) -> None:
    """So it is by one that gets a copy, which it doesn't write to; and any token is answered."""
    pair.configure("a.example", settings="acme_challenge_answer any;")
    pair.issuing.start()
    pair.copy()
    before, asked = tree(pair.state), requests(pebble)
    pair.start()
    assert pair.other.run("-s", "reload").returncode == 0
    pair.other.quiet()
    assert not errors(pair.other)
    assert tree(pair.state) == before
    assert requests(pebble) == asked
    answer = pair.answer("a.example", TOKEN)
    assert answer is not None
    assert answer.startswith(f"{TOKEN}.")
    pair.renew("a.example")
    pair.copy()
    assert pair.other.run("renew").returncode == 0
    leaf = pair.issuing.verified("a.example").leaf
    eventually(lambda: pair.other.verified("a.example").leaf == leaf)


def test_fresh(pair: Pair) -> None:
    """One that is started before there is anything gets it by itself, within seconds."""
    pair.configure("a.example")
    pair.other.start()
    assert is_temporary(pair.other, "a.example")
    (warning,) = errors(pair.other)
    assert f'"{pair.state}" has no certificates, they are taken when they come' in warning
    pair.issuing.start()
    pair.copy()
    leaf = pair.issuing.verified("a.example").leaf
    eventually(lambda: pair.other.shown("a.example").leaf == leaf)
    folder = pair.state / "public" / "challenges" / pair.account().name
    folder.mkdir(parents=True)
    (folder / TOKEN).touch()
    eventually(lambda: pair.answer("a.example", TOKEN))


def test_the_account_changes(pair: Pair) -> None:
    """Where any token is answered, it is for the account of today."""
    pair.configure("a.example", settings="acme_challenge_answer any;")
    pair.other.start()
    nobody = pair.answer("a.example", TOKEN)
    pair.issuing.start()
    pair.copy()
    assert pair.other.run("renew").returncode == 0
    first = eventually(lambda: changed(pair, nobody))
    shutil.rmtree(pair.issuing.state / "accounts")
    assert pair.issuing.run("-s", "reload").returncode == 0
    pair.copy()
    assert pair.other.run("renew").returncode == 0
    eventually(lambda: changed(pair, first))


def changed(pair: Pair, before: str | None) -> str | None:
    """The answer, if it is another one."""
    answer = pair.answer("a.example", TOKEN)
    return answer if answer != before else None


def test_new_name(pair: Pair, pebble: Pebble) -> None:
    """A reload is the other node's own: a new name has a stand-in until its certificate comes."""
    pair.configure("a.example")
    pair.issuing.start()
    pair.copy()
    pair.other.start()
    pair.configure("a.example", "b.example")
    asked = requests(pebble)
    assert pair.other.run("-s", "reload").returncode == 0
    assert is_temporary(pair.other, "b.example")
    assert requests(pebble) == asked
    assert pair.issuing.run("-s", "reload").returncode == 0
    eventually(lambda: pair.issuing.status()["b.example ecdsa:256"]["state"] == "valid")
    pair.copy()
    assert pair.other.run("renew").returncode == 0
    eventually(lambda: pair.other.verified("b.example").body == b"b.example")


def test_local(pair: Pair) -> None:
    """Nor does it make certificates of its own authority: they are the other node's."""
    pair.configure("a.internal", acme="acme local;")
    pair.other.start()
    assert is_temporary(pair.other, "a.internal")
    assert pair.other.run("-s", "reload").returncode == 0
    assert is_temporary(pair.other, "a.internal")
    pair.issuing.start()
    pair.copy()
    assert pair.other.run("renew").returncode == 0
    leaf = pair.issuing.shown("a.internal").leaf
    eventually(lambda: pair.other.shown("a.internal").leaf == leaf)
    assert not list(pair.runtime.rglob("root*"))


# --- what it says ---------------------------------------------------------------------------


def test_what_it_says(pair: Pair, pebble: Pebble) -> None:
    """`plan` and `status` say where certificates come from; what only a CA can do is refused."""
    pair.configure("a.example")
    planned = pair.other.run("plan").stdout
    assert '"acme_issue" is off: what is new in the state directory is taken' in planned
    assert "ecdsa:256: to be taken when there is a new one" in planned
    pair.issuing.start()
    pair.copy()
    pair.other.start()
    asked = requests(pebble)
    examined = pair.other.run("doctor")
    assert examined.returncode == 0, examined.stdout
    assert f"{pair.state}  has 1 certificate to be taken" in examined.stdout
    assert "this node asks no CA" in examined.stdout
    said = pair.other.run("status").stdout
    silent = (
        f'"acme_issue" is off, another node asks the CA; what is new in "{pair.state}" is taken'
    )
    assert silent in said
    for command in (
        ("renew", "--force", "a.example"),
        ("renew", "--dry-run"),
        ("revoke", "a.example"),
        ("account", "show", "--ask"),
        ("account", "rollover", "--yes"),
    ):
        refused = pair.other.run(*command)
        assert refused.returncode == 1
        assert '"acme_issue" is off, another node asks the CA' in refused.stderr
    assert pair.account().name in pair.other.run("account", "show").stdout
    assert requests(pebble) == asked


def test_switched_by_a_reload(pair: Pair, pebble: Pebble) -> None:
    """`acme_issue` counts at once where it forbids, and after a restart where it allows."""
    site = pair.issuing
    site.configure(site.block("a.example"))
    site.start()
    site.configure(site.block("a.example"), site.block("b.example"), settings="acme_issue off;")
    asked = requests(pebble)
    off = site.run("-s", "reload")
    assert off.returncode == 0, off.stderr
    assert (
        '"acme_issue off" is used after the next restart; until then no CA is asked' in off.stderr
    )
    site.quiet()
    assert requests(pebble) == asked
    assert is_temporary(site, "b.example")
    pair.configure("a.example")
    pair.copy()
    other = pair.other
    other.start()
    other.configure(other.block("a.example"), settings=f"acme_state_path {pair.state};")
    on = other.run("-s", "reload")
    assert on.returncode == 0, on.stderr
    assert "no CA is asked until it is restarted" in on.stderr
    assert other.run("renew").returncode == 0
    assert requests(pebble) == asked


# --- trouble --------------------------------------------------------------------------------


def test_half_a_file(pair: Pair) -> None:
    """What is damaged isn't taken and is told of once; what puts it right is."""
    pair.configure("a.example")
    pair.issuing.start()
    pair.copy()
    pair.start()
    leaf = pair.other.verified("a.example").leaf
    path = pair.state / "certificates" / "a.example" / "ecdsa-256.pem"
    path.write_bytes(path.read_bytes()[:700])
    told = pair.other.run("renew")
    assert told.returncode == 0
    assert f'a.example: "{path}" is damaged and not taken' in told.stderr
    assert pair.other.verified("a.example").leaf == leaf
    assert "damaged and not taken" in pair.other.one_status()["problem"]
    assert "damaged" not in pair.other.run("renew").stderr
    pair.renew("a.example")
    pair.copy()
    assert pair.other.run("renew").returncode == 0
    eventually(lambda: pair.other.verified("a.example").leaf != leaf)
    assert pair.other.one_status()["problem"] is None


def test_gone_for_a_while(pair: Pair) -> None:
    """While the state is away nginx serves, reloads and starts with what was taken from it."""
    pair.configure("a.example", settings="acme_challenge_answer any;")
    pair.issuing.start()
    pair.copy()
    pair.other.start()
    leaf = pair.other.verified("a.example").leaf
    pair.other.quiet()
    answer = pair.answer("a.example", TOKEN)
    aside = pair.lose()
    gone = f'"{pair.state}" has no certificates any more, is it mounted?'
    pair.wake()
    eventually(lambda: gone in pair.other.error_log())
    pair.other.quiet()
    assert pair.other.error_log().count(gone) == 1
    looked = pair.other.run("renew")
    assert looked.returncode == 1
    assert gone in looked.stderr
    reloaded = pair.other.run("-s", "reload")
    assert reloaded.returncode == 0, reloaded.stderr
    assert pair.other.verified("a.example").leaf == leaf
    pair.other.stop()
    pair.other.start()
    assert pair.other.verified("a.example").leaf == leaf
    assert pair.answer("a.example", TOKEN) == answer
    pair.state.rmdir()
    shutil.move(aside, pair.state)
    pair.renew("a.example")
    pair.copy()
    assert pair.other.run("renew").returncode == 0
    eventually(lambda: pair.other.verified("a.example").leaf != leaf)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable(pair: Pair) -> None:
    """A folder that may not be read is said, and nginx starts."""
    pair.configure("a.example")
    pair.state.mkdir(mode=0o000)
    pair.other.start()
    (error,) = errors(pair.other)
    assert f'cannot read "{pair.state}/certificates": Permission denied' in error


def test_no_folder_at_all(pair: Pair) -> None:
    """Nor does a file in its place keep nginx from starting."""
    pair.configure("a.example")
    pair.state.write_text("mine")
    pair.other.start()
    (warning,) = errors(pair.other)
    assert f'"{pair.state}" has no certificates, they are taken when they come' in warning
    assert pair.other.shown("a.example").body == b"a.example"


def test_started_twice(pair: Pair) -> None:
    """A second start by accident changes nothing; nginx says that its addresses are taken."""
    pair.configure("a.example")
    pair.issuing.start()
    pair.copy()
    pair.start()
    (generated,) = pair.runtime.glob("*/instances/*/generated")
    current = generated.readlink()
    pair.configure("a.example", "b.example")
    assert pair.other.run(seconds=30).returncode == 1
    assert generated.readlink() == current
    agents = partial(lambda site: site.agents(), pair.other)
    eventually(lambda: len(agents()) == 1)
