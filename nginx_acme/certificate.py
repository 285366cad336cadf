"""Keys, certificate requests, bundles, and what a certificate says of itself.

What may live here: bytes in, bytes and facts out; random only in making keys and serial numbers.
No file and no clock: where a bundle is kept is `store`'s, whether it is due is `policy`'s.

Rules
- A bundle is one PEM: the private key, its certificate, the chain. nginx takes one file for
  `ssl_certificate` and `ssl_certificate_key`; with two files there is a moment between two
  renames at which a reload finds a key that fits no certificate.
- A key fits a certificate when what it signs verifies. Comparing public keys is not enough (a
  damaged file may still have the right one in it), and letting the library check an RSA key takes
  50 ms, which is a minute for a thousand of them.
- A temporary certificate is known by its own extension. "Self-signed" was no mark: so are the
  certificates that some operators bring on purpose.
- Names are identifiers in canonical text: lower-case A-labels without a trailing dot, addresses
  as RFC 5952 writes them. U-labels are converted before they get here.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nginx_acme.bundle import Bundle, Facts, is_address
from nginx_acme.errors import BadBundle, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

TEMPORARY_LIFE = timedelta(days=90)
TEMPORARY_NAME = "nginx-acme temporary certificate"
TEMPORARY_MARK = x509.ObjectIdentifier(
    "1.2.840.113556.1.8000.2554.60631.63451.46223.18690.34910.11111190.4628827"
)
"""A random UUID in pieces, below the arc that Microsoft gives away for that; the value is NULL.

The arc for whole UUIDs (2.25, ITU-T X.667) needs numbers of 128 bits, which older releases of the
library can't read.
"""

_NULL = b"\x05\x00"
_CURVES: dict[str, type[ec.EllipticCurve]] = {
    "ecdsa:256": ec.SECP256R1,
    "ecdsa:384": ec.SECP384R1,
    "ecdsa:521": ec.SECP521R1,
}
_RSA_SIZES = {"rsa:2048": 2048, "rsa:3072": 3072, "rsa:4096": 4096}
_CURVE_TYPES = {curve().name: key_type for key_type, curve in _CURVES.items()}
_RSA_EXPONENT = 65537

_PEM_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*", re.ASCII)
_LONGEST_HOST = 253
_PROOF = b"this key fits this certificate"


class Parts(NamedTuple):
    """A bundle, taken apart."""

    key: PrivateKey
    certificates: tuple[x509.Certificate, ...]


# Keys


def new_key(key_type: str) -> bytes:
    """Make a private key of one of `key_types`; PEM, PKCS #8, not encrypted."""
    return key_to_pem(_new_key(key_type))


def key_type_of(key_pem: bytes) -> str:
    """The type of a private key; RSA of any size is "rsa:SIZE".

    Raises:
        BadBundle: not a private key in PEM, encrypted, or of a kind that is not used here.
    """
    return _type_of(read_key(key_pem))


def fingerprint(key_pem: bytes) -> str:
    """SHA-256 of the public key (SubjectPublicKeyInfo), in hexadecimal: names a key, reveals none.

    Not the thumbprint of RFC 7638, which is `acme`'s.

    Raises:
        BadBundle: as `key_type_of`.
    """
    public = read_key(key_pem).public_key()
    return hashlib.sha256(
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).hexdigest()


def read_key(key_pem: bytes) -> PrivateKey:
    """A private key from PEM: PKCS #8 or the traditional forms, ECDSA or RSA.

    Raises:
        BadBundle: as `key_type_of`.
    """
    try:
        # What validation would find, `_fits` finds a hundred times faster.
        key = load_pem_private_key(key_pem, None, unsafe_skip_rsa_key_validation=True)
    except TypeError as error:
        raise BadBundle("the private key is encrypted") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadBundle("the private key can't be read") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise BadBundle("the private key is neither ECDSA nor RSA")
    _type_of(key)
    return key


def key_to_pem(key: PrivateKey) -> bytes:
    """A private key as PEM, PKCS #8, not encrypted."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def hash_for(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512:
    """What a key signs with: as strong as its curve (RFC 5758 §3.2), SHA-256 for RSA."""
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == "secp384r1":
        return hashes.SHA384()
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == "secp521r1":
        return hashes.SHA512()
    return hashes.SHA256()


def _new_key(key_type: str) -> PrivateKey:
    if key_type in _CURVES:
        return ec.generate_private_key(_CURVES[key_type]())
    return rsa.generate_private_key(_RSA_EXPONENT, _RSA_SIZES[key_type])


def _type_of(key: PrivateKey | PublicKey) -> str:
    if isinstance(key, rsa.RSAPrivateKey | rsa.RSAPublicKey):
        return f"rsa:{key.key_size}"
    try:
        return _CURVE_TYPES[key.curve.name]
    except KeyError as error:
        raise BadBundle(f"the key's curve {key.curve.name} is not used in TLS") from error


# Requests


def csr(key_pem: bytes, names: Iterable[str]) -> bytes:
    """A certificate request (RFC 2986) in DER: empty subject, names as SAN, sorted.

    DNS names and addresses (RFC 8738). The same names give the same request, whatever their order,
    but for the signature.

    Raises:
        BadBundle: as `key_type_of`.
        ConfigError: a name that no certificate can have.
    """
    key = read_key(key_pem)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    builder = builder.add_extension(x509.SubjectAlternativeName(general_names(names)), False)
    return builder.sign(key, hash_for(key)).public_bytes(Encoding.DER)


def general_names(names: Iterable[str]) -> list[x509.DNSName | x509.IPAddress]:
    """Identifiers as a certificate has them (RFC 5280 §4.2.1.6), each once, sorted by their text.

    Raises:
        ConfigError: a name that no certificate can have.
    """
    found = []
    for name in sorted(set(names)):
        general_name = _general_name(name)
        if general_name is None:
            raise ConfigError(f"no certificate can have the name {name!r}")
        found.append(general_name)
    return found


def _general_name(name: str) -> x509.DNSName | x509.IPAddress | None:
    if is_address(name):
        return x509.IPAddress(ipaddress.ip_address(name))
    if len(name) > _LONGEST_HOST or not _HOST.fullmatch(name):
        return None
    return x509.DNSName(name)


# Bundles


def read_bundle(pem: bytes) -> Bundle:
    """A bundle from the content of its file.

    Raises:
        BadBundle: no key or more than one, no certificate, one that can't be read, or a first
            certificate that is not the key's.
    """
    parts = take_apart(pem)
    leaf = parts.certificates[0]
    if not _fits(parts.key, leaf):
        raise BadBundle("the private key is not that of the certificate")
    return Bundle(pem, _facts(leaf, _type_of(parts.key)))


def read_leaf(der: bytes) -> Facts:
    """What a certificate says of itself that came without its key; DER, as TLS shows it.

    Raises:
        BadBundle: it can't be read, or its key is of a kind that is not used here.
    """
    try:
        leaf = x509.load_der_x509_certificate(der)
        key = leaf.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadBundle("the certificate can't be read") from error
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise BadBundle("the certificate's key is neither ECDSA nor RSA")
    return _facts(leaf, _type_of(key))


def leaf_der(bundle: Bundle) -> bytes:
    """The certificate of a bundle without its chain, in DER, as TLS shows it."""
    return take_apart(bundle.pem).certificates[0].public_bytes(Encoding.DER)


def make_bundle(key_pem: bytes, chain_pem: bytes, names: Iterable[str]) -> Bundle:
    """A bundle from our key and what a CA sent: the certificate, then its chain (RFC 8555 §9.1).

    Text between the certificates is left out.

    Raises:
        BadBundle: as `read_bundle`, or the certificate lacks one of `names`: a stranger's. It may
            have more of them; some CAs add one.
    """
    chain = _certificates(chain_pem)
    blocks = (key_to_pem(read_key(key_pem)), *(c.public_bytes(Encoding.PEM) for c in chain))
    bundle = read_bundle(b"".join(blocks))
    missing = sorted(set(names) - bundle.facts.names)
    if missing:
        raise BadBundle(f"the certificate lacks {', '.join(missing)}")
    return bundle


def take_apart(pem: bytes) -> Parts:
    """The key and the certificates of a bundle, in order; whether they fit is not looked at.

    Raises:
        BadBundle: not one key and at least one certificate, or one of them can't be read.
    """
    keys = [block for label, block in _blocks(pem) if label.endswith(b"PRIVATE KEY")]
    if len(keys) != 1:
        raise BadBundle(f"{len(keys)} private keys where there should be one")
    return Parts(read_key(keys[0]), _certificates(pem))


def _certificates(pem: bytes) -> tuple[x509.Certificate, ...]:
    blocks = [block for label, block in _blocks(pem) if label == b"CERTIFICATE"]
    if not blocks:
        raise BadBundle("there is no certificate")
    try:
        return tuple(map(x509.load_pem_x509_certificate, blocks))
    except ValueError as error:
        raise BadBundle("a certificate can't be read") from error


def _blocks(pem: bytes) -> list[tuple[bytes, bytes]]:
    """The labels and texts of all PEM blocks (RFC 7468)."""
    return [(match[1], match[0]) for match in _PEM_BLOCK.finditer(pem)]


def _fits(key: PrivateKey, leaf: x509.Certificate) -> bool:
    try:
        _prove(key, leaf)
    except InvalidSignature:
        return False
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadBundle("the certificate's key can't be used") from error
    return True


def _prove(key: PrivateKey, leaf: x509.Certificate) -> None:
    """Sign with the key, verify with the certificate; InvalidSignature where they don't fit."""
    public, algorithm = leaf.public_key(), hashes.SHA256()
    if isinstance(key, rsa.RSAPrivateKey) and isinstance(public, rsa.RSAPublicKey):
        signature = key.sign(_PROOF, padding.PKCS1v15(), algorithm)
        public.verify(signature, _PROOF, padding.PKCS1v15(), algorithm)
    elif isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(
        public, ec.EllipticCurvePublicKey
    ):
        public.verify(key.sign(_PROOF, ec.ECDSA(algorithm)), _PROOF, ec.ECDSA(algorithm))
    else:
        raise InvalidSignature


def _facts(leaf: x509.Certificate, key_type: str) -> Facts:
    try:
        return Facts(
            names=_names_of(leaf),
            not_before=leaf.not_valid_before_utc,
            not_after=leaf.not_valid_after_utc,
            key_type=key_type,
            issuer=_common_name(leaf.issuer),
            serial=leaf.serial_number,
            temporary=any(extension.oid == TEMPORARY_MARK for extension in leaf.extensions),
            authority_key_id=_authority_key_id(leaf),
        )
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise BadBundle("the certificate's extensions can't be read") from error


def _names_of(leaf: x509.Certificate) -> frozenset[str]:
    try:
        san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    hosts = (name.lower().removesuffix(".") for name in san.get_values_for_type(x509.DNSName))
    return frozenset((*hosts, *map(str, san.get_values_for_type(x509.IPAddress))))


def _common_name(name: x509.Name) -> str:
    """The common name, else the organization, else all there is."""
    for oid in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME):
        values = name.get_attributes_for_oid(oid)
        if values:
            return str(values[-1].value)
    return name.rfc4514_string()


def _authority_key_id(leaf: x509.Certificate) -> bytes | None:
    try:
        extension = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except x509.ExtensionNotFound:
        return None
    return extension.value.key_identifier


# Certificates of our own


def temporary(
    names: Iterable[str], key_type: str, now: datetime, *, key_pem: bytes | None = None
) -> Bundle:
    """A certificate that lets nginx start until there is a real one: self-signed, never valid.

    Names only in the SAN, since a common name ends at 64 characters; what can't be in a
    certificate is left out, so any name gets one. `key_pem`: a key of this type to use; many
    certificates may share one, since a new RSA key takes 50 ms and protects nothing here.
    """
    key = _new_key(key_type) if key_pem is None else read_key(key_pem)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, TEMPORARY_NAME)])
    builder = start_certificate(key.public_key(), now, now + TEMPORARY_LIFE)
    builder = builder.subject_name(subject).issuer_name(subject)
    builder = add_server_extensions(builder, key.public_key())
    builder = builder.add_extension(x509.UnrecognizedExtension(TEMPORARY_MARK, _NULL), False)
    fitting = [name for name in map(_general_name, sorted(set(names))) if name is not None]
    if fitting:
        builder = builder.add_extension(x509.SubjectAlternativeName(fitting), False)
    certificate = builder.sign(key, hash_for(key))
    return read_bundle(key_to_pem(key) + certificate.public_bytes(Encoding.PEM))


def start_certificate(
    public_key: PublicKey,
    not_before: datetime,
    not_after: datetime,
) -> x509.CertificateBuilder:
    """What every certificate has: key, its identifier, times, and a random serial number."""
    return (
        x509.CertificateBuilder()
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before.astimezone(UTC))
        .not_valid_after(not_after.astimezone(UTC))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), False)
    )


def add_server_extensions(
    builder: x509.CertificateBuilder, public_key: PublicKey
) -> x509.CertificateBuilder:
    """What makes it a TLS server's and no CA's (RFC 5280 §4.2.1.3, §4.2.1.9, §4.2.1.12)."""
    is_rsa = isinstance(public_key, rsa.RSAPublicKey)  # RSA key exchange encrypts
    usage = key_usage(digital_signature=True, key_encipherment=is_rsa)
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    return (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(usage, True)
        .add_extension(purposes, False)
    )


def key_usage(
    *,
    digital_signature: bool = False,
    key_encipherment: bool = False,
    key_cert_sign: bool = False,
    crl_sign: bool = False,
) -> x509.KeyUsage:
    """Only what is said; the library wants to hear each of the nine."""
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=key_encipherment,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )
