"""From an order to its certificate, by a clock that jumps: what is asked, when, and what ends it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509

from nginx_acme.acme.client import Client
from nginx_acme.acme.order import (
    FETCHED_PAUSE,
    LONGEST_POLL,
    POLL_DELAYS,
    SETTLE_DELAYS,
    SHORTEST_PAUSE,
    Gone,
    NotOffered,
    Unfinished,
    abandon,
    complete,
    poll_delays,
    problems,
)
from nginx_acme.acme.resources import Order, OrderStatus
from nginx_acme.errors import OrderFailed, Problem, UnexpectedAnswer, Unreachable
from tests import virtual_time
from tests.acme.applicant import Answers, account_key, csr, identifiers
from tests.fake_ca import (
    FakeCa,
    busy,
    changed,
    lost,
    names_of,
    refused,
    rewritten,
)
from tests.virtual_time import now

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.fake_ca import Fault

NAME = "site.example"


class Scene:
    """An account at a fake CA that fetches its challenges from a solver."""

    def __init__(self, *, tells: bool = False, **options: Any) -> None:
        self.solver = Answers(tells=tells)
        self.ca = FakeCa(fetch=self.solver.fetch, now=now, **options)
        self.saved: list[Order] = []

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A client with an account; what it took is forgotten."""
        ca = self.ca
        async with Client(ca.directory_url, account_key(), now=now, transport=ca) as client:
            await client.new_account(terms_agreed=True)
            ca.seen.clear()
            yield client

    async def complete(self, client: Client, order: Order, *names: str) -> bytes:
        """Take the order to its certificate, as for these names."""
        request = csr(*(names or [NAME]))
        return await complete(client, order, request, self.solver, saved=self.saved.append)

    async def issue(self, client: Client, *names: str) -> bytes:
        """Order and take it to the certificate."""
        order = await client.new_order(identifiers(*(names or [NAME])))
        return await self.complete(client, order, *names)

    @property
    def statuses(self) -> list[str]:
        """What was saved."""
        return [order.status for order in self.saved]

    @property
    def clean(self) -> bool:
        """Whether whatever was presented was cleaned up, once."""
        presented, cleaned = sorted(self.solver.presented), sorted(self.solver.cleaned)
        return presented == cleaned and not self.solver.answers


# --- what is asked --------------------------------------------------------------------------


def test_one_name() -> None:
    """One name costs seven requests, and each step is told to be saved."""

    async def scenario() -> None:
        scene = Scene()
        async with scene.client() as client:
            pem = await scene.issue(client)
        assert names_of(x509.load_pem_x509_certificates(pem)[0]) == {NAME}
        assert scene.ca.log == [
            *("newOrder", "authorization", "challenge", "order"),
            *("finalize", "order", "certificate"),
        ]
        assert scene.statuses == ["pending", "ready", "processing", "valid"]
        assert scene.saved[-1].certificate is not None
        assert len(scene.solver.presented) == 1
        assert scene.clean

    virtual_time.run(scenario())


def test_hundred_names() -> None:
    """Each further name costs two requests; all are presented before the CA hears of the first."""

    async def scenario() -> None:
        names = [f"n{number}.site.example" for number in range(100)]
        scene = Scene()
        async with scene.client() as client:
            order = await client.new_order(identifiers(*names))
            present = scene.solver.presented
            scene.ca.fetch = lambda name, token: (
                scene.solver.fetch(name, token) if len(present) == 100 else "too early"
            )
            await scene.complete(client, order, *names)
            assert scene.ca.count["authorization"] == scene.ca.count["challenge"] == 100
        assert len(scene.ca.log) - scene.ca.count["newNonce"] == 5 + 2 * 100
        assert scene.clean

    virtual_time.run(scenario())


def test_valid_authorizations() -> None:
    """A second key for the same names costs four requests and no challenge."""

    async def scenario() -> None:
        scene = Scene()
        async with scene.client() as client:
            await scene.issue(client)
            scene.ca.seen.clear()
            scene.saved.clear()
            await scene.issue(client)
        assert scene.ca.log == ["newOrder", "finalize", "order", "certificate"]
        assert scene.statuses == ["ready", "processing", "valid"]
        assert len(scene.solver.presented) == 1

    virtual_time.run(scenario())


def test_some_valid_authorizations() -> None:
    """Of several names only those that need it are proved."""

    async def scenario() -> None:
        scene = Scene()
        async with scene.client() as client:
            await scene.issue(client)
            scene.ca.seen.clear()
            await scene.issue(client, NAME, "www.site.example")
        assert scene.ca.count["authorization"] == 2
        assert scene.ca.count["challenge"] == 1

    virtual_time.run(scenario())


def test_issued_at_once() -> None:
    """A CA that answers finalize with the certificate's URL is not asked again."""

    async def scenario() -> None:
        scene = Scene()
        url = "https://ca.example/certificate/0"
        done = rewritten(lambda order: order.update(status="valid", certificate=url))
        async with scene.client() as client:
            scene.ca.misbehave("finalize", done)
            order = await client.new_order(identifiers(NAME))
            scene.ca.misbehave("certificate", busy())
            await scene.complete(client, order)
        assert scene.ca.log[4:] == ["finalize", "certificate", "newNonce", "certificate"]

    virtual_time.run(scenario())


def test_many_at_once() -> None:
    """Orders share one client: twenty at once ask as much as twenty in a row."""

    async def scenario() -> None:
        scene = Scene(tells=True)
        async with scene.client() as client:
            names = [f"n{number}.example" for number in range(20)]
            chains = await asyncio.gather(*(scene.issue(client, name) for name in names))
        leaves = [x509.load_pem_x509_certificates(pem)[0] for pem in chains]
        assert [names_of(leaf) for leaf in leaves] == [{name} for name in names]
        assert len(scene.ca.log) - scene.ca.count["newNonce"] == 20 * 7
        assert scene.clean

    virtual_time.run(scenario())


def test_looked_at_already() -> None:
    """A challenge that the CA looks at since an earlier run is presented, and not begun again."""

    async def scenario() -> None:
        scene = Scene()
        processing = rewritten(lambda found: found["challenges"][0].update(status="processing"))
        async with scene.client() as client:
            order = await client.new_order(identifiers(NAME))
            found = await client.authorization(order.authorizations[0])
            scene.ca.validation_seconds = 1
            await scene.solver.present(found.challenges[0].token or "", "")
            scene.solver.answers.clear()
            scene.ca.fetch = None
            await client.respond(found.challenges[0])
            scene.ca.seen.clear()
            scene.ca.misbehave("authorization", processing)
            await scene.complete(client, order)
        assert scene.ca.count["challenge"] == 0
        assert len(scene.solver.presented) == 2

    virtual_time.run(scenario())


# --- taken up again -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "log"),
    [
        pytest.param(
            OrderStatus.PENDING,
            ["authorization", "challenge", "order", "finalize", "order", "certificate"],
            id="pending",
        ),
        pytest.param(OrderStatus.READY, ["finalize", "order", "certificate"], id="ready"),
        pytest.param(OrderStatus.PROCESSING, ["order", "certificate"], id="processing"),
        pytest.param(OrderStatus.VALID, ["certificate"], id="valid"),
    ],
)
def test_taken_up(status: OrderStatus, log: list[str]) -> None:
    """Wherever an order was left, it goes on from there."""

    async def scenario() -> None:
        scene = Scene(processing_seconds=1)
        async with scene.client() as client:
            order = await client.new_order(identifiers(NAME))
            if status is not OrderStatus.PENDING:
                found = await client.authorization(order.authorizations[0])
                scene.ca.fetch = None
                await client.respond(found.challenges[0])
            if status in {OrderStatus.PROCESSING, OrderStatus.VALID}:
                await client.finalize(order, csr(NAME))
            if status is OrderStatus.VALID:
                await asyncio.sleep(1)
            scene.ca.fetch = scene.solver.fetch
            order = await client.order(order.url)
            assert order.status is status
            scene.ca.processing_seconds = 0
            scene.ca.seen.clear()
            await asyncio.sleep(1)
            await scene.complete(client, order)
        assert scene.ca.log == log
        assert scene.statuses[0] == status

    virtual_time.run(scenario())


def test_finalize_lost() -> None:
    """Where the answer to finalize was lost, that ends the run; the next one asks how it stands."""

    async def scenario() -> None:
        scene = Scene()
        async with scene.client() as client:
            scene.ca.misbehave("finalize", lost())
            order = await client.new_order(identifiers(NAME))
            with pytest.raises(Unreachable):
                await scene.complete(client, order)
            assert scene.ca.count["finalize"] == 1
            assert scene.clean
            order = await client.order(order.url)
            assert order.status is OrderStatus.VALID
            await scene.complete(client, order)
        assert scene.ca.count["finalize"] == 1

    virtual_time.run(scenario())


# --- when it is asked -----------------------------------------------------------------------


def test_poll_delays() -> None:
    """Polls begin after a moment, grow rarer, and never end."""
    delays = list(islice(poll_delays(), 50))
    assert delays[: len(POLL_DELAYS)] == list(POLL_DELAYS)
    assert delays == sorted(delays)
    assert set(delays[len(POLL_DELAYS) :]) == {5.0}


def polled(fault: Fault | None = None, *, resource: str = "order", **options: Any) -> list[float]:
    """When the order was asked for, in seconds from the challenge on, in a run with these manners."""

    async def scenario() -> list[float]:
        scene = Scene(**options)
        moments: list[float] = []

        async def noted(proceed: Any) -> Any:
            moments.append(round(virtual_time.seconds(), 3))
            return await (fault(proceed) if fault and resource == "order" else proceed())

        async with scene.client() as client:
            scene.ca.misbehave("order", noted, times=-1)
            if fault and resource != "order":
                scene.ca.misbehave(resource, fault)
            await scene.issue(client)
        return moments

    return virtual_time.run(scenario())


@pytest.mark.parametrize(
    ("options", "moments"),
    [
        pytest.param({"retry_after": None}, [0.05, 0.1], id="nobody says anything"),
        pytest.param({"retry_after": None, "tells": True}, [0.02, 0.07], id="it was fetched"),
        pytest.param(
            {"retry_after": None, "validation_seconds": 2},
            [0.05, 0.3, 0.8, 1.8, 3.8, 3.85],
            id="validation takes two seconds",
        ),
        pytest.param(
            {"retry_after": None, "validation_seconds": 2, "tells": True},
            [0.02, 0.27, 0.77, 1.77, 3.77, 3.82],
            id="fetched early, decided late: one early poll",
        ),
        pytest.param({"retry_after": 3}, [0.05, 3.05], id="finalize says three seconds"),
        pytest.param({"retry_after": 0}, [0.05, 0.1], id="finalize says none"),
        pytest.param(
            {"retry_after": 3, "processing_seconds": 4},
            [0.05, 3.05, 6.05],
            id="and so does the order",
        ),
        pytest.param(
            {"retry_after": None, "processing_seconds": 0.5},
            [0.05, 0.1, 0.35, 0.85],
            id="processing takes half a second",
        ),
        pytest.param(
            {
                "resource": "challenge",
                "fault": changed(headers={"Retry-After": "2"}),
                "tells": True,
                "retry_after": None,
            },
            [2.0, 2.05],
            id="the challenge says two seconds, fetched or not",
        ),
        pytest.param(
            {
                "resource": "challenge",
                "fault": changed(headers={"Retry-After": "Fri, 01 May 2026 12:00:07 GMT"}),
                "retry_after": None,
            },
            [7.0, 7.05],
            id="a date",
        ),
        pytest.param(
            {
                "resource": "newOrder",
                "fault": changed(headers={"Retry-After": "1"}),
                "retry_after": None,
            },
            [1.0, 1.05],
            id="the new order says one second",
        ),
        pytest.param(
            {"fault": changed(headers={"Retry-After": "0"}), "validation_seconds": 0.07},
            [0.05, 0.1, 0.15],
            id="never in a busy loop",
        ),
    ],
)
def test_moments(options: dict[str, Any], moments: list[float]) -> None:
    """The CA says when to come back; where it doesn't, what is known says it."""
    assert polled(**options) == pytest.approx(moments, abs=0.001)


def test_constants() -> None:
    """The moments above are these."""
    assert (POLL_DELAYS[0], FETCHED_PAUSE, SHORTEST_PAUSE) == (0.05, 0.02, 0.05)


def test_fetched_late() -> None:
    """Where the CA comes late, the poll after next is early: 20 ms after it came."""

    async def scenario() -> None:
        scene = Scene(tells=True, retry_after=None)
        moments: list[float] = []

        async def noted(proceed: Any) -> Any:
            moments.append(round(virtual_time.seconds(), 3))
            return await proceed()

        async def tell_later(token: str) -> None:
            await asyncio.sleep(1.2)
            await Answers.fetched(scene.solver, token)

        scene.solver.fetched = tell_later  # type: ignore[method-assign]
        scene.ca.validation_seconds = 1.2
        async with scene.client() as client:
            scene.ca.misbehave("order", noted, times=-1)
            await scene.issue(client)
        assert moments == pytest.approx([0.05, 0.3, 0.8, 1.22, 1.27])

    virtual_time.run(scenario())


# --- what ends it ---------------------------------------------------------------------------


def test_dead_name() -> None:
    """A name that fails is named; the others keep what they proved, and the next order is ready."""

    async def scenario() -> None:
        scene = Scene()
        good, dead = ["site.example", "shop.site.example"], "www.site.example"
        scene.ca.dead.add(dead)
        scene.ca.slow[good[1]] = 4
        async with scene.client() as client:
            with pytest.raises(OrderFailed) as caught:
                await scene.issue(client, *good, dead)
            words = f"DNS problem: NXDOMAIN looking up A for {dead} (dns)"
            assert str(caught.value) == f"{dead}: {words}"
            assert list(caught.value.problems) == [dead]
            assert scene.clean
            assert scene.statuses == ["pending", "invalid"]
            order = await client.new_order(identifiers(*good))
            assert order.status is OrderStatus.READY

    virtual_time.run(scenario())


def test_dead_name_and_endless_one() -> None:
    """An authorization that is never decided isn't waited for without end."""

    async def scenario() -> None:
        scene = Scene()
        scene.ca.dead.add(NAME)
        scene.ca.slow["slow.example"] = 1000
        async with scene.client() as client:
            with pytest.raises(OrderFailed) as caught:
                await scene.issue(client, NAME, "slow.example")
        assert list(caught.value.problems) == [NAME]
        assert virtual_time.seconds() == pytest.approx(POLL_DELAYS[0] + sum(SETTLE_DELAYS))

    virtual_time.run(scenario())


def test_wrong_answer() -> None:
    """A challenge that is answered wrongly ends the order, with the CA's words."""

    async def scenario() -> None:
        scene = Scene()
        scene.solver.wrong = {0}
        async with scene.client() as client:
            with pytest.raises(OrderFailed, match="did not match this challenge"):
                await scene.issue(client)

    virtual_time.run(scenario())


def test_issuance_fails() -> None:
    """What goes wrong after finalize is told by the order: for all names, or for those named."""

    async def scenario(problem: dict[str, object]) -> OrderFailed:
        scene = Scene()
        scene.ca.fails_issuance = problem
        async with scene.client() as client:
            with pytest.raises(OrderFailed) as caught:
                await scene.issue(client, NAME, "www.site.example")
        return caught.value

    broken: dict[str, object] = {
        "type": "urn:ietf:params:acme:error:serverInternal",
        "detail": "it broke",
    }
    failed = virtual_time.run(scenario(broken))
    assert sorted(failed.problems) == [NAME, "www.site.example"]
    caa = {
        "type": "urn:ietf:params:acme:error:caa",
        "detail": "CAA forbids it",
        "identifier": {"type": "dns", "value": NAME},
    }
    failed = virtual_time.run(scenario(broken | {"subproblems": [{"detail": "of no name"}, caa]}))
    assert str(failed) == f"{NAME}: CAA forbids it (caa)"


def test_order_dies() -> None:
    """An order that turns invalid while it is processed is told with its error."""

    async def scenario() -> None:
        scene = Scene(processing_seconds=10, retry_after=3)
        async with scene.client() as client:
            task = asyncio.create_task(scene.issue(client))
            await asyncio.sleep(5)
            scene.ca.invalidate(scene.ca.orders[0])
            with pytest.raises(OrderFailed, match=r"^site\.example: it broke \(serverInternal\)$"):
                await task

    virtual_time.run(scenario())


@pytest.mark.parametrize(
    ("options", "status", "seconds", "later"),
    [
        pytest.param({"validation_seconds": 1e6}, "pending", LONGEST_POLL, None, id="validates"),
        pytest.param({"processing_seconds": 1e6}, "processing", LONGEST_POLL, None, id="issues"),
        pytest.param(
            {"processing_seconds": 1e6, "retry_after": 7200}, "processing", 0, 7200, id="says so"
        ),
    ],
)
def test_takes_too_long(
    options: dict[str, Any], status: str, seconds: float, later: float | None
) -> None:
    """A CA that comes to no end is left alone, and its word when to come back is told."""

    async def scenario() -> None:
        scene = Scene(**({"retry_after": None} | options))
        async with scene.client() as client:
            with pytest.raises(Unfinished) as caught:
                await scene.issue(client)
            waited = virtual_time.seconds()
            assert seconds <= waited <= seconds + 2 * POLL_DELAYS[-1]
            assert caught.value.status == status
            moment = caught.value.retry_after
            assert (moment and (moment - now()).total_seconds()) == later
            assert (await client.order(scene.saved[-1].url)).status == status
        assert scene.clean

    virtual_time.run(scenario())


def test_invalid_before() -> None:
    """An order that was invalid when it was taken up is told so, without waiting."""

    async def scenario() -> None:
        scene = Scene()
        async with scene.client() as client:
            order = await client.new_order(identifiers(NAME, "www.site.example"))
            await client.deactivate_authorization(order.authorizations[0])
            with pytest.raises(OrderFailed, match=r"^site\.example: the authorization is deactiv"):
                await scene.complete(client, await client.order(order.url))
        assert virtual_time.seconds() == 0

    virtual_time.run(scenario())


def test_no_reason() -> None:
    """Where the CA gives no reason at all, that is said for every name."""
    order = Order("https://a/1", OrderStatus.INVALID, tuple(identifiers("a.example")), (), "")
    found = problems(order, [])
    assert str(found["a.example"]) == ("the order is invalid, and the CA does not say why")


def test_valid_without_certificate() -> None:
    """An order put together by somebody else may be what no CA's order can be."""

    async def scenario() -> None:
        scene = Scene()
        async with scene.client() as client:
            order = await client.new_order(identifiers(NAME))
            with pytest.raises(UnexpectedAnswer, match="there is no certificate"):
                await scene.complete(client, replace(order, status=OrderStatus.VALID))

    virtual_time.run(scenario())


@pytest.mark.parametrize(
    ("status", "asked"),
    [pytest.param(404, 5, id="a replica may be behind"), pytest.param(410, 1, id="for good")],
)
def test_valid_and_gone(status: int, asked: int) -> None:
    """A finished order without its certificate is told apart from a refusal."""

    async def scenario() -> None:
        scene = Scene()
        async with scene.client() as client:
            scene.ca.misbehave("certificate", refused(status, "malformed"), times=-1)
            with pytest.raises(Gone, match="no certificate for its order"):
                await scene.issue(client)
        assert scene.ca.count["certificate"] == asked

    virtual_time.run(scenario())


@pytest.mark.parametrize(
    ("names", "offered", "words"),
    [
        pytest.param(
            [NAME],
            ("dns-01", "tls-alpn-01"),
            "site.example: the CA offers no http-01 challenge, only dns-01, tls-alpn-01",
            id="another type",
        ),
        pytest.param(
            ["*.site.example", "other.example"],
            ("http-01", "dns-01"),
            "*.site.example: the CA offers no http-01 challenge, only dns-01",
            id="wildcard",
        ),
        pytest.param(
            [NAME], (), "site.example: the CA offers no http-01 challenge, only none", id="none"
        ),
    ],
)
def test_not_offered(names: list[str], offered: tuple[str, ...], words: str) -> None:
    """Where the CA doesn't offer the challenge, nothing is presented, and it is said what it offers."""

    async def scenario() -> None:
        scene = Scene()
        scene.ca.offered = offered
        async with scene.client() as client:
            with pytest.raises(NotOffered) as caught:
                await scene.issue(client, *names)
        assert str(caught.value) == words
        assert caught.value.permanent
        assert scene.solver.presented == []
        assert scene.ca.count["challenge"] == 0

    virtual_time.run(scenario())


def test_cancelled() -> None:
    """Whoever stops waiting finds everything cleaned up."""

    async def scenario() -> None:
        scene = Scene(validation_seconds=1000)
        async with scene.client() as client:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(scene.issue(client, NAME, "www.site.example"), 10)
        assert len(scene.solver.presented) == 2
        assert scene.clean

    virtual_time.run(scenario())


def test_solver_fails() -> None:
    """A solver that can't present ends the order; what it began is cleaned up, the CA not told."""

    class Full(Answers):
        async def present(self, token: str, key_authorization: str) -> None:
            await super().present(token, key_authorization)
            if len(self.presented) == 2:
                raise OSError(28, "No space left on device")

    async def scenario() -> None:
        scene = Scene()
        scene.solver = Full()
        async with scene.client() as client:
            with pytest.raises(OSError, match="No space left"):
                await scene.issue(client, NAME, "www.site.example", "shop.site.example")
        assert len(scene.solver.presented) == 2
        assert scene.clean
        assert scene.ca.count["challenge"] == 0

    virtual_time.run(scenario())


def test_clean_up_fails() -> None:
    """A solver that can't clean up one token is asked to clean up the others all the same."""

    class Stuck(Answers):
        async def clean_up(self, token: str) -> None:
            await super().clean_up(token)
            if len(self.cleaned) == 1:
                raise OSError(30, "Read-only file system")

    async def scenario() -> None:
        scene = Scene()
        scene.solver = Stuck()
        scene.ca.fetch = None
        async with scene.client() as client:
            with pytest.raises(OSError, match="Read-only"):
                await scene.issue(client, NAME, "www.site.example")
        assert scene.clean

    virtual_time.run(scenario())


# --- a CA with moods ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resource", "fault", "seconds"),
    [
        pytest.param("order", busy(), 0.25, id="503 at a poll"),
        pytest.param("order", busy(5), 5, id="503 with Retry-After"),
        pytest.param("authorization", busy(status=502), 0.25, id="502 at an authorization"),
        pytest.param("certificate", refused(500, "serverInternal"), 0.25, id="500 at the download"),
        pytest.param("order", lost(), 0.25, id="a connection that breaks"),
    ],
)
def test_moods(resource: str, fault: Fault, seconds: float) -> None:
    """What only reads is asked again, as soon as the CA allows it."""

    async def scenario() -> None:
        scene = Scene()
        async with scene.client() as client:
            scene.ca.misbehave(resource, fault)
            await scene.issue(client)
        assert virtual_time.seconds() == pytest.approx(POLL_DELAYS[0] + SHORTEST_PAUSE + seconds)

    virtual_time.run(scenario())


@pytest.mark.parametrize("lag", [1, 4])
def test_replica_lag(lag: int) -> None:
    """An order that a replica doesn't know yet is asked for again."""

    async def scenario() -> None:
        scene = Scene(replica_lag=lag)
        async with scene.client() as client:
            await scene.issue(client)

    virtual_time.run(scenario())


def test_lagging_replica_after_finalize() -> None:
    """An answer from before finalize doesn't make it finalized twice."""

    async def scenario() -> None:
        scene = Scene()
        behind = rewritten(lambda order: {**order, "status": "ready"})
        async with scene.client() as client:
            scene.ca.misbehave("order", behind, after=1)
            await scene.issue(client)
        assert scene.ca.count["finalize"] == 1
        assert scene.ca.count["order"] == 3

    virtual_time.run(scenario())


@pytest.mark.parametrize(
    ("resource", "fault", "asked"),
    [
        pytest.param("order", refused(404, "malformed"), 5, id="gone for good"),
        pytest.param("order", busy(3600), 1, id="back in an hour"),
        pytest.param("order", refused(403, "unauthorized"), 1, id="not ours"),
        pytest.param("order", refused(429, "rateLimited", retry_after="1"), 1, id="too often"),
        pytest.param("finalize", refused(500, "serverInternal"), 1, id="finalize"),
        pytest.param("challenge", refused(500, "serverInternal"), 1, id="challenge"),
    ],
)
def test_refused(resource: str, fault: Fault, asked: int) -> None:
    """A refusal that will stay one, or of what changes something, is the caller's to see."""

    async def scenario() -> None:
        scene = Scene()
        async with scene.client() as client:
            scene.ca.misbehave(resource, fault, times=-1)
            with pytest.raises(Problem):
                await scene.issue(client)
        assert scene.ca.count[resource] == asked
        assert scene.clean

    virtual_time.run(scenario())


def test_one_challenge_refused() -> None:
    """Where one challenge is refused, the others are still told of: they count for the next order."""

    async def scenario() -> None:
        scene = Scene()
        names = [NAME, "www.site.example", "shop.site.example"]
        async with scene.client() as client:
            scene.ca.misbehave("challenge", refused(400, "malformed", "not now"))
            with pytest.raises(Problem, match="not now"):
                await scene.issue(client, *names)
        assert scene.ca.count["challenge"] == 3
        assert scene.clean

    virtual_time.run(scenario())


# --- given up -------------------------------------------------------------------------------


def test_abandon() -> None:
    """An order given up on is invalid afterwards; what was proved stays for the next."""

    async def scenario() -> None:
        scene = Scene()
        async with scene.client() as client:
            await scene.issue(client)
            order = await client.new_order(identifiers(NAME, "www.site.example"))
            await abandon(client, order)
            assert (await client.order(order.url)).status is OrderStatus.INVALID
            again = await client.new_order(identifiers(NAME))
            assert again.status is OrderStatus.READY

    virtual_time.run(scenario())


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(refused(404, "malformed"), id="not found"),
        pytest.param(refused(410, "malformed"), id="gone"),
        pytest.param(refused(400, "malformed"), id="decided meanwhile"),
    ],
)
def test_abandon_what_is_gone(fault: Fault) -> None:
    """What is gone already needs no giving up."""

    async def scenario() -> None:
        scene = Scene()
        async with scene.client() as client:
            order = await client.new_order(identifiers(NAME))
            scene.ca.misbehave("authorization", fault, after=1, times=-1)
            await abandon(client, order)
            await abandon(client, order)
        assert scene.ca.count["authorization"] == 3

    virtual_time.run(scenario())


def test_abandon_refused() -> None:
    """A refusal for any other reason is told."""

    async def scenario() -> None:
        scene = Scene()
        async with scene.client() as client:
            order = await client.new_order(identifiers(NAME))
            scene.ca.misbehave("authorization", busy(9))
            with pytest.raises(Problem) as caught:
                await abandon(client, order)
        assert caught.value.status == 503

    virtual_time.run(scenario())


def test_abandon_nothing() -> None:
    """An order with nothing undecided needs no request to be given up."""

    async def scenario() -> None:
        scene = Scene()
        async with scene.client() as client:
            await scene.issue(client)
            order = await client.new_order(identifiers(NAME))
            assert order.status is OrderStatus.READY
            scene.ca.seen.clear()
            await abandon(client, order)
        assert scene.ca.log == []

    virtual_time.run(scenario())
