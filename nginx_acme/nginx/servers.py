"""What nginx makes of `server` blocks: where they listen, in which way, and which one answers.

What may live here: nginx's own rules about servers, taken from its documentation ("How nginx
processes a request", "Server names") and tried on it. Nothing of ACME.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nginx_acme.errors import ConfigError
from nginx_acme.nginx.listen import Listen, parse_listen

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from nginx_acme.nginx.listen import Address
    from nginx_acme.nginx.source import Directive, Source

    Directives = Mapping[str, tuple[Directive, ...]]

KINDS = ("http", "stream", "mail")
"""The blocks of the main context that have servers."""


@dataclass(frozen=True, slots=True)
class Server:
    """A `server` block after includes. `own` and `outer` are directives by name.

    `outer` are those of the enclosing `http`, `stream` or `mail`, `names` the arguments of
    `server_name` in lower case, in order, each once.
    """

    kind: str
    block: Directive
    own: Directives
    outer: Directives
    listens: tuple[Listen, ...]
    names: tuple[str, ...]

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
            listens.extend(parse_listen(directive.args, default_port=80))
        except ValueError as error:
            place = source.place(directive)
            raise ConfigError(str(error), place.path, place.line) from error
    if not listens and kind == "http":
        listens.extend(parse_listen((str(default_port),)))
    names = dict.fromkeys(
        name.lower() for directive in own.get("server_name", ()) for name in directive.args
    )
    return Server(kind, block, own, outer, tuple(listens), tuple(names))


def tls_addresses(servers: Iterable[Server]) -> frozenset[tuple[str, Address]]:
    """Where TLS is spoken, as (kind, address).

    `ssl` belongs to the address: a second server that says only ``listen 443;`` there speaks TLS
    too. `ssl on` (nginx before 1.25.1) belongs to the server.
    """
    return frozenset(
        (server.kind, listen.address)
        for server in servers
        for listen in server.listens
        if listen.ssl or listen.quic or (server.kind != "mail" and server.says("ssl", "on"))
    )


def speaks_tls(server: Server, tls: frozenset[tuple[str, Address]]) -> bool:
    """Whether a certificate of this server is ever shown to anybody."""
    if server.says("ssl", "on"):
        return True
    if server.kind == "mail" and server.says("starttls", "on", "only"):
        return True
    return any((server.kind, listen.address) in tls for listen in server.listens)


class Choice:
    """Which `http` servers nginx may choose for a request to one address.

    Exact names win over ``*.example.com`` and ``.example.com`` (longest first), these over
    ``www.example.*``, these over regular expressions (first in the file), and without any the
    address's default server answers.
    """

    def __init__(self, servers: Sequence[Server], address: Address) -> None:
        here = [s for s in servers if any(x.address == address for x in s.listens)]
        self._exact: dict[str, Server] = {}
        self._leading: dict[str, Server] = {}
        self._trailing: dict[str, Server] = {}
        self._regex: list[Server] = []
        for server in here:
            for name in server.names or ("",):
                self._add(name, server)
        self.default = next(
            (s for s in here if any(x.address == address and x.default_server for x in s.listens)),
            here[0] if here else None,
        )

    def _add(self, name: str, server: Server) -> None:
        if name.startswith("~"):
            self._regex.append(server)
        elif name.startswith("*."):
            self._leading.setdefault(name[2:], server)
        elif name.startswith("."):
            self._leading.setdefault(name[1:], server)
            self._exact.setdefault(name[1:], server)
        elif name.endswith(".*"):
            self._trailing.setdefault(name[:-2], server)
        else:
            self._exact.setdefault(name, server)

    def of(self, name: str) -> tuple[Server, ...]:
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
        return (*self._regex, *([self.default] if self.default else []))
