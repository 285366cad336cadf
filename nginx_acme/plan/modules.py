"""Which modules of nginx are needed, and the word on one that it was built without.

nginx itself would complain of a line that the user never wrote.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nginx_acme.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from collections.abc import Set as AbstractSet

    from nginx_acme.nginx.source import Place
    from nginx_acme.plan.certificates import Certificate, Managed
    from nginx_acme.plan.said import Said

_ANSWERING = ("ngx_http_core_module", "ngx_http_map_module", "ngx_http_rewrite_module")
"""For the lines that answer challenges."""
_SHOWING = "ngx_http_rewrite_module"
"""For the lines that show how the certificates stand."""


def refuse_lacking(
    said: Said,
    lacks: AbstractSet[str],
    certificates: Iterable[Certificate],
    managed: Iterable[Managed],
) -> None:
    """Refuse a configuration that this nginx can't serve.

    Raises:
        ConfigError: one of the modules that are needed is in `lacks`.
    """
    for name, module, place in _needed(said, certificates, managed) if lacks else ():
        if module in lacks:
            words = f'"{name}" requires {module}, which this nginx was built without'
            raise ConfigError(words, place.path, place.line)


def _needed(
    said: Said, certificates: Iterable[Certificate], managed: Iterable[Managed]
) -> Iterator[tuple[str, str, Place]]:
    """Each module with the directive that needs it, and where that stands or is in force."""
    for one in managed:
        yield "acme", f"ngx_{one.server.kind}_ssl_module", said.source.place(one.server.block)
    for certificate in certificates:
        if not certificate.issuer.local:
            yield from (("acme", module, certificate.places[0]) for module in _ANSWERING)
    for directive in said.named.get("acme_status", ()):
        yield "acme_status", _SHOWING, said.source.place(directive)
