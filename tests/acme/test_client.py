"""The gate: what the client makes of a CA's answers, good and bad, in how many requests."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509

from nginx_acme import __version__
from nginx_acme.acme.client import NONCES_TRIED, Chain, Client
from nginx_acme.acme.gate import CONNECTIONS
from nginx_acme.acme.resources import AuthorizationStatus, OrderStatus
from nginx_acme.errors import AcmeError, Problem, UnexpectedAnswer, Unreachable
from tests import virtual_time
from tests.acme.applicant import account_key, csr, identifiers
from tests.fake_ca import (
    HOST,
    FakeCa,
    Reply,
    busy,
    changed,
    huge,
    instead,
    lost,
    refused,
    rewritten,
    slow,
    truncated,
    unreachable,
    zipped,
)
from tests.virtual_time import now

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.fake_ca import Fault

NAME = "site.example"


@asynccontextmanager
async def talking(ca: FakeCa, **more: Any) -> AsyncIterator[Client]:
    """A client of this CA without an account."""
    async with Client(ca.directory_url, account_key(), now=now, transport=ca, **more) as client:
        yield client


@asynccontextmanager
async def known(ca: FakeCa, **more: Any) -> AsyncIterator[Client]:
    """A client with an account; what it took is forgotten."""
    async with talking(ca, **more) as client:
        await client.new_account(terms_agreed=True)
        ca.seen.clear()
        yield client


# --- in how many requests -------------------------------------------------------------------


def test_new_account_requests() -> None:
    """A run costs three requests before the first order: directory, nonce, account."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        async with talking(ca) as client:
            account = await client.new_account(
                ["mailto:hostmaster@site.example"], terms_agreed=True
            )
            assert client.requests == 3
            assert client.account_url == account.url
        assert ca.log == ["directory", "newNonce", "newAccount"]
        assert account.contact == ("mailto:hostmaster@site.example",)

    virtual_time.run(scenario())


def test_known_account_requests() -> None:
    """Where the account's URL is known, a run costs two: directory and nonce."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        key = account_key()
        async with Client(ca.directory_url, key, now=now, transport=ca) as client:
            url = (await client.new_account(terms_agreed=True)).url
        ca.seen.clear()
        async with Client(ca.directory_url, key, now=now, account_url=url, transport=ca) as client:
            await client.new_order(identifiers(NAME))
        assert ca.log == ["directory", "newNonce", "newOrder"]

    virtual_time.run(scenario())


def test_whole_order() -> None:
    """Each method does what its § says, and nothing is asked beside it."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        async with known(ca) as client:
            order = await client.new_order(identifiers(NAME), profile="classic")
            authorization = await client.authorization(order.authorizations[0])
            await client.respond(authorization.challenges[0])
            order = await client.order(order.url)
            assert order.status is OrderStatus.READY
            order = await client.finalize(order, csr(NAME))
            assert order.status is OrderStatus.PROCESSING
            order = await client.order(order.url)
            chain = await client.download(order.certificate or "")
        assert len(x509.load_pem_x509_certificates(chain.pem)) == 2
        assert chain.alternates == (f"{order.certificate}/1",)
        assert ca.log == [
            "newOrder",
            "authorization",
            "challenge",
            "order",
            "finalize",
            "order",
            "certificate",
        ]

    virtual_time.run(scenario())


def test_headers() -> None:
    """RFC 8555 §6.1, §6.2: who asks, and in which language; no encoding is asked for."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        async with known(ca) as client:
            await client.new_order(identifiers(NAME))
        headers = ca.seen[0].headers
        assert headers["user-agent"].startswith(f"nginx-acme/{__version__} httpx/")
        assert headers["accept-encoding"] == "identity"
        assert headers["accept-language"] == "en"
        assert headers["content-type"] == "application/jose+json"

    virtual_time.run(scenario())


@pytest.mark.parametrize(
    ("options", "payload"),
    [
        pytest.param({"terms_agreed": True}, {"termsOfServiceAgreed": True}, id="no contact"),
        pytest.param(
            {"contacts": ["mailto:a@site.example", "tel:+1"], "terms_agreed": True},
            {"contact": ["mailto:a@site.example", "tel:+1"], "termsOfServiceAgreed": True},
            id="contacts",
        ),
        pytest.param({"only_return_existing": True}, {"onlyReturnExisting": True}, id="existing"),
    ],
)
def test_new_account_payload(options: dict[str, Any], payload: dict[str, object]) -> None:
    """RFC 8555 §7.3: what isn't wanted isn't said."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        ca.misbehave("newAccount", instead(Reply(500)))
        async with talking(ca) as client:
            with pytest.raises(Problem):
                await client.new_account(**options)
        assert ca.seen[-1].payload == payload

    virtual_time.run(scenario())


def test_new_order_payload() -> None:
    """RFC 8555 §7.4, RFC 8738, RFC 9773 §5, draft-ietf-acme-profiles §4."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        async with known(ca) as client:
            with pytest.raises(Problem):
                await client.new_order(
                    identifiers(NAME, "2001:db8::1"), profile="shortlived", replaces="a.b"
                )
        assert ca.seen[-1].payload == {
            "identifiers": [
                {"type": "dns", "value": NAME},
                {"type": "ip", "value": "2001:db8::1"},
            ],
            "profile": "shortlived",
            "replaces": "a.b",
        }

    virtual_time.run(scenario())


def test_deactivate() -> None:
    """RFC 8555 §7.5.2: an authorization that is given up takes its order with it."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        async with known(ca) as client:
            order = await client.new_order(identifiers(NAME))
            given_up = await client.deactivate_authorization(order.authorizations[0])
            assert given_up.status is AuthorizationStatus.DEACTIVATED
            assert (await client.order(order.url)).status is OrderStatus.INVALID

    virtual_time.run(scenario())


def test_directory_once() -> None:
    """However many ask at once, the directory is fetched once."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        async with talking(ca) as client:
            found = await asyncio.gather(*(client.directory() for _ in range(10)))
        assert ca.log == ["directory"]
        assert {directory.new_order for directory in found} == {f"{HOST}/newOrder"}

    virtual_time.run(scenario())


# --- nonces ---------------------------------------------------------------------------------


def test_nonces_of_many() -> None:
    """Many orders at once ask for as many nonces as connections, and never again."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        async with known(ca) as client:
            names = [f"n{number}.example" for number in range(50)]
            orders = await asyncio.gather(*(client.new_order(identifiers(n)) for n in names))
            assert ca.count["newNonce"] < CONNECTIONS
            await asyncio.gather(*(client.order(order.url) for order in orders))
        assert ca.count["newNonce"] < CONNECTIONS
        assert ca.count["newOrder"] == ca.count["order"] == 50

    virtual_time.run(scenario())


def test_bad_nonce() -> None:
    """RFC 8555 §6.5: a refused nonce is replaced by the one that came with the refusal."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        async with known(ca) as client:
            ca.reject_nonces = 3
            await client.new_order(identifiers(NAME))
        assert ca.log == ["newOrder"] * 4
        assert len(ca.orders) == 1

    virtual_time.run(scenario())


def test_bad_nonce_for_ever() -> None:
    """A CA that likes no nonce is given up on, in its own words; that is no success."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        async with known(ca) as client:
            ca.reject_nonces = 1000
            with pytest.raises(Problem, match="nobody likes") as caught:
                await client.new_order(identifiers(NAME))
        assert caught.value.type == "badNonce"
        assert ca.log == ["newOrder"] * NONCES_TRIED

    virtual_time.run(scenario())


def test_stale_nonces() -> None:
    """After a pause every nonce may be stale: the next one is always the CA's latest."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        async with known(ca) as client:
            names = [f"n{number}.example" for number in range(20)]
            await asyncio.gather(*(client.new_order(identifiers(name)) for name in names))
            ca.forget_nonces()
            ca.seen.clear()
            await client.new_order(identifiers(NAME))
        assert ca.log == ["newOrder", "newOrder"]

    virtual_time.run(scenario())


def test_refusal_without_nonce() -> None:
    """The CA's words come first, not our lack of a nonce; then a new one is asked for."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        async with known(ca) as client:
            ca.misbehave("newOrder", busy(30))
            with pytest.raises(Problem) as caught:
                await client.new_order(identifiers(NAME))
            assert caught.value.status == 503
            await client.new_order(identifiers(NAME))
        assert ca.log == ["newOrder", "newNonce", "newOrder"]

    virtual_time.run(scenario())


@pytest.mark.parametrize("nonce", ["", "not base64url!", "a,b"])
def test_bad_new_nonce(nonce: str) -> None:
    """RFC 8555 §6.5.1: what is no nonce is ignored, and asking on for ever would not help."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        ca.misbehave("newNonce", changed(headers={"Replay-Nonce": nonce}), times=-1)
        async with talking(ca) as client:
            with pytest.raises(UnexpectedAnswer, match="newNonce: the answer has no Replay-Nonce"):
                await client.new_account()
        assert ca.log == ["directory", "newNonce"]

    virtual_time.run(scenario())


# --- refusals -------------------------------------------------------------------------------


def refusal_of(fault: Fault, resource: str = "newOrder") -> AcmeError:
    """What a new order ends with where the CA behaves so."""

    async def scenario() -> AcmeError:
        ca = FakeCa(now=now)
        async with known(ca) as client:
            ca.misbehave(resource, fault, times=-1)
            with pytest.raises(AcmeError) as caught:
                await client.new_order(identifiers(NAME))
        return caught.value

    return virtual_time.run(scenario())


def in_seconds(seconds: float) -> Any:
    """A moment of the scenario's clock."""
    return virtual_time.START + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("fault", "words", "status", "later"),
    [
        pytest.param(
            refused(429, "rateLimited", "too many", retry_after="120"),
            "too many (rateLimited)",
            429,
            in_seconds(120),
            id="rateLimited",
        ),
        pytest.param(
            refused(429, "rateLimited", "paused"), "paused (rateLimited)", 429, None, id="paused"
        ),
        pytest.param(
            refused(503, "rateLimited", "busy", retry_after="Fri, 01 May 2026 12:01:00 GMT"),
            "busy (rateLimited)",
            503,
            in_seconds(60),
            id="date",
        ),
        pytest.param(
            busy(45),
            "HTTP status 503 Service Unavailable",
            503,
            in_seconds(45),
            id="load balancer",
        ),
        pytest.param(busy(status=502), "HTTP status 502 Bad Gateway", 502, None, id="gateway"),
        pytest.param(
            instead(Reply(400, {"Content-Type": "text/plain"}, b'{"detail": "but JSON"}')),
            "but JSON",
            400,
            None,
            id="problem in disguise",
        ),
        pytest.param(
            instead(Reply(500, {"Retry-After": "9"}, b" " * 2_000_000)),
            "HTTP status 500 Internal Server Error",
            500,
            in_seconds(9),
            id="huge refusal",
        ),
        pytest.param(
            instead(Reply(500, {"Content-Encoding": "gzip", "Retry-After": "9"}, b"\x1f\x8b")),
            "HTTP status 500 Internal Server Error",
            500,
            in_seconds(9),
            id="zipped refusal",
        ),
        pytest.param(
            instead(Reply(403, {}, b"[" * 100_000)),
            "HTTP status 403 Forbidden",
            403,
            None,
            id="JSON without a floor",
        ),
        pytest.param(
            refused(400, "malformed", "a\r\nb\x1b[0m"),
            "a\\r\\nb\\x1b[0m (malformed)",
            400,
            None,
            id="control characters",
        ),
    ],
)
def test_refusals(fault: Fault, words: str, status: int, later: object) -> None:
    """Every refusal is a Problem with the CA's words, its status and its Retry-After."""
    problem = refusal_of(fault)
    assert isinstance(problem, Problem)
    assert (str(problem), problem.status, problem.retry_after) == (words, status, later)


def test_account_gone() -> None:
    """An account that the CA has forgotten is its Problem, told to the caller."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        async with known(ca) as client:
            ca.forget_accounts()
            with pytest.raises(Problem) as caught:
                await client.new_order(identifiers(NAME))
            assert caught.value.type == "accountDoesNotExist"
            with pytest.raises(Problem) as caught:
                await client.new_account(only_return_existing=True)
            assert caught.value.type == "accountDoesNotExist"

    virtual_time.run(scenario())


@pytest.mark.parametrize(
    ("contact", "type_"),
    [
        pytest.param("mailto:me@example.com", "invalidContact", id="invalid"),
        pytest.param("tel:+15551234", "unsupportedContact", id="unsupported"),
    ],
)
def test_refused_contact(contact: str, type_: str) -> None:
    """A contact that the CA refuses is the caller's to drop."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        async with talking(ca) as client:
            with pytest.raises(Problem) as caught:
                await client.new_account([contact], terms_agreed=True)
            assert caught.value.type == type_
            await client.new_account(terms_agreed=True)
            assert client.requests == 4

    virtual_time.run(scenario())


def test_terms_changed() -> None:
    """RFC 8555 §7.3.3: whoever must agree to new terms is told where they are."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        async with known(ca) as client:
            ca.new_terms = f"{HOST}/terms/2"
            with pytest.raises(Problem) as caught:
                await client.new_order(identifiers(NAME))
        assert (caught.value.type, caught.value.instance) == ("userActionRequired", ca.new_terms)
        assert caught.value.permanent

    virtual_time.run(scenario())


# --- answers that break the protocol --------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param(
            changed(body=b"{", headers={}),
            f"{HOST}/newOrder: the answer is not the JSON that it says it is",
            id="no JSON",
        ),
        pytest.param(
            changed(body=b"[" * 100_000),
            f"{HOST}/newOrder: the answer is not the JSON that it says it is",
            id="JSON without a floor",
        ),
        pytest.param(
            changed(headers={"Content-Type": "text/html; charset=utf-8"}),
            f"{HOST}/newOrder: application/json was expected, not text/html",
            id="page",
        ),
        pytest.param(
            changed(headers={"Content-Type": ""}),
            f"{HOST}/newOrder: application/json was expected, not no Content-Type",
            id="no type",
        ),
        pytest.param(
            huge(), f"{HOST}/newOrder: the answer is over 1048576 bytes", id="ten megabytes"
        ),
        pytest.param(zipped(), f"{HOST}/newOrder: unasked for Content-Encoding gzip", id="zipped"),
        pytest.param(
            instead(Reply(302, {"Location": f"{HOST}/elsewhere"})),
            f"{HOST}/newOrder: HTTP status 302; redirects are not followed",
            id="redirect",
        ),
        pytest.param(
            changed(headers={"Location": "http://ca.example/order/0"}),
            f"{HOST}/newOrder: Location is not an https URL: http://ca.example/order/0",
            id="plain Location",
        ),
        pytest.param(
            rewritten(lambda order: {"status": order["status"]}),
            'order: "identifiers" is missing',
            id="field missing",
        ),
        pytest.param(
            rewritten(lambda order: order.update(status="almost")),
            "order: \"status\" is not one of pending, ready, processing, valid, invalid: 'almost'",
            id="status",
        ),
        pytest.param(
            rewritten(lambda order: order.update(finalize="http://ca.example/finalize/0")),
            "order: \"finalize\" is not an https URL: 'http://ca.example/finalize/0'",
            id="plain link",
        ),
        pytest.param(rewritten(lambda _: [1]), "order: not a JSON object: an array", id="array"),
    ],
)
def test_unexpected(fault: Fault, words: str) -> None:
    """What breaks the protocol is said, with the URL or the field."""
    error = refusal_of(fault)
    assert isinstance(error, UnexpectedAnswer)
    assert str(error) == words


def test_no_location() -> None:
    """RFC 8555 §7.4: a new order without its URL is of no use."""
    without = instead(Reply(201, {"Content-Type": "application/json"}, b"{}"))
    assert str(refusal_of(without)) == f"{HOST}/newOrder: the answer has no Location"


def test_relative_location() -> None:
    """RFC 9110 §10.2.2: a Location may be relative to what was asked."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        async with known(ca) as client:
            ca.misbehave("newOrder", changed(headers={"Location": "/order/0"}))
            order = await client.new_order(identifiers(NAME))
        assert order.url == f"{HOST}/order/0"

    virtual_time.run(scenario())


CHAIN = {"Content-Type": "application/pem-certificate-chain"}


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        pytest.param(Reply(200, CHAIN, b"<html>"), "not a chain of PEM certificates", id="page"),
        pytest.param(
            Reply(200, {"Content-Type": "application/json"}, b"{}"),
            "application/pem-certificate-chain was expected, not application/json",
            id="type",
        ),
        pytest.param(Reply(200, CHAIN, b" " * 2_000_000), "the answer is over", id="huge"),
    ],
)
def test_unexpected_certificate(reply: Reply, words: str) -> None:
    """RFC 8555 §7.4.2: only PEM certificates leave the client."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        ca.misbehave("certificate", instead(reply))
        async with known(ca) as client:
            with pytest.raises(UnexpectedAnswer, match=words):
                await client.download(f"{HOST}/certificate/0")

    virtual_time.run(scenario())


@pytest.mark.parametrize(
    ("link", "alternates"),
    [
        pytest.param("", (), id="none"),
        pytest.param(
            f'<{HOST}/directory>;rel="index", <{HOST}/c/1>;rel="alternate",<{HOST}/c/2>; rel=alternate',
            (f"{HOST}/c/1", f"{HOST}/c/2"),
            id="two and an index",
        ),
        pytest.param('</c/1>; title="a"; rel="alternate"', (f"{HOST}/c/1",), id="relative"),
        pytest.param('<http://ca.example/c/1>;rel="alternate"', (), id="plain http"),
    ],
)
def test_alternates(link: str, alternates: tuple[str, ...]) -> None:
    """RFC 8555 §7.4.2: other chains are links, and more than one."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        pem = ca.root
        ca.misbehave("certificate", instead(Reply(200, CHAIN | {"Link": link}, pem)))
        async with known(ca) as client:
            assert await client.download(f"{HOST}/certificate/0") == Chain(pem, alternates)

    virtual_time.run(scenario())


# --- the network ----------------------------------------------------------------------------


def test_nothing_sent() -> None:
    """What never left is sent again, whatever it is."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        async with known(ca) as client:
            ca.misbehave("newOrder", unreachable(), times=2)
            await client.new_order(identifiers(NAME))
        assert ca.log == ["newOrder"] * 3
        assert len(ca.orders) == 1

    virtual_time.run(scenario())


def test_answer_lost() -> None:
    """Where the answer to an order was lost, a second order is not for the client to make."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        async with known(ca) as client:
            ca.misbehave("newOrder", lost())
            with pytest.raises(Unreachable, match=r"^ca\.example: ReadError$"):
                await client.new_order(identifiers(NAME))
        assert ca.log == ["newOrder"]
        assert len(ca.orders) == 1

    virtual_time.run(scenario())


@pytest.mark.parametrize(
    "fault", [pytest.param(lost(), id="lost"), pytest.param(truncated(), id="truncated")]
)
def test_read_again(fault: Fault) -> None:
    """What only reads is asked again; its nonce is used up, which is no more than a badNonce."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        async with known(ca) as client:
            order = await client.new_order(identifiers(NAME))
            ca.seen.clear()
            ca.misbehave("order", fault)
            assert (await client.order(order.url)).status is OrderStatus.PENDING
        assert ca.log == ["order", "order", "order"]

    virtual_time.run(scenario())


@pytest.mark.parametrize("resource", ["directory", "newNonce"])
def test_start_again(resource: str) -> None:
    """The first requests of a run bear a connection that breaks, too."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        ca.misbehave(resource, lost(), times=2)
        async with talking(ca) as client:
            await client.new_account(terms_agreed=True)
        assert ca.count[resource] == 3

    virtual_time.run(scenario())


REFUSED = ConnectionRefusedError(111, "Connect call failed ('192.0.2.1', 443)")


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        pytest.param(None, "All connection attempts failed", id="unknown"),
        pytest.param(REFUSED, "Connection refused", id="refused"),
        pytest.param(
            ExceptionGroup("several", [REFUSED, OSError(101, "")]), "Connection refused", id="group"
        ),
        pytest.param(
            ssl.SSLEOFError(8, "EOF occurred in violation of protocol"),
            "the connection was closed",
            id="closed",
        ),
        pytest.param(
            socket.gaierror(-2, "Name or service not known"), "Name or service not known", id="name"
        ),
    ],
)
def test_unreachable(cause: Exception | None, words: str) -> None:
    """A CA that stays away is given up on after a moment, and the sentence says why."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        ca.misbehave("directory", unreachable(cause), times=-1)
        async with talking(ca) as client:
            with pytest.raises(Unreachable) as caught:
                await client.directory()
        assert str(caught.value) == f"ca.example: {words}"
        assert ca.log == ["directory"] * 3
        assert virtual_time.seconds() == pytest.approx(1.25)

    virtual_time.run(scenario())


def test_dripping_answer() -> None:
    """The deadline is around the whole exchange: a byte a second is no answer."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        ca.misbehave("directory", slow(1))
        async with talking(ca) as client:
            with pytest.raises(Unreachable, match=r"^ca\.example: no answer in 30 s$"):
                await client.directory()
            assert virtual_time.seconds() == pytest.approx(30)
            await client.directory()

    virtual_time.run(scenario())


def test_waiting_is_no_exchange() -> None:
    """Who waits for a connection behind slow others has not begun, and isn't given up on."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        async with known(ca, deadline=1) as client:
            order = await client.new_order(identifiers(NAME))
            ca.misbehave("order", slow(0.001), times=-1)
            await asyncio.gather(*(client.order(order.url) for _ in range(8 * CONNECTIONS)))
        assert virtual_time.seconds() > 1

    virtual_time.run(scenario())


def test_cancelled() -> None:
    """Who gives up waiting leaves a client that others can use."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        async with known(ca) as client:
            ca.misbehave("newOrder", slow(1))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.new_order(identifiers(NAME)), 5)
            await client.new_order(identifiers(NAME))

    virtual_time.run(scenario())


def test_other_host() -> None:
    """A link to another host is followed as any other, and the host is named when it is away."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        async with known(ca) as client:
            elsewhere = rewritten(
                lambda order: order.update(authorizations=["https://elsewhere.example/a"])
            )
            ca.misbehave("newOrder", elsewhere)
            order = await client.new_order(identifiers(NAME))
            with pytest.raises(Unreachable, match=r"^elsewhere\.example: "):
                await client.authorization(order.authorizations[0])

    virtual_time.run(scenario())


def test_no_url() -> None:
    """What looks like https and can't be parsed is the CA's mistake, and no crash of ours."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        async with known(ca) as client:
            with pytest.raises(UnexpectedAnswer, match="not a URL"):
                await client.order("https://[::::]/order/0")

    virtual_time.run(scenario())


# --- the rest -------------------------------------------------------------------------------


def test_date() -> None:
    """The CA's clock is kept, so that a wrong one here is noticed."""

    async def scenario() -> None:
        ca = FakeCa(now=lambda: now() + timedelta(days=400))
        async with talking(ca) as client:
            assert client.date is None
            await client.directory()
            assert client.date == now() + timedelta(days=400)
            ca.misbehave("newNonce", changed(headers={"Date": "yesterday"}))
            await client.new_account(terms_agreed=True)
            assert client.date == now() + timedelta(days=400)

    virtual_time.run(scenario())


def test_misuse() -> None:
    """A client that is asked too early says so, to the programmer."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        closed = Client(ca.directory_url, account_key(), now=now, transport=ca)
        with pytest.raises(RuntimeError, match="not open"):
            await closed.directory()
        async with talking(ca) as client:
            with pytest.raises(RuntimeError, match="new_account comes first"):
                await client.new_order(identifiers(NAME))

    virtual_time.run(scenario())
    with pytest.raises(ValueError, match="https"):
        Client("http://ca.example/directory", account_key(), now=now)


# --- accounts and revocation ----------------------------------------------------------------


def test_key_of_another_account() -> None:
    """A key that another account has is refused with 409 (§7.3.5), and the old one goes on."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        taken = account_key()
        async with Client(ca.directory_url, taken, now=now, transport=ca) as other:
            await other.new_account(terms_agreed=True)
        async with known(ca) as client:
            old = client.key
            with pytest.raises(Problem, match="already in use") as refusal:
                await client.change_key(taken)
            assert refusal.value.status == 409
            assert client.key is old
            await client.new_order(identifiers(NAME))

    virtual_time.run(scenario())


@pytest.mark.parametrize("fault", [lost(), truncated(), busy()])
def test_key_change_without_an_answer(fault: Fault) -> None:
    """The old key signs on where nobody knows; asking with the new one tells what has happened."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        ca.misbehave("keyChange", fault)
        async with known(ca) as client:
            old, new = client.key, account_key()
            with pytest.raises(AcmeError):
                await client.change_key(new)
            assert client.key is old
            assert ca.count["keyChange"] == 1
            changed_all_the_same = ca.accounts[client.account_url or ""].jwk == dict(new.jwk)
        async with Client(ca.directory_url, new, now=now, transport=ca) as successor:
            if changed_all_the_same:
                await successor.new_account(only_return_existing=True)
            else:
                with pytest.raises(Problem, match="accountDoesNotExist"):
                    await successor.new_account(only_return_existing=True)

    virtual_time.run(scenario())


@pytest.mark.parametrize("resource", ["keyChange", "revokeCert"])
def test_resource_that_is_missing(resource: str) -> None:
    """A CA that lacks what every CA must have is told by what it lacks."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        ca.misbehave("directory", rewritten(lambda directory: directory.pop(resource) and None))
        async with talking(ca, account_url=f"{HOST}/account/1") as client:
            with pytest.raises(UnexpectedAnswer, match=f"the directory has no {resource}"):
                await (
                    client.change_key(account_key())
                    if resource == "keyChange"
                    else client.revoke(b"", "superseded")
                )

    virtual_time.run(scenario())


@pytest.mark.parametrize(("reason", "sent"), [("unspecified", {}), ("superseded", {"reason": 4})])
def test_reason(reason: str, sent: dict[str, int]) -> None:
    """A reason is its number in RFC 5280; none is sent where there is none."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        async with known(ca) as client:
            ca.misbehave("revokeCert", instead(Reply(200)))
            await client.revoke(b"certificate", reason)
        assert ca.seen[-1].payload == {"certificate": "Y2VydGlmaWNhdGU"} | sent

    virtual_time.run(scenario())


def test_refused_reason() -> None:
    """A CA that doesn't take a reason says so in its own words."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        async with known(ca) as client:
            ca.misbehave("revokeCert", refused(400, "badRevocationReason", "reason 3 is not taken"))
            with pytest.raises(Problem, match="reason 3 is not taken"):
                await client.revoke(b"certificate", "affiliationChanged")

    virtual_time.run(scenario())
