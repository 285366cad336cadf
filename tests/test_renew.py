"""`nginx-acme renew`: what is due is got while nginx runs, and taken up; on real servers."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from tests.fake_ca import names_of
from tests.launcher import LAUNCHER, eventually, issuer, requests
from tests.servers import LOCALHOST

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.launcher import Silent, Site
    from tests.servers import Pebble

    MakeSite = Callable[..., Site]
    StartPebble = Callable[..., Pebble]


def published(site: Site) -> tuple[int, int]:
    """What tells one writing of how the certificates stand from another."""
    (path,) = site.state.glob("public/instances/*/status.json")
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def test_not_due(make_site: MakeSite, pebble: Pebble) -> None:
    """Where nothing is due nobody is asked, and nginx is left alone."""
    site = make_site(pebble)
    site.configure(site.block("fresh.example"))
    site.start()
    asked, workers = requests(pebble), site.workers()
    answer = site.run("renew")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
    assert requests(pebble) == asked
    assert site.workers() == workers


def test_not_due_imports_no_client(make_site: MakeSite, pebble: Pebble) -> None:
    """Where nothing is due nothing is imported that speaks with a CA or takes a certificate apart."""
    site = make_site(pebble)
    site.configure(site.block("light.example"))
    site.start()
    site.quiet()
    before = published(site)
    python, *rest = LAUNCHER
    done = subprocess.run(
        [python, "-X", "importtime", *rest, *site.argv("renew")[len(LAUNCHER) :]],
        env=site.environ,
        check=True,
        capture_output=True,
        text=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "nginx_acme.rounds" in imported
    assert not imported & {"aiohttp", "asyncio", "cryptography", "dns", "httpx", "josepy", "ssl"}
    assert published(site) != before


def test_force(make_site: MakeSite, pebble: Pebble) -> None:
    """A certificate that is asked for by name is renewed and served; no other one."""
    site = make_site(pebble)
    site.configure(site.block("a.example"), site.block("b.example"))
    site.start()
    a, b = (site.shown(name).leaf for name in ("a.example", "b.example"))
    answer = site.run("renew", "--force", "A.example.")
    assert answer.returncode == 0, answer.stderr
    assert "nginx reloaded for a.example" in answer.stderr
    eventually(lambda: site.verified("a.example").leaf != a)
    assert site.shown("b.example").leaf == b
    previous = site.state / "certificates" / "a.example" / "ecdsa-256.previous.pem"
    assert previous.stat().st_mode & 0o777 == 0o600


def test_unknown_name(make_site: MakeSite, pebble: Pebble) -> None:
    """A name that no certificate has is a mistake, and nobody is asked."""
    site = make_site(pebble)
    site.configure(site.block("known.example"))
    site.start()
    asked = requests(pebble)
    answer = site.run("renew", "--force", "unknown.example")
    assert answer.returncode == 1
    assert "no certificate has the name unknown.example" in answer.stderr
    assert requests(pebble) == asked


def test_never_started(make_site: MakeSite, pebble: Pebble) -> None:
    """Before the first start there is nothing to renew, and that is said."""
    site = make_site(pebble)
    site.configure(site.block("never.example"))
    answer = site.run("renew")
    assert answer.returncode == 1
    assert "has no generation yet, start nginx first" in answer.stderr
    assert not site.state.exists()


def test_edited_meanwhile(make_site: MakeSite, pebble: Pebble) -> None:
    """A renewal needs no configuration without mistakes, and activates no edits."""
    site = make_site(pebble)
    site.configure(site.block("steady.example"))
    site.start()
    leaf = site.shown("steady.example").leaf
    site.configure("server {", site.block("halfway.example"))
    answer = site.run("renew", "--force", "steady.example")
    assert answer.returncode == 0, answer.stderr
    eventually(lambda: site.verified("steady.example").leaf != leaf)
    assert site.verified("steady.example").body == b"steady.example"


def test_refused_by_nginx(make_site: MakeSite, pebble: Pebble) -> None:
    """Where nginx refuses a file of the user's the new certificate waits for it to be put right."""
    site = make_site(pebble)
    extra = site.folder / "extra.map"
    extra.write_text("# nothing\n")
    site.configure(site.block("patient.example"), "map $uri $extra { include extra.map; }")
    site.start()
    leaf = site.shown("patient.example").leaf
    extra.write_text("oops;\n")
    answer = site.run("renew", "--force", "patient.example")
    assert answer.returncode == 1
    assert f"invalid number of the map parameters in {extra}:1" in answer.stderr
    assert site.shown("patient.example").leaf == leaf
    extra.write_text("# nothing\n")
    asked = requests(pebble)
    assert site.run("renew").returncode == 0
    eventually(lambda: site.verified("patient.example").leaf != leaf)
    assert requests(pebble) == asked


def test_without_nginx(make_site: MakeSite, pebble: Pebble) -> None:
    """While nginx doesn't run, challenges are answered all the same."""
    site = make_site(pebble)
    site.configure(site.block("down.example"))
    site.start()
    leaf = site.shown("down.example").leaf
    site.stop()
    answer = site.run("renew", "--force", "down.example")
    assert answer.returncode == 0, answer.stderr
    site.start()
    assert site.verified("down.example").leaf != leaf


def test_while_starting(make_site: MakeSite, pebble: Pebble, silent: Silent) -> None:
    """A renewal keeps out of the way of a start."""
    site = make_site(pebble)
    site.configure(site.block("old.example"))
    site.start()
    site.stop()
    declared = issuer("elsewhere", silent.url, None) + "acme_start_wait 60s;"
    site.configure(site.block("new.example", "acme elsewhere;"), settings=declared)
    site.launch()
    eventually(lambda: silent.connections)
    answer = site.run("renew", "--force", "old.example")
    assert answer.returncode == 1
    assert "nginx is being started" in answer.stderr


def test_another_program(make_site: MakeSite, pebble: Pebble) -> None:
    """Where nginx doesn't run and its address is somebody else's, the CA isn't asked in vain."""
    site = make_site(pebble)
    site.configure(site.block("old.example"))
    site.start()
    site.stop()
    asked = requests(pebble)
    with socket.create_server((LOCALHOST, site.http)):
        answer = site.run("renew", "--force", "old.example")
    assert answer.returncode == 1
    assert f"another program has {LOCALHOST}:{site.http}" in answer.stderr
    assert requests(pebble) == asked


def test_failing(make_site: MakeSite, start_pebble: StartPebble) -> None:
    """A renewal that fails leaves what is served, says why, and ends with exit code 1."""
    ca = start_pebble()
    site = make_site(ca)
    site.configure(site.block("alone.example"))
    site.start()
    leaf = site.shown("alone.example").leaf
    ca.stop()
    answer = site.run("renew", "--force", "alone.example")
    assert answer.returncode == 1
    assert "alone.example: 127.0.0.1: Connection refused; next attempt" in answer.stderr
    assert site.shown("alone.example").leaf == leaf
    row = site.one_status()
    assert (row["state"], row["failures"]) == ("valid", 1)


def test_two_at_once(make_site: MakeSite, start_pebble: StartPebble) -> None:
    """Of two renewals at once one works, and the other finds the work done."""
    pebble = start_pebble(nonce_reject=0)
    site = make_site(pebble)
    site.configure(site.block("twice.example"), settings="acme_start_wait 0;")
    before = requests(pebble)
    site.start()
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(site.run, ["renew", "renew"]))
    assert [answer.returncode for answer in answers] == [0, 0]
    eventually(lambda: site.one_status()["state"] == "valid")
    assert (requests(pebble) - before)["POST /certZ"] == 1


# --- when, and for which names --------------------------------------------------------------


def let_ask(site: Site) -> None:
    """Let an hour be over, as far as it is about asking the CA when to renew."""
    for state in site.state.glob("certificates/*/state.json"):
        fields = json.loads(state.read_text())
        for entry in fields["key_types"].values():
            del entry["advice"]
        state.write_text(json.dumps(fields))


def test_when_the_ca_says(make_site: MakeSite, start_pebble: StartPebble) -> None:
    """A certificate is renewed within its CA's window; at once where that moves into the past."""
    ca = start_pebble(newer=True, profiles={"shortlived": 160 * 3600, "brief": 300})
    site = make_site(ca)
    site.configure(
        site.block("days.example", "acme pebble profile=shortlived;"),
        site.block("brief.example", "acme pebble profile=brief;"),
        settings="acme_agent off;",
    )
    site.start()
    assert {row["renewal_by"] for row in site.status().values()} == {"lifetime"}
    days, brief = (site.verified(name).leaf for name in ("days.example", "brief.example"))
    window = {"start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z"}
    ca.advise(brief, {"suggestedWindow": window, "explanationURL": "https://ca.example/why"})
    let_ask(site)
    answer = site.run("renew")
    assert answer.returncode == 0, answer.stderr
    assert "brief.example: pebble wants it to be renewed from 2020-01-01 00:00" in answer.stderr
    assert "see https://ca.example/why" in answer.stderr
    row = site.status()["days.example ecdsa:256"]
    assert row["renewal_by"] == "renewal information"
    moment = datetime.fromisoformat(row["renewal"]) - days.not_valid_before_utc
    assert timedelta(hours=82) < moment < timedelta(hours=132)  # pebble's: a day around 2/3
    eventually(
        lambda: site.run("renew").returncode == 0 and site.verified("brief.example").leaf != brief
    )
    assert site.verified("days.example").leaf == days


def test_a_dead_name(make_site: MakeSite, start_pebble: StartPebble) -> None:
    """A first start serves what it can, says what is lacking, and has it when the name is alive."""
    ca = start_pebble()
    site = make_site(ca)
    site.configure(site.block("alive.example dead.example"), settings="acme_agent off;")
    ca.fail_name("dead.example")
    site.start()
    leaf = site.verified("alive.example").leaf
    assert names_of(leaf) == {"alive.example"}
    row = site.one_status()
    assert (row["state"], row["left_out"]) == ("valid", ["dead.example"])
    assert "dead.example: " in row["problem"]
    assert "[warn]" in site.output()
    assert "alive.example: goes on without dead.example" in site.output()
    answer = site.run("renew", "--force", "alive.example")
    assert answer.returncode == 1
    assert site.verified("alive.example").leaf == leaf
    ca.restore_name("dead.example")
    answer = site.run("renew", "--force", "alive.example")
    assert answer.returncode == 0, answer.stderr
    eventually(
        lambda: names_of(site.verified("dead.example").leaf) == {"alive.example", "dead.example"}
    )
    row = site.one_status()
    assert (row["left_out"], row["problem"], row["failures"]) == ([], None, 0)


# --- accounts -------------------------------------------------------------------------------


def accounts(site: Site) -> set[str]:
    """The folders of accounts."""
    return {path.name for path in (site.state / "accounts").iterdir()}


def test_forgotten_account(make_site: MakeSite, start_pebble: StartPebble) -> None:
    """A CA that forgot the account gets a new one, loudly, and nginx answers for that at once."""
    ca = start_pebble()
    site = make_site(ca)
    site.configure(site.block("again.example"))
    site.start()
    (account,) = accounts(site)
    ca.stop()
    ca.start()
    answer = site.run("renew", "--force", "again.example")
    assert answer.returncode == 0, answer.stderr
    assert "[error] pebble does not know the account" in answer.stderr
    eventually(lambda: site.issued("again.example"))
    assert len({name.partition(".")[0] for name in accounts(site)}) == 2
    assert account not in accounts(site)
    ca.stop()
    ca.start()
    answer = site.run("renew", "--force", "again.example")
    assert answer.returncode == 1
    assert "accountDoesNotExist" in answer.stderr


def test_forgotten_account_at_start(make_site: MakeSite, start_pebble: StartPebble) -> None:
    """A start that waits does the same, and what nginx answers with is the new account's."""
    ca = start_pebble()
    site = make_site(ca)
    site.configure(site.block("first.example"))
    site.start()
    site.stop()
    ca.stop()
    ca.start()
    shutil.rmtree(site.state / "certificates")
    site.start()
    assert site.verified("first.example").body == b"first.example"
    answer = site.run("renew", "--force", "first.example")
    assert answer.returncode == 0, answer.stderr


def test_lost_account(make_site: MakeSite, pebble: Pebble) -> None:
    """A lost account is replaced by the next start or reload."""
    site = make_site(pebble)
    site.configure(site.block("lost.example"))
    site.start()
    shutil.rmtree(site.state / "accounts")
    answer = site.run("renew", "--force", "lost.example")
    assert answer.returncode == 1
    assert "reload nginx" in answer.stderr
    assert site.run("-s", "reload").returncode == 0
    leaf = site.shown("lost.example").leaf
    assert site.run("renew", "--force", "lost.example").returncode == 0
    eventually(lambda: site.verified("lost.example").leaf != leaf)
