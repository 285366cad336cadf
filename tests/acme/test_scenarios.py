"""The same stories at the fake CA and at pebble: what both agree on is what the fake may say."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from nginx_acme.acme.client import Client
from nginx_acme.acme.jws import AccountKey
from nginx_acme.acme.order import NotOffered, abandon, complete
from nginx_acme.acme.resources import AccountStatus, Order, OrderStatus, certificate_id
from nginx_acme.errors import OrderFailed, Problem
from tests import virtual_time
from tests.acme.applicant import Answers, account_key, csr, identifiers, pem_of
from tests.fake_ca import FakeCa, names_of
from tests.servers import Pebble

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator


class AtFakeCa:
    """A story at the fake CA, by a clock that jumps."""

    def __init__(self) -> None:
        self.solver = Answers()
        self.ca = FakeCa(fetch=self.solver.fetch, now=virtual_time.now)

    def run(self, story: Coroutine[Any, Any, None]) -> None:
        """Tell it."""
        virtual_time.run(story)

    @asynccontextmanager
    async def client(self, key: AccountKey | None = None) -> AsyncIterator[Client]:
        """A client without an account."""
        async with Client(
            self.ca.directory_url, key or account_key(), now=virtual_time.now, transport=self.ca
        ) as client:
            yield client

    def root(self) -> bytes:
        """What everything issued leads to."""
        return self.ca.root


class AtPebble:
    """A story at a real CA, over real connections, in real time."""

    def __init__(self, pebble: Pebble) -> None:
        self.solver = Answers()
        self.pebble = pebble

    def run(self, story: Coroutine[Any, Any, None]) -> None:
        """Tell it while the challenges are answered."""

        async def answered() -> None:
            async with self.solver.serving(self.pebble.http_port):
                await story

        asyncio.run(answered())

    @asynccontextmanager
    async def client(self, key: AccountKey | None = None) -> AsyncIterator[Client]:
        """A client without an account."""
        async with Client(
            self.pebble.directory_url,
            key or account_key(),
            now=lambda: datetime.now(UTC),
            trusted_certificate=str(self.pebble.api_root),
        ) as client:
            yield client

    def root(self) -> bytes:
        """What everything issued leads to."""
        return self.pebble.issuer_root()


Ca = AtFakeCa | AtPebble


@pytest.fixture(scope="module")
def next_pebble(newer_pebble: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    """The next release's pebble."""
    with Pebble(tmp_path_factory.mktemp("pebble"), binary=newer_pebble) as server:
        yield server


@pytest.fixture(params=["fake", "pebble", "next_pebble"])
def ca(request: pytest.FixtureRequest) -> Ca:
    """Where the story takes place."""
    if request.param == "fake":
        return AtFakeCa()
    return AtPebble(request.getfixturevalue(request.param))


@asynccontextmanager
async def registered(ca: Ca, key: AccountKey | None = None) -> AsyncIterator[Client]:
    """A client with an account."""
    async with ca.client(key) as client:
        await client.new_account(terms_agreed=True)
        yield client


async def issue(
    ca: Ca, client: Client, *names: str, key: ec.EllipticCurvePrivateKey | None = None
) -> list[x509.Certificate]:
    """Order and take the order to its certificate."""
    order = await client.new_order(identifiers(*names))
    request = csr(*names, key=key)
    pem = await complete(client, order, request, ca.solver, saved=lambda _: None)
    return x509.load_pem_x509_certificates(pem)


_numbers = iter(range(1_000_000))


def fresh(*labels: str) -> list[str]:
    """Names that no other story has used."""
    number = next(_numbers)
    return [f"{label}.s{number}.example" for label in labels]


# --- accounts -------------------------------------------------------------------------------


def test_account(ca: Ca) -> None:
    """An account is made once and found again by its key."""

    async def story() -> None:
        key = account_key()
        async with ca.client(key) as client:
            made = await client.new_account(["mailto:hostmaster@site.example"], terms_agreed=True)
            assert made.status is AccountStatus.VALID
        async with ca.client(key) as client:
            found = await client.new_account(only_return_existing=True)
            assert found.url == made.url
            again = await client.new_account(terms_agreed=True)
            assert again.url == made.url

    ca.run(story())


def test_no_account(ca: Ca) -> None:
    """A key without an account is not given one by asking."""

    async def story() -> None:
        async with ca.client() as client:
            with pytest.raises(Problem) as caught:
                await client.new_account(only_return_existing=True)
        assert caught.value.type == "accountDoesNotExist"

    ca.run(story())


def test_wrong_account(ca: Ca) -> None:
    """An account's URL of another CA is refused as unknown."""

    async def story() -> None:
        async with registered(ca) as client:
            client.account_url = f"{client.account_url}0"
            with pytest.raises(Problem) as caught:
                await client.new_order(identifiers(*fresh("a")))
        assert caught.value.type == "accountDoesNotExist"

    ca.run(story())


@pytest.mark.parametrize(
    "private",
    [
        pytest.param(ec.generate_private_key(ec.SECP256R1()), id="ecdsa:256"),
        pytest.param(ec.generate_private_key(ec.SECP384R1()), id="ecdsa:384"),
        pytest.param(ec.generate_private_key(ec.SECP521R1()), id="ecdsa:521"),
        pytest.param(rsa.generate_private_key(65537, 2048), id="rsa:2048"),
    ],
)
def test_account_keys(ca: Ca, private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    """Every type of account key signs what a CA accepts."""

    async def story() -> None:
        async with registered(ca, AccountKey(pem_of(private))) as client:
            await issue(ca, client, *fresh("a"))

    ca.run(story())


# --- certificates ---------------------------------------------------------------------------


def test_certificate(ca: Ca) -> None:
    """The certificate is for our key and names, and leads to the CA's root."""

    async def story() -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        names = fresh("a", "b", "c")
        async with registered(ca) as client:
            chain = await issue(ca, client, *names, key=key)
        assert chain[0].public_key() == key.public_key()
        assert names_of(chain[0]) == set(names)
        root = x509.load_pem_x509_certificate(ca.root())
        for certificate, issuer in zip(chain, [*chain[1:], root], strict=True):
            certificate.verify_directly_issued_by(issuer)
        assert not ca.solver.answers

    ca.run(story())


def test_at_once(ca: Ca) -> None:
    """Twenty orders at once share a client, its connections and its nonces."""

    async def story() -> None:
        async with registered(ca) as client:
            names = fresh(*(f"n{number}" for number in range(20)))
            chains = await asyncio.gather(*(issue(ca, client, name) for name in names))
        assert [names_of(chain[0]) for chain in chains] == [{name} for name in names]
        assert not ca.solver.answers

    ca.run(story())


def test_statuses(ca: Ca) -> None:
    """An order goes through the statuses of RFC 8555 §7.1.6, and is found again in each."""

    async def story() -> None:
        saved: list[Order] = []
        names = fresh("a")
        async with registered(ca) as client:
            order = await client.new_order(identifiers(*names))
            await complete(client, order, csr(*names), ca.solver, saved=saved.append)
            found = await client.order(order.url)
        assert [order.status for order in saved] == ["pending", "ready", "processing", "valid"]
        assert {order.url for order in saved} == {found.url}
        assert found.certificate == saved[-1].certificate

    ca.run(story())


def test_taken_up(ca: Ca) -> None:
    """A valid order is downloaded again, as after a crash before the file was safe."""

    async def story() -> None:
        names = fresh("a")
        async with registered(ca) as client:
            order = await client.new_order(identifiers(*names))
            request = csr(*names)
            first = await complete(client, order, request, ca.solver, saved=lambda _: None)
            order = await client.order(order.url)
            again = await complete(client, order, request, ca.solver, saved=lambda _: None)
        assert again == first

    ca.run(story())


# --- what goes wrong ------------------------------------------------------------------------


def test_dead_name(ca: Ca) -> None:
    """The name that fails is told; the rest can be ordered without it."""

    async def story() -> None:
        names = fresh("a", "b", "c")
        ca.solver.wrong = {0}
        async with registered(ca) as client:
            with pytest.raises(OrderFailed) as caught:
                await issue(ca, client, *names)
            (dead,) = caught.value.problems
            assert caught.value.problems[dead].type == "unauthorized"
            await issue(ca, client, *(name for name in names if name != dead))
        assert not ca.solver.answers

    ca.run(story())


def test_wildcard(ca: Ca) -> None:
    """A wildcard has no HTTP-01, and that is said before anything is presented."""

    async def story() -> None:
        (name,) = fresh("*")
        async with registered(ca) as client:
            with pytest.raises(NotOffered) as caught:
                await issue(ca, client, name)
        assert str(caught.value).startswith(f"{name}: the CA offers no http-01 challenge, only dns")
        assert not ca.solver.presented

    ca.run(story())


def test_abandon(ca: Ca) -> None:
    """An order given up on is invalid, and giving up twice is no mistake."""

    async def story() -> None:
        async with registered(ca) as client:
            order = await client.new_order(identifiers(*fresh("a", "b")))
            await abandon(client, order)
            await abandon(client, order)
            assert (await client.order(order.url)).status is OrderStatus.INVALID

    ca.run(story())


def test_finalized_twice(ca: Ca) -> None:
    """A second finalize is refused, whatever its key."""

    async def story() -> None:
        names = fresh("a")
        async with registered(ca) as client:
            order = await client.new_order(identifiers(*names))
            await complete(client, order, csr(*names), ca.solver, saved=lambda _: None)
            with pytest.raises(Problem) as caught:
                await client.finalize(order, csr(*names))
        assert (caught.value.type, caught.value.status) == ("orderNotReady", 403)

    ca.run(story())


def test_unknown_order(ca: Ca) -> None:
    """What there isn't is a 404, with or without a problem document."""

    async def story() -> None:
        async with registered(ca) as client:
            order = await client.new_order(identifiers(*fresh("a")))
            with pytest.raises(Problem) as caught:
                await client.order(f"{order.url}999")
        assert caught.value.status == 404

    ca.run(story())


def test_strange_order(ca: Ca) -> None:
    """Another account's order is none of ours."""

    async def story() -> None:
        async with registered(ca) as client:
            order = await client.new_order(identifiers(*fresh("a")))
        async with registered(ca) as client:
            with pytest.raises(Problem):
                await client.order(order.url)

    ca.run(story())


# --- renewal information (RFC 9773) ---------------------------------------------------------


@pytest.fixture(scope="module")
def newer(newer_pebble: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    """The next release's pebble, which knows of renewal information; it reuses authorizations."""
    folder = tmp_path_factory.mktemp("pebble")
    with Pebble(folder, binary=newer_pebble, authz_reuse=100) as server:
        yield server


@pytest.fixture(params=["fake", "pebble"])
def advising(request: pytest.FixtureRequest) -> Ca:
    """A CA that says when to renew."""
    return AtFakeCa() if request.param == "fake" else AtPebble(request.getfixturevalue("newer"))


def known_by(leaf: x509.Certificate) -> str:
    """By which its CA knows it."""
    akid = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    return certificate_id(akid.key_identifier or b"", leaf.serial_number)


def test_renewal_info(advising: Ca) -> None:
    """A window inside of the life, for whoever asks; what the CA hasn't issued is unknown."""

    async def story() -> None:
        async with registered(advising) as client:
            (leaf, *_) = await issue(advising, client, *fresh("a"))
        async with advising.client() as client:
            info = await client.renewal_info(known_by(leaf))
            assert info is not None
            assert leaf.not_valid_before_utc < info.start < info.end < leaf.not_valid_after_utc
            assert info.retry_after is not None
            with pytest.raises(Problem):
                await client.renewal_info(f"{known_by(leaf)}AAAA")

    advising.run(story())


def test_replaces(advising: Ca) -> None:
    """An order may take the place of a certificate once, and only that of its own account."""

    async def story() -> None:
        names = fresh("a", "b")
        async with registered(advising) as client, registered(advising) as other:
            (leaf, *_) = await issue(advising, client, *names)
            old = known_by(leaf)
            with pytest.raises(Problem) as caught:
                await other.new_order(identifiers(*names), replaces=old)
            assert caught.value.type == "unauthorized"
            order = await client.new_order(identifiers(names[0]), replaces=old)
            assert order.replaces == old
            await complete(client, order, csr(names[0]), advising.solver, saved=lambda _: None)
            with pytest.raises(Problem) as caught:
                await client.new_order(identifiers(*names), replaces=old)
            assert caught.value.type == "alreadyReplaced"

    advising.run(story())


def test_abandon_what_replaces(advising: Ca) -> None:
    """An order that is ready is given up at the price of one authorization, which frees the other."""

    async def story() -> None:
        names = fresh("a")
        async with registered(advising) as client:
            (leaf, *_) = await issue(advising, client, *names)
            old = known_by(leaf)
            order = await client.new_order(identifiers(*names), replaces=old)
            assert order.status is OrderStatus.READY
            await abandon(client, order)
            assert (await client.order(order.url)).status is OrderStatus.READY
            await abandon(client, order, replaces=True)
            assert (await client.order(order.url)).status is OrderStatus.INVALID
            again = await client.new_order(identifiers(*names), replaces=old)
            assert again.url != order.url

    advising.run(story())


# --- what only a real CA shows --------------------------------------------------------------


def test_requests_at_pebble(start_pebble: Callable[..., Pebble]) -> None:
    """At a real CA, too, a run costs three requests and a name seven."""
    pebble = start_pebble(nonce_reject=0, authz_reuse=0)
    ca = AtPebble(pebble)

    async def story() -> None:
        async with registered(ca) as client:
            assert client.requests == 3
            await issue(ca, client, *fresh("a"))
            assert client.requests == 10

    ca.run(story())


def test_bad_nonces(start_pebble: Callable[..., Pebble]) -> None:
    """A CA that refuses a third of all good nonces issues all the same."""
    ca = AtPebble(start_pebble(nonce_reject=30))

    async def story() -> None:
        async with registered(ca) as client:
            names = fresh(*(f"n{number}" for number in range(5)))
            await asyncio.gather(*(issue(ca, client, name) for name in names))
            assert client.requests > 40

    ca.run(story())


def test_chains(start_pebble: Callable[..., Pebble]) -> None:
    """A long chain comes whole, and the links to the other chains are found."""
    pebble = start_pebble(chain_length=3, alternate_roots=2)
    ca = AtPebble(pebble)

    async def story() -> None:
        (name,) = fresh("a")
        async with registered(ca) as client:
            assert len(await issue(ca, client, name)) == 4
            order = await client.new_order(identifiers(name))
            await complete(client, order, csr(name), ca.solver, saved=lambda _: None)
            order = await client.order(order.url)
            chain = await client.download(order.certificate or "")
            others = [await client.download(url) for url in chain.alternates]
        assert len(others) == 2
        assert len({other.pem for other in others} | {chain.pem}) == 3

    ca.run(story())


def test_each_pebble(each_pebble: Pebble) -> None:
    """The next release of pebble is understood, too: an address, a name, a dead name."""
    ca = AtPebble(each_pebble)

    async def story() -> None:
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(registered(ca))
            names = ["127.0.0.1", *fresh("a")]
            chain = await issue(ca, client, *names)
            assert names_of(chain[0]) == set(names)
            ca.solver.wrong = {len(ca.solver.presented)}
            with pytest.raises(OrderFailed):
                await issue(ca, client, *fresh("a"))

    ca.run(story())


def test_slow_validation(start_pebble: Callable[..., Pebble]) -> None:
    """A CA that takes its time before it looks is waited for, without counting on being told."""
    ca = AtPebble(start_pebble(validation_sleep=2))
    ca.solver.tells = False

    async def story() -> None:
        async with registered(ca) as client:
            await issue(ca, client, *fresh("a", "b", "c"))

    ca.run(story())


# --- the life of an account -----------------------------------------------------------------


def test_contacts_are_updated(ca: Ca) -> None:
    """What the CA is told it tells again; none is possible."""

    async def story() -> None:
        async with registered(ca) as client:
            updated = await client.update_contacts(["mailto:new@site.example"])
            assert updated.contact == ("mailto:new@site.example",)
            assert await client.account() == updated
            assert (await client.update_contacts([])).contact == ()

    ca.run(story())


def test_a_bad_contact_is_refused(ca: Ca) -> None:
    """A contact that can't be is a problem, and the account is as before."""

    async def story() -> None:
        async with registered(ca) as client:
            with pytest.raises(Problem) as refused:
                await client.update_contacts(["tel:+4912345"])
            assert refused.value.type == "unsupportedContact"
            assert (await client.account()).contact == ()

    ca.run(story())


@pytest.mark.parametrize(
    "new",
    [
        pytest.param(lambda: ec.generate_private_key(ec.SECP384R1()), id="of another curve"),
        pytest.param(lambda: rsa.generate_private_key(65537, 2048), id="of another kind"),
    ],
)
def test_key_change(ca: Ca, new: Callable[[], ec.EllipticCurvePrivateKey]) -> None:
    """The new key signs from here on and answers challenges; the old one is a stranger's."""

    async def story() -> None:
        names = fresh("a")
        old, key = account_key(), AccountKey(pem_of(new()))
        async with registered(ca, old) as client:
            url = client.account_url
            await client.change_key(key)
            assert client.key is key
            await issue(ca, client, *names)
        async with ca.client(key) as client:
            assert (await client.new_account(only_return_existing=True)).url == url
        async with ca.client(old) as client:
            with pytest.raises(Problem) as refused:
                await client.new_account(only_return_existing=True)
            assert refused.value.type == "accountDoesNotExist"

    ca.run(story())


def test_deactivated_account(ca: Ca) -> None:
    """A closed account is closed: its key neither orders nor makes another one."""

    async def story() -> None:
        key = account_key()
        async with registered(ca, key) as client:
            assert (await client.deactivate_account()).status is AccountStatus.DEACTIVATED
            with pytest.raises(Problem) as refused:
                await client.new_order(identifiers(*fresh("a")))
            assert refused.value.type == "unauthorized"

    ca.run(story())


# --- revocation -----------------------------------------------------------------------------


def test_revocation_by_the_account(ca: Ca) -> None:
    """Whoever was issued a certificate revokes it, once."""

    async def story() -> None:
        async with registered(ca) as client:
            leaf, *_ = await issue(ca, client, *fresh("a"))
            await client.revoke(der(leaf), "superseded")
            with pytest.raises(Problem) as refused:
                await client.revoke(der(leaf), "unspecified")
            assert refused.value.type == "alreadyRevoked"

    ca.run(story())


def test_revocation_by_its_own_key(ca: Ca) -> None:
    """Whoever has a certificate's key revokes it without any account."""

    async def story() -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        async with registered(ca) as client:
            leaf, *_ = await issue(ca, client, *fresh("a"), key=key)
        async with ca.client(AccountKey(pem_of(key))) as holder:
            await holder.revoke(der(leaf), "keyCompromise")
            with pytest.raises(Problem) as refused:
                await holder.revoke(der(leaf), "keyCompromise")
            assert refused.value.type == "alreadyRevoked"

    ca.run(story())


def test_revocation_by_a_stranger(ca: Ca) -> None:
    """Nobody else revokes it, be it with an account or a key."""

    async def story() -> None:
        async with registered(ca) as client:
            leaf, *_ = await issue(ca, client, *fresh("a"))
        async with registered(ca) as other, ca.client() as stranger:
            for client in (other, stranger):
                with pytest.raises(Problem):
                    await client.revoke(der(leaf), "superseded")

    ca.run(story())


def der(leaf: x509.Certificate) -> bytes:
    """The certificate itself."""
    return leaf.public_bytes(serialization.Encoding.DER)
