"""How an nginx comes to `acme` while it runs, and leaves it, and what may change around it."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.launcher import eventually
from tests.servers import LOCALHOST, free_port, listens, nginx_conf

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.launcher import Site

    MakeSite = Callable[..., Site]

LOCAL = "acme local;"


def answers(site: Site, body: str) -> None:
    """Wait until it does."""
    eventually(lambda: site.shown("a.internal").body == body.encode(), f"the answer {body}")


def started(make_site: MakeSite) -> Site:
    """A site with a certificate of its own authority, whose agent sleeps."""
    site = make_site()
    site.configure(site.block("a.internal", LOCAL))
    site.start()
    site.quiet()
    return site


def by_hand(site: Site) -> str:
    """The configuration without a word of ours, with what was got as certificate."""
    own = site.folder / "own.pem"
    if not own.exists():
        own.write_bytes((site.state / "certificates/a.internal/ecdsa-256.pem").read_bytes())
    said = f"ssl_certificate {own}; ssl_certificate_key {own};"
    return nginx_conf(site.block("a.internal", said).replace('"a.internal"', '"by hand"'))


# --- to acme and back -------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["by -s reload", "by a HUP"])
def test_acme_is_added(make_site: MakeSite, how: str) -> None:
    """An nginx that runs on the user's own file goes on, and is restarted once; nothing is made."""
    site = make_site()
    site.conf.write_text(nginx_conf(f"server {{ listen {LOCALHOST}:{site.http}; }}"))
    site.start()
    workers = site.workers()
    site.configure(site.block("a.internal", LOCAL))
    if how == "by a HUP":
        site.hang_up()
        eventually(lambda: 'unknown directive "acme' in site.error_log(), "nginx's refusal")
    else:
        answer = site.run("-s", "reload")
        said = 'nginx-acme: [emerg] nginx must be restarted once to use "acme"\n'
        assert (answer.returncode, answer.stderr) == (1, said)
        assert "[emerg] 0" not in site.error_log()
    assert site.workers() == workers
    assert (site.agents(), site.state.exists()) == ([], False)
    site.stop()
    site.start()
    answers(site, "a.internal")


def test_the_last_acme_is_removed(make_site: MakeSite) -> None:
    """A HUP brings the user's own text to the same path, another one brings `acme` back.

    Without it a restart is nginx alone.
    """
    site = started(make_site)
    plain = by_hand(site)
    site.conf.write_text(plain)
    site.hang_up()
    answers(site, "by hand")
    agent = site.quiet()
    assert (site.instance / "generated" / "nginx.conf").read_text() == plain
    site.configure(site.block("a.internal", LOCAL))
    site.hang_up()
    answers(site, "a.internal")
    assert site.quiet() == agent
    site.conf.write_text(plain)
    assert site.run("-s", "reload").returncode == 0
    answers(site, "by hand")
    assert site.run("-s", "quit").returncode == 0
    assert site.server.wait() == 0
    site.start()
    answers(site, "by hand")
    assert f"-c {site.conf}" in Path(f"/proc/{site.pid}/cmdline").read_text()
    assert not site.agents()


def test_another_state_directory(make_site: MakeSite) -> None:
    """A HUP leaves it to the next start, says so, and takes the rest of the edit."""
    site = started(make_site)
    elsewhere = site.folder / "elsewhere"
    server = site.block("a.internal", LOCAL).replace('"a.internal"', '"moved"')
    site.configure(server, settings=f"acme_state_path {elsewhere};")
    site.hang_up()
    answers(site, "moved")
    said = f'#0: nginx was started with the state in "{site.state}", "{elsewhere}"'
    assert said in site.error_log()
    assert not elsewhere.exists()
    site.quiet()
    site.reload()
    site.quiet()
    assert site.error_log().count("nginx was started with the state") == 1
    site.stop()
    site.start()
    assert (elsewhere / "certificates" / "a.internal").is_dir()


def test_another_node_is_to_issue(make_site: MakeSite, open_path: Path) -> None:
    """So does `acme_issue off`: only the next start lives from what another node gets."""
    runtime = open_path / "run"
    runtime.mkdir()
    site = make_site(environ={"RUNTIME_DIRECTORY": str(runtime)})
    site.configure(site.block("a.internal", LOCAL))
    site.start()
    site.quiet()
    site.configure(site.block("a.internal", LOCAL), settings="acme_issue off;")
    site.hang_up()
    said = '"acme_issue off" is used after the next restart; until then no CA is asked'
    eventually(lambda: said in site.error_log(), said)
    site.quiet()
    assert not list(runtime.iterdir())
    site.stop()
    site.start()
    assert f"-c {runtime}/unsaved-" in Path(f"/proc/{site.pid}/cmdline").read_text()


# --- around it ---------------------------------------------------------------------------------


def test_main_file_is_moved(make_site: MakeSite) -> None:
    """Without it nginx goes on, and the log says what is missing; a link in its place is as good."""
    site = started(make_site)
    text = site.conf.read_text()
    other = site.folder / "other.conf"
    site.conf.rename(other)
    site.hang_up()
    missing = f'open() "{site.conf}" failed (2: No such file or directory)'
    eventually(lambda: missing in site.error_log(), missing)
    site.quiet()
    answers(site, "a.internal")
    other.write_text(text.replace('"a.internal"', '"linked"'))
    site.conf.symlink_to(other)
    site.hang_up()
    answers(site, "linked")


def test_mistake_without_a_word_of_ours(make_site: MakeSite) -> None:
    """Nor is a mistake lost in a configuration that says nothing of `acme` any more."""
    site = started(make_site)
    plain = by_hand(site)
    site.conf.write_text(plain.replace("return 200", "{"))
    site.hang_up()
    eventually(lambda: f"in {site.conf}:" in site.error_log(), "the mistake's place")
    site.conf.write_text(plain)
    site.hang_up()
    answers(site, "by hand")


def test_folder_is_emptied(make_site: MakeSite) -> None:
    """Servers whose files are gone are gone, the folder too; those that come are there."""
    site = make_site()
    sites = site.folder / "sites"
    sites.mkdir()
    for name in ("b.internal", "c.internal"):
        (sites / f"{name}.conf").write_text(site.block(name, LOCAL))
    site.configure(site.block("a.internal", LOCAL), f"include {sites}/*.conf;")
    site.start()
    site.quiet()
    for file in sites.iterdir():
        file.unlink()
    site.hang_up()
    eventually(lambda: site.shown("b.internal").body == b"a.internal", "no other server")
    site.quiet()
    sites.rmdir()
    site.reload()
    site.quiet()
    sites.mkdir()
    (sites / "d.internal.conf").write_text(site.block("d.internal", LOCAL))
    site.hang_up()
    eventually(lambda: site.shown("d.internal").body == b"d.internal", "the new server")


def test_addresses_change(make_site: MakeSite) -> None:
    """New addresses are listened on, old ones no more; a busy one leaves all as it was until freed."""
    site = started(make_site)
    first, second, busy = (free_port() for _ in range(3))

    def listen(*ports: int) -> None:
        servers = (f'server {{ listen {LOCALHOST}:{port}; return 200 ""; }}' for port in ports)
        site.configure(site.block("a.internal", LOCAL), *servers)
        site.hang_up()

    listen(first)
    eventually(lambda: listens(first))
    listen(second)
    eventually(lambda: listens(second) and not listens(first))
    with socket.create_server((LOCALHOST, busy)):
        listen(first, busy)
        said = f"did not take the new configuration; it says: bind() to {LOCALHOST}:{busy} failed"
        eventually(lambda: said in site.error_log(), said)
        site.quiet()
        assert listens(second)
        assert not listens(first)
    site.hang_up()
    eventually(lambda: listens(first) and listens(busy) and not listens(second))
