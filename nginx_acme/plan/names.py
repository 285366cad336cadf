"""From the names of a server to the identifiers of its certificate.

What may live here: which names are asked for, which are left out and said to be, and which are a
mistake. What a name is by itself is in `identifiers`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nginx_acme.directives import Mistake
from nginx_acme.identifiers import Name, NotCertifiable, name_of, why_not_public

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nginx_acme.plan.issuers import Issuer


@dataclass(frozen=True, slots=True)
class Identifiers:
    """`names` in the order of `server_name`; `left_out` in words for the operator.

    `optional` are those that we added (`www` of ``.example.com``): no order waits for them.
    """

    names: tuple[Name, ...]
    optional: frozenset[str]
    left_out: tuple[str, ...]


class _LeftOut(NotCertifiable):
    """A name that is left out with a warning, even where `acme` stands in the server itself."""


def identifiers(
    server_names: Sequence[str], issuer: Issuer, hostname: str, *, strict: bool
) -> Identifiers:
    """What to ask `issuer` for. `hostname` is what nginx takes ``$hostname`` for.

    Raises:
        Mistake: with `strict`, for a name that could be certified if it were said otherwise.
    """
    names: dict[Name, None] = {}
    optional: set[str] = set()
    left_out: list[str] = []
    for text in server_names:
        if text in {"", "_"}:
            continue
        try:
            for part, added in _parts(text, hostname):
                name = name_of(part)
                _refuse(name, issuer)
                names[name] = None
                if added and part not in server_names:
                    optional.add(name.value)
        except NotCertifiable as reason:
            if strict and not isinstance(reason, _LeftOut):
                raise Mistake(f'invalid identifier "{text}" for "acme", {reason}') from reason
            left_out.append(f'"{text}" gets no certificate, {reason}')
    return Identifiers(tuple(names), frozenset(optional), tuple(left_out))


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


def _refuse(name: Name, issuer: Issuer) -> None:
    """Leave out what this issuer can never certify, refuse what it could in another way."""
    if issuer.public and (reason := why_not_public(name)):
        raise _LeftOut(reason)
    if name.wildcard and not issuer.local:
        raise NotCertifiable(
            'a wildcard needs a "dns-01" challenge, and "http-01" is the only one so far'
        )
