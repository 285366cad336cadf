"""Whether nginx serves what is on disk is seen by asking it."""

from __future__ import annotations

import re
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from nginx_acme.nginx.source import read_source
from nginx_acme.plan import Facts, make_plan
from nginx_acme.policy import Keep
from nginx_acme.sight import Finding, look
from nginx_acme.standing import Standing
from nginx_acme.store import Attempt
from nginx_acme.work import work_of
from tests.servers import LOCALHOST, free_port, nginx_conf
from tests.store.bundles import issue, temporary

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nginx_acme.bundle import Bundle
    from nginx_acme.work import Work
    from tests.launcher import Site
    from tests.servers import NginxServer

    MakeSite = Callable[..., Site]
    StartNginx = Callable[..., NginxServer]

NAMES = ("a.example.com",)
YESTERDAY = datetime.now(UTC) - timedelta(days=1)
OLD, NEW, RSA = issue(NAMES), issue(NAMES), issue(NAMES, "rsa:2048")


def work_for(listen: str, acme: str = "acme local;") -> Work:
    """What one server with `acme` leaves to do."""
    return work_of_text(f"http {{ server {{ {listen} server_name {NAMES[0]}; {acme} }} }}")


def work_of_text(text: str) -> Work:
    """What a configuration leaves to do."""
    source = read_source("/etc/nginx.conf", lambda _: text.encode(), lambda _: [])
    plan = make_plan(source, Facts((1, 30, 0), "host"))
    return work_of(plan, options=(), pid_file="/run/nginx.pid", error_log="stderr")


def standing(work: Work, bundle: Bundle) -> Standing:
    """The only certificate, as it lies on disk."""
    (certificate,) = work.certificates
    key_type = bundle.facts.key_type
    life = Keep(bundle.facts.not_after)
    return Standing(certificate, None, key_type, bundle, bundle, Attempt(), life, usable=True)


def found(work: Work, *bundles: Bundle) -> list[Finding]:
    """What is found of each."""
    return look(work, [standing(work, bundle) for bundle in bundles])


def block(folder: Path, listen: str, *bundles: Bundle, more: str = "") -> str:
    """A server block written by hand that shows these."""
    lines = []
    for bundle in bundles:
        path = folder / f"{bundle.facts.serial:x}.pem"
        path.write_bytes(bundle.pem)
        lines.append(f"ssl_certificate {path}; ssl_certificate_key {path};")
    return f"server {{ {listen} server_name {NAMES[0]}; {' '.join(lines)} {more} return 204; }}"


def serving(folder: Path, listen: str, *bundles: Bundle, more: str = "") -> str:
    """A configuration with one of these."""
    return nginx_conf(block(folder, listen, *bundles, more=more))


# --- what handshakes prove --------------------------------------------------------------------


def test_served(start_nginx: StartNginx, open_path: Path) -> None:
    """The certificate that is shown is served; for another one it is said what is in its place."""
    listen = f"listen {free_port()} ssl;"
    start_nginx(serving(open_path, listen, OLD))
    assert found(work_for(listen), OLD) == [Finding(True)]
    (finding,) = found(work_for(listen), NEW)
    assert finding.served is False
    assert finding.words is not None
    assert "shows another certificate, of a.example.com, valid until 2026-04-02" in finding.words


def test_temporary(start_nginx: StartNginx, open_path: Path) -> None:
    """A temporary one is called so."""
    listen = f"listen {free_port()} ssl;"
    start_nginx(serving(open_path, listen, temporary(NAMES)))
    (finding,) = found(work_for(listen), NEW)
    assert finding.served is False
    assert str(finding.words).endswith("shows a temporary certificate")


def test_one_place_is_enough(start_nginx: StartNginx, open_path: Path) -> None:
    """A listener that shows it proves it, though others can't be reached or show another one."""
    nobody, other, here = (f"listen {LOCALHOST}:{free_port()} ssl;" for _ in range(3))
    start_nginx(nginx_conf(block(open_path, other, NEW) + block(open_path, here, OLD)))
    assert found(work_for(nobody + other + here), OLD) == [Finding(True)]
    (finding,) = found(work_for(nobody + other), OLD)
    assert finding.served is False


def test_two_kinds_of_keys(start_nginx: StartNginx, each_nginx: str, open_path: Path) -> None:
    """Each kind is seen by itself, and is not taken for the other."""
    listen, acme = f"listen {free_port()} ssl;", "acme local key=ecdsa:256 key=rsa:2048;"
    start_nginx(serving(open_path, listen, OLD, RSA), binary=each_nginx)
    other = issue(NAMES, "rsa:2048")
    served = [finding.served for finding in found(work_for(listen, acme), OLD, RSA, NEW, other)]
    assert served == [True, True, False, False]


def test_kinds_that_hide_each_other(
    start_nginx: StartNginx, each_nginx: str, open_path: Path
) -> None:
    """With TLS 1.3 alone one kind hides the other; that proves nothing against it."""
    listen, acme = f"listen {free_port()} ssl;", "acme local key=ecdsa:256 key=rsa:2048;"
    config = serving(open_path, listen, OLD, RSA, more="ssl_protocols TLSv1.3;")
    start_nginx(config, binary=each_nginx)
    findings = found(work_for(listen, acme), OLD, RSA)
    assert sorted(str(finding.served) for finding in findings) == ["None", "True"]
    (hidden,) = (finding.words for finding in findings if finding.served is None)
    assert str(hidden).endswith("certificate and hides the other one")


@pytest.mark.parametrize(
    ("listen", "words"),
    [
        pytest.param("listen 443 quic;", "only QUIC shows it", id="QUIC"),
        pytest.param(
            "listen 198.51.100.7:443 ssl;",
            "198.51.100.7 is no address of this machine",
            id="the address of another machine",
        ),
    ],
)
def test_not_to_be_seen(listen: str, words: str) -> None:
    """What can't be seen from here is neither served nor not, and it is said why."""
    assert found(work_for(listen), OLD) == [Finding(None, words)]


def test_starttls() -> None:
    """A mail server that begins TLS only when it is asked to is one of these."""
    server = f"listen 143; protocol imap; starttls only; server_name {NAMES[0]}; acme local;"
    work = work_of_text(f"mail {{ server {{ {server} }} }}")
    assert found(work, OLD) == [Finding(None, "only STARTTLS shows it")]


def test_no_time(start_nginx: StartNginx, open_path: Path) -> None:
    """What was not looked at in time is neither served nor not."""
    listen = f"listen {free_port()} ssl;"
    start_nginx(serving(open_path, listen, OLD))
    work = work_for(listen)
    assert look(work, [standing(work, OLD)], longest=0) == [
        Finding(None, "there was no time to look at it")
    ]


def test_taken_up_late(start_nginx: StartNginx, open_path: Path) -> None:
    """Who has patience sees what nginx shows only in a moment."""
    listen = f"listen {free_port()} ssl;"
    nginx = start_nginx(serving(open_path, listen, OLD))
    work = work_for(listen)
    findings: list[Finding] = []
    looking = threading.Thread(
        target=lambda: findings.extend(look(work, [standing(work, NEW)], patience=60))
    )
    looking.start()
    try:
        nginx.conf.write_text(serving(open_path, listen, NEW))
        nginx.reload()
    finally:
        looking.join()
    assert findings == [Finding(True)]


# --- after a renewal --------------------------------------------------------------------------


def test_renewal(make_site: MakeSite) -> None:
    """After a renewal it is known that nginx serves it; what a start serves is seen by the next."""
    site = make_site()
    blocks = [site.block(f"{name}.internal", "acme local;") for name in "ab"]
    site.configure(*blocks, settings="acme_agent off;")
    site.start()
    assert [row["served"] for row in site.status().values()] == [None, None]
    answer = site.run("renew", "--force", "a.internal")
    assert answer.returncode == 0, answer.stderr
    assert [row["served"] for row in site.status().values()] == [True, True]
    noted = site.instance / "proofs.json"
    seen = noted.read_text()
    assert site.run("renew").returncode == 0
    assert noted.read_text() == seen


def test_seen_again(make_site: MakeSite) -> None:
    """What was seen a day ago is looked at again: a reload may have put something in its way."""
    site = make_site()
    site.configure(site.block("a.internal", "acme local;"), settings="acme_agent off;")
    site.start()
    assert site.run("renew").returncode == 0
    noted = site.instance / "proofs.json"
    noted.write_text(
        re.sub(r'"at": "[^"]+"', f'"at": "{YESTERDAY.isoformat()}"', noted.read_text())
    )
    shadow = block(site.folder, f"listen {LOCALHOST}:{site.tls} ssl;", issue(("a.internal",)))
    shadow = shadow.replace(NAMES[0], "a.internal")
    site.configure(shadow, site.block("a.internal", "acme local;"), settings="acme_agent off;")
    assert site.run("-s", "reload").returncode == 0
    answer = site.run("renew")
    assert answer.returncode == 1
    assert "the certificate of a.internal is not served: " in answer.stderr
    assert site.one_status()["served"] is False


def test_renewal_that_is_not_served(make_site: MakeSite) -> None:
    """What nginx doesn't take up is an error that says what is served; later it is seen again."""
    site = make_site()
    extra = site.folder / "extra.map"
    extra.write_text("# nothing\n")
    block = site.block("a.internal", "acme local;")
    site.configure(block, "map $uri $extra { include extra.map; }", settings="acme_agent off;")
    site.start()
    extra.write_text("oops;\n")
    answer = site.run("renew", "--force", "a.internal")
    assert answer.returncode == 1
    (error,) = [line for line in answer.stderr.splitlines() if "is not served" in line]
    assert error.startswith("nginx-acme: [error] the new certificate of a.internal is not served: ")
    assert "shows another certificate, of a.internal, valid until" in error
    assert "invalid number of the map parameters" in error
    row = site.one_status()
    assert row["served"] is False
    assert row["unproved"] in error
    answer = site.run("renew")
    assert answer.returncode == 1
    assert "[error] the certificate of a.internal is not served: " in answer.stderr
    extra.write_text("# nothing\n")
    assert site.run("renew").returncode == 0
    row = site.one_status()
    assert (row["served"], row["unproved"]) == (True, None)
