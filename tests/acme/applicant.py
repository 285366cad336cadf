"""What an applicant brings to a CA: an account key, a CSR, and answers to challenges."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import defaultdict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from nginx_acme.acme.jws import AccountKey
from nginx_acme.acme.resources import Identifier
from tests.servers import LOCALHOST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cryptography.hazmat.primitives.asymmetric import rsa


def pem_of(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    """A private key as files hold it."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def account_key() -> AccountKey:
    """A fresh one."""
    return AccountKey(pem_of(ec.generate_private_key(ec.SECP256R1())))


def identifiers(*names: str) -> list[Identifier]:
    """Names as identifiers; an address is one of type ``ip``."""
    return [Identifier("ip" if _is_address(name) else "dns", name) for name in names]


def csr(*names: str, key: ec.EllipticCurvePrivateKey | None = None) -> bytes:
    """A CSR (DER) for these names, of a fresh key where none is given."""
    san = [
        x509.IPAddress(ipaddress.ip_address(name)) if _is_address(name) else x509.DNSName(name)
        for name in names
    ]
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.SubjectAlternativeName(san), critical=False)
        .sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )


class Answers:
    """A Solver that keeps the answers in memory, and a record of what happened to them.

    `tells` off: it is as if another program answered, which tells nobody.
    """

    def __init__(self, challenge_type: str = "http-01", *, tells: bool = True) -> None:
        self.challenge_type = challenge_type
        self.tells = tells
        self.answers: dict[str, str] = {}
        self.presented: list[str] = []
        self.cleaned: list[str] = []
        self.wrong: set[int] = set()
        """Numbers of presented tokens (from 0) that get a wrong answer."""
        self._fetched: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def present(self, token: str, key_authorization: str) -> None:
        """Have an answer ready."""
        wrong = len(self.presented) in self.wrong
        self.presented.append(token)
        self.answers[token] = "wrong" if wrong else key_authorization

    async def clean_up(self, token: str) -> None:
        """Forget the answer."""
        self.cleaned.append(token)
        self.answers.pop(token, None)

    async def fetched(self, token: str) -> None:
        """Wait for `fetch`."""
        await self._fetched[token].wait()

    def fetch(self, name: str, token: str) -> str:  # noqa: ARG002 - FakeCa asks for a name, too
        """What the CA gets."""
        if self.tells:
            self._fetched[token].set()
        return self.answers.get(token, "")

    @asynccontextmanager
    async def serving(self, port: int) -> AsyncIterator[None]:
        """Answer on a real port, for a real CA."""
        async with await asyncio.start_server(self._serve, LOCALHOST, port):
            yield

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        token = head.split()[1].decode().rpartition("/")[2]
        body = self.fetch("", token).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()
        await writer.wait_closed()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
