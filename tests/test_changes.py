"""What is served while a certificate isn't there yet, or any more: the nearest one, and then it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from nginx_acme.handshake import Question, Refused, ask
from nginx_acme.store import Identity, Store
from tests.launcher import eventually
from tests.servers import LOCALHOST
from tests.store.bundles import issue

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.launcher import Site
    from tests.servers import Pebble

    MakeSite = Callable[..., Site]
    StartPebble = Callable[..., Pebble]


def restarted(site: Site, ca: Pebble, *servers: str) -> x509.Certificate:
    """Stop nginx, take the CA away, start with these servers; what `a.example` is served with."""
    site.start()
    site.stop()
    ca.stop()
    site.configure(*servers)
    site.start()
    return site.shown("a.example").leaf


def test_reordered(make_site: MakeSite, start_pebble: StartPebble) -> None:
    """Names in another order are the same certificate: nobody is asked."""
    ca = start_pebble()
    site = make_site(ca)
    site.configure(site.block("a.example b.example"))
    served = restarted(site, ca, site.block("b.example a.example"))
    assert site.one_status()["state"] == "valid"
    assert "Pebble" in served.issuer.rfc4514_string()
    site.quiet()
    assert "[error]" not in site.error_log()


@pytest.mark.parametrize(
    "names",
    [
        pytest.param("a.example b.example new.example", id="one more"),
        pytest.param("a.example", id="one less"),
        pytest.param("new.example a.example", id="one instead of another"),
    ],
)
def test_names_change(make_site: MakeSite, start_pebble: StartPebble, names: str) -> None:
    """With other names the certificate that covers most of them is served, at once."""
    ca = start_pebble()
    site = make_site(ca)
    site.configure(site.block("a.example b.example"))
    served = restarted(site, ca, site.block(names))
    assert "Pebble" in served.issuer.rfc4514_string()
    assert {row["state"] for row in site.status().values()} == {"other"}


def test_key_type_changes(make_site: MakeSite, start_pebble: StartPebble) -> None:
    """With another key type the old one is served until the new one is there."""
    ca = start_pebble()
    site = make_site(ca)
    site.configure(site.block("a.example"))
    served = restarted(site, ca, site.block("a.example", "acme pebble key=rsa:2048;"))
    assert not isinstance(served.public_key(), rsa.RSAPublicKey)
    ca.start()
    assert site.run("renew", "--force", "a.example").returncode == 0
    eventually(lambda: isinstance(site.shown("a.example").leaf.public_key(), rsa.RSAPublicKey))


def test_second_key_type(make_site: MakeSite, start_pebble: StartPebble) -> None:
    """Until the second one is there nobody is shown a temporary one, whatever he prefers."""
    ca = start_pebble()
    site = make_site(ca)
    site.configure(site.block("a.example"))
    restarted(site, ca, site.block("a.example", "acme pebble key=ecdsa:256 key=rsa:2048;"))
    wanted = Question(LOCALHOST, site.tls, proxy_protocol=False, name="a.example")
    shown = site.shown("a.example").leaf
    assert "Pebble" in shown.issuer.rfc4514_string()
    assert x509.load_der_x509_certificate(ask(replace(wanted, kind="ecdsa"))) == shown
    with pytest.raises(Refused):
        ask(replace(wanted, kind="rsa"))
    ca.start()
    assert site.run("renew", "--force", "a.example").returncode == 0
    eventually(lambda: ask(replace(wanted, kind="rsa")))


def test_expired(make_site: MakeSite, start_pebble: StartPebble) -> None:
    """An expired certificate goes on being served, never a temporary one in its place."""
    ca = start_pebble()
    site = make_site(ca)
    site.configure(site.block("a.example"))
    then = datetime.now(UTC) - timedelta(days=30)
    bundle = issue(("a.example",), since=then, days=10)
    store = Store(str(site.state))
    store.open_for_writing()
    identity = Identity(ca.directory_url, frozenset({"a.example"}), None)
    store.create(identity, ["a.example"]).install("ecdsa:256", bundle, ca.directory_url)
    ca.stop()
    site.start()
    assert site.shown("a.example").leaf.serial_number == bundle.facts.serial
    row = site.one_status()
    assert row["state"] == "expired"
    assert "Connection refused" in row["problem"]


def test_damaged(make_site: MakeSite, pebble: Pebble) -> None:
    """A damaged file is set aside, and its certificate got anew."""
    site = make_site(pebble)
    site.configure(site.block("a.example"))
    site.start()
    site.stop()
    file = site.state / "certificates" / "a.example" / "ecdsa-256.pem"
    file.write_text(file.read_text()[:500])
    site.start()
    assert site.verified("a.example").body == b"a.example"
    assert file.with_name("ecdsa-256.pem.damaged").exists()


def test_lost_notes(make_site: MakeSite, start_pebble: StartPebble) -> None:
    """Files are trusted, not notes: without state.json a certificate is what it was."""
    ca = start_pebble()
    site = make_site(ca)
    site.configure(site.block("a.example b.example"))
    site.start()
    site.stop()
    ca.stop()
    (site.state / "certificates" / "a.example" / "state.json").unlink()
    site.start()
    assert site.one_status()["state"] == "valid"
    site.quiet()
    assert "[error]" not in site.error_log()
