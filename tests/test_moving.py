"""Coming from another ACME client, and going back to nginx alone, as the README says."""

from __future__ import annotations

import re
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tests.launcher import eventually, requests
from tests.servers import ROOT, NginxServer, listens, nginx_conf
from tests.store.bundles import issue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nginx_acme.bundle import Bundle
    from tests.launcher import Site
    from tests.servers import Pebble

    MakeSite = Callable[..., Site]
    StartPebble = Callable[..., Pebble]

NAMES = ("a.example", "www.a.example")
README = (ROOT / "README.md").read_text()


def live(folder: Path, key_type: str = "ecdsa:256", *, age: float = 0) -> Bundle:
    """A certificate of 90 days in a folder as certbot keeps it; of so many days' age."""
    bundle = issue(NAMES, key_type, since=datetime.now(UTC) - timedelta(days=age))
    key, begin, chain = bundle.pem.partition(b"-----BEGIN CERTIFICATE-----")
    folder.mkdir()
    (folder / "privkey.pem").write_bytes(key)
    (folder / "fullchain.pem").write_bytes(begin + chain)
    return bundle


def copy(site: Site, folder: Path, key_type: str = "ecdsa-256") -> None:
    """Copy it into the state directory, which isn't there yet, by the commands of the README."""
    found = re.search(r"^ +STATE=\S+ NAME=\S+ LIVE=\S+\n((?: +\S.*\n)+)", README, re.MULTILINE)
    assert found is not None
    given = {"STATE": str(site.state), "NAME": NAMES[0], "LIVE": str(folder)}
    commands = found[1].replace("ecdsa-256", key_type)
    subprocess.run(("sh", "-ec", commands), env={**site.environ, **given}, check=True)


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
    site.quiet()
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


def test_nginx_alone(make_site: MakeSite, nginx: str) -> None:
    """What `nginx-acme -T` shows in place of `acme` is what nginx needs without us."""
    site = make_site()
    site.configure(site.block("a.internal", "acme local;"), settings="acme_redirect off;")
    site.start()
    before = site.shown("a.internal").leaf
    shown = site.run("-T").stdout
    site.stop()
    lines = dict(re.findall(r"(ssl_certificate\w*) ([^;]+);", shown))
    assert set(lines) == {"ssl_certificate", "ssl_certificate_key"}
    text = " ".join(f"{name} {path};" for name, path in lines.items())
    alone = NginxServer(site.folder, nginx_conf(site.block("a.internal", text)), binary=nginx)
    with alone:
        eventually(lambda: listens(site.tls), "nginx")
        assert site.shown("a.internal").leaf == before
