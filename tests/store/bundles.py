"""Certificates of a CA that exists for these tests only."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from nginx_acme import certificate

if TYPE_CHECKING:
    from nginx_acme.bundle import Bundle

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CA = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA of the tests")])
CA_KEY = certificate.read_key(certificate.new_key("ecdsa:256"))


@cache
def key_of(key_type: str) -> bytes:
    """One key for all certificates of a type."""
    return certificate.new_key(key_type)


def issue(
    names: tuple[str, ...],
    key_type: str = "ecdsa:256",
    *,
    since: datetime = NOW,
    days: float = 90,
) -> Bundle:
    """A bundle as a CA's answer makes it."""
    public_key = certificate.read_key(key_of(key_type)).public_key()
    san = x509.SubjectAlternativeName(certificate.general_names(names))
    leaf = (
        certificate.start_certificate(public_key, since, since + timedelta(days=days))
        .subject_name(x509.Name([]))
        .issuer_name(CA)
        .add_extension(san, critical=True)
        .sign(CA_KEY, hashes.SHA256())
    )
    return certificate.make_bundle(key_of(key_type), leaf.public_bytes(Encoding.PEM), names)


def temporary(names: tuple[str, ...], key_type: str = "ecdsa:256") -> Bundle:
    """A temporary certificate."""
    return certificate.temporary(names, key_type, NOW, key_pem=key_of(key_type))
