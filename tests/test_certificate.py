"""Keys, requests and bundles; the judge of what is made is OpenSSL as Python and nginx use it."""

from __future__ import annotations

import ipaddress
import ssl
import string
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from nginx_acme import certificate
from nginx_acme.bundle import is_address
from nginx_acme.certificate import leaf_der, read_bundle, read_leaf, temporary
from nginx_acme.errors import BadBundle, ConfigError
from nginx_acme.key_types import KEY_TYPES

if TYPE_CHECKING:
    from pathlib import Path

    from nginx_acme.bundle import Bundle

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NAMES = ("example.com", "*.example.org", "192.0.2.1", "2001:db8::1")
QUICK_TYPES = ("ecdsa:256", "ecdsa:384", "ecdsa:521", "rsa:2048")

KEY = certificate.new_key("ecdsa:256")
OTHER_KEY = certificate.new_key("ecdsa:256")
RSA_KEY = certificate.new_key("rsa:2048")
BUNDLE = temporary(NAMES, "ecdsa:256", NOW, key_pem=KEY)


def leaf_of(bundle: Bundle) -> x509.Certificate:
    """The first certificate of a bundle."""
    return x509.load_pem_x509_certificate(bundle.pem)


def extension(leaf: x509.Certificate, kind: type[Any]) -> Any:
    """The value of an extension that must be there."""
    return leaf.extensions.get_extension_for_class(kind).value


def chain_of(pem: bytes) -> bytes:
    """What a CA would send: a bundle without its key."""
    return pem[pem.index(b"-----BEGIN CERTIFICATE") :]


def serves(folder: Path, pem: bytes) -> bool:
    """Whether OpenSSL would serve with this file as key and certificate."""
    path = folder / "bundle.pem"
    path.write_bytes(pem)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path)
    except (ssl.SSLError, OSError):
        return False
    return True


def signed(
    key_pem: bytes = KEY,
    *,
    issuer: list[x509.NameAttribute[str]] | None = None,
    extensions: tuple[x509.ExtensionType, ...] = (),
) -> bytes:
    """A certificate for a key, by hand."""
    key = certificate.read_key(key_pem)
    builder = certificate.start_certificate(key.public_key(), NOW, NOW + timedelta(days=1))
    builder = builder.subject_name(x509.Name([])).issuer_name(x509.Name(issuer or []))
    for value in extensions:
        builder = builder.add_extension(value, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


# Keys


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_a_new_key_is_what_was_asked_for(key_type: str) -> None:
    """Every type of the `key=` parameter can be made, and is known again."""
    pem = certificate.new_key(key_type)
    assert pem.startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert certificate.key_type_of(pem) == key_type


def test_a_fingerprint_is_that_of_the_public_key() -> None:
    """The same in every encoding of the key, another for another key."""
    traditional = certificate.read_key(KEY).private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
    )
    assert certificate.fingerprint(traditional) == certificate.fingerprint(KEY)
    assert certificate.fingerprint(OTHER_KEY) != certificate.fingerprint(KEY)
    assert len(certificate.fingerprint(KEY)) == 64


def _encrypted() -> bytes:
    return certificate.read_key(KEY).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )


def _ed25519() -> bytes:
    return ed25519.Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )


def _odd_curve() -> bytes:
    return ec.generate_private_key(ec.SECP256K1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )


@pytest.mark.parametrize(
    ("pem", "reason"),
    [
        pytest.param(b"", "can't be read", id="empty"),
        pytest.param(b"\0\xff", "can't be read", id="binary"),
        pytest.param(KEY[:100], "can't be read", id="cut off"),
        pytest.param(_encrypted(), "encrypted", id="encrypted"),
        pytest.param(_ed25519(), "neither ECDSA nor RSA", id="another kind"),
        pytest.param(_odd_curve(), "secp256k1", id="another curve"),
    ],
)
def test_what_is_no_key_of_ours(pem: bytes, reason: str) -> None:
    """A key that can't be used is a BadBundle with the reason."""
    with pytest.raises(BadBundle, match=reason):
        certificate.key_type_of(pem)


# Requests


@pytest.mark.parametrize("key_type", QUICK_TYPES)
def test_a_request_has_the_key_and_the_names(key_type: str) -> None:
    """RFC 8555 §7.4: the identifiers as SAN, addresses as addresses (RFC 8738), no subject."""
    key_pem = certificate.new_key(key_type)
    request = x509.load_der_x509_csr(certificate.csr(key_pem, NAMES))
    san = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert request.is_signature_valid
    assert request.public_key() == certificate.read_key(key_pem).public_key()
    assert request.subject == x509.Name([])
    assert san.get_values_for_type(x509.DNSName) == ["*.example.org", "example.com"]
    assert [str(a) for a in san.get_values_for_type(x509.IPAddress)] == ["192.0.2.1", "2001:db8::1"]


def test_the_order_of_names_does_not_matter() -> None:
    """The same names give the same request; names given twice are there once."""
    requests = [
        x509.load_der_x509_csr(certificate.csr(KEY, names))
        for names in (NAMES, NAMES[::-1], NAMES + NAMES)
    ]
    assert len({request.tbs_certrequest_bytes for request in requests}) == 1


@pytest.mark.parametrize("name", ["", "münchen.example", "a b", "a\n", "a" * 64, "fe80::1%eth0"])
def test_a_request_for_an_impossible_name(name: str) -> None:
    """The message names the name; no exception of a library comes through."""
    with pytest.raises(ConfigError, match="no certificate can have the name"):
        certificate.csr(KEY, ["example.com", name])


# Bundles


def _rsa_bundle() -> bytes:
    return temporary(NAMES, "rsa:2048", NOW, key_pem=RSA_KEY).pem


def _with_key(form: PrivateFormat, pem: bytes) -> bytes:
    parts = certificate.take_apart(pem)
    return parts.key.private_bytes(Encoding.PEM, form, NoEncryption()) + chain_of(pem)


EC_PARAMETERS = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"


@pytest.mark.parametrize(
    ("pem", "key_type"),
    [
        pytest.param(BUNDLE.pem, "ecdsa:256", id="our own"),
        pytest.param(_rsa_bundle(), "rsa:2048", id="RSA"),
        pytest.param(
            _with_key(PrivateFormat.TraditionalOpenSSL, BUNDLE.pem), "ecdsa:256", id="SEC 1"
        ),
        pytest.param(
            _with_key(PrivateFormat.TraditionalOpenSSL, _rsa_bundle()), "rsa:2048", id="PKCS #1"
        ),
        pytest.param(
            EC_PARAMETERS + _with_key(PrivateFormat.TraditionalOpenSSL, BUNDLE.pem),
            "ecdsa:256",
            id="curve before the key, as openssl ecparam -genkey writes it",
        ),
        pytest.param(chain_of(BUNDLE.pem) + KEY, "ecdsa:256", id="key last"),
        pytest.param(BUNDLE.pem.replace(b"\n", b"\r\n"), "ecdsa:256", id="CRLF"),
        pytest.param(
            b"subject=example\n" + BUNDLE.pem + b"trailing text", "ecdsa:256", id="text around"
        ),
        pytest.param(BUNDLE.pem + signed(RSA_KEY) * 3, "ecdsa:256", id="three intermediates"),
    ],
)
def test_what_nginx_would_serve_is_read(tmp_path: Path, pem: bytes, key_type: str) -> None:
    """Whatever form key and chain have, as far as OpenSSL takes it; the file stays as it was."""
    bundle = read_bundle(pem)
    assert bundle.pem == pem
    assert bundle.facts.key_type == key_type
    assert bundle.facts.names == set(NAMES)
    assert serves(tmp_path, pem)


@pytest.mark.parametrize(
    ("pem", "reason"),
    [
        pytest.param(b"", "0 private keys", id="empty"),
        pytest.param(b"\0" * 1000, "0 private keys", id="zeros, as after a power cut"),
        pytest.param(chain_of(BUNDLE.pem), "0 private keys", id="no key"),
        pytest.param(KEY + BUNDLE.pem, "2 private keys", id="two keys"),
        pytest.param(KEY, "no certificate", id="no certificate"),
        pytest.param(BUNDLE.pem[:-40], "no certificate", id="cut off"),
        pytest.param(
            BUNDLE.pem.replace(b"CERTIFICATE-----\nM", b"CERTIFICATE-----\nN"),
            "a certificate can't be read",
            id="damaged",
        ),
        pytest.param(OTHER_KEY + chain_of(BUNDLE.pem), "not that of", id="another's key"),
        pytest.param(RSA_KEY + chain_of(BUNDLE.pem), "not that of", id="another kind of key"),
        pytest.param(
            BUNDLE.pem + b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
            "a certificate can't be read",
            id="damaged intermediate",
        ),
    ],
)
def test_what_nginx_would_refuse_is_no_bundle(tmp_path: Path, pem: bytes, reason: str) -> None:
    """A file that nginx couldn't start with is told apart, with the reason."""
    with pytest.raises(BadBundle, match=reason):
        read_bundle(pem)
    assert not serves(tmp_path, pem) or reason == "2 private keys"


def _of_an_unknown_curve() -> bytes:
    p256, unknown = bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a8648ce3d03017f")
    der = leaf_of(BUNDLE).public_bytes(Encoding.DER)
    return ssl.DER_cert_to_PEM_cert(der.replace(p256, unknown)).encode()


def _with_broken_names() -> bytes:
    broken = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"\x30\x7f")
    return signed(extensions=(broken,))


@pytest.mark.parametrize(
    ("leaf", "reason"),
    [
        pytest.param(_of_an_unknown_curve(), "key can't be used", id="unknown curve"),
        pytest.param(_with_broken_names(), "extensions can't be read", id="broken extension"),
    ],
)
def test_a_certificate_that_is_not_understood(leaf: bytes, reason: str) -> None:
    """What the library chokes on later than on reading is no bundle either."""
    with pytest.raises(BadBundle, match=reason):
        read_bundle(KEY + leaf)


def test_an_rsa_key_of_another_is_found_out() -> None:
    """The quick check of RSA keys sees a key that is not the certificate's."""
    other = certificate.new_key("rsa:2048")
    with pytest.raises(BadBundle, match="not that of"):
        read_bundle(other + chain_of(_rsa_bundle()))


def test_an_rsa_key_with_the_right_modulus_and_a_wrong_exponent_is_found_out() -> None:
    """What looks like the right key but can't sign is none."""
    numbers = certificate.take_apart(_rsa_bundle()).key.private_numbers()
    assert isinstance(numbers, rsa.RSAPrivateNumbers)
    wrong = rsa.RSAPrivateNumbers(
        p=numbers.p,
        q=numbers.q,
        d=numbers.d + 2,
        dmp1=numbers.dmp1 + 2,
        dmq1=numbers.dmq1 + 2,
        iqmp=numbers.iqmp,
        public_numbers=numbers.public_numbers,
    ).private_key(unsafe_skip_rsa_key_validation=True)
    with pytest.raises(BadBundle):
        read_bundle(certificate.key_to_pem(wrong) + chain_of(_rsa_bundle()))


@settings(max_examples=300, deadline=None)
@given(
    start=st.integers(0, len(BUNDLE.pem) - 1),
    length=st.integers(0, 30),
    instead=st.binary(max_size=30),
)
def test_any_damage_is_seen_or_harmless(start: int, length: int, instead: bytes) -> None:
    """A damaged bundle is a BadBundle or still key and certificate; nothing else comes out."""
    pem = BUNDLE.pem[:start] + instead + BUNDLE.pem[start + length :]
    try:
        bundle = read_bundle(pem)
    except BadBundle:
        return
    assert bundle.facts.key_type == "ecdsa:256"
    assert leaf_of(bundle).public_key() == certificate.read_key(KEY).public_key()


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_content_of_a_block_is_read_or_refused(key: bytes, leaf: bytes) -> None:
    """Only BadBundle comes out of garbage between the right lines."""
    template = b"-----BEGIN %s-----\n%s\n-----END %s-----\n"
    pem = template % (b"PRIVATE KEY", key, b"PRIVATE KEY")
    pem += template % (b"CERTIFICATE", leaf, b"CERTIFICATE")
    with pytest.raises(BadBundle):
        read_bundle(pem)


def test_no_key_in_a_repr() -> None:
    """What shows up in a log or a traceback shows no key."""
    assert "PRIVATE" not in repr(BUNDLE)
    assert "example.com" in repr(BUNDLE)


# From a CA


def test_a_bundle_of_what_a_ca_sent(tmp_path: Path) -> None:
    """Key first, then the certificates in their order, without the text between them."""
    intermediate = signed(RSA_KEY)
    sent = b"# leaf\r\n" + chain_of(BUNDLE.pem).replace(b"\n", b"\r\n") + b"# CA\n" + intermediate
    bundle = certificate.make_bundle(KEY, sent, ["example.com"])
    assert bundle.pem == KEY + chain_of(BUNDLE.pem) + intermediate
    assert bundle == read_bundle(bundle.pem)
    assert serves(tmp_path, bundle.pem)


@pytest.mark.parametrize(
    ("key_pem", "names", "reason"),
    [
        pytest.param(OTHER_KEY, NAMES, "not that of", id="for another key"),
        pytest.param(
            KEY, (*NAMES, "other.example"), "lacks other.example$", id="a name is missing"
        ),
        pytest.param(KEY, ("www.example.com", "b"), "lacks b, www.example.com", id="two are"),
        pytest.param(KEY, ("a.example.org",), "lacks a.example.org", id="covered is not named"),
    ],
)
def test_a_strangers_certificate(key_pem: bytes, names: tuple[str, ...], reason: str) -> None:
    """What doesn't fit our key and names is never stored."""
    with pytest.raises(BadBundle, match=reason):
        certificate.make_bundle(key_pem, chain_of(BUNDLE.pem), names)


def test_an_answer_without_certificates() -> None:
    """An error page in place of a chain is a BadBundle."""
    with pytest.raises(BadBundle, match="no certificate"):
        certificate.make_bundle(KEY, b"<html>", NAMES)


# Facts


def test_facts() -> None:
    """What a certificate says of itself, read back."""
    facts = BUNDLE.facts
    leaf = leaf_of(BUNDLE)
    assert (facts.not_before, facts.not_after) == (NOW, NOW + timedelta(days=90))
    assert facts.serial == leaf.serial_number
    assert facts.issuer == "nginx-acme temporary certificate"
    assert facts.authority_key_id is None


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_a_certificate_that_came_without_its_key(key_type: str) -> None:
    """What TLS shows of a bundle says the same of itself."""
    bundle = temporary(NAMES, key_type, NOW)
    assert leaf_der(bundle) == leaf_of(bundle).public_bytes(Encoding.DER)
    assert read_leaf(leaf_der(bundle)) == bundle.facts


def test_what_is_no_certificate_of_ours() -> None:
    """Neither what can't be read nor a key of another kind is guessed at."""
    key = ed25519.Ed25519PrivateKey.generate()
    odd = leaf_of(BUNDLE)
    builder = (
        x509.CertificateBuilder()
        .subject_name(odd.subject)
        .issuer_name(odd.issuer)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW)
    )
    for der in (b"", b"0", builder.sign(key, None).public_bytes(Encoding.DER)):
        with pytest.raises(BadBundle):
            read_leaf(der)


def test_names_are_canonical_whatever_the_ca_wrote() -> None:
    """Lower case, no trailing dot, addresses in their shortest text."""
    san = x509.SubjectAlternativeName(
        [
            x509.DNSName("EXAMPLE.com."),
            x509.IPAddress(ipaddress.ip_address("2001:0db8:0::0:1")),
            x509.RFC822Name("someone@example.com"),
        ]
    )
    facts = read_bundle(KEY + signed(extensions=(san,))).facts
    assert facts.names == {"example.com", "2001:db8::1"}
    assert not facts.temporary


def test_a_certificate_without_names() -> None:
    """A common name is no name (RFC 6125 §6.4.4), so such a certificate is for nobody."""
    assert read_bundle(KEY + signed()).facts.names == frozenset()


@pytest.mark.parametrize(
    ("issuer", "expected"),
    [
        pytest.param([("O", "Let's Encrypt"), ("CN", "E5")], "E5", id="common name"),
        pytest.param([("O", "Some CA")], "Some CA", id="organization"),
        pytest.param([("C", "DE")], "C=DE", id="neither"),
        pytest.param([], "", id="nothing"),
    ],
)
def test_the_issuer(issuer: list[tuple[str, str]], expected: str) -> None:
    """The best name there is for who issued it."""
    kinds = {
        "O": NameOID.ORGANIZATION_NAME,
        "CN": NameOID.COMMON_NAME,
        "C": NameOID.COUNTRY_NAME,
    }
    attributes = [x509.NameAttribute(kinds[kind], value) for kind, value in issuer]
    assert read_bundle(KEY + signed(issuer=attributes)).facts.issuer == expected


def test_the_authority_key_identifier() -> None:
    """Kept for renewal information (RFC 9773 §4.1)."""
    identifier = x509.AuthorityKeyIdentifier(b"\x01\x02", None, None)
    facts = read_bundle(KEY + signed(extensions=(identifier,))).facts
    assert facts.authority_key_id == b"\x01\x02"


@pytest.mark.parametrize(
    ("name", "covered"),
    [
        pytest.param("example.com", True, id="named"),
        pytest.param("www.example.com", False, id="below a name"),
        pytest.param("a.example.org", True, id="below a wildcard"),
        pytest.param("*.example.org", True, id="the wildcard"),
        pytest.param("example.org", False, id="the parent of a wildcard"),
        pytest.param("a.b.example.org", False, id="two below a wildcard"),
        pytest.param("192.0.2.1", True, id="address"),
        pytest.param("192.0.2.2", False, id="another address"),
        pytest.param("localhost", False, id="no dot"),
        pytest.param("", False, id="nothing"),
    ],
)
def test_covers(name: str, *, covered: bool) -> None:
    """As browsers decide it."""
    assert BUNDLE.facts.covers(name) is covered


# Temporary


@pytest.mark.parametrize("key_type", QUICK_TYPES)
def test_a_temporary_certificate(tmp_path: Path, key_type: str) -> None:
    """It can be served, is for servers only and 90 days, and is known as what it is."""
    bundle = temporary(NAMES, key_type, NOW)
    leaf = leaf_of(bundle)
    assert serves(tmp_path, bundle.pem)
    assert bundle.facts.temporary
    assert bundle.facts.key_type == key_type
    assert bundle.facts.names == set(NAMES)
    assert extension(leaf, x509.BasicConstraints).ca is False
    assert list(extension(leaf, x509.ExtendedKeyUsage)) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert extension(leaf, x509.KeyUsage).key_encipherment is (key_type == "rsa:2048")


def test_temporary_is_no_matter_of_who_signed() -> None:
    """A self-signed certificate that somebody brought is not temporary."""
    assert not read_bundle(KEY + signed()).facts.temporary


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("a" * 300, id="300 characters"),
        pytest.param(".".join(["a" * 60] * 5), id="long with labels"),
        pytest.param("münchen.example", id="not ASCII"),
        pytest.param("a b", id="space"),
        pytest.param("a\0b", id="NUL"),
        pytest.param("../../etc/passwd", id="path"),
        pytest.param("example.com\n", id="newline"),
        pytest.param("~^www", id="regular expression"),
        pytest.param("www.*", id="wildcard at the end"),
        pytest.param("", id="nothing"),
        pytest.param("\udcff.example", id="a byte that is no UTF-8"),
    ],
)
def test_a_name_that_no_certificate_can_have_is_left_out(tmp_path: Path, name: str) -> None:
    """Any name gets a temporary certificate, for the names that can be in one."""
    bundle = temporary([name, "example.com"], "ecdsa:256", NOW)
    assert bundle.facts.names == {"example.com"}
    alone = temporary([name], "ecdsa:256", NOW)
    assert alone.facts.names == frozenset()
    assert serves(tmp_path, alone.pem)


@settings(deadline=None)
@given(st.lists(st.text() | st.text(string.ascii_letters + ".-*_:0123456789")))
def test_no_name_stops_a_temporary_certificate(names: list[str]) -> None:
    """Whatever the names, there is a certificate, and it has no others."""
    facts = temporary(names, "ecdsa:256", NOW, key_pem=KEY).facts
    assert facts.temporary
    for name in facts.names - set(names):
        assert name in {str(ipaddress.ip_address(n)) for n in names if is_address(n)}


def test_temporary_certificates_may_share_a_key() -> None:
    """A thousand of them need no thousand RSA keys."""
    bundles = [temporary([name], "rsa:2048", NOW, key_pem=RSA_KEY) for name in NAMES]
    assert {certificate.fingerprint(bundle.pem) for bundle in bundles} == {
        certificate.fingerprint(RSA_KEY)
    }
    assert len({bundle.facts.serial for bundle in bundles}) == len(NAMES)


def test_a_clock_that_was_never_set() -> None:
    """At the epoch there is a temporary certificate, too."""
    assert temporary(NAMES, "ecdsa:256", datetime.fromtimestamp(0, UTC)).facts.temporary
