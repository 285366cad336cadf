"""What nginx makes of `server` blocks: where they listen, in which way, and which one answers.

What may live here: nginx's own rules about servers, taken from its documentation ("How nginx
processes a request", "Server names") and tried on it. Nothing of ACME.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from nginx_acme.errors import ConfigError
from nginx_acme.nginx.listen import Listen, parse_listen

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from nginx_acme.nginx.listen import Address
    from nginx_acme.nginx.source import Source
    from nginx_acme.nginx.syntax import Directive

    Directives = Mapping[str, tuple[Directive, ...]]

KINDS = ("http", "stream", "mail")
"""The blocks of the main context that have servers."""


@dataclass(frozen=True, slots=True)
class Server:
    """A `server` block after includes. `own` and `outer` are directives by name.

    `outer` are those of the enclosing `http`, `stream` or `mail`, `names` the arguments of the
    `server_name` in force in lower case, in order, each once. `listens` are without UDP ones, on
    which nginx speaks no TLS, but for QUIC.
    """

    kind: str
    block: Directive
    own: Directives
    outer: Directives
    listens: tuple[Listen, ...]
    names: tuple[str, ...]

    @property
    def place(self) -> tuple[str, int]:
        """Its file and where it begins there: the same for both, where a file is included twice."""
        return self.block.path, self.block.start

    def inherited(self, name: str) -> tuple[Directive, ...]:
        """The directives called `name` that are in force: its own or, without any, the outer ones."""
        return self.own.get(name) or self.outer.get(name, ())

    def says(self, name: str, *values: str) -> bool:
        """Whether the directive `name` in force has one of `values` as its first argument."""
        return any(d.args and d.args[0].lower() in values for d in self.inherited(name))


def by_name(directives: Iterable[Directive]) -> dict[str, tuple[Directive, ...]]:
    """Directives grouped by name, in order."""
    groups: dict[str, list[Directive]] = {}
    for directive in directives:
        groups.setdefault(directive.name, []).append(directive)
    return {name: tuple(group) for name, group in groups.items()}


def read_servers(source: Source, default_port: int) -> tuple[Server, ...]:
    """Every server of the configuration in nginx's order.

    Args:
        source: the configuration.
        default_port: that of a server without `listen`: 80, or 8000 for an unprivileged nginx.

    Raises:
        ConfigError: a `listen` that nginx would refuse.
    """
    found: list[Server] = []
    for outer in source.expand(source.files[source.main].directives):
        if outer.name not in KINDS or outer.block is None:
            continue
        inside = list(source.expand(outer.block))
        settings = by_name(d for d in inside if d.name != "server")
        found.extend(
            _server(source, outer.name, directive, settings, default_port)
            for directive in inside
            if directive.name == "server" and directive.block is not None
        )
    return tuple(found)


def _server(
    source: Source, kind: str, block: Directive, outer: Directives, default_port: int
) -> Server:
    own = by_name(source.expand(block.block or ()))
    listens: list[Listen] = []
    for directive in own.get("listen", ()):
        try:
            listens.extend(() if "udp" in directive.args else _listens(directive.args))
        except ValueError as error:
            place = source.place(directive)
            raise ConfigError(str(error), place.path, place.line) from error
    if kind == "http" and "listen" not in own:
        listens.extend(_listens((str(default_port),)))
    said = own.get("server_name", ())
    if kind == "mail":  # the one kind whose `server_name` is inherited
        said = said or outer.get("server_name", ())
    names = dict.fromkeys(name.lower() for directive in said for name in directive.args)
    return Server(kind, block, own, outer, tuple(listens), tuple(names))


@lru_cache(maxsize=1024)
def _listens(args: tuple[str, ...]) -> tuple[Listen, ...]:
    """Ten thousand servers listen in a handful of ways."""
    return parse_listen(args)


def merged(listens: Iterable[Listen]) -> dict[Address, Listen]:
    """One `Listen` for each address.

    `proxy_protocol` and ``ipv6only=off`` hold for an address as soon as one server says so.
    """
    found: dict[Address, Listen] = {}
    for listen in listens:
        known = found.setdefault(listen.address, listen)
        if known != listen:
            found[listen.address] = replace(
                known,
                proxy_protocol=known.proxy_protocol or listen.proxy_protocol,
                ipv6only=known.ipv6only and listen.ipv6only,
            )
    return found


def tls_addresses(servers: Iterable[Server]) -> frozenset[tuple[str, Address]]:
    """Where TLS over TCP is spoken, as (kind, address).

    `ssl` belongs to the address: a second server that says only ``listen 443;`` there speaks TLS
    too. `ssl on` (nginx before 1.25.1) belongs to the server. QUIC is another socket, of the same
    address.
    """
    return frozenset(
        (server.kind, listen.address)
        for server in servers
        for listen in server.listens
        if listen.ssl or (server.kind != "mail" and server.says("ssl", "on"))
    )


def is_tls(kind: str, listen: Listen, tls: frozenset[tuple[str, Address]]) -> bool:
    """Whether TLS is spoken by this `listen` of a server of this kind."""
    return listen.quic or (kind, listen.address) in tls


def speaks_tls(server: Server, tls: frozenset[tuple[str, Address]]) -> bool:
    """Whether a certificate of this server is ever shown to anybody."""
    if any(is_tls(server.kind, listen, tls) for listen in server.listens):
        return True
    return server.says("ssl", "on") or (
        server.kind == "mail" and server.says("starttls", "on", "only")
    )


def choices(servers: Iterable[Server], addresses: Container[Address]) -> Iterator[Choice]:
    """A `Choice` for each of `addresses` where one of these `http` servers listens."""
    here: dict[Address, list[Server]] = {}
    for server in servers:
        for address in dict.fromkeys(listen.address for listen in server.listens):
            if address in addresses:
                here.setdefault(address, []).append(server)
    return (Choice(those, address) for address, those in here.items())


class Choice:
    """Which of the `http` servers of one address nginx may choose for a request.

    Exact names win over ``*.example.com`` and ``.example.com`` (longest first), these over
    ``www.example.*``, these over regular expressions (first in the file), and without any the
    address's default server answers.
    """

    def __init__(self, servers: Sequence[Server], address: Address) -> None:
        self._exact: dict[str, Server] = {}
        self._leading: dict[str, Server] = {}
        self._trailing: dict[str, Server] = {}
        self._otherwise: list[Server] = []
        for server in servers:
            for name in server.names or ("",):
                self._add(name, server)
        says_so = (
            s for s in servers for x in s.listens if x.default_server and x.address == address
        )
        self._otherwise.append(next(says_so, servers[0]))

    def _add(self, name: str, server: Server) -> None:
        if name.startswith("~"):
            self._otherwise.append(server)
        elif name.startswith("*."):
            self._leading.setdefault(name[2:], server)
        elif name.startswith("."):
            self._leading.setdefault(name[1:], server)
            self._exact.setdefault(name[1:], server)
        elif name.endswith(".*"):
            self._trailing.setdefault(name[:-2], server)
        else:
            self._exact.setdefault(name, server)

    def of(self, name: str) -> Sequence[Server]:
        """The server for `name`; several where only a regular expression could tell.

        The expressions are PCRE and can't be tried here, so all of their servers may be chosen,
        and the default one where none matches.
        """
        if name in self._exact:
            return (self._exact[name],)
        labels = name.split(".")
        for i in range(1, len(labels)):
            if (parent := ".".join(labels[i:])) in self._leading:
                return (self._leading[parent],)
        for i in range(len(labels) - 1, 0, -1):
            if (start := ".".join(labels[:i])) in self._trailing:
                return (self._trailing[start],)
        return self._otherwise

    def of_any(self, names: AbstractSet[str]) -> Iterator[Server]:
        """The servers for all of `names`, some more than once.

        In sets, since there may be a thousand addresses and ten thousand names.
        """
        exact = self._exact.keys() & names
        yield from (self._exact[name] for name in exact)
        if self._leading or self._trailing:
            for name in names - exact:
                yield from self.of(name)
        elif len(exact) < len(names):
            yield from self._otherwise
