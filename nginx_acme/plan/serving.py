"""Whether anybody would miss anything while a start waits for certificates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nginx_acme.nginx.servers import is_tls, speaks_tls

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nginx_acme.nginx.listen import Address
    from nginx_acme.nginx.servers import Server
    from nginx_acme.nginx.syntax import Directive
    from nginx_acme.plan.certificates import Managed

_CHALLENGE_PATH = "/.well-known/acme-challenge"


def serves_already(
    servers: Iterable[Server], managed: Iterable[Managed], tls: frozenset[tuple[str, Address]]
) -> bool:
    """Whether nginx has something to serve before any certificate is there.

    That is a plain site that does more than redirect, a TLS server with a certificate of its own,
    or a `stream` or `mail` server that none of ours is needed for.
    """
    ours = {one.server.place for one in managed}
    return any(_serves(server, tls, ours=server.place in ours) for server in servers)


def _serves(server: Server, tls: frozenset[tuple[str, Address]], *, ours: bool) -> bool:
    if server.kind != "http":
        return not ours
    plain = any(not is_tls("http", listen, tls) for listen in server.listens)
    if plain and not _only_redirects(server):
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
        if not any(_CHALLENGE_PATH in argument for argument in directive.args)
    ]
    return bool(locations) and all(map(_is_idle, locations))


def _is_idle(location: Directive) -> bool:
    """Whether nobody would miss it: it says where else to go, or how certificates stand."""
    says = {inner.name for inner in location.block or ()}
    return says <= {"return", "rewrite"} or "acme_status" in says
