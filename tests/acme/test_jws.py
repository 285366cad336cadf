"""The RFCs' own vectors, and what a fake CA's verifier says of our signatures."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from josepy.jwk import JWKRSA

from nginx_acme.acme import jws
from nginx_acme.acme.jws import AccountKey, base64url
from tests.acme.applicant import account_key, pem_of
from tests.fake_ca import Jws

URL = "https://example.com/acme/new-order"


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _number(text: str) -> int:
    return int.from_bytes(_bytes(text))


RFC_7515_A2 = {
    "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt"
    "0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5"
    "rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxX"
    "FvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
    "e": "AQAB",
    "d": "Eq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpXyWPEAeP88vLNO97IjlA7_GQ5sLKMgvfTeXZx9SE-7YwVol"
    "2NXOoAJe46sui395IW_GO-pWJ1O0BkTGoVEn2bKVRUCgu-GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzjkn439X0M_V"
    "51gfpRLI9JYanrC4D4qAdGcopV_0ZHHzQlBjudU2QvXt4ehNYTCBr6XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl_x_jTj3c"
    "cPDVZFD9pIuhLhBOneufuBiB4cS98l2SR_RQyGWSeWjnczT0QU91p1DhOVRuOopznQ",
}
RFC_7515_A2_MESSAGE = (
    b"eyJhbGciOiJSUzI1NiJ9"
    b".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVl"
    b"fQ"
)
RFC_7515_A2_SIGNATURE = (
    "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5ju"
    "jGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07"
    "Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipU"
    "TI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
)
RFC_7515_A3 = {
    "kty": "EC",
    "crv": "P-256",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}
RFC_7515_A3_PRIVATE = "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"
RFC_7638 = {
    "kty": "RSA",
    "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_B"
    "JECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2Qvz"
    "qY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0f"
    "M4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
    "e": "AQAB",
    "alg": "RS256",
    "kid": "2011-04-29",
}


def rfc_7515_rsa() -> AccountKey:
    """The key of RFC 7515 A.2.1."""
    n, e, d = (_number(RFC_7515_A2[name]) for name in "ned")
    p, q = rsa.rsa_recover_prime_factors(n, e, d)
    numbers = rsa.RSAPrivateNumbers(
        p,
        q,
        d,
        rsa.rsa_crt_dmp1(d, p),
        rsa.rsa_crt_dmq1(d, q),
        rsa.rsa_crt_iqmp(p, q),
        rsa.RSAPublicNumbers(e, n),
    )
    return AccountKey(pem_of(numbers.private_key()))


def parts(signed: bytes) -> tuple[dict[str, Any], bytes]:
    """Protected header and payload."""
    document = json.loads(signed)
    assert document.keys() == {"protected", "payload", "signature"}
    return json.loads(_bytes(document["protected"])), _bytes(document["payload"])


def test_rsa_vector() -> None:
    """RFC 7515 A.2: the signature is the RFC's to the byte."""
    key = rfc_7515_rsa()
    assert base64url(key.signature(RFC_7515_A2_MESSAGE)) == RFC_7515_A2_SIGNATURE


def test_ec_vector() -> None:
    """RFC 7515 A.3: the RFC's private key has the RFC's public key."""
    private = ec.derive_private_key(_number(RFC_7515_A3_PRIVATE), ec.SECP256R1())
    assert dict(AccountKey(pem_of(private)).jwk) == RFC_7515_A3


def test_thumbprint_vector() -> None:
    """RFC 7638 §3.1: members that say nothing of the key don't count."""
    thumbprint = jws._thumbprint(JWKRSA.fields_from_json(RFC_7638))
    assert thumbprint == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


@pytest.mark.parametrize(
    ("private", "algorithm"),
    [
        pytest.param(ec.generate_private_key(ec.SECP256R1()), "ES256", id="ecdsa:256"),
        pytest.param(ec.generate_private_key(ec.SECP384R1()), "ES384", id="ecdsa:384"),
        pytest.param(ec.generate_private_key(ec.SECP521R1()), "ES512", id="ecdsa:521"),
        pytest.param(rsa.generate_private_key(65537, 2048), "RS256", id="rsa:2048"),
    ],
)
def test_algorithms(
    private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, algorithm: str
) -> None:
    """RFC 7518 §3.1: each key signs with its own algorithm, and a verifier of other make agrees."""
    key = AccountKey(pem_of(private))
    for number in range(20):
        signed = key.sign(b"{}", url=URL, nonce=f"n{number}", kid="https://example.com/acct/1")
        assert Jws.parse(signed).is_signed_by(key.jwk)
        assert parts(signed)[0]["alg"] == algorithm == key.algorithm


def test_new_account() -> None:
    """RFC 8555 §7.3: before there is an account, the public key itself is in the header."""
    key = account_key()
    signed = key.sign(b'{"termsOfServiceAgreed":true}', url=URL, nonce="6S8IqOGY7eL2lsGoTZYifg")
    header, payload = parts(signed)
    assert header == {
        "alg": "ES256",
        "jwk": dict(key.jwk),
        "nonce": "6S8IqOGY7eL2lsGoTZYifg",
        "url": URL,
    }
    assert "d" not in header["jwk"]
    assert payload == b'{"termsOfServiceAgreed":true}'


def test_with_account() -> None:
    """RFC 8555 §6.2: with an account its URL is in the header, and the key is not."""
    header, _ = parts(account_key().sign(b"{}", url=URL, nonce="a", kid="https://example.com/1"))
    assert header == {"alg": "ES256", "kid": "https://example.com/1", "nonce": "a", "url": URL}


def test_post_as_get() -> None:
    """RFC 8555 §6.3: a POST-as-GET signs the empty string, which is not an empty object."""
    signed = account_key().sign(None, url=URL, nonce="a", kid="https://example.com/1")
    assert json.loads(signed)["payload"] == ""


def test_key_change() -> None:
    """RFC 8555 §7.3.5: the inner JWS of a key change has no nonce."""
    header, _ = parts(account_key().sign(b"{}", url=URL, nonce=None))
    assert "nonce" not in header


def test_key_authorization() -> None:
    """RFC 8555 §8.1: token, dot, thumbprint."""
    key = account_key()
    answer = key.key_authorization("DGyRejmCefe7v4NfDGDKfA")
    assert answer == f"DGyRejmCefe7v4NfDGDKfA.{key.thumbprint}"
    assert len(key.thumbprint) == 43


def test_secret() -> None:
    """A key that gets into a log or a traceback shows nothing of itself."""
    private = ec.generate_private_key(ec.SECP256R1())
    secret = private.private_numbers().private_value
    key = AccountKey(pem_of(private))
    assert str(secret) not in repr(key)
    assert pem_of(private).decode() not in f"{key} {key!r} {vars(key)}"


@pytest.mark.parametrize(
    "pem",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"a secret that josepy would take for a symmetric key", id="text"),
        pytest.param(pem_of(ec.generate_private_key(ec.SECP256K1())), id="secp256k1"),
        pytest.param(
            account_key()
            ._key.public_key()
            .public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            ),
            id="public",
        ),
        pytest.param(
            ec.generate_private_key(ec.SECP256R1()).private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"secret"),
            ),
            id="with a password",
        ),
        pytest.param(
            ed25519.Ed25519PrivateKey.generate().private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
            id="ed25519",
        ),
    ],
)
def test_no_account_key(pem: bytes) -> None:
    """What can't sign for an account is refused when it is read."""
    with pytest.raises(ValueError, match="key"):
        AccountKey(pem)
