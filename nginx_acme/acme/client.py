"""A conversation with one CA on behalf of one account (RFC 8555), in as few requests as it takes.

The only door of httpx. Every answer passes one gate (`_attempt`): no redirect, no encoding, no
body over 1 MiB, one deadline around the whole exchange, and the CA's own words before any
complaint of ours. httpx's timeouts were tried instead of the deadline: each is for one read, so a
CA that sends a byte a second holds a client for ever; and its decoders make 200 MB of 200 kB
before a limit on what is decoded can act. The nonces live here and nowhere else: banked from
every answer, errors too, so that asking for one is the exception.

What is repeated here is only what can't do harm. An answer that was lost says nothing about
whether the CA did what was asked: a second newOrder costs one of 300, a second finalize is an
error. So these fail as `Unreachable`, and whoever keeps the order's URL asks how it stands. A
request that never left, or one that only reads, is made again at once, a few times.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import re
import socket
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urljoin, urlsplit

import httpx

from nginx_acme import __version__
from nginx_acme.acme.jws import base64url
from nginx_acme.acme.resources import (
    Account,
    Authorization,
    Challenge,
    Directory,
    Order,
    certificate_chain,
    http_date,
    is_https,
    plain,
    problem_from_json,
    retry_after,
)
from nginx_acme.acme.trust import tls_context
from nginx_acme.errors import Problem, UnexpectedAnswer, Unreachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from nginx_acme.acme.jws import AccountKey
    from nginx_acme.acme.resources import Identifier

USER_AGENT = f"nginx-acme/{__version__} httpx/{httpx.__version__}"
"""RFC 8555 §6.1."""

DEADLINE = 30.0
"""Seconds for one exchange, from the first packet to the last byte."""

LARGEST_ANSWER = 1 << 20
"""Bytes of a body; a chain has some thousand, an order of 100 names has twenty thousand."""

CONNECTIONS = 8
"""At once; the orders of a run share them."""

IDLE = 10.0
"""Seconds that an unused connection is kept: longer than any pause between two polls."""

RECONNECTS = (0.25, 1.0)
"""Seconds before each further attempt where a connection failed and repeating is harmless."""

NONCES_TRIED = 10
"""Refusals with badNonce in a row; one is normal after a pause, ten are a broken CA."""

_NONCE = re.compile(r"[-_A-Za-z0-9]+")
_ALTERNATE = re.compile(r'<([^<>]*)>[^<]*?;\s*rel="?alternate"?')


@dataclass(frozen=True, slots=True)
class Chain:
    """An issued certificate with its issuers (PEM); `alternates`: URLs of other chains (§7.4.2)."""

    pem: bytes
    alternates: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Answer:
    """A success that has passed the gate."""

    url: str
    headers: httpx.Headers
    body: bytes
    retry_after: datetime | None

    @property
    def media_type(self) -> str:
        value: str = self.headers.get("content-type", "")
        return value.partition(";")[0].strip().lower()

    def json(self) -> object:
        """The body of every answer but a certificate."""
        self.must_be("application/json")
        value = _json(self.body)
        if value is None:
            raise UnexpectedAnswer(f"{self.url}: the answer is not the JSON that it says it is")
        return value

    def location(self) -> str:
        """The URL of what was made (§7.3, §7.4)."""
        location: str | None = self.headers.get("location")
        if location is None:
            raise UnexpectedAnswer(f"{self.url}: the answer has no Location")
        url = urljoin(self.url, location)
        if not is_https(url):
            raise UnexpectedAnswer(f"{self.url}: Location is not an https URL: {plain(url)}")
        return url

    def must_be(self, media_type: str) -> None:
        """Raise where it is anything else, such as a portal's page."""
        if self.media_type != media_type:
            found = plain(self.media_type) or "no Content-Type"
            raise UnexpectedAnswer(f"{self.url}: {media_type} was expected, not {found}")


class _Dropped(Unreachable):
    """The connection failed; `sent` says whether the request may have arrived."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


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
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        if not is_https(directory_url):
            raise ValueError(f"not an https URL: {directory_url}")
        self.directory_url = directory_url
        self.account_url = account_url
        self.key = key
        self.now = now
        self.requests = 0
        """How many were made so far."""
        self.date: datetime | None = None
        """The CA's clock when it answered last, as far as it tells."""
        self._trusted_certificate = trusted_certificate
        self._verify = verify
        self._deadline = deadline
        self._transport = transport
        self._connections: _Connections | None = None
        self._directory: Directory | None = None
        self._reading_directory = asyncio.Lock()
        self._nonces: list[str] = []

    async def __aenter__(self) -> Self:
        """Get ready; Unreachable where there is nothing to verify the CA with."""
        way: Mapping[str, Any] = {"transport": self._transport}
        if self._transport is None:
            way = {"verify": tls_context(self._trusted_certificate, verify=self._verify)}
        self._connections = _Connections(lambda: _http_client(self.directory_url, **way))
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close the connections."""
        if self._connections is not None:
            await self._connections.close()
            self._connections = None

    # --- what can be asked ------------------------------------------------------------------

    async def directory(self) -> Directory:
        """The CA's URLs (§7.1.1), asked once."""
        async with self._reading_directory:
            if self._directory is None:
                answer = await self._exchange("GET", self.directory_url, repeatable=True)
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

    # --- requests ---------------------------------------------------------------------------

    async def _read(self, url: str) -> _Answer:
        """POST-as-GET (§6.3)."""
        return await self._signed(url, None, kid=self._kid(), repeatable=True)

    async def _post(self, url: str, payload: Mapping[str, object]) -> _Answer:
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
        repeatable: bool = False,
    ) -> _Answer:
        """A request, signed anew with the next nonce as often as the CA refuses one (§6.5)."""
        body = None if payload is None else json.dumps(payload).encode("ascii")
        refused = 0
        while True:
            signed = self.key.sign(body, url=url, nonce=await self._nonce(), kid=kid)
            try:
                return await self._exchange("POST", url, signed, repeatable=repeatable)
            except Problem as problem:
                refused += 1
                if problem.type != "badNonce" or refused == NONCES_TRIED:
                    raise

    async def _nonce(self) -> str:
        """The latest nonce; the CA is asked for one only where none is left (§7.2)."""
        while not self._nonces:
            url = (await self.directory()).new_nonce
            answer = await self._exchange("HEAD", url, repeatable=True)
            if not _is_nonce(answer.headers.get("replay-nonce", "")):
                raise UnexpectedAnswer(f"{url}: the answer has no Replay-Nonce")
        return self._nonces.pop()

    async def _exchange(
        self, method: str, url: str, content: bytes | None = None, *, repeatable: bool
    ) -> _Answer:
        """One answer; a repeated request is the same to the byte.

        Where the first did arrive after all, its nonce is used up, and `_signed` signs anew.
        """
        for delay in RECONNECTS:
            try:
                return await self._attempt(method, url, content)
            except _Dropped as dropped:
                if dropped.sent and not repeatable:
                    raise
            await asyncio.sleep(delay)
        return await self._attempt(method, url, content)

    async def _attempt(self, method: str, url: str, content: bytes | None) -> _Answer:
        """The gate: what comes out of here is a success, and nothing else has looked at it."""
        if self._connections is None:
            raise RuntimeError("the client is not open")
        headers = {"Content-Type": "application/jose+json"} if content is not None else {}
        async with self._connections.one() as http:
            self.requests += 1
            try:
                async with (
                    asyncio.timeout(self._deadline),
                    http.stream(method, url, content=content, headers=headers) as response,
                ):
                    body = await _body(response)
            except TimeoutError:
                raise Unreachable(f"{_host(url)}: no answer in {self._deadline:g} s") from None
            except httpx.InvalidURL as error:
                raise UnexpectedAnswer(f"{url}: not a URL: {error}") from error
            except httpx.RequestError as error:
                raise _unreachable(url, error) from error
        return self._judge(url, response, body)

    def _judge(self, url: str, response: httpx.Response, body: bytes | UnexpectedAnswer) -> _Answer:
        """Bank the nonce and the date; then the CA's complaints come before our own."""
        headers, status = response.headers, response.status_code
        nonce = headers.get("replay-nonce", "")
        if _is_nonce(nonce):
            self._nonces.append(nonce)
        date = http_date(headers.get("date"))
        self.date = date or self.date
        later = retry_after(headers.get("retry-after"), now=self.now(), date=date)
        if response.is_error:
            said = None if isinstance(body, UnexpectedAnswer) else _json(body)
            raise problem_from_json(said, status=status, retry_after=later)
        if not response.is_success:
            raise UnexpectedAnswer(f"{url}: HTTP status {status}; redirects are not followed")
        if isinstance(body, UnexpectedAnswer):
            raise body
        return _Answer(url, headers, body, later)


def _is_nonce(value: str) -> bool:
    """Anything but base64url must be ignored (§6.5.1)."""
    return _NONCE.fullmatch(value) is not None


def _order(answer: _Answer, url: str) -> Order:
    return Order.from_json(answer.json(), url=url, retry_after=answer.retry_after)


async def _body(response: httpx.Response) -> bytes | UnexpectedAnswer:
    """The raw body, or what is wrong with it: only the status tells whose words come first."""
    encoding = response.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        return UnexpectedAnswer(f"{response.url}: unasked for Content-Encoding {plain(encoding)}")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > LARGEST_ANSWER:
            return UnexpectedAnswer(f"{response.url}: the answer is over {LARGEST_ANSWER} bytes")
    return bytes(body)


def _json(body: bytes) -> object:
    """The value, None where it is no JSON (or ``null``, which says as little)."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


# --- the way to the CA ----------------------------------------------------------------------


class _Connections:
    """As many HTTP clients as connections, the one that was used last before the others.

    One client for all of them looks at each of its connections for every request, twice; with
    eight that took longer than the request.
    """

    def __init__(self, new: Callable[[], httpx.AsyncClient]) -> None:
        self._new = new
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._idle = [new()]  # at once, since it raises where the proxy is of no use

    @asynccontextmanager
    async def one(self) -> AsyncIterator[httpx.AsyncClient]:
        """One that nobody else uses meanwhile."""
        async with self._slots:
            http = self._idle.pop() if self._idle else self._new()
            try:
                yield http
            finally:
                self._idle.append(http)

    async def close(self) -> None:
        """Close those that nobody uses."""
        while self._idle:
            await self._idle.pop().aclose()


def _http_client(directory_url: str, **way: Any) -> httpx.AsyncClient:
    """An HTTP client for this CA; proxies of the environment never lead to this machine."""
    try:
        return httpx.AsyncClient(
            headers={
                "User-Agent": USER_AGENT,
                "Accept-Encoding": "identity",
                "Accept-Language": "en",
            },
            limits=httpx.Limits(
                max_connections=1, max_keepalive_connections=1, keepalive_expiry=IDLE
            ),
            timeout=None,  # noqa: S113 - the deadline is around the whole exchange
            trust_env=not _is_loopback(_host(directory_url)),
            **way,
        )
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise Unreachable(f"the proxy of the environment can't be used: {error}") from error


def _host(url: str) -> str:
    return urlsplit(url).hostname or url


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _unreachable(url: str, error: httpx.RequestError) -> Unreachable:
    """One sentence with the cause that lies below httpx, httpcore and anyio."""
    message, lasting = _words(error)
    message = f"{_host(url)}: {message}"
    if lasting or not isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError):
        return Unreachable(message)
    return _Dropped(message, sent=not isinstance(error, httpx.ConnectError))


def _words(error: httpx.RequestError) -> tuple[str, bool]:
    """What happened, and whether it will happen again in a second."""
    for cause in _causes(error):
        match cause:
            case ssl.SSLCertVerificationError():
                return f"not to be trusted: {cause.verify_message}", True
            case ssl.SSLEOFError():
                return "the connection was closed", False
            case ssl.SSLError() if cause.reason:
                return f"no TLS: {cause.reason.lower().replace('_', ' ')}", True
            case socket.gaierror():
                return str(cause.strerror), False
            case OSError() if cause.errno is not None:
                return os.strerror(cause.errno), False
            case _:
                continue
    return plain(str(error)) or type(error).__name__, False


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it came from; of several attempts, the first one."""
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        else:
            error = error.__cause__ or error.__context__
