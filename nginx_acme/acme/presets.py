"""The built-in issuers, and how much each of them certifies at once.

Data only, with its sources beside it. A limit is known by the directory URL and not by the
issuer's name, since a declared issuer may have Let's Encrypt's URL or a built-in name its own URL.
What is not in the table has no limits: a private CA says no by itself.

CAs that want an external account (zerossl, google, sslcom, actalis) come with that feature.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


LOCAL = "local:"
"""What stands for a directory URL where the issuer is the one in the state directory."""

LETSENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
LETSENCRYPT_STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"


@dataclass(frozen=True, slots=True)
class Preset:
    """A built-in issuer; `public` means that it certifies names of the public DNS alone."""

    directory_url: str
    public: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """What one certificate may hold: so many identifiers, IP addresses (RFC 8738) or none."""

    names: int
    ip: bool


@dataclass(frozen=True, slots=True)
class Bucket:
    """An account may make `orders` at once, then one more every `seconds`."""

    orders: int
    seconds: float


BUILT_IN: Mapping[str, Preset] = MappingProxyType(
    {
        "letsencrypt": Preset(LETSENCRYPT, public=True),
        "letsencrypt-staging": Preset(LETSENCRYPT_STAGING, public=True),
        "local": Preset(LOCAL, public=False),
    }
)

UNLIMITED = Limits(names=sys.maxsize, ip=True)

# https://letsencrypt.org/docs/profiles/
_CLASSIC = Limits(names=100, ip=False)
_LETSENCRYPT_PROFILES = {
    "classic": _CLASSIC,
    "tlsserver": Limits(names=25, ip=False),
    "shortlived": Limits(names=25, ip=True),
}

# https://letsencrypt.org/docs/rate-limits/#new-orders-per-account and, for staging,
# https://letsencrypt.org/docs/staging-environment/#rate-limits
_BUCKETS = {
    LETSENCRYPT: Bucket(orders=300, seconds=36.0),
    LETSENCRYPT_STAGING: Bucket(orders=1500, seconds=7.2),
}


def limits(directory_url: str, profile: str | None) -> Limits:
    """What one certificate of this issuer and profile may hold; a new profile is like `classic`."""
    if directory_url not in _BUCKETS:
        return UNLIMITED
    return _LETSENCRYPT_PROFILES.get(profile or "classic", _CLASSIC)


def bucket(directory_url: str) -> Bucket | None:
    """How fast an account of this issuer may make orders; None: as fast as it likes."""
    return _BUCKETS.get(directory_url)
