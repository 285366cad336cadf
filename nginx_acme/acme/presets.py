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


# https://letsencrypt.org/docs/caa/
_LETSENCRYPT_CAA = ("letsencrypt.org",)


@dataclass(frozen=True, slots=True)
class Preset:
    """A built-in issuer; `public` means that it certifies names of the public DNS alone.

    `caa` are the names by which CAA records mean it (RFC 8659 §4.2).
    """

    directory_url: str
    public: bool
    caa: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """What one certificate may hold: so many identifiers, IP addresses (RFC 8738) or none."""

    names: int
    ip: bool


@dataclass(frozen=True, slots=True)
class Bucket:
    """So many `orders` at once, then one more every `seconds`."""

    orders: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast orders are taken: from an account, and for all names below a registered one.

    Renewals, orders for exactly the names of a certificate, count for neither.
    """

    account: Bucket
    registered_name: Bucket | None


BUILT_IN: Mapping[str, Preset] = MappingProxyType(
    {
        "letsencrypt": Preset(LETSENCRYPT, public=True, caa=_LETSENCRYPT_CAA),
        "letsencrypt-staging": Preset(LETSENCRYPT_STAGING, public=True, caa=_LETSENCRYPT_CAA),
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

# https://letsencrypt.org/docs/rate-limits/ and, for staging, where registered names are as good as
# unlimited, https://letsencrypt.org/docs/staging-environment/#rate-limits
_RATES = {
    LETSENCRYPT: Rates(Bucket(orders=300, seconds=36.0), Bucket(orders=50, seconds=12096.0)),
    LETSENCRYPT_STAGING: Rates(Bucket(orders=1500, seconds=7.2), None),
}


_STAGING = {LETSENCRYPT: LETSENCRYPT_STAGING, LETSENCRYPT_STAGING: LETSENCRYPT_STAGING}


def staging(directory_url: str) -> str | None:
    """Where orders to an issuer can be rehearsed; None where that isn't known."""
    return _STAGING.get(directory_url)


def limits(directory_url: str, profile: str | None) -> Limits:
    """What one certificate of this issuer and profile may hold; a new profile is like `classic`."""
    if directory_url not in _RATES:
        return UNLIMITED
    return _LETSENCRYPT_PROFILES.get(profile or "classic", _CLASSIC)


def rates(directory_url: str) -> Rates | None:
    """How fast this issuer takes orders; None: nobody knows before it says so."""
    return _RATES.get(directory_url)


def caa_identities(directory_url: str) -> tuple[str, ...]:
    """The names by which CAA records mean this CA; none where only the CA itself knows them."""
    return next((p.caa for p in BUILT_IN.values() if p.directory_url == directory_url), ())
