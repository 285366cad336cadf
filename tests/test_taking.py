"""What is taken from another node's state directory, and what is told of it; by a clock of ours."""

from __future__ import annotations

import io
import shutil
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nginx_acme.errors import StateError
from nginx_acme.identifiers import Name
from nginx_acme.log import Log
from nginx_acme.plan import Certificate, Issuer
from nginx_acme.policy.ari import Advice
from nginx_acme.store import Attempt, Identity, Store
from nginx_acme.taking import next_look, take
from tests.store.bundles import NOW, issue, temporary

if TYPE_CHECKING:
    from datetime import datetime

    from nginx_acme.bundle import Bundle
    from nginx_acme.store import CertificateFolder

KEY = "ecdsa:256"
NAMES = ("a.example", "b.example")
DAY = timedelta(days=1)
ISSUER = Issuer("ca", "https://ca.example/directory", public=False)
WANTED = Certificate(ISSUER, tuple(map(Name, NAMES)), None, (KEY,), ())


class Nodes:
    """The state directory of the node that asks, and the private store of the one that takes."""

    def __init__(self, folder: Path) -> None:
        self.theirs = Store(str(folder / "theirs"))
        self.ours = Store(str(folder / "ours"))
        for store in (self.theirs, self.ours):
            store.open_for_writing()
        self.said = io.StringIO()

    def offer(self, bundle: Bundle | None = None) -> CertificateFolder:
        """Their folder, with this in it."""
        folder = self.theirs.create(Identity(*WANTED.identity), NAMES)
        if bundle is not None:
            folder.install(KEY, bundle, ISSUER.directory_url, "account")
        return folder

    def take(self, now: datetime = NOW) -> int:
        """Take what is there; how many certificates came."""
        self.ours.open_for_writing()
        source = Store(self.theirs.root)
        return len(take([WANTED], source, self.ours, Log(self.said), now))

    @property
    def own(self) -> CertificateFolder:
        """Our folder, as the next process finds it."""
        folder = Store(self.ours.root).find(Identity(*WANTED.identity))
        assert folder is not None
        return folder


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    """Both, empty."""
    return Nodes(tmp_path)


def test_taken_once(nodes: Nodes) -> None:
    """What is new is taken with what is known of it, and then left alone."""
    folder = nodes.offer(bundle := issue(NAMES))
    folder.note_advice(KEY, bundle, advice := Advice(NOW, NOW + DAY, moment=NOW + 50 * DAY))
    assert nodes.take() == 1
    assert nodes.own.own(KEY) == bundle
    assert nodes.own.issued(KEY) == folder.issued(KEY)
    assert nodes.own.advice(KEY) == advice
    assert nodes.take() == 0
    assert nodes.said.getvalue() == ""


def test_a_renewal_is_taken(nodes: Nodes) -> None:
    """The next one takes the place of the one before, which is kept."""
    old, new = issue(NAMES), issue(NAMES, since=NOW + DAY)
    nodes.offer(old)
    nodes.take()
    nodes.offer(new)
    assert nodes.take(NOW + DAY) == 1
    assert (nodes.own.own(KEY), nodes.own.previous(KEY)) == (new, old)


def test_nothing_to_take(nodes: Nodes) -> None:
    """Stand-ins of the other node, and certificates of others, are no certificate."""
    nodes.offer().place_nearest(KEY, temporary(NAMES))
    assert nodes.take() == 0
    nodes.offer().place_nearest(KEY, issue(("*.example", *NAMES)))
    assert nodes.take() == 0
    assert nodes.own.read(KEY) is None


def test_expired_there(nodes: Nodes) -> None:
    """An expired one is better than none, and worse than one that isn't."""
    old, good = issue(NAMES, since=NOW - 100 * DAY), issue(NAMES)
    nodes.offer(old)
    assert nodes.take() == 1
    nodes.offer(good)
    assert nodes.take() == 1
    nodes.offer(old)
    assert nodes.take() == 0
    assert nodes.own.own(KEY) == good


def test_refused_by_nginx(nodes: Nodes) -> None:
    """What nginx refused and was put back isn't taken again and again."""
    old, new = issue(NAMES), issue(NAMES, since=NOW + DAY)
    nodes.offer(old)
    nodes.take()
    nodes.offer(new)
    nodes.take()
    folder = nodes.ours.find(Identity(*WANTED.identity))
    assert folder is not None
    assert folder.put_back(KEY)
    assert nodes.take() == 0
    assert nodes.own.own(KEY) == old


@pytest.mark.parametrize("length", [0, 10, 300, -1])
def test_damaged(nodes: Nodes, length: int) -> None:
    """Part of a file is not taken; it is told once, and no more when it is whole."""
    good = issue(NAMES)
    nodes.offer(good)
    nodes.take()
    new = issue(NAMES, since=NOW + DAY)
    path = Path(nodes.offer(new).bundle_path(KEY))
    path.write_bytes(new.pem.rstrip()[:length])
    assert [nodes.take(), nodes.take()] == [0, 0]
    assert nodes.own.own(KEY) == good
    assert nodes.said.getvalue().count(f'"{path}" is damaged and not taken') == 1
    assert "damaged" in (nodes.own.attempt(KEY).problem or "")
    path.write_bytes(new.pem)
    assert nodes.take() == 1
    assert nodes.own.attempt(KEY).problem is None


def test_anothers_key(nodes: Nodes) -> None:
    """So is a certificate beside another one's key."""
    mine, other, begin = issue(NAMES), issue(NAMES, "ecdsa:384"), b"-----BEGIN CERTIFICATE-----"
    path = Path(nodes.offer(mine).bundle_path(KEY))
    path.write_bytes(other.pem.partition(begin)[0] + begin + mine.pem.partition(begin)[2])
    assert nodes.take() == 0
    assert "is damaged and not taken" in nodes.said.getvalue()


def test_what_the_other_node_says(nodes: Nodes) -> None:
    """Its failures are shown here in its words, as long as they last."""
    folder = nodes.offer(issue(NAMES))
    nodes.take()
    told = Attempt(3, NOW + DAY, "CAA forbids it", NOW)
    folder.record(KEY, told)
    nodes.take()
    nodes.take()
    assert nodes.own.attempt(KEY) == told
    assert nodes.said.getvalue().count("CAA forbids it") == 1
    folder.record(KEY, Attempt())
    nodes.take()
    assert nodes.own.attempt(KEY) == Attempt()


def test_not_renewed_in_time(nodes: Nodes) -> None:
    """That it should have been renewed by now is told once, a quarter of the time after that."""
    nodes.offer(issue(NAMES, days=90))
    nodes.take()
    nodes.take(NOW + 67 * DAY)
    assert nodes.said.getvalue() == ""
    nodes.take(NOW + 68 * DAY)
    nodes.take(NOW + 89 * DAY)
    words = f'it was to be renewed on 2026-03-03, and "{nodes.theirs.root}" has no newer one'
    assert nodes.said.getvalue().count(words) == 1
    assert nodes.own.attempt(KEY).problem == words
    nodes.offer(issue(NAMES, since=NOW + 80 * DAY))
    nodes.take(NOW + 89 * DAY)
    assert nodes.own.attempt(KEY).problem is None


def test_all_gone(nodes: Nodes) -> None:
    """An empty folder where there was something is no reason to lose anything, but is told."""
    nodes.offer(good := issue(NAMES))
    nodes.take()
    shutil.rmtree(nodes.theirs.root)
    with pytest.raises(StateError, match=r"has no certificates any more, is it mounted\?"):
        nodes.take()
    assert nodes.own.own(KEY) == good


def test_one_gone(nodes: Nodes) -> None:
    """One that is there no more goes on being served."""
    folder = nodes.offer(good := issue(NAMES))
    nodes.theirs.create(
        Identity(ISSUER.directory_url, frozenset({"c.example"}), None), ["c.example"]
    )
    nodes.take()
    shutil.rmtree(folder.path)
    assert nodes.take() == 0
    assert nodes.own.own(KEY) == good


def test_not_wanted_there(nodes: Nodes) -> None:
    """A certificate that the other node has never heard of is told of, for its files may differ."""
    other = Identity(ISSUER.directory_url, frozenset({"a.example"}), None)
    nodes.theirs.create(other, ["a.example"]).install(KEY, issue(("a.example",)), "x")
    assert [nodes.take(), nodes.take()] == [0, 0]
    words = f'"{nodes.theirs.root}" has none of this issuer for these names'
    assert nodes.said.getvalue().count(words) == 1
    nodes.offer(issue(NAMES))
    assert nodes.take() == 1
    assert nodes.own.attempt(KEY).problem is None


def test_nothing_yet(nodes: Nodes) -> None:
    """Before there is anything, that is no error."""
    assert nodes.take() == 0
    shutil.rmtree(nodes.theirs.root)
    assert nodes.take() == 0


def test_another_is_at_work(nodes: Nodes) -> None:
    """Of two at once one takes it, and the other waits for nothing."""
    nodes.offer(issue(NAMES))
    folder = nodes.ours.create(Identity(*WANTED.identity), NAMES)
    with nodes.ours.lock_certificate(folder):
        assert nodes.take() == 0
    assert nodes.take() == 1


@pytest.mark.parametrize(
    ("age", "seconds"),
    [(0, 10), (39, 10), (60, 15), (240, 60), (2400, 600), (86400, 600), (-3600, 10)],
)
def test_next_look(age: float, seconds: float) -> None:
    """Soon while something is missing, at first; a clock that was set back does no harm."""
    since = NOW - timedelta(seconds=age)
    assert next_look(since, NOW, missing=True) == NOW + timedelta(seconds=seconds)
    assert next_look(since, NOW, missing=False) == NOW + timedelta(minutes=10)
