"""An account's key and what it signs (RFC 7515, 7518, 7638; RFC 8555 §6.2, §8.1).

The only door of josepy, whose keys and algorithms are used and whose `JWS` is not: a header of
its own with `url` and `nonce` takes three subclasses of untyped classes (certbot has them), and
one signature three times as long as here. ACME needs one form of a JWS alone, the flattened one.
"""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from josepy.b64 import b64encode
from josepy.jwa import ES256, ES384, ES512, RS256, JWASignature
from josepy.jwk import JWK, JWKEC, JWKRSA

if TYPE_CHECKING:
    from collections.abc import Mapping

_CURVES = {"secp256r1": ES256, "secp384r1": ES384, "secp521r1": ES512}
"""By name: secp256k1 has 256 bits, too."""


class AccountKey:
    """The private key of an account; its repr shows nothing of it.

    Args:
        pem: an unencrypted private key, ECDSA on P-256, P-384 or P-521, or RSA

    Raises:
        ValueError: it is no such key
    """

    def __init__(self, pem: bytes) -> None:
        self._key = _load(pem)
        jwk, self._algorithm = _jose(self._key)
        public = jwk.public_key()
        self.jwk: Mapping[str, str] = MappingProxyType(public.to_json())
        """The public key (RFC 7517)."""
        self.thumbprint: str = _thumbprint(public)
        """SHA-256 of the public key, in base64url (RFC 7638)."""

    @property
    def algorithm(self) -> str:
        """Its name in RFC 7518 §3.1: ES256, ES384, ES512 or RS256."""
        return self._algorithm.name

    def key_authorization(self, token: str) -> str:
        """What answers a challenge (RFC 8555 §8.1)."""
        return f"{token}.{self.thumbprint}"

    def signature(self, message: bytes) -> bytes:
        """The bare signature (RFC 7518 §3.3, §3.4)."""
        return self._algorithm.sign(self._key, message)

    def sign(
        self, payload: bytes | None, *, url: str, nonce: str | None, kid: str | None = None
    ) -> bytes:
        """A request as flattened JWS in JSON (RFC 8555 §6.2).

        Args:
            payload: the JSON to send; None makes it a POST-as-GET (§6.3)
            url: where it is sent
            nonce: from the CA; None only inside of a key change (§7.3.5)
            kid: the account's URL; without it the public key itself is sent, as newAccount wants
        """
        header: dict[str, object] = {"alg": self.algorithm, "url": url}
        header |= {"jwk": dict(self.jwk)} if kid is None else {"kid": kid}
        if nonce is not None:
            header["nonce"] = nonce
        protected = base64url(_json(header))
        sent = base64url(payload or b"")
        signature = self.signature(f"{protected}.{sent}".encode("ascii"))
        return _json({"protected": protected, "payload": sent, "signature": base64url(signature)})


def base64url(data: bytes) -> str:
    """Base64url without padding (RFC 7515 §2)."""
    return b64encode(data).decode("ascii")


def _load(pem: bytes) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    try:
        key = load_pem_private_key(pem, password=None)
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"not a private key in PEM without a password: {error}") from error
    if isinstance(key, rsa.RSAPrivateKey):
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return key
    raise ValueError("no key for an ACME account: neither RSA nor ECDSA on P-256, P-384 or P-521")


def _jose(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> tuple[JWK, JWASignature]:
    """The key as josepy's, and the algorithm that fits it (RFC 7518 §3.3, §3.4)."""
    if isinstance(key, rsa.RSAPrivateKey):
        return JWKRSA(key=key), RS256
    return JWKEC(key=key), _CURVES[key.curve.name]


def _thumbprint(public: JWK) -> str:
    return base64url(public.thumbprint())


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")
