"""The issuer `local`: a certificate authority of one's own, for names that no other would certify.

    FOLDER/                   0700
      root-key.pem            private key and certificate of the root, for 10 years
      root.pem                the certificate alone: what `nginx-acme trust` prints and people install
      intermediate-key.pem    the same for the intermediate, for a year, which signs the leaves

A root in a trust store whose key lies on a web server could sign for any name, for everybody who
trusts it. So the root has critical name constraints (RFC 5280 §4.2.1.10): special-use names,
private addresses, and the names that the configuration has when the root is made.

A name that comes later and isn't permitted is refused, with what to do about it. The other ways
were worse: constraints on the intermediate alone bind nobody who has the root's key; a second
root, made silently, would serve a certificate that no client trusts and call it valid.

It says no as other issuers do, with a Problem (RFC 8555 §6.7), so that a refusal is one
certificate's and its retry is like any other's.

The intermediate carries the same constraints, for clients that take a trusted root as it is.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nginx_acme import disk, locks
from nginx_acme.certificate import (
    PrivateKey,
    add_server_extensions,
    general_names,
    hash_for,
    key_to_pem,
    key_usage,
    new_key,
    read_bundle,
    read_key,
    start_certificate,
    take_apart,
)
from nginx_acme.errors import BadBundle, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime
    from typing import Self

    from nginx_acme.certificate import PublicKey

ROOT_LIFE = timedelta(days=3653)
INTERMEDIATE_LIFE = timedelta(days=365)
LEAF_LIFE = timedelta(days=7)
BACKDATED = timedelta(hours=1)
"""For clients whose clock is slow."""
KEY_TYPE = "ecdsa:256"

SPECIAL_NAMES = (
    *("localhost", "internal", "test", "home.arpa", "local", "lan", "example", "invalid"),
)
"""With everything below them (RFC 6761, 6762, 8375, ICANN's .internal; .lan is nobody's)."""
PRIVATE_NETWORKS = (
    *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "169.254.0.0/16"),
    *("::1/128", "fc00::/7", "fe80::/10"),
)
"""Private, loopback and link-local (RFC 1918, 1122, 3927, 4291, 4193)."""

_LOCK_WAIT = 10.0  # seconds
_NETWORK = ipaddress.IPv4Network | ipaddress.IPv6Network


class _Signer(NamedTuple):
    """A certificate that may sign others, and its key."""

    key: PrivateKey
    certificate: x509.Certificate


@dataclass(frozen=True, slots=True)
class LocalAuthority:
    """A root and its intermediate, ready to sign."""

    folder: str
    root: x509.Certificate
    intermediate: _Signer = field(repr=False)

    @classmethod
    def open(cls, folder: str, names: Iterable[str], now: datetime) -> Self:
        """The authority kept in `folder`; root and intermediate are made where they are missing.

        Args:
            folder: made if need be; its lock is held meanwhile.
            names: all identifiers that the configuration wants from it, of all certificates: what
                a new root permits besides special-use names and private addresses, each with
                everything below it.
            now: the time.

        Raises:
            ConfigError: a name that no certificate can have.
            Problem: serverInternal; its root is damaged or expired. Neither is put right
                silently, since a new root is trusted by nobody.
            StateError: it can't be written.
        """
        disk.make_folder(folder, 0o700)
        with locks.lock(os.path.join(folder, "lock"), wait=_LOCK_WAIT):
            root = _root(folder, names, now)
            return cls(folder, root.certificate, _intermediate(folder, root, now))

    @property
    def root_pem(self) -> bytes:
        """What clients install."""
        return self.root.public_bytes(Encoding.PEM)

    def permits(self, name: str) -> bool:
        """Whether the root may sign for an identifier."""
        return _permits(_constraints_of(self.root), name)

    def issue(self, key_pem: bytes, names: Iterable[str], now: datetime) -> bytes:
        """A certificate of 7 days for a key: PEM of it and the intermediate, as a CA sends it.

        Raises:
            BadBundle: `key_pem` is no private key.
            ConfigError: a name that no certificate can have.
            Problem: rejectedIdentifier; a name that the root may not sign for.
        """
        wanted = sorted(set(names))
        refused = [name for name in wanted if not self.permits(name)]
        if refused:
            raise Problem(
                "rejectedIdentifier",
                f"the local root was not made for {', '.join(refused)}: {_anew(self.folder)}",
            )
        leaf = _sign_leaf(self.intermediate, read_key(key_pem).public_key(), wanted, now)
        return b"".join(
            certificate.public_bytes(Encoding.PEM)
            for certificate in (leaf, self.intermediate.certificate)
        )


def _root(folder: str, names: Iterable[str], now: datetime) -> _Signer:
    path = os.path.join(folder, "root-key.pem")
    try:
        root = _read(path)
    except BadBundle as error:
        raise Problem(
            "serverInternal",
            f'the local root "{path}" is damaged ({error}): restore it, or {_anew(folder)}',
        ) from error
    if root is None:
        root = _new_root(_constraints(names), now)
        _write(path, root)
    end = root.certificate.not_valid_after_utc
    if end <= now:
        raise Problem(
            "serverInternal", f'the local root "{path}" expired on {end:%Y-%m-%d}: {_anew(folder)}'
        )
    _publish(os.path.join(folder, "root.pem"), root.certificate)
    return root


def _anew(folder: str) -> str:
    return (
        f'remove "{folder}" to have a new one made, and install that wherever the old one is '
        "trusted"
    )


def _intermediate(folder: str, root: _Signer, now: datetime) -> _Signer:
    path = os.path.join(folder, "intermediate-key.pem")
    try:
        found = _read(path)
    except BadBundle:
        found = None  # nobody misses it
    if found is not None and _is_good(found.certificate, root.certificate, now):
        return found
    made = _new_intermediate(root, now)
    _write(path, made)
    return made


def _is_good(intermediate: x509.Certificate, root: x509.Certificate, now: datetime) -> bool:
    """Whether it is this root's and a third of its life is left."""
    try:
        intermediate.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature):
        return False
    end = intermediate.not_valid_after_utc
    return end - now >= (end - intermediate.not_valid_before_utc) / 3


def _new_root(constraints: x509.NameConstraints, now: datetime) -> _Signer:
    key = read_key(new_key(KEY_TYPE))
    name = _name_for("root", key.public_key())
    builder = _start_signer(key.public_key(), name, now, now + ROOT_LIFE, path_length=1)
    builder = builder.issuer_name(name).add_extension(constraints, True)
    return _Signer(key, builder.sign(key, hash_for(key)))


def _new_intermediate(root: _Signer, now: datetime) -> _Signer:
    key = read_key(new_key(KEY_TYPE))
    name = _name_for("intermediate", key.public_key())
    end = min(now + INTERMEDIATE_LIFE, root.certificate.not_valid_after_utc)
    builder = _start_signer(key.public_key(), name, now, end, path_length=0)
    builder = builder.add_extension(_constraints_of(root.certificate), True)
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    return _Signer(key, _sign(root, builder.add_extension(purposes, False)))


def _sign_leaf(
    intermediate: _Signer, public_key: PublicKey, names: Iterable[str], now: datetime
) -> x509.Certificate:
    end = min(now + LEAF_LIFE, intermediate.certificate.not_valid_after_utc)
    builder = start_certificate(public_key, now - BACKDATED, end).subject_name(x509.Name([]))
    # Critical, since there is no subject (RFC 5280 §4.2.1.6).
    san = x509.SubjectAlternativeName(general_names(names))
    return _sign(intermediate, add_server_extensions(builder, public_key).add_extension(san, True))


def _start_signer(
    public_key: PublicKey, name: x509.Name, now: datetime, end: datetime, *, path_length: int
) -> x509.CertificateBuilder:
    return (
        start_certificate(public_key, now - BACKDATED, end)
        .subject_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), True)
        .add_extension(key_usage(key_cert_sign=True, crl_sign=True), True)
    )


def _sign(issuer: _Signer, builder: x509.CertificateBuilder) -> x509.Certificate:
    by = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
    builder = builder.issuer_name(issuer.certificate.subject).add_extension(by, False)
    return builder.sign(issuer.key, hash_for(issuer.key))


def _name_for(kind: str, public_key: PublicKey) -> x509.Name:
    """A name that tells two authorities apart and nothing about who runs them."""
    digest = x509.SubjectKeyIdentifier.from_public_key(public_key).digest.hex()
    text = f"nginx-acme local {kind} {digest[:8]}"
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


# Name constraints


def _constraints(names: Iterable[str]) -> x509.NameConstraints:
    """Special-use names, private networks, and of `names` what is below none of them.

    Nothing twice, since every chain that is served carries all of it.
    """
    hosts = dict.fromkeys(SPECIAL_NAMES)
    networks = dict.fromkeys(map(ipaddress.ip_network, PRIVATE_NETWORKS))
    wanted = general_names(names)
    plain = (one.value.removeprefix("*.") for one in wanted if isinstance(one, x509.DNSName))
    for host in sorted(plain, key=lambda host: host.count(".")):
        if not any(above in hosts for above in _and_above(host)):
            hosts[host] = None
    for one in wanted:
        if isinstance(one, x509.IPAddress) and not any(one.value in other for other in networks):
            networks[ipaddress.ip_network(one.value)] = None
    trees = (*map(x509.DNSName, hosts), *map(x509.IPAddress, networks))
    return x509.NameConstraints(trees, excluded_subtrees=None)


def _and_above(host: str) -> Iterator[str]:
    """A name, and each that it is below."""
    while host:
        yield host
        host = host.partition(".")[2]


def _constraints_of(certificate: x509.Certificate) -> x509.NameConstraints:
    return certificate.extensions.get_extension_for_class(x509.NameConstraints).value


def _permits(constraints: x509.NameConstraints, name: str) -> bool:
    subtrees = constraints.permitted_subtrees or ()
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        hosts = (tree.value for tree in subtrees if isinstance(tree, x509.DNSName))
        return any(f".{name}".endswith(f".{host}") for host in hosts)
    networks = (tree.value for tree in subtrees if isinstance(tree, x509.IPAddress))
    return any(isinstance(network, _NETWORK) and address in network for network in networks)


# Files


def _read(path: str) -> _Signer | None:
    """A key and its certificate; None where there are none; BadBundle where they are damaged."""
    pem = disk.read(path)
    if pem is None:
        return None
    parts = take_apart(read_bundle(pem).pem)
    return _Signer(parts.key, parts.certificates[0])


def _write(path: str, signer: _Signer) -> None:
    pem = key_to_pem(signer.key) + signer.certificate.public_bytes(Encoding.PEM)
    disk.replace(path, pem, mode=0o600, durable=True)


def _publish(path: str, certificate: x509.Certificate) -> None:
    pem = certificate.public_bytes(Encoding.PEM)
    if disk.read(path) != pem:
        disk.replace(path, pem, mode=0o644, durable=False)
