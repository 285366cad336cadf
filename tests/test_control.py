"""`-s reload`, `stop`, `quit` and `reopen`: what is said to the nginx that runs, on real servers."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.launcher import eventually, requests
from tests.servers import LOCALHOST, NginxServer, nginx_conf

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.launcher import Site
    from tests.servers import Pebble

    MakeSite = Callable[..., Site]


# --- reload ---------------------------------------------------------------------------------


def test_reload(make_site: MakeSite, pebble: Pebble) -> None:
    """A new name is served within seconds, got through the nginx that runs."""
    site = make_site(pebble)
    site.configure(site.block("first.example"))
    site.start()
    pid, first = site.pid, site.verified("first.example").leaf
    site.configure(site.block("first.example"), site.block("second.example"))
    answer = site.run("-s", "reload")
    assert answer.returncode == 0, answer.stderr
    eventually(lambda: site.issued("second.example"))
    site.quiet()
    assert site.verified("second.example").body == b"second.example"
    assert site.verified("first.example").leaf == first
    assert site.pid == pid


def test_reload_nothing(make_site: MakeSite, pebble: Pebble) -> None:
    """A reload without changes is one for nginx, and asks nobody."""
    site = make_site(pebble)
    site.configure(site.block("same.example"))
    site.start()
    before, asked = site.workers(), requests(pebble)
    assert site.run("-s", "reload").returncode == 0
    assert not site.workers() & before
    assert requests(pebble) == asked


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "server {{ listen {tls} ssl; server_name b.example; acme nobody; }}",
            'issuer "nobody" is missing in {conf}:',
            id="ours",
        ),
        pytest.param(
            "server {{ lissen {tls}; }}",
            'unknown directive "lissen", did you mean "listen"? in {conf}:',
            id="nginx's",
        ),
        pytest.param("server {{", 'unexpected end of file, expecting "}}" in {conf}:', id="syntax"),
    ],
)
def test_reload_broken(make_site: MakeSite, pebble: Pebble, text: str, message: str) -> None:
    """A mistake leaves everything running, and is told with its file and line."""
    site = make_site(pebble)
    site.configure(site.block("safe.example"))
    site.start()
    generated = os.readlink(site.instance / "generated")
    workers = site.workers()
    site.configure(site.block("safe.example"), text.format(tls=site.tls))
    answer = site.run("-s", "reload")
    assert answer.returncode == 1
    assert message.format(conf=site.conf) in answer.stderr
    assert os.readlink(site.instance / "generated") == generated
    assert site.workers() == workers
    assert site.issued("safe.example")


def test_reload_refused(make_site: MakeSite, pebble: Pebble) -> None:
    """What only the running nginx can refuse (a busy address) leaves the old generation in place."""
    site = make_site(pebble)
    site.configure(site.block("kept.example"))
    site.start()
    generated = os.readlink(site.instance / "generated")
    site.configure(site.block("kept.example"), f"server {{ listen {LOCALHOST}:{_busy(site)}; }}")
    answer = site.run("-s", "reload")
    assert answer.returncode == 1
    assert "did not take the new configuration" in answer.stderr
    assert f"bind() to {LOCALHOST}:{_busy(site)} failed" in answer.stderr
    assert os.readlink(site.instance / "generated") == generated
    assert site.issued("kept.example")


def _busy(site: Site) -> int:
    """A port that pebble holds."""
    assert site.ca is not None
    return int(site.ca.directory_url.split(":")[2].split("/")[0])


def test_reload_started_without_us(make_site: MakeSite, pebble: Pebble) -> None:
    """An nginx that runs on the user's own file is not signalled; it has to be restarted once."""
    site = make_site(pebble)
    plain = nginx_conf(f"server {{ listen {LOCALHOST}:{site.tls}; }}")
    with NginxServer(site.folder, plain) as running:
        workers = running.workers()
        site.configure(site.block("late.example"))
        answer = site.run("-s", "reload")
        assert answer.returncode == 1
        assert 'nginx must be restarted once to use "acme"' in answer.stderr
        assert running.workers() == workers


def test_reload_without_our_words(make_site: MakeSite, pebble: Pebble) -> None:
    """When the last of our directives is gone, the user's files are what nginx reads."""
    site = make_site(pebble)
    site.configure(site.block("gone.example"))
    site.start()
    own = site.folder / "own.pem"
    own.write_bytes((site.state / "certificates/gone.example/ecdsa-256.pem").read_bytes())
    certificate = f"ssl_certificate {own}; ssl_certificate_key {own};"
    site.conf.write_text(nginx_conf(site.block("gone.example", certificate)))
    answer = site.run("-s", "reload")
    assert answer.returncode == 0, answer.stderr
    assert site.shown("gone.example").body == b"gone.example"
    generated = site.instance / "generated" / "nginx.conf"
    assert generated.read_text() == site.conf.read_text()


def test_reload_elsewhere(make_site: MakeSite, pebble: Pebble) -> None:
    """Another state directory is for the next start; nginx goes on reading where it was started."""
    site = make_site(pebble)
    site.configure(site.block("moving.example"))
    site.start()
    site.configure(
        site.block("moving.example"),
        site.block("new.example"),
        settings=f"acme_state_path {site.folder}/elsewhere;",
    )
    answer = site.run("-s", "reload")
    assert answer.returncode == 0, answer.stderr
    assert f'"{site.folder}/elsewhere" is used after the next restart' in answer.stderr
    eventually(lambda: site.issued("new.example"))
    assert not (site.folder / "elsewhere").exists()
    leaf = site.shown("new.example").leaf
    answer = site.run("renew", "--force", "new.example")
    assert answer.returncode == 0, answer.stderr
    eventually(lambda: site.verified("new.example").leaf != leaf)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can name a host")
def test_renamed_host(make_site: MakeSite, pebble: Pebble) -> None:
    """A host that got its name while nginx ran reloads, renews and stops it all the same."""
    site = make_site(pebble)
    site.configure(site.block("a.example"))
    site.start()
    leaf = site.shown("a.example").leaf
    for argv in (["renew", "--force", "a.example"], ["-s", "reload"], ["-s", "stop"]):
        answer = subprocess.run(
            [*ELSEWHERE, *site.argv(*argv)],
            env=site.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert answer.returncode == 0, answer.stderr
        if "renew" in argv:
            eventually(lambda: site.verified("a.example").leaf != leaf)
    assert site.server.wait() == 0
    assert len(list((site.state / "instances").iterdir())) == 1


ELSEWHERE = ("unshare", "--uts", "sh", "-c", 'hostname elsewhere; exec "$@"', "sh")


def test_reload_not_running(make_site: MakeSite, pebble: Pebble) -> None:
    """Without an nginx there is nothing to reload, and nobody is asked."""
    site = make_site(pebble)
    site.configure(site.block("nobody.example"))
    answer = site.run("-s", "reload")
    assert answer.returncode == 1
    assert f'open() "{site.folder}/logs/nginx.pid" failed' in answer.stderr
    assert not site.state.exists()


def test_reload_something_else(make_site: MakeSite) -> None:
    """A pid file that names another program by now gets nobody a signal."""
    site = make_site()
    site.configure(site.block("a.internal", "acme local;"))
    with subprocess.Popen(["sleep", "60"]) as another:
        (site.folder / "logs" / "nginx.pid").write_text(f"{another.pid}\n")
        answer = site.run("-s", "reload")
        assert answer.returncode == 1
        assert 'nginx.pid" names a process that is no nginx' in answer.stderr
        assert another.poll() is None
        another.kill()


def test_reload_local(make_site: MakeSite) -> None:
    """A new server of the issuer `local` has its certificate when the reload is over."""
    site = make_site()
    site.configure(site.block("a.internal", "acme local;"))
    site.start()
    site.configure(site.block("a.internal", "acme local;"), site.block("b.internal", "acme local;"))
    assert site.run("-s", "reload").returncode == 0
    assert site.status()["b.internal ecdsa:256"]["state"] == "valid"
    assert "nginx-acme" in site.shown("b.internal").leaf.issuer.rfc4514_string()


# --- stop, quit, reopen ---------------------------------------------------------------------


@pytest.mark.parametrize("how", ["stop", "quit"])
def test_end(make_site: MakeSite, how: str) -> None:
    """`-s stop` and `-s quit` end nginx, with the configuration that it runs on."""
    site = make_site()
    site.configure(site.block("end.internal", "acme local;"))
    site.start()
    answer = site.run("-s", how)
    assert answer.returncode == 0, answer.stderr
    assert site.server.wait() == 0


def test_reopen(make_site: MakeSite) -> None:
    """`-s reopen` makes nginx open its logs anew."""
    site = make_site()
    site.configure(site.block("open.internal", "acme local;"))
    site.start()
    log = site.folder / "logs" / "access.log"
    log.rename(f"{log}.1")
    assert site.run("-s", "reopen").returncode == 0
    eventually(log.exists)


def test_stop_started_without_us(make_site: MakeSite, pebble: Pebble) -> None:
    """An nginx that never ran on a generation of ours can be stopped all the same."""
    site = make_site(pebble)
    plain = nginx_conf(f"server {{ listen {LOCALHOST}:{site.tls}; }}")
    with NginxServer(site.folder, plain) as running:
        site.configure(site.block("late.example"))
        answer = site.run("-s", "stop")
        assert answer.returncode == 0, answer.stderr
        assert running.server.wait() == 0
    assert not site.state.exists()
