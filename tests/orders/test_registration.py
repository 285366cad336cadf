"""What a CA and its account know of each other is kept up, whenever something is ordered."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from io import StringIO
from typing import TYPE_CHECKING

import pytest

from nginx_acme.account import find_account, key_of, make_account
from nginx_acme.acme.client import Client
from nginx_acme.certificate import new_key
from nginx_acme.errors import AcmeError, Problem
from nginx_acme.launch import utc_now as now
from nginx_acme.log import Log
from nginx_acme.orders.registration import Registration
from nginx_acme.plan import Issuer
from nginx_acme.store import Store
from tests.fake_ca import HOST, FakeCa, Reply, instead, lost, refused

if TYPE_CHECKING:
    from pathlib import Path

    from nginx_acme.store import AccountFolder
    from tests.fake_ca import Fault


@dataclass
class World:
    """A store and a CA, with an account there."""

    store: Store
    ca: FakeCa = field(default_factory=lambda: FakeCa(now=now))
    said: StringIO = field(default_factory=StringIO)

    @property
    def issuer(self) -> Issuer:
        """The CA, as the configuration names it."""
        return Issuer(
            "corp", self.ca.directory_url, public=False, contacts=("mailto:a@corp.example",)
        )

    @property
    def account(self) -> AccountFolder:
        """The account, as the next process finds it."""
        found = find_account(Store(self.store.root), self.issuer)
        assert found is not None
        return replace(found, access=self.store._access)

    async def look(self, issuer: Issuer) -> AccountFolder:
        """Look after the account as a run does that has something to order."""
        account = self.account
        async with self.client(account) as client:
            return await Registration(client, issuer, now, Log(self.said)).current(account)

    def client(self, account: AccountFolder) -> Client:
        """A conversation with the CA."""
        return Client(
            self.ca.directory_url,
            key_of(account),
            now=now,
            account_url=account.url,
            transport=self.ca,
        )

    async def register(self) -> AccountFolder:
        """Have an account; what it took is forgotten."""
        issuer = replace(self.issuer, accept_terms=True)
        make_account(self.store, issuer, now())
        account = await self.look(issuer)
        self.ca.seen.clear()
        self.said.seek(self.said.truncate(0))
        return account


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A new one."""
    store = Store(str(tmp_path / "state"))
    store.open_for_writing()
    return World(store)


def test_nothing_new(world: World) -> None:
    """Where all is as it was the CA is asked for its directory and nothing else."""

    async def scenario() -> None:
        before = await world.register()
        assert await world.look(world.issuer) == before
        assert world.ca.log == ["directory"]
        assert world.said.getvalue() == ""

    asyncio.run(scenario())


# --- contacts -------------------------------------------------------------------------------


def test_other_contacts(world: World) -> None:
    """Contacts that have changed in the configuration are told, once."""

    async def scenario() -> None:
        await world.register()
        other = replace(world.issuer, contacts=("mailto:b@corp.example", "mailto:c@corp.example"))
        for _ in range(2):
            account = await world.look(other)
            assert account.contacts == other.contacts
        assert world.ca.count["account"] == 1
        (there,) = world.ca.accounts.values()
        assert tuple(there.contact) == other.contacts
        assert "contacts are now mailto:b@corp.example, mailto:c@corp.exam" in world.said.getvalue()
        assert (await world.look(replace(world.issuer, contacts=()))).contacts == ()
        assert there.contact == []

    asyncio.run(scenario())


def test_contact_that_is_not_taken(world: World) -> None:
    """One that the CA refuses keeps nobody from a certificate, and is told once."""

    async def scenario() -> None:
        before = await world.register()
        other = replace(world.issuer, contacts=("mailto:me@example.com",))
        for _ in range(2):
            assert (await world.look(other)).contacts == before.contacts
        assert world.ca.count["account"] == 1
        assert world.said.getvalue().count("does not take the contacts: contact email has") == 1

    asyncio.run(scenario())


def test_contact_that_was_left_out(world: World) -> None:
    """One that was refused when the account was made isn't told again and again."""

    async def scenario() -> None:
        bad = replace(world.issuer, contacts=("mailto:me@example.com",), accept_terms=True)
        make_account(world.store, bad, now())
        assert (await world.look(bad)).contacts == ()
        world.ca.seen.clear()
        await world.look(bad)
        assert world.ca.log == ["directory"]

    asyncio.run(scenario())


def test_contacts_and_no_sense(world: World) -> None:
    """A CA that answers them with what is no account keeps nobody waiting; it is asked once."""

    async def scenario() -> None:
        before = await world.register()
        other = replace(world.issuer, contacts=("mailto:b@corp.example",))
        world.ca.misbehave("account", instead(Reply(200, {}, b"<html>")), times=-1)
        for _ in range(2):
            assert (await world.look(other)).contacts == before.contacts
        assert world.ca.count["account"] == 1
        assert world.said.getvalue().count("[warn] corp does not take the contacts: ") == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("fault", [refused(429, "rateLimited"), lost()])
def test_contacts_at_a_bad_moment(world: World, fault: Fault) -> None:
    """A CA that can't take them now is told with the next order."""

    async def scenario() -> None:
        await world.register()
        other = replace(world.issuer, contacts=("mailto:b@corp.example",))
        world.ca.misbehave("account", fault)
        assert (await world.look(other)).contacts == world.issuer.contacts
        assert (await world.look(other)).contacts == other.contacts

    asyncio.run(scenario())


def test_account_of_an_older_program(world: World) -> None:
    """What that didn't note is taken for what was told."""

    async def scenario() -> None:
        account = await world.register()
        replace(account, wanted=None).save()
        await world.look(world.issuer)
        assert world.ca.log == ["directory"]

    asyncio.run(scenario())


# --- terms ----------------------------------------------------------------------------------


def test_terms_change(world: World) -> None:
    """Other terms of service are told once, with those that were agreed to."""

    async def scenario() -> None:
        await world.register()
        world.ca.meta["termsOfService"] = f"{HOST}/terms/2"
        for _ in range(2):
            await world.look(world.issuer)
        told = f"corp: the terms of service are now {HOST}/terms/2, you have agreed to {HOST}/terms"
        assert world.said.getvalue() == f"nginx-acme: [notice] {told}\n"
        world.ca.meta["termsOfService"] = f"{HOST}/terms/3"
        await world.look(world.issuer)
        assert f"are now {HOST}/terms/3" in world.said.getvalue()
        assert world.account.terms == f"{HOST}/terms", "which is what was agreed to"

    asyncio.run(scenario())


def test_terms_to_agree_to_again(world: World) -> None:
    """Where the CA insists, its words say where a person has to go."""

    async def scenario() -> None:
        account = await world.register()
        world.ca.new_terms = f"{HOST}/agree"
        async with world.client(account) as client:
            with pytest.raises(Problem, match=rf"Terms have changed .*, see {HOST}/agree"):
                await client.new_order([])

    asyncio.run(scenario())


# --- another key ----------------------------------------------------------------------------


async def rolled(world: World) -> AccountFolder:
    """The account with another key."""
    account = world.account
    account.save_next_key(new_key("ecdsa:384"))
    following = account.following()
    assert following is not None
    async with world.client(account) as client:
        registration = Registration(client, world.issuer, now, Log(world.said))
        return await registration.with_next_key(account, following)


def test_another_key(world: World) -> None:
    """The account is the same with the new key, and has nothing of the old one."""

    async def scenario() -> None:
        before = await world.register()
        after = await rolled(world)
        assert world.account == after
        assert (after.url, after.key_pem == before.key_pem) == (before.url, False)
        assert world.ca.accounts[str(after.url)].thumbprint == key_of(after).thumbprint
        assert await world.look(world.issuer) == after

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("status", "kind", "forgotten"),
    [
        pytest.param(400, "badPublicKey", True, id="weak"),
        pytest.param(409, "conflict", True, id="another account's"),
        pytest.param(403, "unauthorized", False, id="of an old key, maybe"),
        pytest.param(429, "rateLimited", False, id="not now"),
    ],
)
def test_refused_key(world: World, status: int, kind: str, *, forgotten: bool) -> None:
    """A key that the CA doesn't take is forgotten; one that it may have taken never is."""

    async def scenario() -> None:
        before = await world.register()
        world.ca.misbehave("keyChange", refused(status, kind, "no such luck"))
        with pytest.raises(Problem, match="no such luck"):
            await rolled(world)
        assert world.account == before
        assert (world.account.following() is None) == forgotten

    asyncio.run(scenario())


@pytest.mark.parametrize("taken", [True, False])
def test_lost_answer(world: World, *, taken: bool) -> None:
    """The next run finds out whether the CA has taken the key that it doesn't know of."""

    async def scenario() -> None:
        before = await world.register()
        world.ca.misbehave("keyChange", lost() if taken else refused(503, "serverInternal"))
        with pytest.raises(AcmeError):
            await rolled(world)
        following = world.account.following()
        assert following is not None
        after = await world.look(world.issuer)
        assert after.url == before.url
        assert after.key_pem == (following.key_pem if taken else before.key_pem)
        assert world.ca.accounts[str(after.url)].thumbprint == key_of(after).thumbprint
        assert world.account == after

    asyncio.run(scenario())


def test_lost_answer_goes_on(world: World) -> None:
    """The run that finds it out signs with the right key from there on."""

    async def scenario() -> None:
        await world.register()
        world.ca.misbehave("keyChange", lost())
        with pytest.raises(AcmeError):
            await rolled(world)
        account, issuer = world.account, replace(world.issuer, contacts=())
        async with world.client(account) as client:
            account = await Registration(client, issuer, now, Log(world.said)).current(account)
            assert (await client.account()).contact == ()
        assert world.account == account

    asyncio.run(scenario())
