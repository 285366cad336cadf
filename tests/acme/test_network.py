"""What a fake transport can't show: connections, TLS, trust, proxies; on real sockets."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from nginx_acme.acme.client import Client
from nginx_acme.acme.gate import CONNECTIONS
from nginx_acme.acme.trust import tls_context
from nginx_acme.errors import UnexpectedAnswer, Unreachable
from tests.acme.applicant import account_key
from tests.servers import LOCALHOST, free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.servers import Pebble

DIRECTORY = json.dumps(
    {name: f"https://ca.example/{name}" for name in ("newNonce", "newAccount", "newOrder")}
).encode()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
    len(DIRECTORY),
    DIRECTORY,
)


class Server:
    """Answers every request alike, over TLS where it has a certificate; counts connections."""

    def __init__(
        self,
        answer: bytes = ANSWER,
        *,
        pause: float = 0,
        last: bool = False,
        until: bytes = b"\r\n\r\n",
    ) -> None:
        self.answer = answer
        self.until = until
        self.pause = pause
        self.last = last
        self.port = free_port()
        self.connections = 0
        self.sent = 0
        self.heads: list[str] = []

    @property
    def url(self) -> str:
        """What leads to it."""
        return f"https://{LOCALHOST}:{self.port}/dir"

    @asynccontextmanager
    async def serving(self, pebble: Pebble | None) -> AsyncIterator[None]:
        """Listen; with the certificate of pebble's own API, or without TLS."""
        context = None
        if pebble is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(pebble.folder / "api.pem", pebble.folder / "api-key.pem")
        async with await asyncio.start_server(self._serve, LOCALHOST, self.port, ssl=context):
            yield

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(self.until)
                self.heads.append(head.decode(errors="replace"))
                await self._send(writer)
                if self.last:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        step = 1 if self.pause else 1 << 16
        for start in range(0, len(self.answer), step):
            writer.write(self.answer[start : start + step])
            await writer.drain()
            self.sent += step
            await asyncio.sleep(self.pause)


def real_client(url: str, **more: Any) -> Client:
    """A client without any fake."""
    return Client(url, account_key(), now=lambda: datetime.now(UTC), **more)


async def ask(client: Client) -> None:
    """A request that is no further than the directory."""
    await client._gate.exchange("GET", client.directory_url, repeatable=True)


# --- connections ----------------------------------------------------------------------------


def test_one_connection(pebble: Pebble) -> None:
    """What is asked one after the other shares one connection."""

    async def scenario() -> None:
        server = Server()
        async with server.serving(pebble):
            trusted = str(pebble.api_root)
            async with real_client(server.url, trusted_certificate=trusted) as client:
                for _ in range(10):
                    await ask(client)
        assert server.connections == 1

    asyncio.run(scenario())


def test_few_connections(pebble: Pebble) -> None:
    """However much is asked at once, there are only so many connections."""

    async def scenario() -> None:
        server = Server()
        async with server.serving(pebble):
            trusted = str(pebble.api_root)
            async with real_client(server.url, trusted_certificate=trusted) as client:
                await asyncio.gather(*(ask(client) for _ in range(100)))
        assert 1 < server.connections <= CONNECTIONS

    asyncio.run(scenario())


def test_closed_connection(pebble: Pebble) -> None:
    """A server that closes after each answer costs connections, and no failure."""

    async def scenario() -> None:
        server = Server(last=True)
        async with server.serving(pebble):
            trusted = str(pebble.api_root)
            async with real_client(server.url, trusted_certificate=trusted) as client:
                for _ in range(5):
                    await ask(client)
        assert server.connections >= 5

    asyncio.run(scenario())


def test_refused_connection() -> None:
    """Where nobody listens, the system's own words are told."""

    async def scenario() -> None:
        url = f"https://{LOCALHOST}:{free_port()}/dir"
        async with real_client(url, verify=False) as client:
            with pytest.raises(Unreachable, match=r"^127\.0\.0\.1: Connection refused$"):
                await client.directory()
            assert client.requests == 3

    asyncio.run(scenario())


def test_flood(pebble: Pebble) -> None:
    """An answer that is too long is left where it is: a few buffers more, and no more."""

    async def scenario() -> None:
        size = 30_000_000
        flood = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (size, b" " * size)
        server = Server(flood)
        async with server.serving(pebble):
            trusted = str(pebble.api_root)
            async with real_client(server.url, trusted_certificate=trusted) as client:
                with pytest.raises(UnexpectedAnswer, match="over 1048576 bytes"):
                    await client.directory()
        assert server.sent < size / 2

    asyncio.run(scenario())


def test_drip(pebble: Pebble) -> None:
    """A deadline of half a second is half a second, however busy the line is."""

    async def scenario() -> None:
        server = Server(pause=0.02)
        async with server.serving(pebble):
            trusted = str(pebble.api_root)
            async with real_client(server.url, trusted_certificate=trusted, deadline=0.5) as client:
                began = time.monotonic()
                with pytest.raises(Unreachable, match=r"no answer in 0\.5 s"):
                    await client.directory()
                assert time.monotonic() - began < 2

    asyncio.run(scenario())


# --- trust ----------------------------------------------------------------------------------


def test_trusted(pebble: Pebble) -> None:
    """A file of roots takes the place of the system's."""

    async def scenario() -> None:
        trusted = str(pebble.api_root)
        async with real_client(pebble.directory_url, trusted_certificate=trusted) as client:
            assert (await client.directory()).terms_of_service is not None

    asyncio.run(scenario())


def test_untrusted(pebble: Pebble, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CA whose own certificate is from nobody we know is not asked twice, and it says why."""
    monkeypatch.setenv("SSL_CERT_FILE", str(pebble.folder / "issuer.pem"))
    (pebble.folder / "issuer.pem").write_bytes(pebble.issuer_root())

    async def scenario() -> None:
        async with real_client(pebble.directory_url) as client:
            with pytest.raises(Unreachable) as caught:
                await client.directory()
            assert client.requests == 1
        words = "not to be trusted: unable to get local issuer certificate"
        assert str(caught.value) == f"{LOCALHOST}: {words}"

    asyncio.run(scenario())


def test_unverified(pebble: Pebble) -> None:
    """With verification off, anybody is the CA."""

    async def scenario() -> None:
        async with real_client(pebble.directory_url, verify=False) as client:
            await client.directory()

    asyncio.run(scenario())


def test_no_tls() -> None:
    """A server that doesn't speak TLS is told from one that isn't there."""

    async def scenario() -> None:
        server = Server(last=True, until=b"\x03")
        async with server.serving(None), real_client(server.url, verify=False) as client:
            with pytest.raises(Unreachable, match=r"^127\.0\.0\.1: no TLS: "):
                await client.directory()
            assert client.requests == 1

    asyncio.run(scenario())


def test_system_without_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an image without ca-certificates no library's bundle is taken; it is said what is missing."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))

    async def scenario() -> None:
        with pytest.raises(Unreachable, match=r"trusts no certificate authority.*ca-certificates"):
            async with real_client("https://ca.example/dir"):
                pass

    asyncio.run(scenario())


def test_folder_of_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of roots, which OpenSSL reads only when it needs one, is enough."""
    (tmp_path / "0a775a30.0").write_text("")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert tls_context(None, verify=True).verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_bad_file_of_roots(tmp_path: Path, content: bytes | None) -> None:
    """A file of roots that isn't one is named."""
    path = tmp_path / "roots.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Unreachable, match=r"no certificates to trust in .*roots\.pem"):
        tls_context(str(path), verify=True)


# --- proxies --------------------------------------------------------------------------------


def test_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy of the environment leads to a CA out there, and its refusal is told."""

    async def scenario() -> None:
        proxy = Server(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", last=True)
        monkeypatch.setenv("HTTPS_PROXY", f"http://{LOCALHOST}:{proxy.port}")
        async with proxy.serving(None), real_client("https://ca.example/", verify=False) as client:
            with pytest.raises(Unreachable, match=r"^ca\.example: 403 Forbidden$"):
                await client.directory()
        assert proxy.heads[0].startswith("CONNECT ca.example:443 ")

    asyncio.run(scenario())


def test_no_proxy_to_ourselves(pebble: Pebble, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CA on this machine is never looked for behind a proxy."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://{LOCALHOST}:{free_port()}")
    monkeypatch.setenv("ALL_PROXY", f"http://{LOCALHOST}:{free_port()}")

    async def scenario() -> None:
        trusted = str(pebble.api_root)
        async with real_client(pebble.directory_url, trusted_certificate=trusted) as client:
            await client.directory()

    asyncio.run(scenario())


def test_bad_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that can't be one is a sentence, and no traceback."""
    monkeypatch.setenv("HTTPS_PROXY", "ftp://proxy.example")

    async def scenario() -> None:
        with pytest.raises(Unreachable, match="the proxy of the environment can't be used"):
            async with real_client("https://ca.example/dir", verify=False):
                pass

    asyncio.run(scenario())
