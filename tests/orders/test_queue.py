"""Who is asked for and who waits, at a fake CA: order, refusals, and what the next run knows."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nginx_acme.account import make_account
from nginx_acme.acme.presets import LETSENCRYPT
from nginx_acme.policy.limits import AT_ONCE, PAUSE, Kind, Limits, Scope
from nginx_acme.store import Identity, Store
from tests.fake_ca import busy, refused, unreachable
from tests.store.bundles import issue
from tests.world import DAY, KEY, MINUTE, NOW, World

if TYPE_CHECKING:
    from nginx_acme.acme.client import Client
    from nginx_acme.plan import Certificate, Issuer
    from nginx_acme.store import AccountFolder
    from tests.fake_ca import Fault, Proceed, Reply

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
MANY = AT_ONCE + 5


@pytest.fixture
def world(tmp_path: Path) -> World:
    """One in which all is well."""
    return World(tmp_path / "state")


def sites(world: World, below: str, number: int = MANY) -> list[Certificate]:
    """So many, each for a name below one."""
    return [world.certificate(f"n{each}.{below}") for each in range(number)]


def only_below(world: World, name: str, fault: Fault) -> Fault:
    """A fault that meets orders for names below one."""

    async def chosen(proceed: Proceed) -> Reply:
        wanted = world.ca.seen[-1].payload["identifiers"]
        if any(each["value"].endswith(f".{name}") for each in wanted):
            return await fault(proceed)
        return await proceed()

    return chosen


def limits(world: World) -> Limits:
    """What is on disk of the account."""
    account = Store(str(world.root)).find_account(world.issuer.directory_url)
    assert account is not None
    found = account.limits.load()
    assert found is not None
    return found


def orders(world: World) -> int:
    """How many were asked for."""
    return world.ca.count["newOrder"]


# --- refusals -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(
            refused(429, "rateLimited", "too many new orders (300)", retry_after="3600"),
            id="the account's",
        ),
        pytest.param(busy(3600), id="of a load balancer"),
        pytest.param(busy(3600, status=429), id="without words"),
    ],
)
def test_limit_of_all(world: World, fault: Fault) -> None:
    """What stops all is said once; everybody waits as long as it says, in the next runs, too."""
    all_of_them = sites(world, "b.example")
    world.ca.misbehave("newOrder", fault)
    outcome = world.run(*all_of_them)
    asked = len(world.ca.log)
    assert orders(world) == 1
    assert outcome.next == NOW + HOUR
    attempts = [world.attempt(site) for site in all_of_them]
    assert all(one.next == NOW + HOUR for one in attempts)
    assert sum(one.failures for one in attempts) == 1
    assert len(outcome.failed) == 1
    assert world.heard(f"{MANY - 1} certificates are not asked for until 2027-03-01 13:00:00 UTC")
    newcomer = world.certificate("c.example")
    world.clock += timedelta(minutes=59)
    assert world.run(*all_of_them, newcomer).next == NOW + HOUR
    assert len(world.ca.log) == asked
    assert "not asked for" in (world.attempt(newcomer).problem or "")
    world.clock += MINUTE
    world.run(*all_of_them, newcomer)
    assert all(map(world.has, (*all_of_them, newcomer)))


def test_left_alone_for_a_month(world: World) -> None:
    """A CA that says so is not asked after a minute, but after the longest time that is believed."""
    site = world.certificate("a.example")
    world.ca.misbehave("newOrder", busy(30 * 86400))
    assert world.run(site).next == NOW + 8 * DAY
    asked = len(world.ca.log)
    world.clock += 8 * DAY - MINUTE
    assert world.run(site).next == NOW + 8 * DAY
    assert len(world.ca.log) == asked
    world.clock += MINUTE
    world.run(site)
    assert world.has(site)


@pytest.mark.parametrize("status", ["deactivated", "revoked"])
def test_closed_account(world: World, status: str) -> None:
    """An account that the CA has closed is not asked with for every certificate."""
    all_of_them = sites(world, "b.example")
    world.run(*all_of_them)
    asked = orders(world)
    for account in world.ca.accounts.values():
        account.status = status
    world.clock += 61 * DAY
    world.run(*all_of_them)
    # With what is replaced, which may be what it is refused for, and without.
    assert orders(world) <= asked + 2 * AT_ONCE
    assert limits(world).stops.keys() == {Scope(Kind.ORDERS)}
    asked = orders(world)
    world.run(*all_of_them, world.certificate("c.example"))
    assert orders(world) == asked
    assert world.heard(f'Account is not valid, has status "{status}"')


def test_limit_of_a_name(world: World) -> None:
    """One customer's limit is learned once for all of their certificates, and is nobody else's."""
    theirs, others = sites(world, "b.example"), sites(world, "c.example", 3)
    words = 'too many certificates (50) already issued for "b.example" in the last 168h0m0s'
    fault = refused(429, "rateLimited", words, retry_after="3600")
    world.ca.misbehave("newOrder", only_below(world, "b.example", fault), times=-1)
    world.run(*theirs, *others)
    assert all(map(world.has, others))
    assert orders(world) == 1 + len(others)
    assert all(world.attempt(site).next == NOW + HOUR for site in theirs)
    world.clock += 59 * MINUTE
    world.run(*theirs, *others, world.certificate("a.b.example"))
    assert orders(world) == 1 + len(others)


def test_paused_name(world: World) -> None:
    """A paused name is asked for daily, with the link where somebody can put it right."""
    site, other = world.certificate("a.example"), world.certificate("b.example")
    world.ca.paused.add("a.example")
    world.run(site, other)
    assert world.has(other)
    assert world.heard("https://ca.example/unpause")
    assert world.attempt(site).next == NOW + DAY
    world.run(site, world.certificate("a.example", "c.example"))
    assert orders(world) == 2


@pytest.mark.parametrize("resource", ["directory", "newNonce", "newOrder"])
def test_ca_gone(world: World, resource: str) -> None:
    """A CA that is gone is tried for one certificate; all wait as long, and none is forgotten."""
    all_of_them = sites(world, "b.example")
    world.ca.misbehave(resource, unreachable(), times=-1)
    world.run(*all_of_them, seconds=600)
    tried = world.ca.count[resource]
    assert tried <= 3 * AT_ONCE if resource == "newOrder" else tried == 3
    attempts = [world.attempt(site) for site in all_of_them]
    assert {one.next for one in attempts} == {NOW + MINUTE}
    assert {one.failures for one in attempts} == {1}


# --- turns ----------------------------------------------------------------------------------


class LetsEncrypt(World):
    """A world where the CA is one whose limits are known."""

    def __post_init__(self) -> None:
        """Let it be asked under that name."""
        super().__post_init__()
        self.issuer = replace(self.issuer, name="letsencrypt", directory_url=LETSENCRYPT)

    def _connect(self, issuer: Issuer, account: AccountFolder) -> Client:
        return super()._connect(replace(issuer, directory_url=self.ca.directory_url), account)

    def leave(self, orders: int) -> None:
        """Let so many orders be left, by what is remembered."""
        store = Store(str(self.root))
        store.open_for_writing()
        account = make_account(store, self.issuer, self.clock)
        account.limits.save(Limits(full={"": self.clock + (300 - orders) * 36 * SECOND}))

    def ordered(self) -> list[str]:
        """The first names of all orders, in turn."""
        return [order.names[0][1] for order in self.ca.orders]


@pytest.fixture
def letsencrypt(tmp_path: Path) -> LetsEncrypt:
    """One in which all is well."""
    return LetsEncrypt(tmp_path / "state")


def test_order_of_service(letsencrypt: LetsEncrypt) -> None:
    """Renewals by expiry, then new ones, then second key types, then what failed before."""
    world = letsencrypt
    later, sooner = world.certificate("later.example"), world.certificate("sooner.example")
    failed = world.certificate("failed.example")
    world.run(sooner)
    world.clock += DAY
    world.run(later)
    world.clock += 62 * DAY
    world.ca.dead.add("failed.example")
    world.run(failed)
    world.ca.dead.clear()
    world.clock += 2 * MINUTE
    two = replace(world.certificate("two.example"), key_types=(KEY, "ecdsa:384"))
    world.said.clear()
    world.run(failed, two, world.certificate("new.example"), later, sooner)
    begun = [line for line in world.said if "it expires" in line or "no certificate yet" in line]
    names = [line.partition(".example: ")[0] for line in begun]
    assert names == ["sooner", "later", "two", "new", "failed", "two"]


def test_bucket(letsencrypt: LetsEncrypt) -> None:
    """What the account may still order is ordered; the others know their turns, renewals need none."""
    world = letsencrypt
    old = world.certificate("old.example")
    world.run(old)
    world.clock += 61 * DAY
    world.leave(orders=3)
    new = sites(world, "b.example", 23)
    outcome = world.run(*new, old)
    assert sorted(world.ordered()[1:]) == [
        *(f"n{number}.b.example" for number in range(3)),
        "old.example",
    ]
    turns = [world.attempt(site).next for site in new[3:]]
    assert turns == [world.clock + PAUSE] * 16 + [world.clock + 2 * PAUSE] * 4
    assert [world.attempt(site).failures for site in new[3:]] == [0] * 20
    assert outcome.next == world.clock + PAUSE
    assert not outcome.failed
    assert world.heard("letsencrypt takes no more orders now: 20 certificates wait for a turn")
    assert world.run(new[-1], force=True).failed == ["n22.b.example"]
    world.clock += PAUSE
    assert world.run(*new, old).next == turns[-1]
    world.clock += PAUSE
    world.run(*new, old)
    assert all(map(world.has, new))


def test_forced(world: World) -> None:
    """An operator may ask again what we had put off ourselves, but not before the CA's own time."""
    site, other = world.certificate("a.example"), world.certificate("b.example")
    world.ca.misbehave("newOrder", unreachable(), times=3)
    world.run(site)
    assert world.run(other).failed == []
    assert world.run(site, force=True).failed == []
    assert world.has(site)
    world.ca.misbehave("newOrder", busy(3600))
    world.run(other, force=True)
    asked = len(world.ca.log)
    assert world.run(other, force=True).failed == ["b.example"]
    assert len(world.ca.log) == asked


def test_got_by_another_process(letsencrypt: LetsEncrypt) -> None:
    """What has come meanwhile has no turn to wait for, and nothing that is noted of it is lost."""
    world = letsencrypt
    world.leave(orders=1)
    site, other = world.certificate("a.example"), world.certificate("b.example")

    async def got_elsewhere(proceed: Proceed) -> Reply:
        store = Store(str(world.root))
        store.open_for_writing()
        folder = store.create(Identity(*other.identity), ("b.example",))
        with store.lock_certificate(folder):
            bundle = issue(("b.example",), since=world.clock)
            folder.install(KEY, bundle, world.issuer.directory_url)
        return await proceed()

    world.ca.misbehave("finalize", got_elsewhere)
    world.run(site, other)
    assert world.attempt(other).next is None
    assert world.folder(other).issued(KEY) is not None


def test_another_process_is_at_work(letsencrypt: LetsEncrypt) -> None:
    """Nothing is noted of the turn of what another process has in its hands."""
    world = letsencrypt
    world.leave(orders=1)
    site, other = world.certificate("a.example"), world.certificate("b.example")
    with ExitStack() as elsewhere:

        async def taken_elsewhere(proceed: Proceed) -> Reply:
            store = Store(str(world.root))
            store.open_for_writing()
            folder = store.create(Identity(*other.identity), ("b.example",))
            elsewhere.enter_context(store.lock_certificate(folder))
            return await proceed()

        world.ca.misbehave("finalize", taken_elsewhere)
        world.run(site, other)
    assert world.has(site)
    assert world.attempt(other).next is None


def test_taken_up_without_a_turn(letsencrypt: LetsEncrypt) -> None:
    """An order that is made already is finished, though the account may not make another one."""
    world = letsencrypt
    world.leave(orders=1)
    site = world.certificate("a.example")
    world.ca.misbehave("challenge", refused(500, "serverInternal"))
    world.run(site)
    world.clock += 2 * MINUTE
    world.leave(orders=0)
    world.run(site, world.certificate("b.example"))
    assert world.has(site)
    assert orders(world) == 1


def test_second_key_is_free(letsencrypt: LetsEncrypt) -> None:
    """The second key type is for names that have a certificate already, so it needs no turn."""
    world = letsencrypt
    world.leave(orders=1)
    both = replace(world.certificate("a.example"), key_types=(KEY, "ecdsa:384"))
    world.run(both, world.certificate("b.example"))
    assert world.ordered() == ["a.example", "a.example"]


def test_registered_name(letsencrypt: LetsEncrypt) -> None:
    """Who waits for a registered name knows its turn there; its renewals wait for nobody."""
    world = letsencrypt
    old = world.certificate("www.b.example")
    world.run(old)
    world.clock += 61 * DAY
    words = 'too many certificates (50) already issued for "b.example" in the last 168h0m0s'
    fault = refused(429, "rateLimited", words, retry_after="3600")

    async def only_new(proceed: Proceed) -> Reply:
        replaces = world.ca.seen[-1].payload.get("replaces")
        return await (proceed() if replaces else fault(proceed))

    world.ca.misbehave("newOrder", only_new, times=-1)
    new = sites(world, "b.example", 3)
    world.run(*new, old)
    world.ca._faults.clear()
    assert world.ordered()[1:] == ["www.b.example"]
    assert {world.attempt(site).next for site in new} == {world.clock + HOUR}
    world.clock += HOUR
    world.run(*new, old)
    assert sum(map(world.has, new)) == 1
    every = timedelta(seconds=12096)
    turns = sorted(at for site in new if (at := world.attempt(site).next))
    assert turns == [world.clock + -(-wait // PAUSE) * PAUSE for wait in (every, 2 * every)]


def test_four_failures_an_hour(world: World) -> None:
    """A name that is in many certificates is looked at four times an hour, not once for each."""
    world.ca.dead.add("www.example")
    wanted = [world.certificate("www.example", f"n{number}.example") for number in range(8)]
    for site in wanted:
        world.run(replace(site, issuer=replace(site.issuer, all_names=True)))
        world.clock += 2 * MINUTE
    assert orders(world) == 4
    assert "www.example has failed 4 times within an hour" in (
        world.attempt(wanted[4]).problem or ""
    )
    assert world.attempt(wanted[4]).next == NOW + HOUR


def test_together(world: World) -> None:
    """What is due within the hour is renewed with what is due now: one run, one reload."""
    early, late, later = (world.certificate(f"{name}.example") for name in ("a", "b", "c"))
    for wait, site in ((90 * MINUTE, early), (DAY, late), (DAY, later)):
        world.run(site)
        world.clock += wait
    world.clock = NOW + 60 * DAY
    outcome = world.run(early, late, later)
    assert {wanted.values for wanted in outcome.installed} == {("a.example",), ("b.example",)}
    world.clock = NOW + 119 * DAY
    assert not world.run(early, late).installed


# --- what is remembered ---------------------------------------------------------------------


def everything(world: World) -> dict[str, bytes]:
    """Every file of accounts and certificates."""
    folders = (world.root / "accounts", world.root / "certificates")
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files}


def test_hundred_restarts(letsencrypt: LetsEncrypt) -> None:
    """A hundred restarts ask nothing and change nothing of what is remembered."""
    world = letsencrypt
    world.leave(orders=4)
    world.ca.dead.add("n0.b.example")
    words = 'too many certificates (50) already issued for "c.example"'
    fault = refused(429, "rateLimited", words, retry_after="36000")
    world.ca.misbehave("newOrder", only_below(world, "c.example", fault), times=-1)
    all_of_them = [*sites(world, "b.example", 3), *sites(world, "c.example", 3)]
    following = world.run(*all_of_them).next
    before, asked, stops = everything(world), len(world.ca.log), limits(world).stops
    assert stops.keys() == {Scope(Kind.BELOW, "c.example")}
    for _ in range(100):
        assert world.run(*all_of_them).next == following
    assert len(world.ca.log) == asked
    assert everything(world) == before


def test_damaged(world: World) -> None:
    """A damaged note is told of, set aside, and keeps nobody from being asked."""
    site = world.certificate("a.example")
    world.ca.misbehave("newOrder", busy(3600))
    world.run(site)
    path = Path(str(next(world.root.glob("accounts/*/limits.json"))))
    path.write_text(path.read_text()[:40])
    other = world.certificate("b.example")
    world.run(other)
    assert world.has(other)
    assert world.heard('limits.json" is damaged, that is forgotten')
    world.ca.misbehave("newOrder", busy(3600))
    world.run(world.certificate("c.example"))
    assert path.with_name("limits.json.damaged").exists()
    assert limits(world).stops.keys() == {Scope(Kind.CA)}


def test_wrong_clock(world: World) -> None:
    """A time that a wrong clock wrote down stops nobody, and is told of."""
    site = world.certificate("a.example")
    world.clock += 365 * DAY
    world.ca.misbehave("newOrder", busy(3600))
    world.run(site)
    world.clock = NOW
    world.run(site)
    assert world.has(site)
    assert world.heard("limits.json\" has times that can't be right, that is forgotten")


def test_unwritable(letsencrypt: LetsEncrypt) -> None:
    """No order is made that can't be remembered; what needs no such note goes on."""
    world = letsencrypt
    world.leave(orders=300)
    path = next(world.root.glob("accounts/*/limits.json"))
    path.unlink()
    path.mkdir()
    outcome = world.run(world.certificate("a.example"))
    assert orders(world) == 0
    assert outcome.failed == outcome.missing == ["a.example"]
    assert world.heard("limits.json")
