"""Where each certificate is shown: what a handshake has to ask for to see it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nginx_acme.nginx.servers import is_tls

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from nginx_acme.nginx.listen import Address, Listen
    from nginx_acme.nginx.servers import Server
    from nginx_acme.plan.certificates import Certificate, Managed


@dataclass(frozen=True, slots=True)
class Shown:
    """A server that shows a certificate.

    `certificate` is its place among those of the plan, `names` those of its names that are in
    it, as the certificate has them, `key_types` those that this server has it with. `listens` are
    those that speak TLS from the first byte, or QUIC; none where a `mail` server only has STARTTLS.
    """

    certificate: int
    kind: str
    names: tuple[str, ...]
    key_types: tuple[str, ...]
    listens: tuple[Listen, ...]


def shown(
    managed: Iterable[Managed],
    certificates: Sequence[Certificate],
    servers: Iterable[Server],
    tls: frozenset[tuple[str, Address]],
) -> Iterator[Shown]:
    """Each server with a certificate of its own, in the order of the configuration."""
    numbers = {certificate.identity: i for i, certificate in enumerate(certificates)}
    proxied = frozenset(_proxied(servers))
    for one in managed:
        if one.identity is None:
            continue
        server, number = one.server, numbers[one.identity]
        listens = tuple(
            replace(x, proxy_protocol=not x.quic and x.address in proxied)
            for x in server.listens
            if is_tls(server.kind, x, tls)
        )
        names = tuple(name.value for name in certificates[number].names)
        yield Shown(number, server.kind, names, one.key_types, listens)


def _proxied(servers: Iterable[Server]) -> Iterator[Address]:
    """Where nginx wants a PROXY header: it holds for an address as soon as one server says so."""
    for server in servers:
        for listen in server.listens:
            if listen.proxy_protocol:
                yield listen.address
