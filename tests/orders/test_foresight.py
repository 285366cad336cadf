"""What is known of a run before it begins: whether it would do anything, and when the next one is."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from nginx_acme.errors import StateError
from nginx_acme.orders.foresight import is_idle, look_ahead
from nginx_acme.orders.ports import Outcome
from nginx_acme.standing import standings
from nginx_acme.store import Store
from tests.fake_ca import refused
from tests.world import DAY, KEY, World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nginx_acme.plan import Certificate

    Change = Callable[[World], None]

HOUR = timedelta(hours=1)
YEAR = timedelta(days=365)
NAME = "a.example"


@pytest.fixture
def world(tmp_path: Path) -> World:
    """One in which all is well."""
    return World(tmp_path / "state")


def foreseen(world: World, *wanted: Certificate) -> tuple[bool, Outcome]:
    """Whether a run would do nothing, and what it would end with then."""
    found = tuple(standings(wanted, Store(str(world.root)), world.clock))
    outcome = Outcome()
    look_ahead(found, outcome, world.clock)
    return is_idle(found, world.clock), outcome


def after(world: World, change: Change, later: timedelta) -> Certificate:
    """The certificate some time after this has happened, which is no news any more."""
    change(world)
    world.clock += later
    world.ca.seen.clear()
    world.said.clear()
    return world.certificate(NAME)


def got(world: World) -> None:
    """It has come."""
    world.run(world.certificate(NAME))


def failed(world: World) -> None:
    """It has been refused, and waits for the next attempt."""
    world.ca.misbehave("newOrder", refused(500, "serverInternal"))
    world.run(world.certificate(NAME))


def asked(world: World) -> None:
    """It has come, and its CA has been asked for advice since."""
    got(world)
    world.clock += 2 * HOUR
    world.run(world.certificate(NAME))


def held_back(world: World) -> None:
    """The preflight has held it back, and wouldn't any more."""
    world.blocked[NAME] = "DNS has no address for it"
    world.run(world.certificate(NAME))
    world.blocked.clear()


def by_the_operators_word(world: World) -> None:
    """It has come, and is renewed when the operator wants it, so its CA is asked nothing."""
    world.issuer = replace(world.issuer, renew_before=20 * 86400)
    got(world)


@pytest.mark.parametrize(
    ("before", "later"),
    [
        pytest.param(got, timedelta(0), id="it has just come"),
        pytest.param(got, HOUR / 2, id="too early to ask for advice"),
        pytest.param(asked, HOUR, id="advice was given"),
        pytest.param(failed, timedelta(0), id="the next attempt is later"),
        pytest.param(by_the_operators_word, 2 * DAY, id="no advice is wanted"),
    ],
)
def test_idle(world: World, before: Change, later: timedelta) -> None:
    """Of a run that would do nothing it is known, and what it would end with."""
    site = after(world, before, later)
    idle, outcome = foreseen(world, site)
    assert idle
    assert outcome.next is not None
    assert outcome == world.run(site)
    assert (world.ca.log, world.said) == ([], [])


@pytest.mark.parametrize(
    ("before", "later"),
    [
        pytest.param(lambda _: None, timedelta(0), id="it has never come"),
        pytest.param(got, 80 * DAY, id="it is due"),
        pytest.param(got, 2 * HOUR, id="its CA is asked for advice"),
        pytest.param(asked, 7 * HOUR, id="its CA is asked again"),
        pytest.param(asked, -2 * HOUR, id="what is noted of the advice can't be true"),
        pytest.param(failed, DAY, id="the next attempt is due"),
        pytest.param(held_back, timedelta(0), id="the preflight may find it good"),
        pytest.param(got, -YEAR, id="the clock isn't set"),
    ],
)
def test_not_idle(world: World, before: Change, later: timedelta) -> None:
    """No run that would ask or tell anybody anything is taken for one that wouldn't."""
    site = after(world, before, later)
    idle, _ = foreseen(world, site)
    assert not idle
    try:
        world.run(site)
    except StateError as error:
        world.said.append(str(error))
    assert world.ca.log or world.said


def test_one_of_many(world: World) -> None:
    """One that is to be asked for is enough; and the next look is the first of all of theirs."""
    got(world)
    site, other = world.certificate(NAME), world.certificate("b.example", keys=(KEY, "rsa:2048"))
    idle, outcome = foreseen(world, site, other)
    assert not idle
    assert outcome.next == world.clock
    assert outcome.missing == ["b.example"] * 2
