"""From what is wanted to the store, at a fake CA: who is asked, who isn't, and what is remembered."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from nginx_acme.certificate import new_key
from nginx_acme.errors import StateError
from nginx_acme.policy.limits import AT_ONCE
from tests.fake_ca import busy, refused, slow
from tests.world import DAY, KEY, MINUTE, NOW, World

if TYPE_CHECKING:
    from nginx_acme.orders.ports import Ports
    from nginx_acme.store import Store
    from tests.fake_ca import Fault, Proceed, Reply


@pytest.fixture
def world(tmp_path: Path) -> World:
    """One in which all is well."""
    return World(tmp_path / "state")


def test_once(world: World) -> None:
    """What is missing is got in ten requests, and then nobody is asked any more."""
    site = world.certificate("a.example")
    outcome = world.run(site)
    assert world.has(site)
    assert not outcome.failed
    assert not outcome.missing
    assert len(world.ca.log) == 3 + 7
    world.run(site)
    assert len(world.ca.log) == 3 + 7


# --- refusals -------------------------------------------------------------------------------


def test_external_account(world: World) -> None:
    """A CA that wants an external account is told of before anything is sent to it."""
    world.ca.meta["externalAccountRequired"] = True
    site = world.certificate("a.example")
    world.run(site)
    assert world.ca.log == ["directory"]
    assert "external account" in (world.attempt(site).problem or "")
    assert world.attempt(site).next == NOW + DAY


@pytest.mark.parametrize(
    ("required", "orders"),
    [pytest.param(True, 0, id="required"), pytest.param(False, 1, id="if there is one")],
)
def test_profile_not_offered(world: World, required: bool, orders: int) -> None:  # noqa: FBT001
    """A profile that the CA doesn't have is not ordered: an error, or it is left out."""
    world.issuer = replace(world.issuer, profile_required=required)
    site = replace(world.certificate("a.example"), profile="none-such")
    world.run(site)
    assert world.ca.count["newOrder"] == orders
    assert world.has(site) is not required
    assert world.heard('no profile "none-such", there are ')


def test_blocked(world: World) -> None:
    """What the preflight proves is the certificate's failure, and costs the CA nothing."""
    world.blocked["a.example"] = "DNS has no address for it"
    site = world.certificate("a.example")
    world.run(site)
    assert world.ca.log == []
    assert world.attempt(site).problem == "a.example: DNS has no address for it (preflight)"


def test_optional_name(world: World) -> None:
    """A name that we added is left out where the preflight or the CA finds it dead."""
    world.blocked["www.a.example"] = "DNS has no address for it"
    world.ca.dead.add("www.b.example")
    sites = [
        replace(world.certificate(name, f"www.{name}"), optional=frozenset({f"www.{name}"}))
        for name in ("a.example", "b.example")
    ]
    world.run(*sites)
    assert all(map(world.has, sites))
    assert world.ca.count["newOrder"] == 1 + 2


def test_next_attempt_in_years(world: World) -> None:
    """An attempt that a wrong clock put off for years is made now, and that is said."""
    world.blocked["a.example"] = "DNS has no address for it"
    site = world.certificate("a.example")
    world.clock += 400 * DAY
    world.run(site)
    world.blocked.clear()
    world.clock = NOW
    world.run(site)
    assert world.has(site)
    assert world.heard("[warn] a.example: its next attempt is noted for 2028-04-04, which can't be")


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(busy(), id="it stops all that is asked of the CA"),
        pytest.param(refused(500, "serverInternal"), id="it stops the certificate"),
    ],
)
def test_next_attempt_in_days(world: World, fault: Fault) -> None:
    """A run by a clock that is days ahead, and that fails, costs no short certificate its renewal."""
    site = world.certificate("a.example", profile="shortlived")
    world.run(site)
    world.clock += timedelta(hours=81)
    world.ca.misbehave("newOrder", fault)
    world.behind, world.clock = 5 * DAY, world.clock + 5 * DAY
    assert world.run(site).failed
    world.behind, world.clock = timedelta(0), world.clock - 5 * DAY
    world.run(site)
    assert len(world.ca.issued) == 2


# --- key types ------------------------------------------------------------------------------


def test_second_key_waits(world: World) -> None:
    """What a key type was refused for holds for the next one, which isn't tried, nor soon."""
    site = world.certificate("a.example", keys=(KEY, "ecdsa:384"))
    world.ca.dead.add("a.example")
    outcome = world.run(site)
    assert world.ca.count["newOrder"] == 1
    assert world.attempt(site).next == world.attempt(site, "ecdsa:384").next == NOW + MINUTE
    assert outcome.next == NOW + MINUTE
    world.run(site)
    assert world.ca.count["newOrder"] == 1


def test_refused_key(world: World) -> None:
    """A kind of key that the CA doesn't take keeps nobody from trying the next one."""
    site = world.certificate("a.example", keys=("ecdsa:521", KEY))
    world.ca.misbehave("finalize", refused(400, "badPublicKey"))
    world.run(site)
    assert not world.has(site, "ecdsa:521")
    assert world.has(site)


# --- what comes back ------------------------------------------------------------------------


def test_expired_on_arrival(world: World) -> None:
    """A certificate that is over isn't used nor ordered again: by another clock it is good."""
    site = world.certificate("a.example")
    world.behind = timedelta(days=400)
    world.clock += world.behind
    world.run(site)
    assert not world.has(site)
    assert "is the clock right?" in (world.attempt(site).problem or "")
    assert world.heard("the clock says 2028-04-04 12:00:00 UTC, that of fake 2027-03-01 12:00:00")
    world.clock, world.behind = NOW, timedelta(0)
    world.run(site)
    assert world.has(site)
    assert world.ca.count["newOrder"] == 1


def test_expired_since_then(world: World) -> None:
    """Who comes back to a finished order after its certificate's end gives it up for another one."""
    site = world.certificate("a.example")
    world.ca.misbehave("certificate", refused(403, "unauthorized"))
    world.run(site)
    assert len(world.ca.issued) == 1
    world.clock += 91 * DAY
    world.run(site)
    assert not world.has(site)
    assert "its order is given up" in (world.attempt(site).problem or "")
    world.clock += 10 * MINUTE
    world.run(site)
    assert world.has(site)
    assert world.ca.count["newOrder"] == 2


def test_nothing_to_download(world: World) -> None:
    """A finished order whose certificate the CA hasn't got in the next run either is given up."""
    site = world.certificate("a.example")
    world.ca.misbehave("certificate", refused(410, "malformed"), times=2)
    world.run(site)
    world.clock += MINUTE
    world.run(site)
    assert "the CA has no certificate for its order" in (world.attempt(site).problem or "")
    assert world.ca.count["newOrder"] == 1
    world.clock += 10 * MINUTE
    world.run(site)
    assert world.has(site)
    assert world.ca.count["newOrder"] == 2


def test_late_to_download(world: World) -> None:
    """One whose certificate is only late is finished by the next run, with no second order."""
    site = world.certificate("a.example")
    world.ca.misbehave("certificate", refused(410, "malformed"))
    world.run(site)
    assert not world.has(site)
    world.clock += MINUTE
    world.run(site)
    assert world.has(site)
    assert world.ca.count["newOrder"] == 1


def test_no_clock(world: World) -> None:
    """Nobody is asked before the clock is set."""
    world.clock = datetime(1970, 1, 1, tzinfo=UTC)
    with pytest.raises(StateError, match="no CA is asked until it is set"):
        world.run(world.certificate("a.example"))
    assert world.ca.log == []


def test_stranger(world: World) -> None:
    """A certificate for somebody else's key is not used; the next order is another one."""
    world.ca.stranger = ec.generate_private_key(ec.SECP256R1())
    site = world.certificate("a.example")
    world.run(site)
    assert not world.has(site)
    assert "not the certificate that was ordered" in (world.attempt(site).problem or "")
    world.ca.stranger = None
    world.clock += 2 * MINUTE
    world.run(site)
    assert world.has(site)
    assert world.ca.count["newOrder"] == 2


def test_still_issuing(world: World) -> None:
    """A CA that takes hours to issue is looked at again, and nothing has failed."""
    world.ca.processing_seconds, world.ca.retry_after = 1e6, 7200
    site = world.certificate("a.example")
    outcome = world.run(site)
    assert not outcome.failed
    assert outcome.missing == ["a.example"]
    assert world.attempt(site).failures == 0
    assert world.attempt(site).next == outcome.next == NOW + timedelta(hours=2)
    world.clock += timedelta(hours=2)
    world.ca.orders[0].due = 0
    world.run(site)
    assert world.has(site)
    assert world.ca.count["newOrder"] == world.ca.count["finalize"] == 1


def test_due_on_arrival(world: World) -> None:
    """A certificate with little life left is used, and not asked for again at once."""
    world.behind = timedelta(days=70)
    site = world.certificate("a.example")
    world.run(site)
    assert world.has(site)
    assert world.attempt(site).next == NOW + 0.9 * DAY
    world.clock += 0.9 * DAY - MINUTE
    world.run(site)
    assert world.ca.count["newOrder"] == 1


def test_clock_ahead(world: World) -> None:
    """By a clock that is four days ahead a short certificate is due when it comes: five in a day."""
    world.behind = 4 * DAY
    site = world.certificate("a.example", profile="shortlived")
    outcome = world.run(site)
    for _ in range(60):
        assert outcome.next is not None
        if outcome.next > NOW + DAY:
            break
        world.clock = max(world.clock, outcome.next)
        outcome = world.run(site)
    assert len(world.ca.issued) == 5
    assert (world.attempt(site).failures, world.attempt(site).in_vain) == (0, 5)
    world.behind = timedelta(0)
    world.clock += 2 * DAY
    world.run(site)
    assert world.attempt(site).in_vain == 0
    assert len(world.ca.issued) == 6


def test_abandoning_refused(world: World) -> None:
    """A CA that can't give up an order doesn't keep us from making the right one."""
    site = world.certificate("a.example")
    world.ca.misbehave("authorization", refused(403, "unauthorized"))
    world.run(site)
    assert not world.has(site)
    other = replace(site, key_types=("ecdsa:384",))
    world.ca.misbehave("authorization", refused(403, "unauthorized"))
    world.run(other)
    assert world.has(other, "ecdsa:384")
    assert world.heard("keeps an order that nobody wants")


def test_forgotten_account(world: World) -> None:
    """An account that the CA forgot is made anew, once a day, and nginx answers for it."""
    site, other = world.certificate("a.example"), world.certificate("b.example")
    world.run(site)
    world.ca.forget_accounts()
    world.run(other)
    assert world.has(other)
    assert len(world.answered) == 1
    assert world.heard("[error] fake does not know the account")
    world.ca.forget_accounts()
    third = world.certificate("c.example")
    world.run(third)
    assert not world.has(third)
    assert len(world.answered) == 1


class Mounted(World):
    """A world whose account's key is a file of the operator's, on a mount that may be gone."""

    def __post_init__(self) -> None:
        """Have the key."""
        super().__post_init__()
        self.mount = self.root.with_name("secrets")
        self.mount.mkdir()
        key = self.mount / "account.pem"
        key.write_bytes(new_key(KEY))
        self.issuer = replace(self.issuer, account_key=str(key))

    def _ports(self, store: Store) -> Ports:
        if self.heard("is gone"):
            self.mount.rename(self.root.with_name("unmounted"))
        return super()._ports(store)


def test_account_key_gone(tmp_path: Path) -> None:
    """A key that is missing at one CA is no trouble of another's."""
    world = Mounted(tmp_path / "state")
    site = world.certificate("a.example")
    world.blocked["a.example"] = "DNS has no address for it"
    world.run(site)
    world.said.append("the mount is gone")
    other = replace(
        world.certificate("b.example"), issuer=replace(world.issuer, name="b", account_key=KEY)
    )
    outcome = world.run(site, other)
    assert world.has(other)
    assert not outcome.failed
    assert outcome.next == world.attempt(site).next == NOW + MINUTE


# --- the disk, and the end ------------------------------------------------------------------


def test_one_folder_broken(world: World) -> None:
    """What can't be written for one certificate stops that one alone."""
    site, other = world.certificate("a.example"), world.certificate("b.example")
    world.ca.misbehave("directory", busy())
    world.run(site, other)
    Path(world.folder(site).path, "pending").write_text("")
    world.clock += MINUTE
    outcome = world.run(site, other)
    assert outcome.failed == outcome.missing == ["a.example"]
    assert world.has(other)
    assert world.ca.count["newOrder"] == 1


def test_nothing_can_be_kept(world: World) -> None:
    """Where nothing can be written, no CA is asked for anything."""
    sites = [world.certificate(f"n{number}.example") for number in range(AT_ONCE + 5)]
    world.ca.misbehave("directory", busy())
    world.run(*sites)
    for site in sites:
        Path(world.folder(site).path, "pending").write_text("")
    world.clock += MINUTE

    async def changed_meanwhile(proceed: Proceed) -> Reply:
        (world.root / "layout").write_text("2\n")
        return await proceed()

    world.ca.misbehave("directory", changed_meanwhile)
    with pytest.raises(StateError, match="newer nginx-acme"):
        world.run(*sites)
    assert world.ca.count["newOrder"] == 0


@pytest.mark.parametrize("resource", ["directory", "newOrder", "certificate"])
def test_cancelled(world: World, resource: str) -> None:
    """Whoever is cancelled leaves no lock behind, and the next run goes on."""
    site = world.certificate("a.example")
    world.ca.misbehave(resource, slow(30))
    with pytest.raises(TimeoutError):
        world.run(site, seconds=1)
    world.run(site)
    assert world.has(site)
    assert world.ca.count["finalize"] == 1
