"""Our directives as the configuration says them: each checked by itself, and where it stands.

What may live here: to find them, to refuse what stands in a wrong place, to tell a mistake with
its place. What they mean is for the modules beside this one.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nginx_acme import directives
from nginx_acme.directives import Mistake
from nginx_acme.errors import ConfigError
from nginx_acme.nginx.servers import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from nginx_acme.nginx.source import Source
    from nginx_acme.nginx.syntax import Directive

VARIABLES = {
    "ssl_certificate": ("$acme_certificate",),
    "ssl_certificate_key": ("$acme_certificate_key",),
}
"""The long form of nginx's own ACME module, which says no more than `acme` does."""


@dataclass(frozen=True, slots=True)
class Said:
    """Every directive of ours. `all` are in nginx's order, `named` the same by name."""

    source: Source
    all: tuple[Directive, ...]
    named: Mapping[str, Sequence[Directive]]

    def once(self, name: str) -> Directive | None:
        """The directive `name`, which may be said once in the whole configuration."""
        said = self.named.get(name, ())
        if len(said) > 1:
            raise self.error(said[1], f'"{name}" directive is duplicate')
        return said[0] if said else None

    def error(self, directive: Directive, message: str) -> ConfigError:
        """A mistake in the place of `directive`."""
        place = self.source.place(directive)
        return ConfigError(message, place.path, place.line)

    @contextmanager
    def at(self, directive: Directive) -> Iterator[None]:
        """Give a mistake its place."""
        try:
            yield
        except Mistake as mistake:
            raise self.error(directive, str(mistake)) from mistake


def concerns_us(source: Source) -> bool:
    """Whether the configuration has any directive of ours; if not, nginx gets it untouched.

    `acme_client` is Angie's own client, and `acme` then too. nginx's own ACME module shares
    `acme_issuer` with us, so a configuration that loads or uses that module is ours only if it
    says `acme`.
    """
    names: set[str] = set()
    for directive, _ in source.walk(directives.OUR_WORD):
        if directive.name.startswith("acme"):
            names.add(directive.name)
        elif directive.name == "load_module" and "ngx_http_acme_module" in "".join(directive.args):
            names.add("acme_shared_zone")
    if "acme_client" in names:
        return False
    if names & {"acme_certificate", "acme_shared_zone"} and "acme" not in names:
        return False
    return bool(names - directives.FOREIGN)


def read_said(source: Source) -> Said:
    """Find every directive of ours and refuse those that stand in a wrong place."""
    found: list[Directive] = []
    named: dict[str, list[Directive]] = {}
    said = Said(source, (), {})
    for directive, ancestors in source.walk(directives.OUR_WORD):
        if directive.name in VARIABLES and is_variable(directive):
            found.append(directive)
        if not directive.name.startswith("acme") or directive.name in directives.FOREIGN:
            continue
        context = _context(ancestors)
        if context is None:
            continue
        with said.at(directive):
            directives.check(directive, context)
        found.append(directive)
        named.setdefault(directive.name, []).append(directive)
    return Said(source, tuple(found), named)


def is_variable(directive: Directive) -> bool:
    """Whether this is a line of the long form, to be filled in."""
    return directive.args == VARIABLES.get(directive.name)


def _context(ancestors: Sequence[Directive]) -> str | None:
    """The name of a context as `directives.RULES` has it; None where nginx isn't the reader."""
    names = [directive.name for directive in ancestors]
    if not names:
        return directives.MAIN
    if names[0] not in {*KINDS, "events"} or directives.ISSUER in names:
        return None
    if names[:2] == ["http", "server"] and set(names[2:]) == {"location"}:
        return directives.LOCATION
    return " ".join(names[:2]) if len(names) <= 2 else "deeper"  # noqa: PLR2004
