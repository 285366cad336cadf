"""Where plain HTTP is spoken: who answers a challenge on which address, and where nobody does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nginx_acme.nginx.listen import Address, Listen, parse_listen
from nginx_acme.nginx.servers import choices, is_tls, merged, speaks_tls

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from nginx_acme.nginx.servers import Server
    from nginx_acme.nginx.source import Place
    from nginx_acme.plan.certificates import Certificate, Managed
    from nginx_acme.plan.issuers import Issuer
    from nginx_acme.plan.said import Said

    Tls = frozenset[tuple[str, Address]]

HTTP_PORT = 80
HTTPS_PORT = 443


def plain_listens(servers: Iterable[Server], tls: Tls) -> dict[Address, Listen]:
    """Where the user's `http` servers speak HTTP without TLS."""
    return merged(
        listen
        for server in servers
        if server.kind == "http"
        for listen in server.listens
        if not is_tls("http", listen, tls)
    )


def challenge_listens(
    said: Said, plain: Mapping[Address, Listen], certificates: Sequence[Certificate]
) -> tuple[Listen, ...]:
    """Where HTTP-01 must be answered: `acme_http_listen`, or what a CA can reach."""
    directive = said.once("acme_http_listen")
    wanted: dict[Address, Listen] = {}
    if directive is not None:
        try:
            wanted = merged(x for argument in directive.args for x in parse_listen((argument,)))
        except ValueError as error:
            message = str(error).replace('"listen"', '"acme_http_listen"')
            raise said.error(directive, message) from error
    if all(certificate.issuer.local for certificate in certificates):
        return ()
    if directive is None:
        wanted = {address: x for address, x in plain.items() if not _unreachable(address)}
        if not any(address.port == HTTP_PORT for address in wanted):
            wanted |= merged((*parse_listen(("80",)), *parse_listen(("[::]:80",))))
    listens = [plain.get(address, listen) for address, listen in wanted.items()]
    dual = _dual_ports(listens)
    return tuple(listen for listen in listens if not _held_by(dual, listen.address))


def _unreachable(address: Address) -> bool:
    """No CA gets there: `unix:` and loopback."""
    host = address.host
    return host.startswith(("unix:", "127.")) or host in {"::1", "localhost"}


def added_listens(wanted: Iterable[Listen], servers: Iterable[Server]) -> tuple[Listen, ...]:
    """The addresses that nobody of the user's servers holds.

    Two sockets of one port and address there can't be, so nginx would refuse to start.
    """
    theirs = [x for server in servers for x in server.listens if not x.quic]
    held = {listen.address for listen in theirs}
    dual = _dual_ports(theirs)
    return tuple(
        listen
        for listen in wanted
        if listen.address not in held and not _held_by(dual, listen.address)
    )


def deaf_servers(
    wanted: Iterable[Listen], servers: Sequence[Server], plain: Mapping[Address, Listen]
) -> Iterator[tuple[Address, Server]]:
    """The addresses where HTTP-01 must be answered and a server speaks something else.

    A first certificate may come by the temporary server, before nginx runs; no renewal does.
    """
    for listen in wanted:
        if listen.address in plain:
            continue
        holder = next((s for s in servers if _holds(s, listen.address)), None)
        if holder is not None:
            yield listen.address, holder


def _holds(server: Server, address: Address) -> bool:
    theirs = [listen for listen in server.listens if not listen.quic]
    return any(x.address == address for x in theirs) or _held_by(_dual_ports(theirs), address)


def _dual_ports(listens: Iterable[Listen]) -> set[int]:
    """The ports of ``[::] ipv6only=off``, which are those of all IPv4 addresses as well."""
    return {x.address.port for x in listens if x.address.host == "::" and not x.ipv6only}


def _held_by(dual: set[int], address: Address) -> bool:
    return address.port in dual and ":" not in address.host


def answering_servers(
    servers: Sequence[Server],
    plain: Mapping[Address, Listen],
    certificates: Iterable[Certificate],
) -> tuple[Server, ...]:
    """The `http` servers that nginx may choose for a challenge, on every plain address.

    Not all servers: ten thousand of them with an answer cost 80 MiB and half of the time that
    nginx takes to read them.
    """
    http = [server for server in servers if server.kind == "http"]
    hosts = {host for certificate in certificates for host in challenged_hosts(certificate)}
    found = {server.place for choice in choices(http, plain) for server in choice.of_any(hosts)}
    return tuple(server for server in http if server.place in found)


def challenged_hosts(certificate: Certificate) -> Iterator[str]:
    """The hosts that a CA asks for a certificate's challenges, as nginx's ``$host`` has them."""
    if certificate.issuer.local:
        return
    for name in certificate.names:
        if not name.wildcard:
            yield f"[{name.value}]" if ":" in name.value else name.value


def whose_hosts(certificates: Iterable[Certificate]) -> dict[str, Issuer]:
    """For whose account each host answers, where it does so for any token: the first issuer's."""
    hosts: dict[str, Issuer] = {}
    for certificate in certificates:
        for host in challenged_hosts(certificate):
            hosts.setdefault(host, certificate.issuer)
    return hosts


def contested(
    hosts: Mapping[str, Issuer], certificates: Iterable[Certificate]
) -> Iterator[tuple[str, Place]]:
    """A warning for each host where another issuer looks for the answer of its own account."""
    for certificate in certificates:
        other = certificate.issuer
        for host in challenged_hosts(certificate):
            first = hosts.get(host, other)
            if (first.directory_url, first.account_key) != (other.directory_url, other.account_key):
                text = (
                    f'"acme_challenge_answer any" answers for {host} as "{first.name}" wants it, so'
                    f' "{other.name}" must not come upon another node than the one that asks it'
                )
                yield text, certificate.places[0]


def redirect_ports(
    managed: Iterable[Managed],
    certificates: Iterable[Certificate],
    servers: Iterable[Server],
    tls: Tls,
) -> dict[str, int | None]:
    """The port where `https` answers for each name; None for one of `mail` or `stream` alone.

    Also for those names of other servers that nginx prefers to a wildcard among these.
    """
    names = {certificate.identity: certificate.names for certificate in certificates}
    ports: dict[str, int | None] = {}
    for one in managed:
        if one.identity is None:
            continue
        port = _https_port(one.server, tls)
        for name in names[one.identity]:
            ports[name.value] = ports.get(name.value) or port
    wide = tuple(value[1:] for value in ports if value.startswith("*."))
    for server in servers if wide else ():
        if server.kind == "http" and speaks_tls(server, tls):
            port = _https_port(server, tls)
            for value in _spelled_out(server.names):
                if value.endswith(wide):
                    ports[value] = ports.get(value) or port
    return ports


def _spelled_out(names: Iterable[str]) -> Iterator[str]:
    """Names and wildcards, ``.example.com`` as the two that it stands for."""
    for name in names:
        if name.startswith("."):
            yield from (name[1:], f"*{name}")
        elif not name.startswith("~"):
            yield name


def _https_port(server: Server, tls: Tls) -> int | None:
    if server.kind != "http":
        return None
    ports = [x.address.port for x in server.listens if is_tls("http", x, tls)]
    return HTTPS_PORT if HTTPS_PORT in ports else next(iter(ports), HTTPS_PORT)
