"""A certificate with its key, as it is kept and given to nginx, and what it says of itself.

What may live here: values. To find out what is in them is `certificate`'s, which imports what can
take a certificate apart; who knows already (`store.proved`) has no need of that.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class Facts:
    """What the first certificate of a bundle says of itself (RFC 5280), and its key's type."""

    names: frozenset[str]
    not_before: datetime
    not_after: datetime
    key_type: str
    issuer: str
    serial: int
    temporary: bool
    authority_key_id: bytes | None

    def covers(self, name: str) -> bool:
        """Whether a browser takes this certificate for `name` (RFC 6125 §6.4.3)."""
        if name in self.names:
            return True
        return not is_address(name) and "*." + name.partition(".")[2] in self.names


@dataclass(frozen=True, slots=True)
class Bundle:
    """A private key, its certificate and the chain, as one PEM in this order."""

    pem: bytes = field(repr=False)
    facts: Facts


def is_address(name: str) -> bool:
    """Whether an identifier is an IP address, and no DNS name."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return "%" not in name
