"""`nginx-acme renew --dry-run`: the whole way at a staging CA, and nothing is changed; for real."""

from __future__ import annotations

import os
import signal
import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.launcher import eventually, issuer, requests
from tests.servers import LOCALHOST

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.launcher import Silent, Site
    from tests.servers import Pebble

    MakeSite = Callable[..., Site]
    StartPebble = Callable[..., Pebble]

REHEARSE = ("renew", "--dry-run")


def with_twin(make_site: MakeSite, ca: Pebble, twin: Pebble) -> Site:
    """A site whose issuer has a twin; both look for challenges at the same place."""
    site = make_site()
    site.ca, site.http = ca, ca.http_port
    roots = site.folder / "roots.pem"
    roots.write_bytes(ca.api_root.read_bytes() + twin.api_root.read_bytes())
    site.settings = f"acme_http_listen {LOCALHOST}:{site.http};" + issuer(
        "corp", ca.directory_url, roots, f"staging {twin.directory_url};"
    )
    return site


def generation(site: Site) -> dict[str, bytes]:
    """What nginx reads."""
    folder = Path(os.path.realpath(site.instance / "generated"))
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def kept(site: Site) -> dict[str, bytes]:
    """All keys and certificates, and what is noted of attempts."""
    pems = (site.state / "certificates").rglob("*.pem")
    failures = {name: str(row["failures"]).encode() for name, row in site.status().items()}
    return failures | {str(path): path.read_bytes() for path in pems}


def test_rehearsal(make_site: MakeSite, pebble: Pebble, start_pebble: StartPebble) -> None:
    """Certificates are got at the staging CA through nginx, and all is as it was before."""
    twin = start_pebble(http_port=pebble.http_port, nonce_reject=0)
    site = with_twin(make_site, pebble, twin)
    key_types = "acme corp key=ecdsa:256 key=rsa:2048;"
    site.configure(
        site.block("a.example www.a.example", key_types), site.block("b.example", "acme corp;")
    )
    site.start()
    eventually(lambda: {row["state"] for row in site.status().values()} == {"valid"})
    served = {name: site.shown(name).leaf for name in ("a.example", "b.example")}
    before, certificates = generation(site), kept(site)
    orders = requests(pebble)["POST /order-plz"]
    answer = site.run(*REHEARSE)
    assert answer.returncode == 0, answer.stderr
    assert "rehearsal: 3 of 3 certificates were issued" in answer.stderr
    assert "rehearsal at corp-staging: nothing is installed" in answer.stderr
    assert answer.stderr.count("issued by Pebble Intermediate CA") == 3
    assert requests(twin)["POST /certZ"] == 3
    assert requests(pebble)["POST /order-plz"] == orders
    assert (generation(site), kept(site)) == (before, certificates)
    assert {name: site.shown(name).leaf for name in served} == served
    assert not list(site.state.glob("public/challenges/*/*"))
    accounts = requests(twin)["POST /sign-me-up"]
    answer = site.run(*REHEARSE, "--force", "b.example")
    assert answer.returncode == 0, answer.stderr
    assert "rehearsal: 1 of 1 certificates" in answer.stderr
    assert requests(twin)["POST /sign-me-up"] == accounts, "it is registered already"
    shown = site.run("account").stdout
    assert f"corp-staging  {twin.directory_url}" in shown
    assert site.run("renew", "--force", "b.example").returncode == 0


def test_it_would_fail(make_site: MakeSite, pebble: Pebble, start_pebble: StartPebble) -> None:
    """What would fail is told in the CA's words, and nothing is noted of it."""
    twin = start_pebble(http_port=pebble.http_port, blocked=["b.example"], authz_reuse=0)
    site = with_twin(make_site, pebble, twin)
    site.configure(
        site.block("a.example", "acme corp;"),
        site.block("c.example b.example", "acme corp;"),
        site.block("site.internal", "acme local;"),
    )
    site.start()
    before, certificates = generation(site), kept(site)
    answer = site.run(*REHEARSE)
    assert answer.returncode == 1
    assert "rehearsal: 1 of 2 certificates" in answer.stderr
    assert "(rejectedIdentifier)" in answer.stderr
    assert "next attempt" not in answer.stderr
    assert 'site.internal: the issuer "local" asks nobody' in answer.stderr
    assert (generation(site), kept(site)) == (before, certificates)
    assert {row["failures"] for row in site.status().values()} == {0}
    twin.stop()
    answer = site.run(*REHEARSE)
    assert answer.returncode == 1
    assert "rehearsal: 0 of 2 certificates" in answer.stderr
    assert (generation(site), kept(site)) == (before, certificates)


def test_forgotten_account(make_site: MakeSite, pebble: Pebble, start_pebble: StartPebble) -> None:
    """A staging CA that was reset gets a new account, and nginx answers for it meanwhile."""
    twin = start_pebble(http_port=pebble.http_port, nonce_reject=0)
    site = with_twin(make_site, pebble, twin)
    site.configure(site.block("a.example", "acme corp;"))
    site.start()
    before = generation(site)
    assert site.run(*REHEARSE).returncode == 0
    twin.stop()
    twin.start()
    answer = site.run(*REHEARSE)
    assert answer.returncode == 0, answer.stderr
    assert "corp-staging does not know the account" in answer.stderr
    assert generation(site) == before


def test_without_nginx(make_site: MakeSite, pebble: Pebble, start_pebble: StartPebble) -> None:
    """While nginx doesn't run a server of our own answers, and the generation is left alone."""
    twin = start_pebble(http_port=pebble.http_port, nonce_reject=0)
    site = with_twin(make_site, pebble, twin)
    site.configure(site.block("a.example", "acme corp;"))
    site.start()
    site.stop()
    before, certificates = generation(site), kept(site)
    answer = site.run(*REHEARSE)
    assert answer.returncode == 0, answer.stderr
    assert (generation(site), kept(site)) == (before, certificates)
    assert requests(twin)["POST /certZ"] == 1


def has_more(silent: Silent, connections: int) -> bool:
    """Whether more than so many connections were made."""
    return len(silent.connections) > connections


def test_interrupted(make_site: MakeSite, pebble: Pebble, silent: Silent) -> None:
    """Ctrl-C leaves the generation as it was; a SIGKILL one that does no harm, until the next."""
    site = make_site(pebble)
    site.settings = f"acme_http_listen {LOCALHOST}:{site.http};" + issuer(
        "corp", pebble.directory_url, pebble.api_root, f"staging {silent.url};"
    )
    site.configure(site.block("a.example", "acme corp;"))
    site.start()
    before = generation(site)
    for number in (signal.SIGINT, signal.SIGKILL):
        connections = len(silent.connections)
        run = subprocess.Popen(site.argv(*REHEARSE), env=site.environ, stderr=subprocess.DEVNULL)
        eventually(partial(has_more, silent, connections), "a question to the CA")
        run.send_signal(number)
        run.wait(timeout=20)
        assert (generation(site) == before) == (number == signal.SIGINT)
    leaf = site.shown("a.example").leaf
    assert site.run("renew", "--force", "a.example").returncode == 0
    eventually(lambda: site.verified("a.example").leaf != leaf)
    assert site.run("-s", "reload").returncode == 0
    assert sorted(generation(site).values()) == sorted(before.values())


def test_nowhere_to_rehearse(make_site: MakeSite, pebble: Pebble) -> None:
    """Where no staging CA is known that is said, with what to do; nobody is asked."""
    site = make_site(pebble)
    site.configure(site.block("a.example"))
    site.start()
    before = generation(site)
    answer = site.run(*REHEARSE)
    assert answer.returncode == 1
    assert 'nobody knows where to rehearse for issuer "pebble", add "staging URL;"' in answer.stderr
    assert generation(site) == before
    answer = site.run(*REHEARSE, "--force", "b.example")
    assert (answer.returncode, "no certificate has the name b.example" in answer.stderr) == (
        1,
        True,
    )
