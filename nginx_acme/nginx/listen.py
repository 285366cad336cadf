"""What the arguments of `listen` say, by nginx's rules (ngx_parse_url(), ngx_http_core_listen()).

What may live here: one `listen` at a time, of `http`, `stream` and `mail` alike. Which server
answers where is a matter of all of them.

An address is compared as nginx compares it, so it is kept in one spelling: ``80``, ``*:80`` and
``0.0.0.0:80`` are one address. A host name stays a name: only nginx's own look-up at the moment of
its start says what it stands for. Parameters that are not of interest here are left to nginx, for
each release and each fork knows others.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from nginx_acme.encoding import to_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

_SOCKET_PATH_BYTES = 107
"""What sun_path has room for, before its NUL."""

_LAST_PORT = 65535
_LAST_OCTET = 255
_PORTS = re.compile(r"(?P<first>[0-9]+)(?:-(?P<last>[0-9]+))?")
_DOTTED = re.compile(r"([0-9]*)\.([0-9]*)\.([0-9]*)\.([0-9]*)")


class Address(NamedTuple):
    """Where a server listens.

    `host` is "0.0.0.0" or "::" for all, an IP address in canonical text, a host name as it is
    written, or "unix:/path" with the port 0.
    """

    host: str
    port: int

    def __str__(self) -> str:
        """As `listen` takes it and as nginx writes it."""
        if self.host.startswith("unix:"):
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Listen:
    """One address of a `listen` and those of its parameters that matter to certificates."""

    address: Address
    ssl: bool
    quic: bool
    default_server: bool
    proxy_protocol: bool
    ipv6only: bool
    """nginx's default is on; without meaning for other addresses than IPv6 ones."""


def parse_listen(args: Sequence[str], default_port: int = 80) -> tuple[Listen, ...]:
    """What a `listen` with these arguments listens on: one address, or each port of a range.

    Raises:
        ValueError: in nginx's words, for an address that nginx refuses.
    """
    if not args:
        raise ValueError('invalid number of arguments in "listen" directive')
    url, *parameters = args
    try:
        addresses = _addresses(url, default_port)
    except ValueError as error:
        raise ValueError(f'{error} in "{url}" of the "listen" directive') from None
    return tuple(
        Listen(
            address,
            ssl="ssl" in parameters,
            quic="quic" in parameters,
            default_server="default_server" in parameters or "default" in parameters,
            proxy_protocol="proxy_protocol" in parameters,
            ipv6only=_ipv6only(parameters),
        )
        for address in addresses
    )


def _addresses(url: str, default_port: int) -> list[Address]:
    if url[:5].lower() == "unix:":
        return [_socket(url[5:])]
    if url.startswith("["):
        host, ports = _ipv6(url, default_port)
    else:
        host, ports = _ipv4_or_name(url, default_port)
    return [Address(host, port) for port in ports]


def _socket(path: str) -> Address:
    if not path:
        raise ValueError("no path in the unix domain socket")
    if len(to_bytes(path)) > _SOCKET_PATH_BYTES:
        raise ValueError("too long path in the unix domain socket")
    return Address(f"unix:{path}", 0)


def _ipv6(url: str, default_port: int) -> tuple[str, range]:
    text, bracket, rest = url[1:].partition("]")
    if not bracket or (rest and not rest.startswith(":")) or "/" in rest:
        raise ValueError("invalid host")
    ports = _ports(rest[1:]) if rest else _one(default_port)
    if not text:
        raise ValueError("no host")
    if "%" in text:  # a scope: Python knows it, nginx does not
        raise ValueError("invalid IPv6 address")
    try:
        return str(ipaddress.IPv6Address(text)), ports
    except ValueError:
        raise ValueError("invalid IPv6 address") from None


def _ipv4_or_name(url: str, default_port: int) -> tuple[str, range]:
    if "/" in url or "?" in url:
        raise ValueError("invalid host")
    host, colon, port = url.partition(":")
    if colon:
        ports = _ports(port)
    elif _PORTS.fullmatch(url):
        host, ports = "*", _ports(url)
    else:
        ports = _one(default_port)
    if not host:
        raise ValueError("no host")
    return _canonical(host), ports


def _canonical(host: str) -> str:
    """The one spelling of an IPv4 address; nginx takes a missing number for 0."""
    if host == "*":
        return "0.0.0.0"  # noqa: S104 - nothing is bound here
    dotted = _DOTTED.fullmatch(host)
    if not dotted:
        return host
    octets = [int(octet or "0") for octet in dotted.groups()]
    return ".".join(map(str, octets)) if max(octets) <= _LAST_OCTET else host


def _ports(text: str) -> range:
    """The ports of ``80`` or ``8000-8010``."""
    ports = _PORTS.fullmatch(text)
    if not ports:
        raise ValueError("invalid port")
    first, last = int(ports["first"]), int(ports["last"] or ports["first"])
    if not (0 < first <= _LAST_PORT and 0 < last <= _LAST_PORT):
        raise ValueError("invalid port")
    if first > last:
        raise ValueError("invalid port range")
    return range(first, last + 1)


def _one(port: int) -> range:
    return range(port, port + 1)


def _ipv6only(parameters: Sequence[str]) -> bool:
    ipv6only = True
    for parameter in parameters:
        if not parameter.startswith("ipv6only=o"):
            continue
        if parameter not in ("ipv6only=on", "ipv6only=off"):
            raise ValueError(f'invalid ipv6only flags "{parameter[len("ipv6only=") :]}"')
        ipv6only = parameter == "ipv6only=on"
    return ipv6only
