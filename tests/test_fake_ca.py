"""Boulder's manners, which pebble lacks: the fake CA shows them, or its users learn nothing."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from nginx_acme.acme.client import Client
from nginx_acme.acme.order import complete
from nginx_acme.acme.resources import OrderStatus
from nginx_acme.errors import Problem
from tests import virtual_time
from tests.acme.applicant import Answers, account_key, csr, identifiers, pem_of
from tests.fake_ca import HOST, FakeCa, certificate_id, names_of
from tests.virtual_time import now

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NAME = "site.example"


@asynccontextmanager
async def registered(ca: FakeCa) -> AsyncIterator[Client]:
    """A client with a fresh account."""
    async with Client(ca.directory_url, account_key(), now=now, transport=ca) as client:
        await client.new_account(terms_agreed=True)
        yield client


async def issue(client: Client, *names: str, **options: Any) -> x509.Certificate:
    """The leaf of a new order."""
    order = await client.new_order(identifiers(*names), **options)
    pem = await complete(client, order, csr(*names), Answers(), saved=lambda _: None)
    return x509.load_pem_x509_certificates(pem)[0]


async def refusal(client: Client, *names: str, **options: Any) -> tuple[str, int]:
    """Type and status of what a new order is refused with."""
    with pytest.raises(Problem) as caught:
        await client.new_order(identifiers(*names), **options)
    return caught.value.type, caught.value.status


def test_open_order_again() -> None:
    """An open order of the account, for the same names and profile, is given in place of a new one."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        async with registered(ca) as client, registered(ca) as other:
            first = await client.new_order(identifiers(NAME, "www.site.example"))
            same = await client.new_order(identifiers("www.site.example", NAME))
            assert same.url == first.url
            profile = await client.new_order(
                identifiers(NAME, "www.site.example"), profile="tlsserver"
            )
            fewer = await client.new_order(identifiers(NAME))
            strange = await other.new_order(identifiers(NAME, "www.site.example"))
            assert len({first.url, profile.url, fewer.url, strange.url}) == 4

    virtual_time.run(scenario())


@pytest.mark.parametrize(
    ("names", "profile", "expected"),
    [
        pytest.param(
            ["*.site.example", "www.site.example"], None, ("malformed", 400), id="redundant"
        ),
        pytest.param(
            [f"n{number}.example" for number in range(101)], None, ("malformed", 400), id="101"
        ),
        pytest.param(
            [f"n{number}.example" for number in range(26)], "tlsserver", ("malformed", 400), id="26"
        ),
        pytest.param(["192.0.2.1"], "tlsserver", ("rejectedIdentifier", 400), id="address"),
        pytest.param([NAME], "tomorrow", ("invalidProfile", 400), id="profile"),
        pytest.param(["no.example"], None, ("rejectedIdentifier", 400), id="policy"),
        pytest.param(["paused.example"], None, ("rateLimited", 429), id="paused"),
    ],
)
def test_refused_names(names: list[str], profile: str | None, expected: tuple[str, int]) -> None:
    """What Let's Encrypt refuses is refused here, too, with its types."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        ca.rejected.add("no.example")
        ca.paused.add("paused.example")
        async with registered(ca) as client:
            assert await refusal(client, *names, profile=profile) == expected

    virtual_time.run(scenario())


@pytest.mark.parametrize(
    ("names", "profile"),
    [
        pytest.param(["*.site.example", NAME], None, id="wildcard with its base"),
        pytest.param(
            ["*.site.example", "a.b.site.example"], None, id="wildcard with a deeper name"
        ),
        pytest.param([f"n{number}.example" for number in range(100)], None, id="100"),
        pytest.param(["2001:db8::1", NAME], "shortlived", id="address"),
    ],
)
def test_accepted_names(names: list[str], profile: str | None) -> None:
    """What Let's Encrypt takes is taken."""

    async def scenario() -> None:
        async with registered(FakeCa(now=now)) as client:
            order = await client.new_order(identifiers(*names), profile=profile)
        assert {identifier.value for identifier in order.identifiers} == set(names)

    virtual_time.run(scenario())


def test_duplicates() -> None:
    """Five certificates for exactly the same names in a week; then the CA says when the sixth."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        async with registered(ca) as client:
            for _ in range(5):
                await issue(client, NAME)
                await asyncio.sleep(3600)
            with pytest.raises(Problem) as caught:
                await client.new_order(identifiers(NAME))
            assert caught.value.retry_after is not None
            assert timedelta(days=6) < caught.value.retry_after - now() < timedelta(days=7)
            await issue(client, NAME, "www.site.example")
            await asyncio.sleep((caught.value.retry_after - now()).total_seconds() + 1)
            await issue(client, NAME)

    virtual_time.run(scenario())


def test_replaces() -> None:
    """RFC 9773 §5 as Boulder sees it: each mistake is refused as a whole."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        async with registered(ca) as client, registered(ca) as other:
            leaf = await issue(client, NAME)
            old = certificate_id(leaf)
            assert await refusal(client, NAME, replaces="a.b") == ("malformed", 404)
            assert await refusal(other, NAME, replaces=old) == ("unauthorized", 403)
            assert await refusal(client, "b.example", replaces=old) == ("malformed", 400)
            order = await client.new_order(identifiers(NAME, "www.site.example"), replaces=old)
            assert order.replaces == old
            assert await refusal(client, NAME, replaces=old) == ("alreadyReplaced", 409)
            for url in order.authorizations:
                await client.deactivate_authorization(url)
            await client.new_order(identifiers(NAME, "www.site.example"), replaces=old)

    virtual_time.run(scenario())


def test_expiry() -> None:
    """An authorization that nobody proves lasts an hour, and its order no longer."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        async with registered(ca) as client:
            order = await client.new_order(identifiers(NAME))
            assert order.expires == now() + timedelta(hours=1)
            await asyncio.sleep(3601)
            assert (await client.order(order.url)).status is OrderStatus.INVALID
            assert (await client.new_order(identifiers(NAME))).url != order.url

    virtual_time.run(scenario())


def test_bad_csr() -> None:
    """Other names, or the account's own key, are no CSR for an order."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        private = ec.generate_private_key(ec.SECP256R1())
        key = type(account_key())(pem_of(private))
        async with Client(ca.directory_url, key, now=now, transport=ca) as client:
            await client.new_account(terms_agreed=True)
            await issue(client, NAME)
            for request in (csr(NAME, "www.site.example"), csr(NAME, key=private)):
                order = await client.new_order(identifiers(NAME))
                with pytest.raises(Problem) as caught:
                    await client.finalize(order, request)
                assert (caught.value.type, caught.value.permanent) == ("badCSR", True)

    virtual_time.run(scenario())


def test_stranger() -> None:
    """A certificate for somebody else's key is what a mixed-up CA gives."""

    async def scenario() -> None:
        ca = FakeCa(now=now, intermediates=3)
        ca.stranger = ec.generate_private_key(ec.SECP256R1())
        async with registered(ca) as client:
            leaf = await issue(client, NAME)
        assert leaf.public_key() == ca.stranger.public_key()
        assert names_of(leaf) == {NAME}

    virtual_time.run(scenario())


def test_terms() -> None:
    """An account needs the terms agreed to."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        async with Client(ca.directory_url, account_key(), now=now, transport=ca) as client:
            with pytest.raises(Problem, match="must agree to terms of service"):
                await client.new_account()

    virtual_time.run(scenario())


def test_forged() -> None:
    """A request in an account's name that another key signed is refused."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        async with registered(ca) as client, registered(ca) as other:
            client.key = other.key
            with pytest.raises(Problem, match="JWS verification error"):
                await client.new_order(identifiers(NAME))

    virtual_time.run(scenario())


URL = f"{HOST}/newOrder"
JOSE = {"Content-Type": "application/jose+json"}


@pytest.mark.parametrize(
    ("change", "status", "detail"),
    [
        pytest.param({"url": f"{HOST}/newAccount"}, 401, "'url' incorrect", id="sent elsewhere"),
        pytest.param({"nonce": "guessed"}, 400, "invalid anti-replay nonce", id="own nonce"),
        pytest.param({"nonce": None}, 400, "invalid anti-replay nonce", id="no nonce"),
        pytest.param({"kid": None}, 400, "must have kid alone", id="key in place of account"),
        pytest.param({"body": b"{}"}, 400, "Parse error", id="no JWS"),
        pytest.param({"add": {"header": {}}}, 400, "unprotected headers", id="unprotected header"),
        pytest.param({"add": {"signature": "AAAA"}}, 400, "unsupported algorithm", id="short"),
        pytest.param({"add": {"signature": "A" * 86}}, 400, "verification error", id="garbage"),
        pytest.param({"headers": {}}, 415, "Content-Type", id="no content type"),
        pytest.param({"method": "GET"}, 405, "Method not allowed", id="GET"),
        pytest.param({"to": "nowhere"}, 404, "Page not found", id="nowhere"),
        pytest.param({"headers": JOSE | {"User-Agent": ""}}, 400, "User-Agent", id="anonymous"),
    ],
)
def test_strict(change: dict[str, Any], status: int, detail: str) -> None:
    """RFC 8555 §6: what isn't signed as it must be is refused, though our client never sends it."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        async with registered(ca) as client, httpx.AsyncClient(transport=ca) as plain:
            nonce = (await plain.head(f"{HOST}/newNonce")).headers["Replay-Nonce"]
            to = f"{HOST}/{change.get('to', 'newOrder')}"
            signed = client.key.sign(
                b"{}",
                url=change.get("url", to),
                nonce=change.get("nonce", nonce),
                kid=change.get("kid", client.account_url),
            )
            body = json.dumps(json.loads(signed) | change.get("add", {})).encode()
            answer = await plain.request(
                change.get("method", "POST"),
                to,
                content=change.get("body", body),
                headers={"User-Agent": "nginx-acme"} | change.get("headers", JOSE),
            )
        assert answer.status_code == status
        assert detail in answer.json()["detail"]

    virtual_time.run(scenario())


def test_nonce_once() -> None:
    """RFC 8555 §6.5: the same request twice is one request too many."""

    async def scenario() -> None:
        ca = FakeCa(now=now)
        async with registered(ca) as client, httpx.AsyncClient(transport=ca) as plain:
            nonce = (await plain.head(f"{HOST}/newNonce")).headers["Replay-Nonce"]
            url = f"{HOST}/order/0"
            order = await client.new_order(identifiers(NAME))
            assert order.url == url
            signed = client.key.sign(None, url=url, nonce=nonce, kid=client.account_url)
            headers = JOSE | {"User-Agent": "nginx-acme"}
            answers = [await plain.post(url, content=signed, headers=headers) for _ in "12"]
        assert [answer.status_code for answer in answers] == [200, 400]

    virtual_time.run(scenario())
