"""A conversation with one CA on behalf of one account (RFC 8555), in as few requests as it takes.

What may live here: what can be asked, how it is signed, and what the answer is read as. How a
request gets there, and what an answer must be like to be read at all, is the gate's business.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Self
from urllib.parse import urljoin

from nginx_acme.acme.gate import DEADLINE, Gate, is_nonce
from nginx_acme.acme.jws import base64url
from nginx_acme.acme.resources import (
    Account,
    Authorization,
    Challenge,
    Directory,
    Order,
    RenewalInfo,
    certificate_chain,
    is_https,
)
from nginx_acme.errors import Problem, UnexpectedAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from nginx_acme.acme.gate import Answer, Transport
    from nginx_acme.acme.jws import AccountKey
    from nginx_acme.acme.resources import Identifier

NONCES_TRIED = 10
"""Refusals with badNonce in a row; one is normal after a pause, ten are a broken CA."""

REASONS: Mapping[str, int] = MappingProxyType(
    {
        "unspecified": 0,
        "keyCompromise": 1,
        "affiliationChanged": 3,
        "superseded": 4,
        "cessationOfOperation": 5,
    }
)
"""Why a certificate may be revoked (RFC 5280 §5.3.1), as far as it is for its holder to say."""

_ALTERNATE = re.compile(r'<([^<>]*)>[^<]*?;\s*rel="?alternate"?')


@dataclass(frozen=True, slots=True)
class Chain:
    """An issued certificate with its issuers (PEM); `alternates`: URLs of other chains (§7.4.2)."""

    pem: bytes
    alternates: tuple[str, ...] = ()


class Client:
    """A CA's directory, an account's key, and what can be asked with both.

    Used as ``async with Client(…) as client``; many orders may use it at once. Every method
    raises `Problem` where the CA says no, `UnexpectedAnswer` where it breaks the protocol, and
    `Unreachable` where no answer came.

    Args:
        directory_url: https; ValueError otherwise
        key: of the account, existing or to be made
        now: the time, for Retry-After
        account_url: of the account where it is known (the "kid"), which saves `new_account`
        trusted_certificate: a PEM file of roots in place of the system's
        verify: False: the CA's certificate may be anything
        deadline: seconds for each exchange
        transport: in place of the network, for tests
    """

    def __init__(
        self,
        directory_url: str,
        key: AccountKey,
        *,
        now: Callable[[], datetime],
        account_url: str | None = None,
        trusted_certificate: str | None = None,
        verify: bool = True,
        deadline: float = DEADLINE,
        transport: Transport | None = None,
    ) -> None:
        if not is_https(directory_url):
            raise ValueError(f"not an https URL: {directory_url}")
        self.directory_url = directory_url
        self.account_url = account_url
        self.key = key
        self.now = now
        self._gate = Gate(
            directory_url,
            now=now,
            trusted_certificate=trusted_certificate,
            verify=verify,
            deadline=deadline,
            transport=transport,
        )
        self._directory: Directory | None = None
        self._reading_directory = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Get ready; Unreachable where there is nothing to verify the CA with."""
        await self._gate.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close the connections."""
        await self._gate.__aexit__(*exc)

    @property
    def requests(self) -> int:
        """How many were made so far."""
        return self._gate.requests

    @property
    def date(self) -> datetime | None:
        """The CA's clock when it answered last, as far as it tells."""
        return self._gate.date

    # --- what can be asked ------------------------------------------------------------------

    async def directory(self) -> Directory:
        """The CA's URLs (§7.1.1), asked once."""
        async with self._reading_directory:
            if self._directory is None:
                answer = await self._gate.exchange("GET", self.directory_url, repeatable=True)
                self._directory = Directory.from_json(answer.json())
            return self._directory

    async def new_account(
        self,
        contacts: Sequence[str] = (),
        *,
        terms_agreed: bool = False,
        only_return_existing: bool = False,
    ) -> Account:
        """Make the key's account, or find it where there is one (§7.3, §7.3.1).

        The account is the one of this conversation from here on. A contact that the CA doesn't
        take is a Problem (invalidContact, unsupportedContact), and so is with
        `only_return_existing` an account that there isn't (accountDoesNotExist).
        """
        wanted: dict[str, object] = {"contact": list(contacts)} if contacts else {}
        if terms_agreed:
            wanted["termsOfServiceAgreed"] = True
        if only_return_existing:
            wanted["onlyReturnExisting"] = True
        directory = await self.directory()
        answer = await self._signed(directory.new_account, wanted, kid=None)
        account = Account.from_json(answer.json(), url=answer.location())
        self.account_url = account.url
        return account

    async def account_of(self, key: AccountKey) -> str | None:
        """The URL of the account that has this key (§7.3.1); None where none has."""
        directory, wanted = await self.directory(), {"onlyReturnExisting": True}
        try:
            answer = await self._signed(directory.new_account, wanted, kid=None, key=key)
        except Problem as problem:
            if problem.type == "accountDoesNotExist":
                return None
            raise
        return answer.location()

    async def account(self) -> Account:
        """How the account stands (§7.1.2)."""
        url = self._kid()
        return Account.from_json((await self._read(url)).json(), url=url)

    async def update_contacts(self, contacts: Sequence[str]) -> Account:
        """Tell the CA other contacts (§7.3.2); a Problem as with `new_account`."""
        return await self._update_account({"contact": list(contacts)})

    async def deactivate_account(self) -> Account:
        """Give the account up for good (§7.3.6); its certificates stay valid."""
        return await self._update_account({"status": "deactivated"})

    async def _update_account(self, changes: Mapping[str, object]) -> Account:
        url = self._kid()
        return Account.from_json((await self._post(url, changes)).json(), url=url)

    async def change_key(self, new: AccountKey) -> None:
        """Give the account another key, which signs from here on (§7.3.5).

        A key that another account has is a Problem with the HTTP status 409.
        """
        url = await self._url_of("keyChange")
        change = {"account": self._kid(), "oldKey": dict(self.key.jwk)}
        inner = new.sign(json.dumps(change).encode("ascii"), url=url, nonce=None)
        await self._post(url, json.loads(inner))
        self.key = new

    async def revoke(self, certificate: bytes, reason: str) -> None:
        """Revoke a certificate (DER), for one of `REASONS` (§7.6).

        Without an account URL the key of this conversation is the certificate's own. One that is
        revoked already is a Problem (alreadyRevoked).
        """
        wanted: dict[str, object] = {"certificate": base64url(certificate)}
        if REASONS[reason]:  # RFC 5280 §5.3.1: better none than "unspecified"
            wanted["reason"] = REASONS[reason]
        await self._signed(await self._url_of("revokeCert"), wanted, kid=self.account_url)

    async def new_order(
        self,
        identifiers: Sequence[Identifier],
        *,
        profile: str | None = None,
        replaces: str | None = None,
    ) -> Order:
        """Ask for a certificate (§7.4); `replaces` is the certID of RFC 9773 §5."""
        wanted: dict[str, object] = {
            "identifiers": [{"type": each.type, "value": each.value} for each in identifiers]
        }
        if profile is not None:
            wanted["profile"] = profile
        if replaces is not None:
            wanted["replaces"] = replaces
        directory = await self.directory()
        answer = await self._post(directory.new_order, wanted)
        return _order(answer, answer.location())

    async def order(self, url: str) -> Order:
        """How an order stands (§7.1.3)."""
        return _order(await self._read(url), url)

    async def authorization(self, url: str) -> Authorization:
        """How an authorization stands (§7.5)."""
        return Authorization.from_json((await self._read(url)).json(), url=url)

    async def respond(self, challenge: Challenge) -> Challenge:
        """Say that a challenge can be looked at (§7.5.1)."""
        answer = await self._post(challenge.url, {})
        return Challenge.from_json(answer.json(), retry_after=answer.retry_after)

    async def deactivate_authorization(self, url: str) -> Authorization:
        """Give an authorization up, and with it the orders that need it (§7.5.2)."""
        answer = await self._post(url, {"status": "deactivated"})
        return Authorization.from_json(answer.json(), url=url)

    async def finalize(self, order: Order, csr: bytes) -> Order:
        """Hand in the CSR (DER) of an order that is ready (§7.4)."""
        answer = await self._post(order.finalize, {"csr": base64url(csr)})
        return _order(answer, order.url)

    async def download(self, url: str) -> Chain:
        """The certificate of a valid order (§7.4.2); whose it is, the caller looks."""
        answer = await self._read(url)
        answer.must_be("application/pem-certificate-chain")
        links = ", ".join(answer.headers.get_list("link"))
        alternates = (urljoin(url, found) for found in _ALTERNATE.findall(links))
        return Chain(certificate_chain(answer.body), tuple(filter(is_https, alternates)))

    async def renewal_info(self, certificate_id: str) -> RenewalInfo | None:
        """When a certificate should be renewed (RFC 9773 §4); None: the CA has no such advice.

        Needs no account.
        """
        resource = (await self.directory()).renewal_info
        if resource is None:
            return None
        url = f"{resource.rstrip('/')}/{certificate_id}"
        answer = await self._gate.exchange("GET", url, repeatable=True)
        return RenewalInfo.from_json(answer.json(), retry_after=answer.retry_after)

    # --- requests ---------------------------------------------------------------------------

    async def _url_of(self, resource: str) -> str:
        """Of one of the resources that a CA may lack, against §7.1.1."""
        directory = await self.directory()
        url = {"keyChange": directory.key_change, "revokeCert": directory.revoke_cert}[resource]
        if url is None:
            raise UnexpectedAnswer(f"{self.directory_url}: the directory has no {resource}")
        return url

    async def _read(self, url: str) -> Answer:
        """POST-as-GET (§6.3)."""
        return await self._signed(url, None, kid=self._kid(), repeatable=True)

    async def _post(self, url: str, payload: Mapping[str, object]) -> Answer:
        return await self._signed(url, payload, kid=self._kid())

    def _kid(self) -> str:
        if self.account_url is None:
            raise RuntimeError("there is no account yet: new_account comes first")
        return self.account_url

    async def _signed(
        self,
        url: str,
        payload: Mapping[str, object] | None,
        *,
        kid: str | None,
        key: AccountKey | None = None,
        repeatable: bool = False,
    ) -> Answer:
        """A request, signed anew with the next nonce as often as the CA refuses one (§6.5)."""
        body = None if payload is None else json.dumps(payload).encode("ascii")
        signer, refused = key or self.key, 0
        while True:
            signed = signer.sign(body, url=url, nonce=await self._nonce(), kid=kid)
            try:
                return await self._gate.exchange("POST", url, signed, repeatable=repeatable)
            except Problem as problem:
                refused += 1
                if problem.type != "badNonce" or refused == NONCES_TRIED:
                    raise

    async def _nonce(self) -> str:
        """The latest nonce; the CA is asked for one only where none is left (§7.2)."""
        while not self._gate.nonces:
            url = (await self.directory()).new_nonce
            answer = await self._gate.exchange("HEAD", url, repeatable=True)
            if not is_nonce(answer.headers.get("replay-nonce", "")):
                raise UnexpectedAnswer(f"{url}: the answer has no Replay-Nonce")
        return self._gate.nonces.pop()


def _order(answer: Answer, url: str) -> Order:
    return Order.from_json(answer.json(), url=url, retry_after=answer.retry_after)
