"""Where nginx shows how the certificates stand: the locations with `acme_status`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nginx_acme import directives
from nginx_acme.directives import Mistake

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nginx_acme.nginx.syntax import Directive
    from nginx_acme.plan.said import Said

_SERVES = frozenset(
    {
        "alias",
        "api",
        "break",
        "empty_gif",
        "flv",
        "hls",
        "js_content",
        "mp4",
        "perl",
        "return",
        "rewrite",
        "root",
        "status",
        "stub_status",
        "try_files",
    }
)
"""What says what a location serves, beside all that ends with ``_pass`` or is content by Lua."""


@dataclass(frozen=True, slots=True)
class StatusLocation:
    """A `location` block that serves how the certificates stand, in one of `STATUS_FORMATS`.

    `says` are the names of the directives in it.
    """

    block: Directive
    format: str
    says: frozenset[str]


def status_locations(said: Said) -> Iterator[StatusLocation]:
    """Each of them; one in a file that is included twice comes twice.

    Raises:
        ConfigError: one serves something else, too.
    """
    if "acme_status" not in said.named:
        return
    for block, _ in said.source.walk(directives.OUR_WORD):
        if block.name != "location":
            continue
        inside = tuple(said.source.expand(block.block or ()))
        ours = [directive for directive in inside if directive.name == "acme_status"]
        if not ours:
            continue
        if len(ours) > 1:
            raise said.error(ours[1], '"acme_status" directive is duplicate')
        says = frozenset(directive.name for directive in inside)
        with said.at(ours[0]):
            _refuse(says)
            yield StatusLocation(block, directives.status_format(ours[0].args), says)


def _refuse(says: frozenset[str]) -> None:
    """Refuse what serves something else.

    A location inside would inherit where our files are, and with that serve other files than
    the user's.
    """
    for name in sorted(says):
        if name in _SERVES or name.endswith("_pass") or name.startswith("content_by_lua"):
            raise Mistake(f'"acme_status" and "{name}" in one location, which one is meant?')
    if "location" in says:
        raise Mistake('"acme_status" is in a location with others in it, give it one of its own')
