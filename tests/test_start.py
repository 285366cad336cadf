"""The first start and the next: from one word in the configuration to a verified answer.

The launcher is a process of its own here, nginx and pebble are real.
"""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING

import pytest

from nginx_acme.certificate import read_bundle
from tests.launcher import Site, eventually, issuer, requests
from tests.servers import LOCALHOST, Program, fetch_plain, find_program, free_port
from tests.store.bundles import issue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.launcher import Silent
    from tests.servers import Pebble

    MakeSite = Callable[..., Site]
    StartPebble = Callable[..., Pebble]


# --- the first ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "manners",
    [
        pytest.param({"authz_reuse": 0}, id="nothing is reused"),
        pytest.param({"authz_reuse": 100}, id="authorizations are reused"),
        pytest.param({"chain_length": 3, "alternate_roots": 1}, id="a long chain"),
        pytest.param({"nonce_reject": 50}, id="every other nonce is refused"),
    ],
)
def test_one_word(make_site: MakeSite, start_pebble: StartPebble, manners: dict[str, int]) -> None:
    """One word in a server gets it a certificate that verifies, whatever the CA's manners."""
    ca = start_pebble(**manners)
    site = make_site(ca)
    site.configure(site.block("one.example"))
    site.start()
    assert site.verified("one.example").body == b"one.example"
    assert site.one_status()["state"] == "valid"
    asked = requests(ca)
    site.quiet()
    assert requests(ca) == asked


def test_what_is_kept(make_site: MakeSite, pebble: Pebble) -> None:
    """Keys are their owner's alone, the terms are told once, and nothing of the order stays."""
    site = make_site(pebble)
    site.configure(site.block("kept.example www.kept.example"), site.block("also.example"))
    site.start()
    site.verified("kept.example")
    keys = [*site.state.glob("certificates/*/*.pem"), *site.state.glob("accounts/*/key.pem")]
    assert [stat.S_IMODE(key.stat().st_mode) for key in keys] == [0o600] * 3
    assert not list(site.state.glob("certificates/*/pending"))
    assert not list(site.state.glob("public/challenges/*/*"))
    assert site.output().count("by registering you agree to") == 1
    assert site.error_log().count("by registering you agree to") == 1


def test_requests(make_site: MakeSite, start_pebble: StartPebble) -> None:
    """Seven requests for a certificate and three for the run, which is what the protocol needs."""
    ca = start_pebble(nonce_reject=0, authz_reuse=0)
    site = make_site(ca)
    site.configure(site.block("few.example"))
    site.start()
    site.verified("few.example")
    assert requests(ca) == {
        "GET /dir": 1,
        "HEAD /nonce-plz": 1,
        "POST /sign-me-up": 1,
        "POST /order-plz": 1,
        "POST /authZ": 1,
        "POST /chalZ": 1,
        "POST /my-order": 2,
        "POST /finalize-order": 1,
        "POST /certZ": 1,
    }


def test_several(make_site: MakeSite, pebble: Pebble) -> None:
    """Each server gets its own certificate, and servers with the same names share one."""
    site = make_site(pebble)
    elsewhere = f"{LOCALHOST}:{free_port()}"
    site.configure(
        site.block("a.example b.example"),
        site.block("b.example a.example", listen=elsewhere),
        *(site.block(f"c{number}.example") for number in range(4)),
    )
    before = requests(pebble)
    site.start()
    serials = {
        site.verified(name).leaf.serial_number
        for name in ("a.example", "b.example", *(f"c{number}.example" for number in range(4)))
    }
    assert len(serials) == len(site.status()) == 5
    assert (requests(pebble) - before)["POST /certZ"] >= 5
    assert (requests(pebble) - before)["POST /finalize-order"] >= 5


@pytest.mark.ipv6
def test_ipv6(make_site: MakeSite, start_pebble: StartPebble) -> None:
    """Challenges are answered and certificates served on IPv6 alone, too."""
    ca = start_pebble(ipv6=True)
    site = make_site(ca)
    site.settings = site.settings.replace(f"{LOCALHOST}:{site.http}", f"[::1]:{site.http}")
    site.configure(site.block("six.example", listen=f"[::1]:{site.tls}"))
    site.start()
    assert site.verified("six.example", host="::1").body == b"six.example"


def test_address(make_site: MakeSite, pebble: Pebble) -> None:
    """An address in `server_name` is certified as one (RFC 8738)."""
    site = make_site(pebble)
    site.configure(site.block(LOCALHOST))
    site.start()
    assert site.verified(LOCALHOST).body == LOCALHOST.encode()


def test_two_key_types(make_site: MakeSite, start_pebble: StartPebble) -> None:
    """Two key types are two certificates, and the second needs no challenge of its own."""
    ca = start_pebble(nonce_reject=0, authz_reuse=100)
    site = make_site(ca)
    site.configure(site.block("two.example", "acme pebble key=ecdsa:384 key=rsa:2048;"))
    site.start()
    site.verified("two.example")
    folder = site.state / "certificates" / "two.example"
    for key_type in ("ecdsa:384", "rsa:2048"):
        bundle = read_bundle((folder / f"{key_type.replace(':', '-')}.pem").read_bytes())
        assert bundle.facts.key_type == key_type
    assert requests(ca)["POST /chalZ"] == 1
    assert requests(ca)["POST /order-plz"] == 2


def test_redirect(make_site: MakeSite, pebble: Pebble) -> None:
    """Where nobody listened for challenges, nginx redirects to https now."""
    site = make_site(pebble)
    site.configure(site.block("moved.example"))
    site.start()
    answer = fetch_plain(site.http, "moved.example", path="/x?y")
    assert answer.status == 301
    assert answer.headers["Location"] == f"https://moved.example:{site.tls}/x?y"


def test_redirect_to_several_ports(make_site: MakeSite, pebble: Pebble) -> None:
    """Each name is redirected to where it is served, as nginx chooses among names and wildcards."""
    site = make_site(pebble)
    other, own = free_port(), site.folder / "own.pem"
    own.write_bytes(issue(("own.wide.internal",)).pem)
    site.configure(
        site.block("moved.example"),
        site.block("*.wide.internal", "acme local;", listen=f"{LOCALHOST}:{other}"),
        site.block("a.wide.internal", "acme local;"),
        site.block("own.wide.internal", f"ssl_certificate {own}; ssl_certificate_key {own};"),
    )
    site.start()
    ports = {"moved.example": site.tls, "b.c.wide.internal": other}
    ports |= dict.fromkeys(("a.wide.internal", "own.wide.internal"), site.tls)
    for name, port in ports.items():
        answer = fetch_plain(site.http, name, path="/")
        assert answer.headers["Location"] == f"https://{name}:{port}/"


def test_while_another_one_waits(make_site: MakeSite, silent: Silent) -> None:
    """A start beside another one of the same nginx says for whom it waits."""
    site = make_site()
    declared = issuer("elsewhere", silent.url, None) + "acme_start_wait 60s;"
    site.configure(site.block("a.example", "acme elsewhere;"), settings=declared)
    first = site.launch()
    eventually(lambda: silent.connections, "the CA's being asked")
    site.launch()
    said = f"[notice] process {first.pid} on "
    eventually(lambda: said in site.output(), "a word about the other")
    first.stop()


# --- and the next ---------------------------------------------------------------------------


def test_next(make_site: MakeSite, start_pebble: StartPebble) -> None:
    """With valid certificates a start asks nobody, and waits for nobody."""
    ca = start_pebble()
    site = make_site(ca)
    site.configure(site.block("next.example"))
    site.start()
    first = site.verified("next.example").leaf
    site.stop()
    root = ca.issuer_root()
    ca.stop()
    site.start(10)
    assert site.shown("next.example").leaf == first
    assert root
    site.quiet()
    assert "[error]" not in site.error_log()


# --- nginx and nothing else -----------------------------------------------------------------

STUB = """#!/bin/sh
case " $* " in *" -V "*|*" -t "*) exec {nginx} "$@";; esac
cd "${{0%/*}}"
printf '%s\\0' "$0" "$@" >argv
while read -r line; do echo "$line"; done </proc/$$/status >status
cat /proc/$$/environ >environ
ls /proc/$$/fd >fds
echo $$ >pid
"""


@pytest.fixture
def stub(open_path: Path) -> Path:
    """A program in nginx's place that writes down what it was started with."""
    path = open_path / "stub" / "nginx"
    path.parent.mkdir()
    path.write_text(STUB.format(nginx=find_program("nginx")))
    path.chmod(0o755)
    return path


def test_exec(make_site: MakeSite, pebble: Pebble, stub: Path) -> None:
    """What we become has our pid and its absolute path as argv[0], and all else is as without us."""
    site = make_site(pebble, binary=str(stub), environ={"SEEN": "yes"})
    site.configure(site.block("exec.example"))
    program = site.launch()
    assert program.wait() == 0, program.output()
    seen = _seen(stub)
    given = (
        "-p",
        f"{site.folder}/",
        "-e",
        "logs/error.log",
        "-g",
        "daemon off; pid logs/nginx.pid;",
    )
    assert seen["argv"] == [str(stub), "-c", f"{site.instance}/generated/nginx.conf", *given]
    assert seen["pid"] == [str(program.pid)]
    directly = Program([str(stub), *given], site.folder / "directly", environ=site.environ)
    directly.launch()
    assert directly.wait() == 0
    expected = _seen(stub)
    assert "SEEN=yes" in expected["environ"]
    assert [seen[name] for name in SAME] == [expected[name] for name in SAME]


SAME = ("environ", "fds", "signals")


def _seen(stub: Path) -> dict[str, list[str]]:
    """What the stub wrote down."""
    return {
        "argv": (stub.parent / "argv").read_text().split("\0")[:-1],
        "environ": sorted((stub.parent / "environ").read_text().split("\0")),
        "fds": (stub.parent / "fds").read_text().split(),
        "pid": (stub.parent / "pid").read_text().split(),
        "signals": re.findall(
            r"^Sig(?:Blk|Ign):\s*\w+", (stub.parent / "status").read_text(), re.MULTILINE
        ),
    }


def test_not_ours(make_site: MakeSite, stub: Path) -> None:
    """Without a directive of ours nginx gets the user's own arguments, untouched."""
    site = make_site(binary=str(stub))
    site.conf.write_text("events {}")
    program = site.launch()
    assert program.wait() == 0
    assert (stub.parent / "argv").read_text().split("\0")[:-1] == [str(stub), *site.argv()[5:]]
    assert not site.state.exists()
