"""The user's configuration, understood: which certificates, from whom, for which servers.

What may live here: decisions that follow from the configuration alone. No file is looked at, no
clock and no network; what nginx itself would know besides its configuration comes in as `Facts`.
`generate` turns a plan and the places of its files into text.

A plan names every certificate by its identity (issuer's directory URL, set of names, profile),
never by the server that asked for it: servers with the same names share one.
"""

from __future__ import annotations

import posixpath
import re
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nginx_acme import directives
from nginx_acme.acme.presets import BUILT_IN, LOCAL, limits
from nginx_acme.directives import Acme, IssuerBlock, Mistake
from nginx_acme.errors import ConfigError
from nginx_acme.identifiers import Name, NotCertifiable, name_of, why_not_public
from nginx_acme.key_types import KEY_TYPES
from nginx_acme.nginx.listen import Address, Listen, parse_listen
from nginx_acme.nginx.servers import KINDS, Choice, Server, read_servers, speaks_tls, tls_addresses

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from nginx_acme.nginx.source import Directive, Place, Source

DEFAULT_ISSUER = "letsencrypt"
DEFAULT_START_WAIT = 15.0
DEFAULT_KEY = "ecdsa:256"
HTTP_PORT = 80
VARIABLES = frozenset(
    {
        ("ssl_certificate", ("$acme_certificate",)),
        ("ssl_certificate_key", ("$acme_certificate_key",)),
    }
)
"""The long form of nginx's own ACME module, which says no more than `acme` does."""
CHALLENGE_PATH = "/.well-known/acme-challenge"
STREAM_SERVER_NAME = (1, 25, 5)
"""The first nginx whose `stream` servers have names."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What nginx knows besides its configuration."""

    version: tuple[int, ...]
    hostname: str
    privileged: bool = True


@dataclass(frozen=True, slots=True)
class Issuer:
    """Whom to ask, and as whom: `name` is the configuration's, `directory_url` the identity."""

    name: str
    directory_url: str
    public: bool
    contacts: tuple[str, ...] = ()
    account_key: str = DEFAULT_KEY
    trusted_certificate: str | None = None
    verify: bool = True
    accept_terms: bool = False
    profile: str | None = None
    profile_required: bool = False

    @property
    def local(self) -> bool:
        """Whether this is the certificate authority in the state directory."""
        return self.directory_url == LOCAL


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


Identity = tuple[str, frozenset[str], str | None]


@dataclass(frozen=True, slots=True)
class Managed:
    """A server and the certificate that it shows; no certificate: any that is there."""

    server: Server
    identity: Identity | None
    key_types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """The directives that are said once; None where the configuration says nothing."""

    state_path: str | None = None
    start_wait: float = DEFAULT_START_WAIT
    redirect: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that follows from the configuration."""

    settings: Settings
    certificates: tuple[Certificate, ...]
    managed: tuple[Managed, ...]
    listens: tuple[Listen, ...]
    """Where HTTP-01 must be answered (`acme_http_listen`, or what it stands for)."""
    added: tuple[Listen, ...]
    """Those of them where no server of the user listens."""
    answering: tuple[Server, ...]
    """The user's servers that nginx may choose for a challenge."""
    redirect_ports: Mapping[str, int]
    """The TLS port of each managed name of an `http` server."""
    ours: tuple[Directive, ...]
    """Every directive that nginx must not see."""
    serves_already: bool
    """Whether nginx has something to serve before any certificate is there."""
    warnings: tuple[tuple[str, Place | None], ...]

    @property
    def issuers(self) -> tuple[Issuer, ...]:
        """Those that a certificate is wanted from, each once."""
        return tuple(dict.fromkeys(c.issuer for c in self.certificates))


def concerns_us(source: Source) -> bool:
    """Whether the configuration has any directive of ours; if not, nginx gets it untouched.

    `acme_client` is Angie's own client, and `acme` then too. nginx's own ACME module shares
    `acme_issuer` with us, so its configuration is known by `acme_certificate` without any `acme`.
    """
    names = {directive.name for directive, _ in source.walk() if directive.name.startswith("acme")}
    if "acme_client" in names:
        return False
    if names & {"acme_certificate", "acme_shared_zone"} and "acme" not in names:
        return False
    return bool(names - directives.FOREIGN)


def make_plan(source: Source, facts: Facts) -> Plan:
    """Understand the whole configuration.

    Raises:
        ConfigError: the first mistake that is found, with its place.
    """
    return _Planner(source, facts).plan()


@dataclass(slots=True)
class _Planner:
    """The steps of `make_plan` and what they gather on the way."""

    source: Source
    facts: Facts
    ours: list[Directive] = field(default_factory=list)
    said: dict[str, list[Directive]] = field(default_factory=dict)
    warnings: list[tuple[str, Place | None]] = field(default_factory=list)
    issuers: dict[str, Issuer] = field(default_factory=dict)
    certificates: dict[Identity, Certificate] = field(default_factory=dict)

    def plan(self) -> Plan:
        self._collect()
        settings = self._settings()
        self._declare_issuers()
        port = HTTP_PORT if self.facts.privileged else 8000
        servers = read_servers(self.source, port)
        tls = tls_addresses(servers)
        managed = tuple(self._managed(servers, tls))
        plain = [x for s in servers if s.kind == "http" for x in s.listens if _plain(x, tls)]
        listens = self._listens(plain)
        names = {n.value for c in self.certificates.values() for n in c.names}
        return Plan(
            settings=settings,
            certificates=tuple(self.certificates.values()),
            managed=managed,
            listens=listens,
            added=_added(listens, [x.address for s in servers for x in s.listens], plain),
            answering=tuple(_answering(servers, plain, names)),
            redirect_ports=_redirect_ports(managed, tls, self.certificates),
            ours=tuple(self.ours),
            serves_already=_serves_already(servers, managed, tls),
            warnings=tuple(self.warnings),
        )

    # What is said, and where -------------------------------------------------------------

    def _collect(self) -> None:
        """Find every directive of ours and refuse those that stand in a wrong place."""
        for directive, ancestors in self.source.walk():
            if (directive.name, directive.args) in VARIABLES:
                self.ours.append(directive)
            if not directive.name.startswith("acme") or directive.name in directives.FOREIGN:
                continue
            context = _context(ancestors)
            if context is None:
                continue
            with self._at(directive):
                directives.check(directive, context)
            self.ours.append(directive)
            self.said.setdefault(directive.name, []).append(directive)

    @contextmanager
    def _at(self, directive: Directive) -> Iterator[None]:
        """Give a mistake its place."""
        try:
            yield
        except Mistake as mistake:
            raise self._error(directive, str(mistake)) from mistake

    def _error(self, directive: Directive, message: str) -> ConfigError:
        place = self.source.place(directive)
        return ConfigError(message, place.path, place.line)

    def _warn(self, directive: Directive, message: str) -> None:
        self.warnings.append((message, self.source.place(directive)))

    def _once(self, name: str) -> Directive | None:
        """The directive `name`, which may be said once in the whole configuration."""
        said = self.said.get(name, [])
        if len(said) > 1:
            raise self._error(said[1], f'"{name}" directive is duplicate')
        return said[0] if said else None

    def _settings(self) -> Settings:
        settings = Settings()
        if path := self._once("acme_state_path"):
            with self._at(path):
                absolute = posixpath.join(self.source.folder, path.args[0])
                settings = replace(settings, state_path=_state_path(absolute))
        if wait := self._once("acme_start_wait"):
            with self._at(wait):
                settings = replace(settings, start_wait=directives.seconds(wait.args[0]))
        if redirect := self._once("acme_redirect"):
            with self._at(redirect):
                value = directives.flag("acme_redirect", redirect.args[0])
            settings = replace(settings, redirect=value)
        return settings

    # Issuers -----------------------------------------------------------------------------

    def _declare_issuers(self) -> None:
        """Built-in issuers, then the `acme_issuer` blocks, which may add to a built-in one."""
        contacts: tuple[str, ...] = ()
        if contact := self._once("acme_contact"):
            with self._at(contact):
                contacts = directives.contacts(contact.args)
        for name, preset in BUILT_IN.items():
            self.issuers[name] = Issuer(
                name, preset.directory_url, preset.public, contacts, accept_terms=True
            )
        declared: set[str] = set()
        for directive in self.said.get("acme_issuer", []):
            name = directive.args[0]
            if name in declared:
                raise self._error(directive, f'duplicate issuer "{name}"')
            declared.add(name)
            self.issuers[name] = self._issuer(directive, contacts)

    def _issuer(self, directive: Directive, contacts: tuple[str, ...]) -> Issuer:
        block = IssuerBlock()
        for inner in self.source.expand(directive.block or ()):
            with self._at(inner):
                block = directives.issuer_directive(block, inner)
        name = directive.args[0]
        known = self.issuers.get(name)
        if block.uri is None and known is None:
            raise self._error(directive, f'"uri" is missing in issuer "{name}"')
        if known is not None and known.local and block.said - {"contact"}:
            raise self._error(
                directive, f'issuer "{name}" asks nobody, there is nothing to declare'
            )
        same = known is not None and block.uri in {None, known.directory_url}
        key = block.account_key or DEFAULT_KEY
        return Issuer(
            name=name,
            directory_url=block.uri or (known.directory_url if known else ""),
            public=same and known is not None and known.public,
            contacts=block.contacts or contacts,
            account_key=key if key in KEY_TYPES else posixpath.join(self.source.folder, key),
            trusted_certificate=block.trusted_certificate
            and posixpath.join(self.source.folder, block.trusted_certificate),
            verify=block.verify,
            accept_terms=block.accept_terms or same,
            profile=block.profile,
            profile_required=block.profile_required,
        )

    def _named_issuer(self, directive: Directive, acme: Acme) -> Issuer:
        if not acme.issuers:
            return self.issuers.get("default", self.issuers[DEFAULT_ISSUER])
        name = acme.issuers[0]
        if name not in self.issuers:
            near = directives.nearest(name, self.issuers)
            raise self._error(directive, f'issuer "{name}" is missing{near}')
        return self.issuers[name]

    # Servers -----------------------------------------------------------------------------

    def _managed(
        self, servers: Sequence[Server], tls: frozenset[tuple[str, Address]]
    ) -> Iterator[Managed]:
        """Each server with the certificate that `acme` gives it."""
        named: list[Managed] = []
        nameless: list[Managed] = []
        for server in servers:
            directive = self._acme_of(server, tls)
            if directive is None:
                continue
            own = directive in server.own.get("acme", ())
            with self._at(directive):
                acme = directives.acme(directive.args)
            issuer = self._named_issuer(directive, acme)
            names, optional = self._names(server, directive, issuer, own=own)
            keys = acme.keys or (_default_key(server),)
            if not names:
                nameless.append(Managed(server, None, keys))
                continue
            certificate = self._certificate(directive, acme, issuer, names, own=own)
            certificate = replace(certificate, key_types=keys, optional=optional)
            one = Managed(server, self._share(certificate), keys)
            named.append(one)
            yield one
        for one in nameless:
            yield _borrow(one, named)

    def _acme_of(self, server: Server, tls: frozenset[tuple[str, Address]]) -> Directive | None:
        """The `acme` in force for this server, where there is one that isn't off."""
        own, outer = server.own.get("acme", ()), server.outer.get("acme", ())
        for level in (own, outer):
            if len(level) > 1:
                raise self._error(level[1], '"acme" directive is duplicate')
        certificates = _certificates_of(server.own)
        if own:
            return self._own_acme(server, own[0], tls, certificates)
        if not outer or outer[0].args == ("off",):
            return None
        if _certificates_of(server.outer):
            raise self._error(
                outer[0], f'"acme" and "ssl_certificate" in one {server.kind}, which one is meant?'
            )
        if certificates or server.says("ssl_reject_handshake", "on"):
            return None
        return outer[0] if speaks_tls(server, tls) else None

    def _own_acme(
        self,
        server: Server,
        directive: Directive,
        tls: frozenset[tuple[str, Address]],
        certificates: bool,  # noqa: FBT001
    ) -> Directive | None:
        if directive.args == ("off",):
            return None
        if certificates:
            raise self._error(
                directive, '"acme" and "ssl_certificate" in one server, which one is meant?'
            )
        if server.kind == "stream" and self.facts.version < STREAM_SERVER_NAME:
            raise self._error(
                directive, '"acme" in a stream server needs "server_name", so nginx 1.25.5 or newer'
            )
        if not speaks_tls(server, tls):
            needed = "listen 443 ssl;" if server.kind == "http" else "ssl on its listen"
            raise self._error(directive, f'"acme" in a server without TLS, add "{needed}"')
        return directive

    def _names(
        self, server: Server, directive: Directive, issuer: Issuer, *, own: bool
    ) -> tuple[tuple[Name, ...], frozenset[str]]:
        """The identifiers of a server, and those of them that may be left out of an order."""
        names: dict[Name, None] = {}
        optional: set[str] = set()
        for text in server.names:
            if text in {"", "_"}:
                continue
            try:
                for part, added in _parts(text, self.facts.hostname):
                    name = name_of(part)
                    self._refuse(name, issuer)
                    names[name] = None
                    if added and part not in server.names:
                        optional.add(name.value)
            except NotCertifiable as reason:
                if own and not isinstance(reason, _LeftOut):
                    raise self._error(
                        directive, f'invalid identifier "{text}" for "acme", {reason}'
                    ) from reason
                self._warn(directive, f'"{text}" gets no certificate, {reason}')
        if not names and own:
            raise self._error(directive, 'no identifiers for "acme"')
        if not names:
            where = self.source.place(server.block)
            self._warn(directive, f"no identifiers for the server in {where}")
        return tuple(names), frozenset(optional)

    def _refuse(self, name: Name, issuer: Issuer) -> None:
        """Leave out what this issuer can never certify, refuse what it could in another way."""
        if issuer.public and (reason := why_not_public(name)):
            raise _LeftOut(reason)
        if name.wildcard and not issuer.local:
            raise NotCertifiable(
                'a wildcard needs a "dns-01" challenge, and "http-01" is the only one so far'
            )

    def _certificate(
        self,
        directive: Directive,
        acme: Acme,
        issuer: Issuer,
        names: tuple[Name, ...],
        *,
        own: bool,
    ) -> Certificate:
        profile = acme.profile or issuer.profile
        bounds = limits(issuer.directory_url, profile)
        if len(names) > bounds.names:
            raise self._error(
                directive,
                f'{len(names)} identifiers, issuer "{issuer.name}" certifies {bounds.names} at'
                " once, split the server",
            )
        if not bounds.ip and any(name.is_ip for name in names):
            hosts = tuple(name for name in names if not name.is_ip)
            if own or not hosts:
                raise self._error(
                    directive,
                    f'issuer "{issuer.name}" certifies IP addresses only with'
                    ' "acme profile=shortlived;"',
                )
            self._warn(directive, "IP addresses are left out without profile=shortlived")
            names = hosts
        return Certificate(issuer, names, profile, (), (self.source.place(directive),))

    def _share(self, wanted: Certificate) -> Identity:
        """One certificate for all who want the same; the key types of all of them."""
        known = self.certificates.get(wanted.identity, wanted)
        self.certificates[wanted.identity] = replace(
            known,
            key_types=tuple(dict.fromkeys(known.key_types + wanted.key_types)),
            places=tuple(dict.fromkeys(known.places + wanted.places)),
            optional=known.optional & wanted.optional,
        )
        return wanted.identity

    # Addresses ---------------------------------------------------------------------------

    def _listens(self, plain: Sequence[Listen]) -> tuple[Listen, ...]:
        """Where HTTP-01 must be answered."""
        if all(certificate.issuer.local for certificate in self.certificates.values()):
            plain = ()
        directive = self._once("acme_http_listen")
        if directive is not None:
            try:
                said = [x for argument in directive.args for x in parse_listen((argument,))]
            except ValueError as error:
                raise self._error(directive, str(error)) from error
            theirs = {listen.address: listen for listen in plain}
            return tuple({x.address: theirs.get(x.address, x) for x in said}.values())
        if not self.certificates or all(c.issuer.local for c in self.certificates.values()):
            return ()
        reachable = {x.address: x for x in plain if not _unreachable(x.address)}
        if not any(address.port == HTTP_PORT for address in reachable):
            for x in (*parse_listen(("80",)), *parse_listen(("[::]:80",))):
                reachable.setdefault(x.address, x)
        return tuple(reachable.values())


class _LeftOut(NotCertifiable):
    """A name that is left out with a warning, even where `acme` stands in the server itself."""


def _context(ancestors: Sequence[Directive]) -> str | None:
    """The name of a context as `directives.RULES` has it; None where nginx isn't the reader."""
    names = [directive.name for directive in ancestors]
    if not names:
        return directives.MAIN
    if names[0] not in {*KINDS, "events"} or directives.ISSUER in names:
        return None
    return " ".join(names[:2]) if len(names) <= 2 else "deeper"  # noqa: PLR2004


def _borrow(nameless: Managed, named: Iterable[Managed]) -> Managed:
    """A server without a name shows the certificate of its address's first named server."""
    addresses = {listen.address for listen in nameless.server.listens}
    for one in named:
        if addresses & {listen.address for listen in one.server.listens}:
            return replace(nameless, identity=one.identity, key_types=one.key_types)
    return nameless


def _certificates_of(level: Mapping[str, Sequence[Directive]]) -> bool:
    """Whether it names a certificate of its own, our variables not counted."""
    return any((d.name, d.args) not in VARIABLES for d in level.get("ssl_certificate", ()))


def _parts(text: str, hostname: str) -> Iterator[tuple[str, bool]]:
    """The names that one argument of `server_name` stands for, and whether we added it."""
    if text.startswith("~"):
        raise _LeftOut("a regular expression is no name")
    if text == "$hostname":
        yield hostname, False
    elif text.startswith("."):
        yield text[1:], False
        yield f"www{text}", True
    elif text.endswith(".*"):
        raise _LeftOut("a certificate can't have a wildcard there")
    else:
        yield text, False


_STATE_PATH_REFUSED = frozenset("$*?[") | frozenset(" \t\r\n")


def _state_path(path: str) -> str:
    """In our paths nginx takes `$` for a variable and `*?[` for a pattern."""
    if refused := sorted(_STATE_PATH_REFUSED & set(path)):
        raise Mistake(f'invalid "acme_state_path" "{path}", it can\'t have "{refused[0]}" in it')
    return posixpath.normpath(path)


# OpenSSL's words for groups that leave the kind of key open; a suite that names RSA doesn't.
_RSA_ONLY = re.compile(
    r"(?:ECDHE|EECDH|DHE|EDH|kEDH|ECDH|DH)-RSA-.*|[ak]?RSA\b.*|.*\+a?RSA\b.*|"
    r"(?:AES|CAMELLIA|ARIA|DES|SEED|IDEA|RC4|NULL)(?:\d|-).*|TLS_RSA_.*"
)


def _default_key(server: Server) -> str:
    """ECDSA, except where TLS 1.2 clients could agree on no suite for it."""
    protocols = {p for d in server.inherited("ssl_protocols") for p in d.args}
    if protocols == {"TLSv1.3"}:
        return DEFAULT_KEY
    suites = [
        suite
        for directive in server.inherited("ssl_ciphers")
        for argument in directive.args
        for suite in re.split(r"[:, ]+", argument)
        if suite and suite[0] not in "!-+@" and not suite.startswith("TLS_AES")
    ]
    rsa_only = suites and all(map(_RSA_ONLY.fullmatch, suites))
    return "rsa:2048" if rsa_only else DEFAULT_KEY


def _plain(listen: Listen, tls: frozenset[tuple[str, Address]]) -> bool:
    return ("http", listen.address) not in tls


def _unreachable(address: Address) -> bool:
    """No CA gets there: `unix:` and loopback."""
    host = address.host
    return host.startswith(("unix:", "127.")) or host in {"::1", "localhost"}


def _added(
    listens: Iterable[Listen], taken: Sequence[Address], plain: Sequence[Listen]
) -> tuple[Listen, ...]:
    """The addresses that nobody of the user's servers holds.

    ``[::]:80 ipv6only=off`` holds the IPv4 side of its port as well.
    """
    held = set(taken)
    held |= {
        Address("0.0.0.0", x.address.port)  # noqa: S104
        for x in plain
        if x.address.host == "::" and not x.ipv6only
    }
    return tuple(listen for listen in listens if listen.address not in held)


def _answering(
    servers: Sequence[Server], plain: Sequence[Listen], names: Iterable[str]
) -> Iterator[Server]:
    """The `http` servers that nginx may choose for a challenge, on every plain address."""
    http = [server for server in servers if server.kind == "http"]
    hosts = [f"[{name}]" if ":" in name else name for name in names]
    found: dict[tuple[str, int], Server] = {}
    for address in dict.fromkeys(listen.address for listen in plain):
        choice = Choice(http, address)
        for host in hosts:
            for server in choice.of(host):
                found[server.block.path, server.block.start] = server
    return iter(found.values())


def _redirect_ports(
    managed: Iterable[Managed],
    tls: frozenset[tuple[str, Address]],
    certificates: Mapping[Identity, Certificate],
) -> dict[str, int]:
    ports: dict[str, int] = {}
    for one in managed:
        if one.server.kind != "http" or one.identity is None:
            continue
        listening = [x.address.port for x in one.server.listens if ("http", x.address) in tls]
        port = 443 if 443 in listening else next(iter(listening), 443)  # noqa: PLR2004
        for name in certificates[one.identity].names:
            ports.setdefault(name.value, port)
    return ports


def _serves_already(
    servers: Iterable[Server], managed: Iterable[Managed], tls: frozenset[tuple[str, Address]]
) -> bool:
    """Whether a start that waits for certificates would keep anything from being served."""
    ours = {_key(one.server) for one in managed}
    return any(_serves(server, tls, ours=_key(server) in ours) for server in servers)


def _key(server: Server) -> tuple[str, int]:
    return server.block.path, server.block.start


def _serves(server: Server, tls: frozenset[tuple[str, Address]], *, ours: bool) -> bool:
    if server.kind != "http":
        return not ours
    if any(_plain(listen, tls) for listen in server.listens) and not _only_redirects(server):
        return True
    brings_its_own = bool(server.inherited("ssl_certificate"))
    return not ours and brings_its_own and speaks_tls(server, tls)


def _only_redirects(server: Server) -> bool:
    """Whether a plain server has nothing to say but where else to go."""
    if "return" in server.own:
        return True
    locations = [
        directive
        for directive in server.own.get("location", ())
        if not any(CHALLENGE_PATH in argument for argument in directive.args)
    ]
    return bool(locations) and all(
        {inner.name for inner in location.block or ()} <= {"return", "rewrite"}
        for location in locations
    )
