"""One TLS handshake with a listener of our own nginx, to see which certificate it shows.

What may live here: how a listener is reached from here and what OpenSSL says. Which handshakes
prove what is `proof`'s.

Rules
- Only this machine is asked. The socket is bound to the address that it connects to, which nobody
  can but its owner: without that, the address of a standby node would lead to the active one, whose
  certificate proves nothing of this nginx.
- The certificate is compared, never verified, and the oldest protocol and the weakest cipher will
  do: what clients make of it is not the question.
- nginx asks for a client certificate in the handshake and judges it afterwards, so `ssl_verify_client`
  hides nothing.
"""

from __future__ import annotations

import errno
import socket
import ssl
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nginx_acme.nginx.listen import Listen

SECONDS = 3.0
"""For one step of a handshake with a neighbour."""

KINDS = {"ecdsa": "aECDSA", "rsa": "aRSA:kRSA"}
"""The kinds of keys that a server may have side by side, and OpenSSL's words for their ciphers."""

_UNIX = "unix:"
_LOCALLY = {"0.0.0.0": ("127.0.0.1", "127.0.0.2"), "::": ("::1",)}  # noqa: S104 - not bound
"""How a wildcard is reached; a server of its own may be on the first address, hardly on both."""
_WEAKEST = "@SECLEVEL=0"


class Unseen(Exception):
    """Nothing could be seen, and why; it says nothing of the certificate."""


class Refused(Exception):
    """nginx ended the handshake, in OpenSSL's words."""


@dataclass(frozen=True, slots=True)
class Question:
    """What to ask for: where, for which name, and with which of `KINDS` (None: any)."""

    host: str
    port: int
    proxy_protocol: bool
    name: str
    kind: str | None = None

    def __str__(self) -> str:
        """Where that is, as nginx writes it."""
        if self.host.startswith(_UNIX):
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def questions(listen: Listen, name: str, kind: str | None = None) -> Iterator[Question]:
    """How to see what `listen` shows for a name of a certificate; the likeliest way first."""
    host, port = listen.address
    for each in _LOCALLY.get(host, (host,)):
        yield Question(each, port, listen.proxy_protocol, name, kind)


def ask(question: Question, seconds: float = SECONDS) -> bytes:
    """The certificate that is shown, in DER.

    Args:
        question: what to ask for. With a kind, TLS 1.3 is left out: its ciphers say nothing of
            keys, and what does (signature algorithms) the standard library doesn't let us choose.
        seconds: for each step.

    Raises:
        Refused: nginx shows none.
        Unseen: nobody answers, or not as TLS.
    """
    try:
        with (
            _connected(question, seconds) as plain,
            _context(question.kind).wrap_socket(plain, server_hostname=_sni(question.name)) as tls,
        ):
            return tls.getpeercert(binary_form=True) or b""
    except TimeoutError as error:
        raise Unseen(f"{question} gives no answer") from error
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionResetError) as error:
        raise Unseen(f"{question} closes the connection") from error
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).replace("_", " ").lower()
        raise Refused(f"{question} refuses the handshake: {reason}") from error
    except OSError as error:
        raise Unseen(f"{question} can't be reached: {error.strerror or error}") from error


def _sni(name: str) -> str | None:
    """The name to send (RFC 6066 §3): one under a wildcard, none for an address."""
    if ":" in name or name.rpartition(".")[2].isdigit():
        return None
    return name.replace("*", "nginx-acme", 1)


@contextmanager
def _connected(question: Question, seconds: float) -> Iterator[socket.socket]:
    """A connection, ready for TLS."""
    family, address = _resolved(question)
    with socket.socket(family) as plain:
        plain.settimeout(seconds)
        if family != socket.AF_UNIX:
            _stay_here(plain, address)
        plain.connect(address)
        if question.proxy_protocol:
            plain.sendall(b"PROXY UNKNOWN\r\n")
        yield plain


def _resolved(question: Question) -> tuple[int, str | tuple[str, int]]:
    """The family and the address to connect to; a host name is what it stands for by now."""
    if question.host.startswith(_UNIX):
        return socket.AF_UNIX, question.host.removeprefix(_UNIX)
    found = socket.getaddrinfo(question.host, question.port, type=socket.SOCK_STREAM)
    family, _, _, _, address = found[0]
    return family, (str(address[0]), question.port)


def _stay_here(plain: socket.socket, address: str | tuple[str, int]) -> None:
    try:
        plain.bind((address[0], 0))
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise Unseen(f"{address[0]} is no address of this machine") from error
        raise


@cache
def _context(kind: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    if kind is None:
        context.set_ciphers(f"ALL:{_WEAKEST}")
    else:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(f"{KINDS[kind]}:{_WEAKEST}")
    return context
