"""Which server shows which certificate, and so which certificates there are to be.

A certificate is named by its identity (issuer's directory URL, set of names, profile), never by
the server that asked for it: servers with the same names share one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nginx_acme import directives
from nginx_acme.acme.presets import limits
from nginx_acme.directives import Mistake
from nginx_acme.nginx.servers import speaks_tls
from nginx_acme.plan.issuers import DEFAULT_KEY, asked_by
from nginx_acme.plan.names import identifiers
from nginx_acme.plan.said import is_variable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from nginx_acme.directives import Acme
    from nginx_acme.identifiers import Name
    from nginx_acme.nginx.listen import Address
    from nginx_acme.nginx.servers import Server
    from nginx_acme.nginx.source import Place
    from nginx_acme.nginx.syntax import Directive
    from nginx_acme.plan.issuers import Issuer
    from nginx_acme.plan.names import Identifiers
    from nginx_acme.plan.said import Said

STREAM_SERVER_NAME = (1, 25, 5)
"""The first nginx whose `stream` servers have names."""

Identity = tuple[str, frozenset[str], str | None]


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate to have: `names` in the order of the first server that asked.

    `key_types` are those of all servers that use it, `places` where they say so.
    """

    issuer: Issuer
    names: tuple[Name, ...]
    profile: str | None
    key_types: tuple[str, ...]
    places: tuple[Place, ...]
    optional: frozenset[str] = frozenset()
    """Names that we added (`www` of ``.example.com``): no order waits for them."""

    @property
    def identity(self) -> Identity:
        """What makes this certificate the same one after any edit of the configuration."""
        return self.issuer.directory_url, frozenset(n.value for n in self.names), self.profile


@dataclass(frozen=True, slots=True)
class Managed:
    """A server and the certificate that it shows; no certificate: any that is there."""

    server: Server
    identity: Identity | None
    key_types: tuple[str, ...]


@dataclass(slots=True)
class Certificates:
    """Gathers what the servers want; `managed` are in their order, the nameless ones last."""

    said: Said
    issuers: Mapping[str, Issuer]
    tls: frozenset[tuple[str, Address]]
    version: tuple[int, ...]
    hostname: str
    managed: list[Managed] = field(default_factory=list)
    warnings: list[tuple[str, Place | None]] = field(default_factory=list)
    _wanted: dict[Identity, list[Certificate]] = field(default_factory=dict)

    def read(self, servers: Iterable[Server]) -> tuple[Certificate, ...]:
        """Each certificate that a server wants, once."""
        nameless: list[Managed] = []
        for server in servers:
            directive = self._acme_of(server)
            if directive is None:
                continue
            own = directive in server.own.get("acme", ())
            with self.said.at(directive):
                acme = directives.acme(directive.args)
                issuer = asked_by(acme, self.issuers)
                found = identifiers(server.names, issuer, self.hostname, strict=own)
                keys = acme.keys or (default_key(server),)
                if self._has_names(found, server, directive, own=own):
                    certificate = self._certificate(directive, acme, issuer, found, keys, own=own)
                    identity = certificate.identity
                    self._wanted.setdefault(identity, []).append(certificate)
                    self.managed.append(Managed(server, identity, keys))
                else:
                    nameless.append(Managed(server, None, keys))
        self.managed += _borrowing(nameless, self.managed)
        return tuple(map(_shared, self._wanted.values()))

    def _acme_of(self, server: Server) -> Directive | None:
        """The `acme` in force for this server, where there is one that isn't off."""
        own, outer = server.own.get("acme", ()), server.outer.get("acme", ())
        for level in (own, outer):
            if len(level) > 1:
                raise self.said.error(level[1], '"acme" directive is duplicate')
        if own:
            return self._own_acme(server, own[0])
        if not outer or outer[0].args == ("off",):
            return None
        if _names_certificate(server.outer):
            raise self.said.error(
                outer[0], f'"acme" and "ssl_certificate" in one {server.kind}, which one is meant?'
            )
        if _names_certificate(server.own) or server.says("ssl_reject_handshake", "on"):
            return None
        return outer[0] if speaks_tls(server, self.tls) else None

    def _own_acme(self, server: Server, directive: Directive) -> Directive | None:
        if directive.args == ("off",):
            return None
        if _names_certificate(server.own):
            raise self.said.error(
                directive, '"acme" and "ssl_certificate" in one server, which one is meant?'
            )
        if server.kind == "stream" and self.version < STREAM_SERVER_NAME:
            raise self.said.error(
                directive, '"acme" in a stream server needs "server_name", so nginx 1.25.5 or newer'
            )
        if not speaks_tls(server, self.tls):
            needed = "listen 443 ssl;" if server.kind == "http" else "ssl on its listen"
            raise self.said.error(directive, f'"acme" in a server without TLS, add "{needed}"')
        return directive

    def _has_names(
        self, found: Identifiers, server: Server, directive: Directive, *, own: bool
    ) -> bool:
        """Whether there is anything to ask for; says what is left out."""
        for text in found.left_out:
            self._warn(directive, text)
        if not found.names and own:
            raise Mistake('no identifiers for "acme"')
        if not found.names:
            where = self.said.source.place(server.block)
            self._warn(directive, f"no identifiers for the server in {where}")
        return bool(found.names)

    def _certificate(
        self,
        directive: Directive,
        acme: Acme,
        issuer: Issuer,
        found: Identifiers,
        keys: tuple[str, ...],
        *,
        own: bool,
    ) -> Certificate:
        """What one server wants, within what its issuer certifies."""
        profile = acme.profile or issuer.profile
        names, bounds = found.names, limits(issuer.directory_url, profile)
        if len(names) > bounds.names:
            raise Mistake(
                f'{len(names)} identifiers, issuer "{issuer.name}" certifies {bounds.names} at'
                " once, split the server"
            )
        if not bounds.ip and any(name.is_ip for name in names):
            names = tuple(name for name in names if not name.is_ip)
            if own or not names:
                raise Mistake(
                    f'issuer "{issuer.name}" certifies IP addresses only with'
                    ' "acme profile=shortlived;"'
                )
            self._warn(directive, "IP addresses are left out without profile=shortlived")
        place = self.said.source.place(directive)
        return Certificate(issuer, names, profile, keys, (place,), found.optional)

    def _warn(self, directive: Directive, message: str) -> None:
        self.warnings.append((message, self.said.source.place(directive)))


def _names_certificate(level: Mapping[str, Sequence[Directive]]) -> bool:
    """Whether it names a certificate of its own, our variables not counted."""
    return any(not is_variable(directive) for directive in level.get("ssl_certificate", ()))


def _shared(wanted: Sequence[Certificate]) -> Certificate:
    """One certificate for all who want the same; the key types of all of them."""
    if len(wanted) == 1:
        return wanted[0]
    return replace(
        wanted[0],
        key_types=tuple(dict.fromkeys(key for one in wanted for key in one.key_types)),
        places=tuple(dict.fromkeys(place for one in wanted for place in one.places)),
        optional=frozenset.intersection(*(one.optional for one in wanted)),
    )


def _borrowing(nameless: Iterable[Managed], named: Iterable[Managed]) -> list[Managed]:
    """A server without a name shows the certificate of its address's first named server."""
    first: dict[tuple[str, Address], Managed] = {}
    for one in named:
        for listen in one.server.listens:
            first.setdefault((one.server.kind, listen.address), one)
    borrowing: list[Managed] = []
    for one in nameless:
        lenders = (first.get((one.server.kind, x.address)) for x in one.server.listens)
        lender = next(filter(None, lenders), one)
        borrowing.append(replace(lender, server=one.server))
    return borrowing


# OpenSSL's words for groups that leave the kind of key open; a suite that names RSA doesn't.
_RSA_ONLY = re.compile(
    r"(?:ECDHE|EECDH|DHE|EDH|kEDH|ECDH|DH)-RSA-.*|[ak]?RSA\b.*|.*\+a?RSA\b.*|"
    r"(?:AES|CAMELLIA|ARIA|DES|SEED|IDEA|RC4|NULL)(?:\d|-).*|TLS_RSA_.*"
)


def default_key(server: Server) -> str:
    """Where none is said: ECDSA, except where TLS 1.2 clients could agree on no suite for it."""
    ciphers = server.inherited("ssl_ciphers")
    if not ciphers:
        return DEFAULT_KEY
    protocols = {p for d in server.inherited("ssl_protocols") for p in d.args}
    if protocols == {"TLSv1.3"}:
        return DEFAULT_KEY
    said = [
        suite
        for directive in ciphers
        for argument in directive.args
        for suite in re.split(r"[:, ]+", argument)
    ]
    suites = [x for x in said if x and x[0] not in "!-+@" and not x.startswith("TLS_AES")]
    rsa_only = suites and all(map(_RSA_ONLY.fullmatch, suites))
    return "rsa:2048" if rsa_only or {"!ECDSA", "!aECDSA"} & set(said) else DEFAULT_KEY
