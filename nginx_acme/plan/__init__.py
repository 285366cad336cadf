"""The user's configuration, understood: which certificates, from whom, for which servers.

What may live here: decisions that follow from the configuration alone. No file is looked at, no
clock and no network; what nginx itself would know besides its configuration comes in as `Facts`.
`generate` turns a plan and the places of its files into text.

    said           our directives, each checked and in its place
    settings       those that are said once
    issuers        whom certificates are asked from
    names          what of a server's names is asked for
    certificates   which server shows which certificate
    addresses      where challenges are answered, and by whom
    serving        whether anybody misses anything while a start waits
    shown          where a client sees which certificate
    status         where nginx shows how they stand
    modules        what nginx must have been built with
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nginx_acme.nginx.servers import read_servers, tls_addresses
from nginx_acme.plan.addresses import (
    HTTP_PORT,
    added_listens,
    answering_servers,
    challenge_listens,
    contested,
    deaf_servers,
    plain_listens,
    redirect_ports,
    whose_hosts,
)
from nginx_acme.plan.certificates import Certificate, Certificates, Identity, Managed
from nginx_acme.plan.issuers import Issuer, read_issuers
from nginx_acme.plan.modules import refuse_lacking
from nginx_acme.plan.said import concerns_us, read_said
from nginx_acme.plan.serving import serves_already
from nginx_acme.plan.settings import Hook, Settings, read_settings
from nginx_acme.plan.shown import Shown, shown
from nginx_acme.plan.status import StatusLocation, status_locations

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nginx_acme.nginx.listen import Listen
    from nginx_acme.nginx.servers import Server
    from nginx_acme.nginx.source import Place, Source
    from nginx_acme.nginx.syntax import Directive

__all__ = [
    "Certificate",
    "Facts",
    "Hook",
    "Identity",
    "Issuer",
    "Managed",
    "Plan",
    "Settings",
    "Shown",
    "StatusLocation",
    "concerns_us",
    "make_plan",
]

UNPRIVILEGED_HTTP_PORT = 8000
"""Where a server without `listen` listens if nginx isn't root."""
_DEAF = "no challenge is answered on {}, where this {} server speaks no plain HTTP"


@dataclass(frozen=True, slots=True)
class Facts:
    """What nginx knows besides its configuration.

    `lacks` are the modules that it was built without, of those that `acme` may need.
    """

    version: tuple[int, ...]
    hostname: str
    privileged: bool = True
    lacks: frozenset[str] = frozenset()


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
    whose_hosts: Mapping[str, Issuer]
    """Where any token is answered (`acme_challenge_answer any`): the issuer of each host."""
    shown: tuple[Shown, ...]
    """Where a client sees which certificate."""
    status: tuple[StatusLocation, ...]
    """Where nginx shows how the certificates stand."""
    redirect_ports: Mapping[str, int | None]
    """The https port of each managed name; None where no `http` server has it."""
    ours: tuple[Directive, ...]
    """Every directive that nginx must not see."""
    serves_already: bool
    """Whether nginx has something to serve before any certificate is there."""
    warnings: tuple[tuple[str, Place | None], ...]

    @property
    def issuers(self) -> tuple[Issuer, ...]:
        """Those that a certificate is wanted from, each once."""
        return tuple(dict.fromkeys(c.issuer for c in self.certificates))


def make_plan(source: Source, facts: Facts) -> Plan:
    """Understand the whole configuration.

    Raises:
        ConfigError: the first mistake that is found, with its place.
    """
    said = read_said(source)
    settings, issuers = read_settings(said), read_issuers(said)
    servers = read_servers(source, HTTP_PORT if facts.privileged else UNPRIVILEGED_HTTP_PORT)
    tls = tls_addresses(servers)
    wanted = Certificates(said, issuers, tls, facts.version, facts.hostname)
    certificates = wanted.read(servers)
    plain = plain_listens(servers, tls)
    listens = challenge_listens(said, plain, certificates)
    deaf = [
        (_DEAF.format(address, server.kind), source.place(server.block))
        for address, server in deaf_servers(listens, servers, plain)
    ]
    hosts = whose_hosts(certificates) if settings.answer_any else {}
    refuse_lacking(said, facts.lacks, certificates, wanted.managed)
    return Plan(
        settings=settings,
        certificates=certificates,
        managed=tuple(wanted.managed),
        listens=listens,
        added=added_listens(listens, servers),
        answering=answering_servers(servers, plain, certificates),
        whose_hosts=hosts,
        shown=tuple(shown(wanted.managed, certificates, servers, tls)),
        status=tuple(status_locations(said)),
        redirect_ports=redirect_ports(wanted.managed, certificates, servers, tls),
        ours=said.all,
        serves_already=serves_already(servers, wanted.managed, tls),
        warnings=(*wanted.warnings, *contested(hosts, certificates), *deaf),
    )
