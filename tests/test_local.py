"""The issuer `local`, judged by OpenSSL in real handshakes."""

from __future__ import annotations

import ipaddress
import os
import ssl
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from nginx_acme import disk, local
from nginx_acme.certificate import make_bundle, new_key, read_bundle, read_key
from nginx_acme.errors import BadBundle, ConfigError, Problem, StateError
from nginx_acme.local import LocalAuthority

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime.now(UTC).replace(microsecond=0)
KEY = new_key("ecdsa:256")
DAY, YEAR = timedelta(days=1), timedelta(days=365)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the authority is kept; it is not made yet."""
    return tmp_path / "local"


def opened(folder: Path, *names: str, now: datetime = NOW) -> LocalAuthority:
    """The authority for these names."""
    return LocalAuthority.open(str(folder), names, now)


def issued(authority: LocalAuthority, *names: str, key_pem: bytes = KEY) -> bytes:
    """Key, leaf and intermediate for names that the authority may sign for."""
    return make_bundle(key_pem, authority.issue(key_pem, names, NOW), names).pem


def forced(authority: LocalAuthority, *names: str) -> bytes:
    """The same, for any names, as a thief of the intermediate's key would make it."""
    public_key = read_key(KEY).public_key()
    leaf = local._sign_leaf(authority.intermediate, public_key, names, NOW)
    return KEY + chain(leaf, authority.intermediate.certificate)


def chain(*certificates: x509.Certificate) -> bytes:
    """Certificates as PEM."""
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


def certificates(pem: bytes) -> list[x509.Certificate]:
    """PEM as certificates."""
    return x509.load_pem_x509_certificates(pem)


def extension(leaf: x509.Certificate, kind: type[Any]) -> Any:
    """The value of an extension that must be there."""
    return leaf.extensions.get_extension_for_class(kind).value


def handshake(folder: Path, bundle: bytes, root_pem: bytes, name: str) -> None:
    """Connect to a server that shows `bundle`, as a strict client that trusts one root."""
    path = folder / "served.pem"
    path.write_bytes(bundle)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(path)
    asking = ssl.create_default_context(cadata=root_pem.decode())
    asking.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = asking.wrap_bio(to_client, to_server, server_hostname=name)
    server = serving.wrap_bio(to_server, to_client, server_side=True)
    ends = [client, server]
    while ends:
        for end in tuple(ends):
            try:
                end.do_handshake()
                ends.remove(end)
            except ssl.SSLWantReadError:
                continue


# Trust


@pytest.mark.parametrize("key_type", ["ecdsa:256", "ecdsa:384", "rsa:2048"])
@pytest.mark.parametrize(
    "name",
    [
        *("localhost", "app.localhost", "db.internal", "a.b.home.arpa", "printer.lan"),
        *("127.0.0.1", "10.1.2.3", "192.168.0.1", "::1", "fd00::1", "169.254.1.1", "fe80::1"),
    ],
)
def test_what_it_signs_is_trusted(tmp_path: Path, folder: Path, name: str, key_type: str) -> None:
    """A strict client that trusts the root accepts a certificate for any private name."""
    authority = opened(folder)
    bundle = issued(authority, name, key_pem=new_key(key_type))
    handshake(tmp_path, bundle, authority.root_pem, name)


def test_names_of_the_configuration_are_permitted(tmp_path: Path, folder: Path) -> None:
    """What is wanted when the root is made can be signed for, with everything below it."""
    names = ("intranet", "*.corp.example.com", "203.0.113.7", "2001:db8::7")
    authority = opened(folder, *names)
    bundle = issued(authority, *names)
    for name in ("intranet", "a.corp.example.com", "203.0.113.7", "2001:db8::7"):
        handshake(tmp_path, bundle, authority.root_pem, name)
    for name in ("corp.example.com", "x.intranet"):
        handshake(tmp_path, issued(authority, name), authority.root_pem, name)


def test_no_name_is_permitted_twice(folder: Path) -> None:
    """What is below a permitted name or network takes no room: each chain carries all of it."""
    below = ("a.test", "b.localhost", "10.1.2.3", "fd00::1", "www.example.com", "*.example.com")
    authority = opened(folder, *below, "example.com", "myexample.com", "203.0.113.7")
    trees = extension(authority.root, x509.NameConstraints).permitted_subtrees or []
    names = [one.value for one in trees if isinstance(one, x509.DNSName)]
    networks = [str(one.value) for one in trees if isinstance(one, x509.IPAddress)]
    assert names == [*local.SPECIAL_NAMES, "example.com", "myexample.com"]
    assert networks == [*local.PRIVATE_NETWORKS, "203.0.113.7/32"]
    assert all(map(authority.permits, below))


def test_another_root_is_not_trusted(tmp_path: Path, folder: Path) -> None:
    """Two authorities have nothing to do with each other."""
    authority, other = opened(folder), opened(tmp_path / "other")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path, issued(authority, "localhost"), other.root_pem, "localhost")


STRANGERS = [
    *("google.com", "www.google.com", "notlocalhost", "internal.com", "myinternal"),
    *("8.8.8.8", "11.0.0.1", "2606:4700::1111", "172.32.0.1"),
]


@pytest.mark.parametrize("name", STRANGERS)
def test_a_strangers_name_is_refused(folder: Path, name: str) -> None:
    """It says no as other issuers do, names the name, and says what to remove."""
    authority = opened(folder, "corp.example.com")
    assert not authority.permits(name)
    with pytest.raises(Problem, match=f'not made for {name}: remove "{folder}"') as caught:
        authority.issue(KEY, ["localhost", name], NOW)
    assert caught.value.type == "rejectedIdentifier"


@pytest.mark.parametrize("name", STRANGERS)
def test_a_stolen_intermediate_signs_for_no_stranger(
    tmp_path: Path, folder: Path, name: str
) -> None:
    """Clients that trust the root refuse a stranger's name that its intermediate signed for."""
    authority = opened(folder, "corp.example.com")
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
        handshake(tmp_path, forced(authority, name), authority.root_pem, name)


def test_a_stolen_root_signs_for_no_stranger(tmp_path: Path, folder: Path) -> None:
    """Nor does an intermediate without constraints help who has the root's key."""
    authority = opened(folder)
    root = local._read(str(folder / "root-key.pem"))
    assert root is not None
    key = read_key(new_key("ecdsa:256"))
    name = local._name_for("intermediate", key.public_key())
    builder = local._start_signer(key.public_key(), name, NOW, NOW + YEAR, path_length=0)
    unbound = local._Signer(key, local._sign(root, builder))
    thief = LocalAuthority(str(folder), authority.root, unbound)
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
        handshake(tmp_path, forced(thief, "google.com"), authority.root_pem, "google.com")
    handshake(tmp_path, forced(thief, "localhost"), authority.root_pem, "localhost")


def test_a_leaf_signs_nothing(tmp_path: Path, folder: Path) -> None:
    """A certificate of a server is no authority."""
    authority = opened(folder)
    leaf = certificates(authority.issue(KEY, ["localhost"], NOW))[0]
    thief = LocalAuthority(str(folder), authority.root, local._Signer(read_key(KEY), leaf))
    served = forced(thief, "localhost") + chain(authority.intermediate.certificate)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path, served, authority.root_pem, "localhost")


# What is in the certificates


def test_a_leaf(folder: Path) -> None:
    """Seven days, for servers only, its names critical since it has no subject, no root with it."""
    authority = opened(folder)
    sent = certificates(authority.issue(KEY, ["b.test", "a.test", "::1", "a.test"], NOW))
    assert len(sent) == 2
    leaf, intermediate = sent
    san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert san.critical
    assert [name.value for name in san.value if isinstance(name, x509.DNSName)] == [
        "a.test",
        "b.test",
    ]
    assert leaf.not_valid_after_utc == NOW + timedelta(days=7)
    assert NOW - DAY < leaf.not_valid_before_utc < NOW
    assert extension(leaf, x509.BasicConstraints).ca is False
    assert extension(leaf, x509.AuthorityKeyIdentifier).key_identifier == (
        extension(intermediate, x509.SubjectKeyIdentifier).digest
    )
    facts = read_bundle(KEY + chain(*sent)).facts
    assert facts.names == {"a.test", "b.test", "::1"}
    assert facts.issuer.startswith("nginx-acme local intermediate ")
    assert not facts.temporary


def test_root_and_intermediate(folder: Path) -> None:
    """Ten years and one; both constrained, critically; neither names who runs it."""
    authority = opened(folder)
    root, intermediate = authority.root, authority.intermediate.certificate
    assert root.not_valid_after_utc - NOW > 10 * YEAR
    assert intermediate.not_valid_after_utc == NOW + YEAR
    for one, path_length in ((root, 1), (intermediate, 0)):
        assert one.extensions.get_extension_for_class(x509.NameConstraints).critical
        assert extension(one, x509.BasicConstraints).path_length == path_length
        assert extension(one, x509.KeyUsage).key_cert_sign
        assert os.uname().nodename not in one.subject.rfc4514_string()
    assert extension(root, x509.NameConstraints) == extension(intermediate, x509.NameConstraints)
    assert extension(root, x509.NameConstraints).permitted_subtrees == [
        *(x509.DNSName(name) for name in local.SPECIAL_NAMES),
        *(x509.IPAddress(ipaddress.ip_network(network)) for network in local.PRIVATE_NETWORKS),
    ]


# Files


def test_files_and_their_modes(folder: Path) -> None:
    """Keys are in files that only the owner reads; the file to give away has none in it."""
    authority = opened(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {
        "root-key.pem": 0o600,
        "root.pem": 0o644,
        "intermediate-key.pem": 0o600,
        "lock": 0o600,
    }
    assert (folder / "root.pem").read_bytes() == authority.root_pem
    assert b"PRIVATE" not in authority.root_pem
    assert "PRIVATE" not in repr(authority)


def test_it_is_the_same_after_a_restart(folder: Path) -> None:
    """Root and intermediate stay, also when other names are wanted, and nothing is written."""
    first = opened(folder, "corp.example.com")
    before = {path: path.read_bytes() for path in folder.iterdir() if path.name != "lock"}
    for now in (NOW, NOW + 200 * DAY, NOW - 3 * YEAR):
        again = opened(folder, "other.example.com", now=now)
        assert again.root == first.root
        assert again.intermediate.certificate == first.intermediate.certificate
        assert not again.permits("other.example.com")
    assert before == {path: path.read_bytes() for path in folder.iterdir() if path.name != "lock"}


@pytest.mark.parametrize(
    ("days", "renewed"),
    [
        pytest.param(242, False, id="over a third left"),
        pytest.param(244, True, id="under a third left"),
        pytest.param(800, True, id="expired"),
    ],
)
def test_the_intermediate_is_renewed_in_time(folder: Path, days: int, *, renewed: bool) -> None:
    """With a new key, when under a third of its life is left; the root stays."""
    first = opened(folder)
    later = opened(folder, now=NOW + days * DAY)
    changed = later.intermediate.certificate != first.intermediate.certificate
    assert changed is renewed
    assert later.root == first.root
    if renewed:
        assert later.intermediate.key.public_key() != first.intermediate.key.public_key()
        assert later.intermediate.certificate.not_valid_after_utc == NOW + days * DAY + YEAR


def test_nothing_outlives_the_root(folder: Path) -> None:
    """In its last days certificates are as short as it takes, and made once a day at most."""
    root = opened(folder).root
    now = root.not_valid_after_utc - 2 * DAY
    authority = opened(folder, now=now)
    leaf, intermediate = certificates(authority.issue(KEY, ["localhost"], now))
    assert leaf.not_valid_after_utc == intermediate.not_valid_after_utc == root.not_valid_after_utc
    again = opened(folder, now=now + timedelta(hours=1))
    assert again.intermediate.certificate == intermediate


def test_an_expired_root_is_not_replaced(folder: Path) -> None:
    """A clock that is ten years wrong costs nobody's trust; the message says what to remove."""
    root = opened(folder).root
    with pytest.raises(Problem, match=r"expired on \d{4}-\d\d-\d\d: remove") as caught:
        opened(folder, now=NOW + 11 * YEAR)
    assert caught.value.type == "serverInternal"
    assert opened(folder).root == root


def _cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _anothers_key(path: Path) -> None:
    pem = path.read_bytes()
    path.write_bytes(KEY + pem[pem.index(b"-----BEGIN CERTIFICATE") :])


DAMAGES = [
    pytest.param(_cut_off, id="cut off"),
    pytest.param(_empty, id="empty"),
    pytest.param(_anothers_key, id="another's key"),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_root_is_not_replaced(folder: Path, damage: Any) -> None:
    """Everybody who trusts it would have to be visited; the operator may have a backup."""
    first = opened(folder)
    path = folder / "root-key.pem"
    whole = path.read_bytes()
    damage(path)
    damaged = path.read_bytes()
    with pytest.raises(Problem, match=r"is damaged .*: restore it, or remove") as caught:
        opened(folder)
    assert caught.value.type == "serverInternal"
    assert path.read_bytes() == damaged
    path.write_bytes(whole)
    assert opened(folder).root == first.root


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_intermediate_is_made_anew(tmp_path: Path, folder: Path, damage: Any) -> None:
    """Nobody misses it."""
    opened(folder)
    damage(folder / "intermediate-key.pem")
    authority = opened(folder)
    handshake(tmp_path, issued(authority, "localhost"), authority.root_pem, "localhost")


def test_an_intermediate_of_another_root_is_made_anew(tmp_path: Path, folder: Path) -> None:
    """After the root was replaced by hand the chain fits again."""
    opened(folder)
    opened(tmp_path / "other")
    (folder / "root-key.pem").write_bytes((tmp_path / "other" / "root-key.pem").read_bytes())
    authority = opened(folder)
    handshake(tmp_path, issued(authority, "localhost"), authority.root_pem, "localhost")
    assert (folder / "root.pem").read_bytes() == authority.root_pem


def test_a_removed_folder_is_a_new_authority(folder: Path) -> None:
    """As the messages say: then later names are permitted."""
    first = opened(folder)
    disk.remove_folder(str(folder))
    second = opened(folder, "later.example.com")
    assert second.root != first.root
    assert second.permits("later.example.com")


def test_many_at_once(folder: Path) -> None:
    """Whoever comes second waits, and has the root and the intermediate of the first."""
    with ThreadPoolExecutor(8) as threads:
        authorities = list(threads.map(lambda _: opened(folder), range(8)))
    assert {one.root for one in authorities} == {opened(folder).root}
    assert len({one.intermediate.certificate for one in authorities}) == 1


@pytest.mark.parametrize("name", ["münchen.example", "a b", "", "a" * 300])
def test_an_impossible_name(folder: Path, name: str) -> None:
    """No root is made for it, and no certificate."""
    with pytest.raises(ConfigError):
        opened(folder, name)
    assert not (folder / "root-key.pem").exists()
    with pytest.raises((ConfigError, Problem)):
        opened(folder).issue(KEY, [name], NOW)


def test_no_certificate_without_a_key(folder: Path) -> None:
    """What is no key is refused."""
    with pytest.raises(BadBundle):
        opened(folder).issue(b"no key", ["localhost"], NOW)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """The message names it."""
    (tmp_path / "local").touch()
    with pytest.raises(StateError, match="local"):
        opened(tmp_path / "local")
