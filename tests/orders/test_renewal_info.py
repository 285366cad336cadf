"""When a CA is asked for advice about a renewal, and what comes of its answer; at the fake CA."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from nginx_acme.store import Identity, Store
from tests.fake_ca import (
    Reply,
    busy,
    certificate_id,
    instead,
    lost,
    refused,
    rewritten,
    unreachable,
)
from tests.world import DAY, KEY, MINUTE, NOW, World

if TYPE_CHECKING:
    from pathlib import Path

    from nginx_acme.orders.ports import Outcome
    from nginx_acme.plan import Certificate
    from nginx_acme.policy.ari import Advice
    from tests.fake_ca import Fault

HOUR = timedelta(hours=1)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """One in which all is well."""
    return World(tmp_path / "state")


def advice(world: World, certificate: Certificate, key_type: str = KEY) -> Advice:
    """What is noted of it."""
    found = world.folder(certificate).advice(key_type)
    assert found is not None
    return found


def serial(world: World, certificate: Certificate) -> int:
    """Of what there is."""
    own = world.folder(certificate).own(KEY)
    assert own is not None
    return own.facts.serial


def issued(world: World, certificate: Certificate) -> Certificate:
    """The same, got, and everything that was asked for it forgotten."""
    world.run(certificate)
    assert world.has(certificate)
    world.ca.seen.clear()
    return certificate


def sleep(world: World, outcome: Outcome) -> datetime:
    """Until the next look."""
    assert outcome.next is not None
    world.clock = max(world.clock, outcome.next)
    return world.clock


# --- when it is asked -----------------------------------------------------------------------


def test_asked_by_its_own_time(world: World) -> None:
    """Nobody is asked about what has just come; after an hour once, and then as the CA says."""
    site = issued(world, world.certificate("a.example"))
    outcome = world.run(site)
    assert world.ca.log == []
    assert sleep(world, outcome) == NOW + HOUR + 10 * MINUTE
    asked = world.clock
    outcome = world.run(site)
    assert world.ca.log == ["directory", "renewalInfo"]
    assert advice(world, site).ask == asked + 6 * HOUR
    world.clock = asked + 6 * HOUR - MINUTE
    assert world.run(site).next == outcome.next == asked + 7 * HOUR
    assert world.ca.count["renewalInfo"] == 1
    world.clock = asked + 6 * HOUR
    world.run(site)
    assert world.ca.count["renewalInfo"] == 2


def test_one_run_for_all(world: World) -> None:
    """The certificates that come due to be asked within an hour are asked about in one run."""
    sites = [world.certificate(f"n{number}.example") for number in range(6)]
    for site in sites:
        world.run(site)
        world.clock += 8 * MINUTE
    world.ca.seen.clear()
    sleep(world, world.run(*sites))
    while world.ca.count["renewalInfo"] < len(sites):
        sleep(world, world.run(*sites))
    outcome = world.run(*sites)
    world.ca.seen.clear()
    sleep(world, outcome)
    world.run(*sites)
    assert world.ca.log == ["directory", *["renewalInfo"] * len(sites)]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"renew_before": 10 * 86400.0}, id="renew_before"),
        pytest.param({"directory_url": "local:"}, id="the issuer local"),
    ],
)
def test_nobody_is_asked(world: World, change: dict[str, object]) -> None:
    """Where its advice wouldn't count no CA is asked for it."""
    world.issuer = replace(world.issuer, **change)  # type: ignore[arg-type]
    site = issued(world, world.certificate("a.internal"))
    world.clock += 2 * DAY
    world.run(site)
    assert world.ca.log == []


def test_another_issuer(world: World) -> None:
    """A certificate of another CA, or of one that nobody knows, is nobody's to ask about."""
    sites = [issued(world, world.certificate(name)) for name in ("a.example", "b.example")]
    store = Store(str(world.root))
    store.open_for_writing()
    folder = store.find(Identity(*sites[0].identity))
    assert folder is not None
    bundle = folder.read(KEY)
    assert bundle is not None
    folder.install(KEY, bundle, "https://other.example/directory", None)
    (world.root / "certificates" / "b.example" / "state.json").unlink()
    world.clock += DAY
    outcome = world.run(*sites)
    assert world.ca.log == []
    assert outcome.next is not None
    assert outcome.next > NOW + 50 * DAY


def test_no_advice(world: World) -> None:
    """A CA without renewal information is asked for its directory once a day, and that is all."""
    world.ca.advises = False
    site = issued(world, world.certificate("a.example"))
    for _ in range(24):
        world.clock += HOUR
        world.run(site)
    assert world.ca.log == ["directory"]


def test_expired(world: World) -> None:
    """RFC 9773 §4.3: nobody is asked about what has expired."""
    site = issued(world, world.certificate("a.example"))
    world.clock += 100 * DAY
    world.ca.dead.add("a.example")
    world.run(site)
    assert world.ca.count["renewalInfo"] == 0


def test_each_key_type(world: World) -> None:
    """Both certificates of a server have their own moment, each asked about by its number."""
    site = issued(world, world.certificate("a.example", keys=(KEY, "ecdsa:384")))
    world.clock += 2 * HOUR
    world.run(site)
    asked = {seen.url.rpartition("/")[2] for seen in world.ca.seen if "renewalInfo" in seen.url}
    assert asked == {certificate_id(leaf) for leaf in world.ca.issued}
    assert advice(world, site).moment is not None
    assert advice(world, site, "ecdsa:384").moment is not None


# --- what comes of it -----------------------------------------------------------------------


def test_renewed_in_the_window(world: World) -> None:
    """The order is made at the moment that was drawn, not before, and names what it replaces."""
    site = issued(world, world.certificate("a.example", profile="shortlived"))
    (first,) = world.ca.issued
    outcome, moment = world.run(site), world.clock
    while len(world.ca.issued) == 1:
        moment = sleep(world, outcome)
        outcome = world.run(site)
    begin, end = first.not_valid_before_utc, first.not_valid_after_utc
    middle = begin + (end - begin) / 2
    assert abs(moment - middle) < 1.6 * HOUR
    (order,) = (seen for seen in world.ca.seen if seen.resource == "newOrder")
    assert order.payload["replaces"] == certificate_id(first)
    assert not outcome.failed


def test_moved_into_the_past(world: World) -> None:
    """A window that is over already is acted on in the same run, and told with its reason."""
    site = issued(world, world.certificate("a.example"))
    world.clock += 2 * DAY
    world.run(site)
    world.clock += DAY
    world.ca.window = world.clock - HOUR, world.clock - HOUR / 2
    world.ca.explanation = "https://ca.example/incident"
    before = serial(world, site)
    outcome = world.run(site)
    assert serial(world, site) != before
    assert len(outcome.installed) == 1
    assert world.heard("fake wants it to be renewed from 2027-03-04 11:00 to 2027-03-04 11:30 UTC")
    assert world.heard("see https://ca.example/incident")


def test_explained(world: World) -> None:
    """A page that explains a window is told once, and kept for whoever asks."""
    site = issued(world, world.certificate("a.example"))
    world.ca.explanation = "https://ca.example/why"
    for _ in range(3):
        world.clock += DAY
        world.run(site)
    assert sum("https://ca.example/why" in line for line in world.said) == 1
    assert advice(world, site).explanation == "https://ca.example/why"


def test_at_once_for_ever(world: World) -> None:
    """A CA that wants everything to be renewed at once gets an order a day, not one a minute."""
    site = issued(world, world.certificate("a.example"))
    world.ca.window, world.ca.ask_again = (NOW - DAY, NOW - HOUR), "3600"
    world.ca.duplicate_limit = 99
    end, outcome = NOW + 5 * DAY, world.run(site)
    while sleep(world, outcome) < end:
        outcome = world.run(site)
    assert world.ca.count["newOrder"] <= 6


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(refused(404, "malformed"), id="unknown certificate"),
        pytest.param(refused(500, "serverInternal"), id="server error"),
        pytest.param(busy(60), id="load balancer"),
        pytest.param(unreachable(), id="nobody there"),
        pytest.param(instead(Reply(200, {"Content-Type": "text/html"}, b"hello")), id="a portal"),
        pytest.param(rewritten(lambda info: {"window": info}), id="no window"),
        pytest.param(
            rewritten(
                lambda info: info.update(
                    suggestedWindow={"start": "2027-05-01T00:00:00Z", "end": "2027-04-01T00:00:00Z"}
                )
            ),
            id="it ends before it begins",
        ),
    ],
)
def test_no_answer(world: World, fault: Fault) -> None:
    """Whatever goes wrong, it is told once, asked again after six hours, and renewed in time."""
    site = issued(world, world.certificate("a.example"))
    world.ca.misbehave("renewalInfo", fault, times=-1)
    world.clock += DAY
    outcome = world.run(site)
    assert not outcome.failed
    world.run(site)
    assert advice(world, site).ask == world.clock + 6 * HOUR
    world.clock += DAY
    world.run(site)
    assert sum("gives no advice about its renewal" in line for line in world.said) == 1
    world.clock = NOW + 59 * DAY
    world.run(site)
    assert world.ca.count["newOrder"] == 0
    world.clock = NOW + 60 * DAY
    world.run(site)
    assert world.ca.count["newOrder"] == 1


def test_too_late(world: World) -> None:
    """A window that begins in the last sixth of the life is not followed."""
    world.ca.window = NOW + 80 * DAY, NOW + 85 * DAY
    site = issued(world, world.certificate("a.example"))
    world.clock += DAY
    world.run(site)
    assert world.heard("is too late for a certificate that expires on 2027-05-30 11:00 UTC")
    world.clock = NOW + 60 * DAY
    world.run(site)
    assert world.ca.count["newOrder"] == 1


def test_silence_is_for_all(world: World) -> None:
    """A CA that doesn't answer is not asked about a thousand certificates, one after the other."""
    sites = [world.certificate(f"n{number}.example") for number in range(30)]
    world.run(*sites)
    world.ca.seen.clear()
    world.ca.misbehave("renewalInfo", busy(), times=-1)
    world.clock += DAY
    world.run(*sites)
    assert world.ca.count["renewalInfo"] <= 8
    assert {advice(world, site).ask for site in sites} == {world.clock + 6 * HOUR}


def test_left_alone(world: World) -> None:
    """A CA that wants to be left alone is not asked for advice either, until that is over."""
    site, other = issued(world, world.certificate("a.example")), world.certificate("b.example")
    world.ca.misbehave("newOrder", busy(7200))
    world.run(other)
    world.ca.seen.clear()
    world.clock += 90 * MINUTE
    world.run(site)
    assert world.ca.log == []
    world.clock = NOW + 2 * HOUR
    world.run(site)
    assert world.ca.count["renewalInfo"] == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("moment", NOW + 89 * DAY, id="too late"),
        pytest.param("ask", NOW + 400 * DAY, id="never asked again"),
        pytest.param("asked", NOW + 400 * DAY, id="asked next year"),
    ],
)
def test_incredible_note(world: World, field: str, value: datetime) -> None:
    """A time on disk that can't be true is dropped with a warning, and asked for anew."""
    site = issued(world, world.certificate("a.example"))
    world.clock += 2 * HOUR
    world.run(site)
    store = Store(str(world.root))
    store.open_for_writing()
    folder = store.find(Identity(*site.identity))
    assert folder is not None
    bundle, noted = folder.read(KEY), folder.advice(KEY)
    assert bundle is not None
    assert noted is not None
    folder.note_advice(KEY, bundle, replace(noted, **{field: value}))  # type: ignore[arg-type]
    world.ca.seen.clear()
    world.run(site)
    assert world.heard("[warn] a.example: what is noted of its renewal can't be true")
    assert world.ca.count["renewalInfo"] == 1
    moment = advice(world, site).moment
    assert moment is not None
    assert moment < NOW + 75 * DAY


def test_restarts_change_nothing(world: World) -> None:
    """However often it is started, the moment stays the one that was drawn, and nobody is asked."""
    site = issued(world, world.certificate("a.example"))
    world.clock += 2 * HOUR
    world.run(site)
    before, world.dice = advice(world, site), 0.9
    for _ in range(20):
        world.run(site)
    assert advice(world, site) == before
    assert world.ca.count["renewalInfo"] == 1


@pytest.mark.parametrize(
    ("fault", "asked"),
    [
        pytest.param(refused(429, "rateLimited", "too many", retry_after="90000"), 1, id="orders"),
        pytest.param(busy(90000), 0, id="everything"),
    ],
)
def test_stopped(world: World, fault: Fault, asked: int) -> None:
    """A limit of orders, of renewals too, stops no question; what stops everything does."""
    site = issued(world, world.certificate("a.example"))
    world.clock += 2 * HOUR
    world.ca.misbehave("finalize", fault)
    world.run(world.certificate("b.example"))
    world.run(site)
    assert world.ca.count["renewalInfo"] == asked


# --- replaces -------------------------------------------------------------------------------


def replaced(world: World) -> list[str | None]:
    """What each new order was to replace."""
    orders = [seen for seen in world.ca.seen if seen.resource == "newOrder"]
    return [order.payload.get("replaces") for order in orders]


@pytest.mark.parametrize(
    ("fault", "orders"),
    [
        pytest.param(refused(404, "malformed"), 2, id="an unknown certificate"),
        pytest.param(refused(403, "unauthorized"), 2, id="another account's"),
        pytest.param(refused(400, "malformed"), 2, id="no name in common"),
        pytest.param(refused(409, "alreadyReplaced"), 2, id="already replaced"),
        pytest.param(refused(429, "rateLimited"), 1, id="a limit"),
        pytest.param(refused(403, "userActionRequired"), 1, id="terms"),
        pytest.param(refused(400, "rejectedIdentifier"), 1, id="a forbidden name"),
        pytest.param(refused(400, "invalidProfile"), 1, id="a profile"),
        pytest.param(refused(500, "serverInternal"), 1, id="a fault of the CA"),
        pytest.param(busy(), 1, id="load balancer"),
    ],
)
def test_refused_replaces(world: World, fault: Fault, orders: int) -> None:
    """What may be about `replaces` is asked for once more without; nothing else is."""
    site = issued(world, world.certificate("a.example"))
    old = certificate_id(world.ca.issued[0])
    world.ca.misbehave("newOrder", fault)
    world.clock += 61 * DAY
    world.run(site)
    assert replaced(world) == [old, None][:orders]
    assert (len(world.ca.issued) == 2) is (orders == 2)


def test_replaces_nobody(world: World) -> None:
    """Without renewal information at the CA, or another account's, nothing is said to be replaced."""
    site = issued(world, world.certificate("a.example"))
    world.ca.advises = False
    world.clock += 61 * DAY
    world.run(site)
    world.ca.advises = True
    world.ca.forget_accounts()
    world.clock += 61 * DAY
    world.run(site)
    assert len(world.ca.issued) == 3
    old = certificate_id(world.ca.issued[1])
    # Asked with the account that the CA forgot, then with the new one.
    assert replaced(world) == [None, old, None]


def test_lost_order_that_replaces(world: World) -> None:
    """An order whose answer was lost doesn't keep its certificate from being replaced."""
    site = issued(world, world.certificate("a.example"))
    world.clock += 61 * DAY
    world.ca.misbehave("newOrder", lost())
    world.run(site)
    assert len(world.ca.issued) == 1
    world.clock += 2 * MINUTE
    world.run(site)
    assert len(world.ca.issued) == 2
    assert len(world.ca.orders) == 2


def test_given_up_order_frees(world: World) -> None:
    """An order that nobody wants any more is ended, so that the next may replace its certificate."""
    site = issued(world, world.certificate("a.example", keys=(KEY, "ecdsa:384")))
    world.clock += 61 * DAY
    world.ca.misbehave("finalize", unreachable(), times=-1)
    world.run(site)
    other = replace(site, key_types=("ecdsa:384",))
    world.ca._faults.clear()
    world.ca.seen.clear()
    world.clock += 2 * MINUTE
    world.run(other)
    assert [order.replaces for order in world.ca.orders[2:]] == [
        certificate_id(leaf) for leaf in world.ca.issued[:2]
    ]
    assert len(world.ca.issued) == 3
    world.clock += 2 * HOUR
    world.run(site)
    assert replaced(world)[-1] == certificate_id(world.ca.issued[0])
    assert len(world.ca.issued) == 4
