"""The way to a CA: one gate that every answer passes before anybody looks at it.

The only door of httpx. No redirect, no encoding, no body over 1 MiB, one deadline around the
whole exchange, and the CA's own words before any complaint of ours. httpx's timeouts were tried
instead of the deadline: each is for one read, so a CA that sends a byte a second holds a client
for ever; and its decoders make 200 MB of 200 kB before a limit on what is decoded can act.

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
from nginx_acme.acme.resources import http_date, is_https, plain, problem_from_json, retry_after
from nginx_acme.acme.trust import tls_context
from nginx_acme.errors import UnexpectedAnswer, Unreachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from datetime import datetime

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

Transport = httpx.AsyncBaseTransport
"""What takes the place of the network in a test."""

_NONCE = re.compile(r"[-_A-Za-z0-9]+")


@dataclass(frozen=True, slots=True)
class Answer:
    """A success that has passed the gate."""

    url: str
    headers: httpx.Headers
    body: bytes
    retry_after: datetime | None

    @property
    def media_type(self) -> str:
        """The body's type, without parameters."""
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


class Gate:
    """The connections to one CA; the arguments are those of `Client`.

    `nonces` are banked from every answer, errors too, so that asking for one is the exception.
    """

    def __init__(
        self,
        directory_url: str,
        *,
        now: Callable[[], datetime],
        trusted_certificate: str | None,
        verify: bool,
        deadline: float,
        transport: Transport | None,
    ) -> None:
        self.requests = 0
        """How many were made so far."""
        self.date: datetime | None = None
        """The CA's clock when it answered last, as far as it tells."""
        self.nonces: list[str] = []
        self._directory_url = directory_url
        self._now = now
        self._trusted_certificate = trusted_certificate
        self._verify = verify
        self._deadline = deadline
        self._transport = transport
        self._connections: _Connections | None = None

    async def __aenter__(self) -> Self:
        """Get ready; Unreachable where there is nothing to verify the CA with."""
        way: Mapping[str, Any] = {"transport": self._transport}
        if self._transport is None:
            way = {"verify": tls_context(self._trusted_certificate, verify=self._verify)}
        self._connections = _Connections(lambda: _http_client(self._directory_url, **way))
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close the connections."""
        if self._connections is not None:
            await self._connections.close()
            self._connections = None

    async def exchange(
        self, method: str, url: str, content: bytes | None = None, *, repeatable: bool
    ) -> Answer:
        """One answer; a repeated request is the same to the byte.

        Where the first did arrive after all, its nonce is used up, and `Client` signs anew.
        """
        for delay in RECONNECTS:
            try:
                return await self._attempt(method, url, content)
            except _Dropped as dropped:
                if dropped.sent and not repeatable:
                    raise
            await asyncio.sleep(delay)
        return await self._attempt(method, url, content)

    async def _attempt(self, method: str, url: str, content: bytes | None) -> Answer:
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

    def _judge(self, url: str, response: httpx.Response, body: bytes | UnexpectedAnswer) -> Answer:
        """Bank the nonce and the date; then the CA's complaints come before our own."""
        headers, status = response.headers, response.status_code
        nonce = headers.get("replay-nonce", "")
        if is_nonce(nonce):
            self.nonces.append(nonce)
        date = http_date(headers.get("date"))
        self.date = date or self.date
        later = retry_after(headers.get("retry-after"), now=self._now(), date=date)
        if response.is_error:
            said = None if isinstance(body, UnexpectedAnswer) else _json(body)
            raise problem_from_json(said, status=status, retry_after=later)
        if not response.is_success:
            raise UnexpectedAnswer(f"{url}: HTTP status {status}; redirects are not followed")
        if isinstance(body, UnexpectedAnswer):
            raise body
        return Answer(url, headers, body, later)


def is_nonce(value: str) -> bool:
    """Anything but base64url must be ignored (§6.5.1)."""
    return _NONCE.fullmatch(value) is not None


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
