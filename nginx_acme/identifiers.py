"""From `server_name` to identifiers (RFC 8555 §7.1.3, RFC 8738).

What may live here: what a name means to a CA. What is done about a name that can't be certified
is `plan`'s business; here it only gets the reason, in words for the operator.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple


class NotCertifiable(ValueError):
    """A name that no certificate can be asked for, and why."""


class Name(NamedTuple):
    """An identifier in its canonical text: a lower-case A-label, ``*.`` before it, or an address."""

    value: str
    is_ip: bool = False

    @property
    def wildcard(self) -> bool:
        """Whether this needs a DNS challenge (RFC 8555 §7.1.3)."""
        return self.value.startswith("*.")


_LABEL = r"(?!-)[a-z0-9_-]{1,63}+(?<!-)"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*+")
_LONGEST_NAME = 253

# RFC 6761, 6762, 7686, 8375, 9476 and ICANN's reservation of .internal; .lan, .home, .corp and
# .mail are delegated to nobody and never will be.
_SPECIAL = frozenset(
    [
        "alt",
        "arpa",
        "corp",
        "example",
        "home",
        "internal",
        "invalid",
        "lan",
        "local",
        "localdomain",
        "localhost",
        "mail",
        "onion",
        "test",
    ]
)


def name_of(text: str) -> Name:
    """A name of `server_name` (no regular expression, no leading dot) as an identifier.

    Raises:
        NotCertifiable: with the reason.
    """
    bare = text.lower().removesuffix(".")
    address = _address(bare)
    if address is not None:
        return Name(address, is_ip=True)
    wildcard, host = ("*.", bare[2:]) if bare.startswith("*.") else ("", bare)
    if not host.isascii():
        host = _alabels(host)
    if "*" in host:
        raise NotCertifiable("a certificate can't have a wildcard there")
    if len(host) > _LONGEST_NAME:
        raise NotCertifiable(f"it is longer than {_LONGEST_NAME} characters")
    if not _HOST.fullmatch(host):
        raise NotCertifiable("it is not a host name")
    return Name(wildcard + host)


def _address(text: str) -> str | None:
    """An IP address in canonical text; None for a name, which most are."""
    if ":" not in text and not text[-1:].isdecimal():
        return None
    bracketed = text.startswith("[") and text.endswith("]")
    try:
        address = ipaddress.ip_address(text[1:-1] if bracketed else text)
    except ValueError:
        return None
    return None if "%" in text else str(address)  # a zone is this host's affair


def _alabels(host: str) -> str:
    import idna  # noqa: PLC0415 - tables of 5 ms that few configurations need

    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError) as error:
        raise NotCertifiable("it is not an internationalized host name") from error


def why_not_public(name: Name) -> str | None:
    """Why no public CA can certify `name`; None where one may."""
    if name.is_ip:
        address = ipaddress.ip_address(name.value)
        return None if address.is_global else "it is not a public address"
    labels = name.value.removeprefix("*.").split(".")
    if len(labels) == 1:
        return "it has no dot"
    if labels[-1] in _SPECIAL:
        return f'no public CA certifies names under ".{labels[-1]}"'
    return None
