"""Coming from another ACME client, as the README says: with the certificates that there are."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tests.launcher import eventually, requests
from tests.store.bundles import issue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nginx_acme.certificate import Bundle
    from tests.launcher import Site
    from tests.servers import Pebble

    MakeSite = Callable[..., Site]
    StartPebble = Callable[..., Pebble]

NAMES = ("a.example", "www.a.example")
COPY = """
install -d -m 0700 "$STATE/certificates/$NAME"
(umask 077; cat "$LIVE/privkey.pem" "$LIVE/fullchain.pem" >"$STATE/certificates/$NAME/$TYPE.pem")
"""
"""What the README says."""


def live(folder: Path, key_type: str = "ecdsa:256", *, age: float = 0) -> Bundle:
    """A certificate of 90 days in a folder as certbot keeps it; of so many days' age."""
    bundle = issue(NAMES, key_type, since=datetime.now(UTC) - timedelta(days=age))
    key, begin, chain = bundle.pem.partition(b"-----BEGIN CERTIFICATE-----")
    folder.mkdir()
    (folder / "privkey.pem").write_bytes(key)
    (folder / "fullchain.pem").write_bytes(begin + chain)
    return bundle


def copy(site: Site, folder: Path, key_type: str = "ecdsa-256") -> None:
    """Copy it into the state directory, which need not be there yet."""
    environ = {"STATE": str(site.state), "NAME": NAMES[0], "LIVE": str(folder), "TYPE": key_type}
    subprocess.run(("sh", "-ec", COPY), env={**site.environ, **environ}, check=True)


def serial(site: Site) -> int:
    """That of what nginx serves."""
    return site.shown(NAMES[0]).leaf.serial_number


def test_copied_certificate(make_site: MakeSite, start_pebble: StartPebble, tmp_path: Path) -> None:
    """Another CA's certificate is the server's own, from the first start until it is to be renewed."""
    ca = start_pebble()
    site = make_site(ca)
    bundle = live(tmp_path / "live", age=30)
    copy(site, tmp_path / "live")
    site.configure(site.block(" ".join(NAMES)))
    site.start()
    assert serial(site) == bundle.facts.serial
    site.quiet()
    assert not requests(ca)["POST /order-plz"]
    row = site.one_status()
    assert (row["state"], row["failures"]) == ("valid", 0)
    assert datetime.fromisoformat(row["renewal"]) > datetime.now(UTC) + timedelta(days=29)


def test_copied_certificate_that_is_due(
    make_site: MakeSite, pebble: Pebble, tmp_path: Path
) -> None:
    """When its time has come it is renewed, as if it had been ours."""
    site = make_site(pebble)
    bundle = live(tmp_path / "live", age=61)
    copy(site, tmp_path / "live")
    site.configure(site.block(" ".join(NAMES)))
    site.start()
    eventually(lambda: serial(site) != bundle.facts.serial, "the renewal")
    assert site.verified(NAMES[0]).status == 200
    assert not (site.state / "certificates" / NAMES[0] / "ecdsa-256.pem.damaged").exists()


def test_copied_rsa_certificate(
    make_site: MakeSite, start_pebble: StartPebble, tmp_path: Path
) -> None:
    """With an RSA key it is the server's own where the server says so; elsewhere it stands in."""
    ca = start_pebble()
    site = make_site(ca)
    bundle = live(tmp_path / "live", "rsa:2048")
    copy(site, tmp_path / "live", "rsa-2048")
    site.configure(site.block(" ".join(NAMES), "acme pebble key=rsa:2048;"))
    site.start()
    site.quiet()
    assert serial(site) == bundle.facts.serial
    assert not requests(ca)["POST /order-plz"]
    ca.stop()
    site.configure(site.block(" ".join(NAMES)))
    assert site.run("-s", "reload").returncode == 0
    eventually(lambda: site.one_status()["problem"], "an attempt at another one")
    assert serial(site) == bundle.facts.serial
