"""`nginx-acme doctor` on real sites: all well, and each thing that isn't."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest

from nginx_acme import locks
from tests.launcher import eventually, requests
from tests.mounts import CAN_MOUNT, in_memory
from tests.servers import LOCALHOST, NginxServer, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.launcher import Site
    from tests.servers import Pebble

    MakeSite = Callable[..., Site]
    StartPebble = Callable[..., Pebble]

NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
AS_NOBODY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
AGENT = "nginx.agent"
UNATTENDED = "acme_agent off;"
LOCAL = "acme local;"


@pytest.fixture
def small_disk(open_path: Path) -> Iterator[Path]:
    """A folder in memory with room for little."""
    folder = open_path / "memory"
    folder.mkdir()
    with in_memory(folder, "4m"):
        yield folder


def examined(site: Site, *, exit_code: int | None = None) -> list[dict[str, Any]]:
    """What `doctor --json` finds, with the CA's DNS."""
    resolver = ("--resolver", site.ca.resolver) if site.ca is not None else ()
    answer = site.run("doctor", "--json", *resolver)
    assert answer.stderr == ""
    document = json.loads(answer.stdout)
    assert document["schema"] == 1
    assert answer.returncode == (0 if document["ok"] else 1)
    assert exit_code in {None, answer.returncode}
    checks = document["checks"]
    assert isinstance(checks, list)
    return checks


def troubles(site: Site, *, exit_code: int | None = None) -> list[tuple[str, str, str, str]]:
    """What isn't well: check, subject, verdict and words with advice."""
    return [
        (one["check"], one["subject"], one["verdict"], f"{one['words']}; {one['advice']}")
        for one in examined(site, exit_code=exit_code)
        if one["verdict"] != "ok"
    ]


def trouble(site: Site, *, exit_code: int | None = None) -> tuple[str, str, str, str]:
    """The only thing that isn't well."""
    (found,) = troubles(site, exit_code=exit_code)
    return found


def tree(folder: Path) -> dict[Path, int]:
    """When each file and folder was changed."""
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}


# --- well -----------------------------------------------------------------------------------


def test_well(make_site: MakeSite, pebble: Pebble) -> None:
    """Before the first start and after it all is well; a name of `local` is nobody's to look at."""
    site = make_site(pebble)
    site.configure(site.block("well.example www.well.example"), site.block("c.internal", LOCAL))
    assert troubles(site, exit_code=0) == []
    site.start()
    site.quiet()
    assert troubles(site) == []
    found = examined(site, exit_code=0)
    by_check = {(one["check"], one["subject"]): one["words"] for one in found}
    for name in ("well.example", "www.well.example"):
        assert by_check["names.address", name] == f"leads here by {LOCALHOST}"
        assert by_check["names.challenge", name] == "nginx answers challenges for it"
        assert by_check["names.caa", name] == "CAA excludes nobody"
    assert "c.internal" not in {subject for _, subject in by_check}
    assert by_check["certificates.state", "c.internal ecdsa:256"].startswith("valid until ")
    assert by_check["certificates.served", "well.example ecdsa:256"] == "is served"
    assert by_check["nginx.agent", "agent"] == "is there"
    assert by_check["host.port", f"{LOCALHOST}:{site.tls}"] == "nginx listens"
    assert "my-account" in by_check["accounts.registered", "pebble"]


def test_for_people(make_site: MakeSite, pebble: Pebble) -> None:
    """Each group has its lines; nothing is coloured where it is no terminal."""
    site = make_site(pebble)
    site.configure(site.block("people.example"))
    answer = site.run("doctor", "--resolver", pebble.resolver)
    assert (answer.returncode, answer.stderr) == (0, "")
    groups = [line for line in answer.stdout.splitlines() if line and not line.startswith(" ")]
    assert groups == [
        *("configuration", "nginx", "host", "state", "names", "certificates", "accounts")
    ]
    assert "  ✓ people.example" in answer.stdout
    assert "\x1b" not in answer.stdout


def test_touches_nothing(make_site: MakeSite, pebble: Pebble) -> None:
    """No CA is asked, nothing of ours is written, nginx is not reloaded."""
    site = make_site(pebble)
    site.configure(site.block("touched.example"), settings=UNATTENDED)
    examined(site)
    assert not site.state.exists()
    site.start()
    asked, workers = requests(pebble), site.workers()
    before = {path: time for path, time in tree(site.state).items() if path.is_file()}
    examined(site)
    assert {path: time for path, time in tree(site.state).items() if path.is_file()} == before | {
        path: tree(site.state)[path] for path in [site.state / "locks" / "challenges.lock"]
    }
    assert requests(pebble) == asked
    assert site.workers() == workers


def test_not_ours(make_site: MakeSite) -> None:
    """A configuration without our directives is nginx's own affair."""
    site = make_site()
    site.conf.write_text("events {}")
    answer = site.run("doctor")
    assert answer.returncode == 0
    assert answer.stdout == f"{site.conf}: no directive of nginx-acme, nginx gets it as it is\n"
    assert json.loads(site.run("doctor", "--json").stdout)["checks"] == []


def test_many_names(make_site: MakeSite, pebble: Pebble) -> None:
    """Hundreds of names are looked at together, and are a few lines."""
    site = make_site(pebble)
    site.configure(
        *(site.block(" ".join(f"n{i}-{j}.example" for j in range(50))) for i in range(6)),
        settings="server_names_hash_max_size 4096;",
    )
    answer = site.run("doctor", "--resolver", pebble.resolver)
    assert answer.returncode == 0, answer.stdout
    assert "n0-0.example, n0-1.example, n0-2.example and 297 more  leads here by" in answer.stdout
    assert len(answer.stdout.splitlines()) < 40


# --- names ----------------------------------------------------------------------------------


def test_caa_forbids(make_site: MakeSite, pebble: Pebble) -> None:
    """A parent's CAA record that lets another CA issue is told with what to add."""
    pebble.set_caa("forbids.example", issue="other.example")
    site = make_site(pebble)
    site.settings += "acme_issuer letsencrypt { contact a@b.example; }"
    site.configure(site.block("www.forbids.example"))
    check, subject, verdict, words = trouble(site, exit_code=0)
    assert (check, subject, verdict) == ("names.caa", "www.forbids.example", "warning")
    assert words.startswith("CAA of forbids.example lets other.example issue; is that pebble?")


def test_caa_forbids_public(make_site: MakeSite, pebble: Pebble) -> None:
    """Of a public CA its name in CAA is known, so that is an error."""
    pebble.set_caa("forbids.nginx.org", issue=";")
    site = make_site(pebble)
    site.configure(site.block("forbids.nginx.org", "acme letsencrypt;"))
    found = {check: (verdict, words) for check, _, verdict, words in troubles(site, exit_code=1)}
    assert found["names.caa"][0] == "error"
    assert 'add: forbids.nginx.org. CAA 0 issue "letsencrypt.org"' in found["names.caa"][1]
    assert found["names.address"][1].startswith(f"leads to {LOCALHOST}, where no public CA gets")


@pytest.mark.ipv6
def test_ipv6_elsewhere(make_site: MakeSite, pebble: Pebble) -> None:
    """Another server at the IPv6 address is what a CA asks first, and alone."""
    pebble.add_ipv6("six.example", "::1")
    site = make_site(pebble)
    site.configure(site.block("six.example"))
    check, subject, verdict, words = trouble(site, exit_code=0)
    assert (check, subject, verdict) == ("names.address", "six.example", "warning")
    assert "leads here by ::1, but nginx listens on IPv4 only" in words
    with socket.create_server(("::1", site.http), family=socket.AF_INET6) as other:
        thread = threading.Thread(target=answer_something, args=(other,))
        thread.start()
        found = trouble(site, exit_code=1)
        thread.join()
    assert found[:3] == ("names.address", "six.example", "error")
    assert "leads here by ::1, where another program answers: 404 on" in found[3]


def answer_something(listener: socket.socket) -> None:
    """A server that knows of nothing."""
    connection, _ = listener.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")


def test_servfail(make_site: MakeSite, pebble: Pebble) -> None:
    """A name whose DNS is broken is told in DNS's words."""
    pebble.fail_name("fails.example")
    site = make_site(pebble)
    site.configure(site.block("fails.example fine.example"))
    found = troubles(site, exit_code=0)
    assert [(check, subject) for check, subject, _, _ in found] == [
        ("names.address", "fails.example"),
        ("names.caa", "fails.example"),
    ]
    assert all("of fails.example can't be looked up: SERVFAIL" in words for *_, words in found)


def test_no_dns(make_site: MakeSite, pebble: Pebble) -> None:
    """A DNS server that isn't there costs no more than the time that there is."""
    site = make_site(pebble)
    site.configure(site.block("a.example"))
    answer = site.run("doctor", "--resolver", f"{LOCALHOST}:{free_port()}")
    assert answer.returncode == 0
    assert "! a.example" in answer.stdout
    assert "can't be looked up: no answer" in answer.stdout


@pytest.mark.parametrize("text", ["", "dns.example", "192.0.2.1:0", "192.0.2.1:53-54", "[::1"])
def test_no_resolver(make_site: MakeSite, text: str) -> None:
    """What can be no DNS server is refused in one line."""
    site = make_site()
    site.configure(site.block("a.internal", LOCAL))
    answer = site.run("doctor", "--resolver", text)
    assert answer.returncode == 2
    assert answer.stderr.splitlines()[-1].endswith(f'"{text}" is no address of a DNS server')


def test_challenge_hidden(make_site: MakeSite, pebble: Pebble) -> None:
    """What the running nginx answers wrongly is proof, before it costs an order."""
    site = make_site(pebble)
    site.configure(site.block("hidden.example"))
    site.start()
    site.state.joinpath("public").chmod(0o700)
    found = {check: words for check, _, verdict, words in troubles(site) if verdict == "error"}
    if os.geteuid() == 0:
        assert "can't be entered by nginx's workers (nobody)" in found["state.workers"]
    assert "nginx answers a challenge with" in found["names.challenge"]
    assert f"leads here by {LOCALHOST}, but" in found["names.address"]


# --- nginx ----------------------------------------------------------------------------------


def test_agent_missing(make_site: MakeSite) -> None:
    """Without the agent nobody renews; a reload brings it back, as is said."""
    site = make_site()
    site.configure(site.block("a.internal", LOCAL))
    site.start()
    os.kill(site.quiet(), signal.SIGKILL)
    eventually(lambda: not site.agents())
    check, subject, verdict, words = trouble(site, exit_code=1)
    assert (check, subject, verdict) == (AGENT, "agent", "error")
    assert "nginx-acme -s reload brings it back" in words
    assert site.run("-s", "reload").returncode == 0
    site.quiet()
    assert troubles(site, exit_code=0) == []


def test_unattended(make_site: MakeSite) -> None:
    """Where the agent is off, somebody else is to renew."""
    site = make_site()
    site.configure(site.block("a.internal", LOCAL), settings=UNATTENDED)
    site.start()
    check, subject, verdict, words = trouble(site, exit_code=0)
    assert (check, subject, verdict) == (AGENT, "agent", "warning")
    assert "let a timer run nginx-acme renew" in words


def test_plain_nginx(make_site: MakeSite) -> None:
    """An nginx that was started without us shows nothing of ours."""
    site = make_site()
    with NginxServer(site.folder, site.configure().conf.read_text().replace(site.settings, "")):
        site.configure(site.block("a.internal", LOCAL))
        check, _, verdict, words = troubles(site, exit_code=1)[0]
    assert (check, verdict) == ("nginx.running", "error")
    assert "restart it once" in words


def test_not_reloaded(make_site: MakeSite, pebble: Pebble) -> None:
    """A name that nginx was not told of yet is no name that it answers wrongly for."""
    site = make_site(pebble)
    site.configure(site.block("old.example"))
    site.start()
    site.quiet()
    site.configure(site.block("old.example"), site.block("young.example"))
    found = [one for one in troubles(site) if one[0] != AGENT]
    assert [(check, verdict) for check, _, verdict, _ in found] == [("nginx.reloaded", "warning")]
    assert "doesn't know young.example yet; nginx-acme -s reload" in found[0][3]


def test_mistake(make_site: MakeSite, pebble: Pebble) -> None:
    """A mistake in the configuration is told with its place; what runs is examined all the same."""
    site = make_site(pebble)
    site.configure(site.block("mistaken.example"))
    site.start()
    site.configure("acme_frobnicate on;")
    found = [one for one in troubles(site, exit_code=1) if one[0] != AGENT]
    (mistake,) = found
    assert mistake[:3] == ("configuration.understood", str(site.conf), "error")
    assert f"in {site.conf}:" in mistake[3]
    assert "mistaken.example" in {one["subject"] for one in examined(site)}


def test_refused(make_site: MakeSite) -> None:
    """What nginx refuses is told in its words, with the user's file."""
    site = make_site()
    site.configure(site.block("a.internal", LOCAL), settings="proxy_pass http://x;")
    check, _, verdict, words = trouble(site, exit_code=1)
    assert (check, verdict) == ("configuration.accepted", "error")
    assert f'nginx refuses it: "proxy_pass" directive is not allowed here in {site.conf}:' in words


def test_hidden_by_code(make_site: MakeSite, pebble: Pebble) -> None:
    """What may change the answer to a challenge is told, where a challenge may meet it."""
    site = make_site(pebble)
    site.configure(site.block("filtered.example"), settings="sub_filter a b;")
    check, subject, verdict, words = trouble(site, exit_code=0)
    assert (check, verdict) == ("configuration.hidden", "warning")
    assert subject.startswith(f"{site.conf}:")
    assert '"sub_filter" may change' in words


def test_code_before_challenges(make_site: MakeSite, pebble: Pebble) -> None:
    """Code that runs before challenges are answered is told with what it must let pass."""
    site = make_site(pebble)
    lua = "server_rewrite_by_lua_block { ngx.exit(403) }"
    site.configure(site.block("coded.example"), settings=lua)
    found = {check: words for check, _, _, words in troubles(site)}
    assert '"server_rewrite_by_lua_block" runs before' in found["configuration.hidden"]


def test_no_file(make_site: MakeSite) -> None:
    """A main file that can't be read is told."""
    site = make_site()
    site.conf.unlink()
    check, subject, verdict, words = trouble(site, exit_code=1)
    assert (check, subject, verdict) == ("configuration.understood", str(site.conf), "error")
    assert words.startswith("can't be read: No such file or directory")
    assert "state.folder" not in {one["check"] for one in examined(site)}  # it may be anywhere


def test_node_that_does_not_issue(make_site: MakeSite, pebble: Pebble) -> None:
    """A node that asks no CA has no names to be looked at."""
    site = make_site(pebble)
    site.configure(site.block("other-node.example"), settings="acme_issue off;")
    (found,) = [one for one in examined(site) if one["check"].startswith("names.")]
    assert found["words"] == "acme_issue is off, this node asks no CA"


def test_ciphers(make_site: MakeSite) -> None:
    """A key that no suite can use is told; nginx says nothing."""
    site = make_site()
    site.configure(
        site.block("a.internal", "acme local key=ecdsa:256; ssl_ciphers AES256-SHA;"),
        site.block("b.internal", "acme local; ssl_ciphers AES256-SHA;"),
    )
    check, _, verdict, words = trouble(site, exit_code=0)
    assert (check, verdict) == ("configuration.ciphers", "warning")
    assert "acme key=rsa:2048;" in words


def test_deaf_port(make_site: MakeSite, pebble: Pebble) -> None:
    """A port 80 that speaks TLS answers no challenge: a warning at the start, and here."""
    site = make_site(pebble)
    site.configure(site.block("deaf.example", listen=f"{LOCALHOST}:{site.http}"))
    found = troubles(site)
    (warning,) = [words for check, _, _, words in found if check == "configuration.warning"]
    assert f"no challenge is answered on {LOCALHOST}:{site.http}, where this http server" in warning
    assert f"no challenge is answered on {LOCALHOST}:{site.http}" in site.run("plan").stderr


# --- this host ------------------------------------------------------------------------------


def test_port_taken(make_site: MakeSite, pebble: Pebble) -> None:
    """Who has an address that nginx needs is named."""
    site = make_site(pebble)
    site.configure(site.block("taken.example"))
    with socket.create_server((LOCALHOST, site.tls)):
        check, subject, verdict, words = trouble(site, exit_code=1)
    assert (check, subject, verdict) == ("host.port", f"{LOCALHOST}:{site.tls}", "error")
    assert f"(pid {os.getpid()}) listens there; stop it" in words


def test_while_starting(make_site: MakeSite, pebble: Pebble) -> None:
    """A start of nginx that is under way doesn't meet a server of ours."""
    site = make_site(pebble)
    site.configure(site.block("starting.example"))
    site.start()
    site.stop()
    lock = site.state / "locks" / f"start-{site.instance.name}.lock"
    with locks.lock(str(lock), wait=10):
        found = troubles(site)
    words = {check: words for check, _, _, words in found}
    assert "nginx is being started" in words["names.challenge"]


@CAN_MOUNT
def test_tmpfs(make_site: MakeSite, small_disk: Path) -> None:
    """A state directory that goes away is told, with the volume to add."""
    site = make_site()
    site.configure(site.block("a.internal", LOCAL), settings=f"acme_state_path {small_disk}/state;")
    found = troubles(site, exit_code=0)
    assert {check for check, *_ in found} == {"state.kept", "state.space"}
    assert "goes away with its tmpfs" in {one[0]: one[3] for one in found}["state.kept"]


def test_unwritable(make_site: MakeSite, open_path: Path) -> None:
    """A state directory that can't be is told, with why."""
    site = make_site()
    (open_path / "file").write_text("")
    site.configure(site.block("a.internal", LOCAL), settings=f"acme_state_path {open_path}/file;")
    check, _, verdict, words = trouble(site, exit_code=1)
    assert (check, verdict) == ("state.folder", "error")
    assert f'"{open_path}/file" is no folder' in words


def test_newer_layout(make_site: MakeSite) -> None:
    """A state of a newer release is not written, and that is said."""
    site = make_site()
    site.configure(site.block("a.internal", LOCAL))
    site.start()
    site.stop()
    (site.state / "layout").write_text("999\n")
    found = {check: words for check, _, _, words in troubles(site, exit_code=1)}
    assert "changed by a newer nginx-acme" in found["state.folder"]


@AS_NOBODY
def test_as_nobody(make_site: MakeSite, pebble: Pebble) -> None:
    """Whoever may not look at the state is told so, and sees the rest."""
    site = make_site(pebble)
    site.configure(site.block("nobody.example"))
    site.start()
    argv = [*NOBODY, *site.argv("doctor", "--json", "--resolver", pebble.resolver)]
    answer = subprocess.run(argv, env=site.environ, capture_output=True, text=True, check=False)
    assert answer.stderr == ""
    found = {one["check"]: one for one in json.loads(answer.stdout)["checks"]}
    assert found["state.folder"]["words"] == "belongs to another user"
    assert found["names.address"]["verdict"] == "ok"
    assert found["names.caa"]["verdict"] == "ok"
    assert found["certificates.failed"]["verdict"] == "warning"
    assert found["certificates.failed"]["advice"] == "ask as root"


# --- certificates ---------------------------------------------------------------------------


def test_stored(make_site: MakeSite) -> None:
    """What is damaged, and what nobody asks for any more, is told."""
    site = make_site()
    blocks = [site.block("a.internal", LOCAL), site.block("b.internal", LOCAL)]
    site.configure(*blocks, settings=UNATTENDED)
    site.start()
    site.configure(blocks[0], settings=UNATTENDED)
    assert site.run("-s", "reload").returncode == 0
    (site.state / "certificates/a.internal/ecdsa-256.pem").write_text("damaged")
    found = {check: (subject, verdict, words) for check, subject, verdict, words in troubles(site)}
    assert found["certificates.orphan"][:2] == ("b.internal", "warning")
    subject, verdict, words = found["certificates.state"]
    assert (subject, verdict) == ("a.internal ecdsa:256", "error")
    assert words.startswith("its file is damaged (")


def test_not_served(make_site: MakeSite) -> None:
    """A certificate that is on disk, and not served, is an error."""
    site = make_site()
    site.configure(site.block("a.internal", LOCAL), settings=UNATTENDED)
    site.start()
    path = site.state / "certificates/a.internal/ecdsa-256.pem"
    before = path.read_bytes()
    assert site.run("renew", "--force", "a.internal").returncode == 0
    path.write_bytes(before)
    found = {check: (verdict, words) for check, _, verdict, words in troubles(site)}
    assert found["certificates.served"][0] == "error"
    assert "shows another certificate, of a.internal" in found["certificates.served"][1]


def test_failed(make_site: MakeSite, start_pebble: StartPebble) -> None:
    """What the CA said last is told, in its words."""
    ca = start_pebble(blocked=["blocked.example"])
    site = make_site(ca)
    site.configure(site.block("blocked.example"))
    site.start()
    assert site.run("renew").returncode in {0, 1}
    found = {check: (verdict, words) for check, _, verdict, words in troubles(site, exit_code=1)}
    verdict, words = found["certificates.state"]
    assert verdict == "error"
    assert "a temporary one is shown in its place; the last attempt failed: " in words
    assert "nginx-acme renew --force blocked.example" in words
