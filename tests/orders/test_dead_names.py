"""A certificate without a dead name: when there is one, what is known of it, and how it gets whole."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from nginx_acme.policy import Keep
from nginx_acme.standing import of_folder
from nginx_acme.store import Identity, Store
from tests.fake_ca import certificate_id, refused
from tests.world import DAY, KEY, MINUTE, NOW, World

if TYPE_CHECKING:
    from pathlib import Path

    from nginx_acme.orders.ports import Outcome
    from nginx_acme.plan import Certificate
    from nginx_acme.standing import Standing
    from tests.fake_ca import Proceed, Reply

HOUR = timedelta(hours=1)
GOOD, DEAD = "a.example", "www.a.example"


@pytest.fixture
def world(tmp_path: Path) -> World:
    """One in which all is well."""
    return World(tmp_path / "state")


def names(world: World, certificate: Certificate, key_type: str = KEY) -> set[str]:
    """What its certificate is for; nothing where there is none."""
    own = world.folder(certificate).own(key_type)
    return set(own.facts.names) if own else set()


def standing(world: World, certificate: Certificate) -> Standing:
    """How it stands."""
    (one,) = of_folder(certificate, world.folder(certificate), world.clock)
    return one


def ordered(world: World) -> list[set[str]]:
    """The names of each new order since the CA's record was cleared."""
    orders = [seen.payload for seen in world.ca.seen if seen.resource == "newOrder"]
    return [{each["value"] for each in order["identifiers"]} for order in orders]


def run_until(world: World, site: Certificate, moment: timedelta) -> Outcome:
    """Runs, each when the one before said, until so long after the beginning."""
    outcome = world.run(site)
    while outcome.next is not None and outcome.next <= NOW + moment:
        world.clock = max(world.clock, outcome.next)
        outcome = world.run(site)
    world.clock = max(world.clock, NOW + moment)
    return outcome


# --- where there is no certificate ----------------------------------------------------------


def test_at_once(world: World) -> None:
    """Where nothing can be served the others don't wait for the dead: two orders, one challenge each."""
    world.ca.dead.add(DEAD)
    site = world.certificate(GOOD, DEAD)
    outcome = world.run(site)
    assert ordered(world) == [{GOOD, DEAD}, {GOOD}]
    assert names(world, site) == {GOOD}
    assert len(outcome.installed) == 1
    assert not outcome.failed
    assert not outcome.missing
    assert world.ca.count["challenge"] == 2
    assert world.heard(f"[warn] {GOOD}: goes on without {DEAD}: DNS problem: NXDOMAIN")
    assert world.heard(f"without {DEAD}")


def test_known(world: World) -> None:
    """It is known as lacking, with the CA's words, by a new process, too."""
    world.ca.dead.add(DEAD)
    site = world.certificate(GOOD, DEAD)
    outcome = world.run(site)
    one = standing(world, site)
    assert one.usable
    assert one.left_out == (DEAD,)
    assert one.attempt.failures == 1
    assert "NXDOMAIN" in (one.attempt.problem or "")
    assert one.attempt.next == outcome.next == NOW + MINUTE


def test_whole_again(world: World) -> None:
    """The whole set is asked for by the ordinary backoff, and takes the place of the rest."""
    world.ca.dead.add(DEAD)
    site = world.certificate(GOOD, DEAD)
    world.run(site)
    partial = certificate_id(world.ca.issued[0])
    world.ca.seen.clear()
    run_until(world, site, 3 * DAY)
    assert set(map(frozenset, ordered(world))) == {frozenset({GOOD, DEAD})}
    assert 3 <= len(ordered(world)) <= 7
    assert names(world, site) == {GOOD}
    world.ca.dead.clear()
    run_until(world, site, 5 * DAY)
    assert names(world, site) == {GOOD, DEAD}
    one = standing(world, site)
    assert (one.left_out, one.attempt.failures, one.attempt.problem) == ((), 0, None)
    assert isinstance(one.decision, Keep)
    assert world.ca.orders[-1].replaces == partial


def test_all_names(world: World) -> None:
    """`all_names on`: no certificate is better than one without a name."""
    world.issuer = replace(world.issuer, all_names=True)
    world.ca.dead.add(DEAD)
    site = world.certificate(GOOD, DEAD)
    outcome = world.run(site)
    assert ordered(world) == [{GOOD, DEAD}]
    assert outcome.failed == outcome.missing == [GOOD]


def test_all_dead(world: World) -> None:
    """Where every name fails there is nothing to go on with."""
    world.ca.dead |= {GOOD, DEAD}
    site = world.certificate(GOOD, DEAD)
    outcome = world.run(site)
    assert ordered(world) == [{GOOD, DEAD}]
    assert outcome.failed == [GOOD]
    assert world.attempt(site).failures == 1


def test_rejected(world: World) -> None:
    """A name that the CA's policy refuses is dead, too; the order was refused for it alone."""
    world.ca.rejected.add(DEAD)
    site = world.certificate(GOOD, DEAD)
    world.run(site)
    assert ordered(world) == [{GOOD, DEAD}, {GOOD}]
    assert names(world, site) == {GOOD}


def test_several_rejected(world: World) -> None:
    """So are several, which the CA tells apart by subproblems."""
    world.ca.rejected |= {DEAD, "shop.a.example"}
    site = world.certificate(GOOD, DEAD, "shop.a.example")
    world.run(site)
    assert ordered(world)[1:] == [{GOOD}]
    assert names(world, site) == {GOOD}


def test_forbidden_by_caa(world: World) -> None:
    """A CAA record that came after the proof (Boulder looks again at finalize) costs its name alone."""
    words = f"Error finalizing order :: rechecking caa: CAA record for {DEAD} prevents issuance"
    world.ca.misbehave("finalize", refused(403, "caa", words))
    site = world.certificate(GOOD, DEAD)
    world.run(site)
    assert ordered(world) == [{GOOD, DEAD}, {GOOD}]
    assert names(world, site) == {GOOD}
    assert world.ca.count["challenge"] == 2


def test_paused(world: World) -> None:
    """A name that the CA has paused for failing is as good as dead; it is asked for once a day."""
    world.ca.paused.add(DEAD)
    site = world.certificate(GOOD, DEAD)
    world.run(site)
    assert ordered(world) == [{GOOD, DEAD}, {GOOD}]
    assert names(world, site) == {GOOD}
    assert "temporarily prevented" in (world.attempt(site).problem or "")
    world.ca.seen.clear()
    run_until(world, site, 3 * DAY)
    assert 2 <= len(ordered(world)) <= 4
    world.ca.paused.clear()
    run_until(world, site, 5 * DAY)
    assert names(world, site) == {GOOD, DEAD}


def test_limited(world: World) -> None:
    """A limit that isn't a name's own makes no name dead: the certificate waits."""
    limit = refused(429, "rateLimited", detail=f'too many certificates (50) for "{GOOD}"')
    world.ca.misbehave("newOrder", limit)
    site = world.certificate(GOOD, DEAD)
    world.run(site)
    assert ordered(world) == [{GOOD, DEAD}]


def test_rest_fails(world: World) -> None:
    """An order for the rest that fails, too, is no second failure, and nothing more is asked."""
    world.ca.dead.add(DEAD)
    world.ca.misbehave("newOrder", refused(500, "serverInternal"), after=1)
    site = world.certificate(GOOD, DEAD)
    outcome = world.run(site)
    assert outcome.failed == [GOOD]
    assert world.attempt(site).failures == 1
    assert len(ordered(world)) == 2


def test_slow_validation(world: World) -> None:
    """The good names are waited for: their authorizations are what the second order is made of."""
    world.ca.dead.add(DEAD)
    world.ca.slow[GOOD] = 1.0
    site = world.certificate(GOOD, DEAD)
    world.run(site)
    assert names(world, site) == {GOOD}
    assert world.ca.count["challenge"] == 2


def test_two_key_types(world: World) -> None:
    """The second key type of a run asks for the rest at once: what failed a second ago is known."""
    world.ca.dead.add(DEAD)
    site = world.certificate(GOOD, DEAD, keys=(KEY, "ecdsa:384"))
    world.run(site)
    assert ordered(world) == [{GOOD, DEAD}, {GOOD}, {GOOD}]
    assert names(world, site) == names(world, site, "ecdsa:384") == {GOOD}
    assert world.attempt(site, "ecdsa:384").failures == 1


# --- where there is one ---------------------------------------------------------------------


def test_no_name_is_dropped(world: World) -> None:
    """A name that dies costs nobody anything until half of the time to renew is gone."""
    world.ca.advises = False
    site = world.certificate(GOOD, DEAD)
    world.run(site)
    world.ca.dead.add(DEAD)
    run_until(world, site, 74.5 * DAY)
    assert names(world, site) == {GOOD, DEAD}
    assert world.attempt(site).failures > 10
    run_until(world, site, 77 * DAY)
    assert names(world, site) == {GOOD}
    assert standing(world, site).left_out == (DEAD,)


def test_hiccup(world: World) -> None:
    """A name server that restarts when little time is left is waited for all the same."""
    site = world.certificate(GOOD, DEAD)
    world.run(site)
    world.clock = NOW + 85 * DAY
    world.ca.dead.add(DEAD)
    outcome = world.run(site)
    assert outcome.failed == [GOOD]
    assert names(world, site) == {GOOD, DEAD}
    world.ca.dead.clear()
    world.clock += MINUTE
    world.run(site)
    assert names(world, site) == {GOOD, DEAD}
    assert len(world.ca.issued) == 2


def test_expired(world: World) -> None:
    """When it is over there is nothing to wait for."""
    site = world.certificate(GOOD, DEAD)
    world.run(site)
    world.ca.dead.add(DEAD)
    world.clock = NOW + 91 * DAY
    world.run(site)
    assert names(world, site) == {GOOD}


def test_forced(world: World) -> None:
    """A renewal that somebody asks for drops no name of a certificate that is good."""
    site = world.certificate(GOOD, DEAD)
    world.run(site)
    world.ca.dead.add(DEAD)
    world.clock += 40 * DAY  # the CA remembers for 30 that the name was good
    assert world.run(site, force=True).failed == [GOOD]
    assert names(world, site) == {GOOD, DEAD}


def test_partial_is_renewed(world: World) -> None:
    """One that lacks a name is renewed in time, and each time the whole set is tried first."""
    world.ca.dead.add(DEAD)
    site = world.certificate(GOOD, DEAD, profile="shortlived")
    world.run(site)
    for _ in range(2):
        count = len(world.ca.issued)
        own = world.folder(site).own(KEY)
        assert own is not None
        begin, end = own.facts.not_before, own.facts.not_after
        world.ca.seen.clear()
        while len(world.ca.issued) == count:
            outcome = world.run(site)
            assert outcome.next is not None
            if len(world.ca.issued) == count:
                world.clock = max(world.clock, outcome.next)
        assert ordered(world)[-2:] == [{GOOD, DEAD}, {GOOD}]
        assert abs(world.clock - (begin + (end - begin) / 2)) < 2 * HOUR
        assert standing(world, site).left_out == (DEAD,)


def test_one_of_two(world: World) -> None:
    """Of two dead names one comes back: the certificate that has it is worth an order."""
    world.ca.dead |= {DEAD, "shop.a.example"}
    site = world.certificate(GOOD, DEAD, "shop.a.example")
    world.run(site)
    assert names(world, site) == {GOOD}
    world.ca.dead.remove(DEAD)
    world.clock += MINUTE
    world.run(site)
    assert names(world, site) == {GOOD, DEAD}
    assert standing(world, site).left_out == ("shop.a.example",)


# --- the preflight --------------------------------------------------------------------------


def test_blocked(world: World) -> None:
    """A name that the preflight blocks is dead without an order; the whole set costs the CA nothing."""
    world.blocked[DEAD] = "DNS has no address for it"
    site = world.certificate(GOOD, DEAD)
    world.run(site)
    assert ordered(world) == [{GOOD}]
    assert names(world, site) == {GOOD}
    one = standing(world, site)
    assert one.attempt.blocked == (DEAD,)
    assert one.attempt.problem == f"{DEAD}: DNS has no address for it (preflight)"
    run_until(world, site, 3 * DAY)
    assert len(ordered(world)) == 1


def test_unblocked(world: World) -> None:
    """When nothing speaks against it any more it is asked for within the hour, not tomorrow."""
    world.blocked[DEAD] = "DNS has no address for it"
    site = world.certificate(GOOD, DEAD)
    outcome = run_until(world, site, 3 * DAY)
    next_attempt = world.attempt(site).next
    assert next_attempt is not None
    assert outcome.next is not None
    assert outcome.next <= world.clock + HOUR < next_attempt
    world.blocked.clear()
    world.clock = outcome.next
    world.run(site)
    assert names(world, site) == {GOOD, DEAD}
    assert world.heard(f"{GOOD}: nothing speaks against {DEAD} any more")


def test_unblocked_site(world: World) -> None:
    """A new site whose DNS comes after hours is not left without a certificate for a day."""
    world.blocked[GOOD] = "DNS has no address for it"
    site = world.certificate(GOOD)
    outcome = run_until(world, site, 20 * HOUR)
    assert world.ca.log == []
    assert outcome.next is not None
    assert outcome.next <= world.clock + HOUR
    world.blocked.clear()
    world.clock = outcome.next
    world.run(site)
    assert names(world, site) == {GOOD}


def test_blocked_and_dead(world: World) -> None:
    """What the preflight and the CA find is left out together, and both are told."""
    world.blocked[DEAD] = "DNS has no address for it"
    world.ca.dead.add("shop.a.example")
    site = world.certificate(GOOD, DEAD, "shop.a.example")
    world.run(site)
    assert ordered(world) == [{GOOD, "shop.a.example"}, {GOOD}]
    one = standing(world, site)
    assert one.left_out == (DEAD, "shop.a.example")
    assert one.attempt.failures == 1
    assert one.attempt.blocked == (DEAD,)
    assert "DNS has no address" in (one.attempt.problem or "")
    assert "NXDOMAIN" in (one.attempt.problem or "")


# --- what may happen in between -------------------------------------------------------------


def test_lost_notes(world: World) -> None:
    """Where it is forgotten who it is it is still served, and gets all its notes with one order."""
    world.ca.dead.add(DEAD)
    site = world.certificate(GOOD, DEAD)
    world.run(site)
    (world.root / "certificates" / GOOD / "state.json").unlink()
    store = Store(str(world.root))
    identity = Identity(*site.identity)
    assert store.find(identity) is None
    nearest = store.nearest(identity, KEY, NOW)
    assert nearest is not None
    assert nearest.facts.names == {GOOD}
    world.run(site)
    assert names(world, site) == {GOOD}


@pytest.mark.parametrize("resource", ["finalize", "certificate"])
def test_cancelled(world: World, resource: str) -> None:
    """Who is stopped amid the order for the rest finishes that one, and waits like after any failure."""
    world.ca.dead.add(DEAD)
    site = world.certificate(GOOD, DEAD)

    async def stopped() -> None:
        reached = asyncio.Event()

        async def hang(proceed: Proceed) -> Reply:
            await proceed()
            reached.set()
            return await asyncio.Future()

        world.ca.misbehave(resource, hang)
        running = asyncio.create_task(world._run((site,), 60, force=False))
        await reached.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(stopped())
    assert world.attempt(site).failures == 1
    world.run(site)
    assert len(ordered(world)) == 2
    world.clock += MINUTE
    world.run(site)
    assert names(world, site) == {GOOD}
    assert len(ordered(world)) == 2
    assert world.ca.count["finalize"] == 1


def test_another_process(world: World) -> None:
    """Two at once get one certificate for the rest."""
    world.ca.dead.add(DEAD)
    site = world.certificate(GOOD, DEAD)

    async def both() -> None:
        await asyncio.gather(*(world._run((site,), 30, force=False) for _ in "12"))

    asyncio.run(both())
    assert names(world, site) == {GOOD}
    assert len(world.ca.issued) == 1
