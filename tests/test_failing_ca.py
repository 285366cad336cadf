"""A CA that doesn't give certificates never keeps nginx from starting, and isn't asked too often."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import termios
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from nginx_acme import locks
from nginx_acme.certificate import temporary
from tests.launcher import children, eventually, issuer, requests
from tests.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.launcher import Silent, Site
    from tests.servers import Pebble

    MakeSite = Callable[..., Site]
    StartPebble = Callable[..., Pebble]

QUICK = 30.0
"""Seconds for a start that waits for nobody, on a machine that has other things to do."""


def waiting(site: Site, uri: str, *, wait: str = "15s", name: str = "wait.example") -> Site:
    """The site with one server, whose CA is somewhere else."""
    declared = issuer("elsewhere", uri, None)
    settings = f"{declared} acme_start_wait {wait};"
    return site.configure(site.block(name, "acme elsewhere;"), settings=settings)


def on_host(name: str) -> tuple[str, ...]:
    """What starts a program on a host of this name."""
    return ("unshare", "--uts", "sh", "-c", f'hostname {name}; exec "$@"', "sh")


OTHER_HOSTS = pytest.mark.skipif(
    subprocess.run([*on_host("other"), "true"], check=False, capture_output=True).returncode != 0,
    reason="no host can have another name here",
)


def is_temporary(site: Site, name: str = "wait.example") -> bool:
    """Whether nginx shows a temporary certificate."""
    return "nginx-acme temporary" in site.shown(name).leaf.issuer.rfc4514_string()


# --- what is remembered ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        pytest.param("https://127.0.0.1:{closed}/dir", "Connection refused", id="down"),
        pytest.param("{directory}", "not to be trusted", id="not trusted"),
        pytest.param("{silent}", "no answer in 4 s", id="silent"),
    ],
)
def test_unreachable(
    make_site: MakeSite, pebble: Pebble, silent: Silent, uri: str, words: str
) -> None:
    """Nginx starts with a temporary certificate; words and next attempt outlive a crash."""
    site = make_site()
    places = {"closed": free_port(), "directory": pebble.directory_url, "silent": silent.url}
    waiting(site, uri.format(**places), wait="6s")
    site.start(6 + QUICK)
    assert is_temporary(site)
    failed = site.one_status()
    assert words in failed["problem"]
    assert failed["state"] == "temporary"
    moment = datetime.fromisoformat(failed["next_attempt"])
    assert 30 < (moment - datetime.now(UTC)).total_seconds() < 75
    site.crash()
    asked = len(silent.connections)
    site.start(QUICK)
    assert site.one_status() == failed
    assert len(silent.connections) == asked


@pytest.mark.parametrize(
    ("path", "words"),
    [
        pytest.param("/dir", "refused.example", id="the name is refused"),
        pytest.param("/nothing", "404", id="no directory there"),
    ],
)
def test_refused(make_site: MakeSite, start_pebble: StartPebble, path: str, words: str) -> None:
    """What a CA says is kept in its own words, and it isn't asked again before its time."""
    ca = start_pebble(blocked=["refused.example"], nonce_reject=0)
    uri = ca.directory_url.replace("/dir", path)
    site = make_site()
    site.settings += issuer("strict", uri, ca.api_root)
    site.configure(site.block("refused.example", "acme strict;"))
    site.start(QUICK)
    assert is_temporary(site, "refused.example")
    failed = site.one_status()
    assert words in failed["problem"]
    assert failed["failures"] == 1
    asked = requests(ca)
    site.crash()
    site.start(QUICK)
    assert site.one_status() == failed
    assert requests(ca) == asked


# --- how long a start waits -----------------------------------------------------------------


def test_killed_while_waiting(make_site: MakeSite, silent: Silent) -> None:
    """A start that was killed while it waited is followed by one that doesn't wait."""
    site = waiting(make_site(), silent.url, wait="60s")
    site.launch()
    eventually(lambda: silent.connections)
    site.server.stop(signal.SIGKILL)
    site.start(QUICK)
    assert is_temporary(site)


@OTHER_HOSTS
def test_killed_in_another_container(make_site: MakeSite, silent: Silent) -> None:
    """So is one in a container that is made anew; one that still waits elsewhere changes nothing."""
    site = waiting(make_site(), silent.url, wait="60s")
    site.launch(*on_host("gone"))
    eventually(lambda: silent.connections)
    site.server.stop(signal.SIGKILL)
    with locks.lock(f"{site.state}/locks/start-{site.instance.name}.lock", wait=10):
        asked = len(silent.connections)
        site.launch(*on_host("second"))
        eventually(lambda: len(silent.connections) > asked)
        site.server.stop(signal.SIGKILL)
    site.start(QUICK)
    assert is_temporary(site)


def test_no_wait(make_site: MakeSite, start_pebble: StartPebble) -> None:
    """With `acme_start_wait 0` nginx runs first, and gets the certificate by itself."""
    ca = start_pebble()
    site = make_site(ca)
    site.configure(site.block("zero.example"), settings="acme_start_wait 0;")
    site.start(QUICK)
    eventually(lambda: not is_temporary(site, "zero.example"))
    site.quiet()
    assert site.verified("zero.example").body == b"zero.example"


@pytest.mark.parametrize(
    "other",
    [
        pytest.param("listen 127.0.0.1:{port}; root /;", id="a plain page"),
        pytest.param(
            "listen 127.0.0.1:{port} ssl; ssl_certificate {pem}; ssl_certificate_key {pem};",
            id="a certificate of its own",
        ),
    ],
)
def test_served_already(make_site: MakeSite, silent: Silent, other: str) -> None:
    """Where something can be served already, nginx starts at once."""
    site = make_site()
    own = site.folder / "own.pem"
    own.write_bytes(temporary(["own.example"], "ecdsa:256", datetime.now(UTC)).pem)
    declared = issuer("elsewhere", silent.url, None) + "acme_start_wait 60s;"
    block = f"server {{ {other.format(port=free_port(), pem=own)} }}"
    site.configure(block, site.block("wait.example", "acme elsewhere;"), settings=declared)
    site.start(QUICK)
    assert is_temporary(site)


def test_another_certificate(
    make_site: MakeSite, start_pebble: StartPebble, silent: Silent
) -> None:
    """Where one managed certificate is usable, a new server doesn't hold it up."""
    site = make_site(start_pebble())
    site.configure(site.block("old.example"))
    site.start()
    site.stop()
    declared = issuer("elsewhere", silent.url, None) + "acme_start_wait 60s;"
    new = site.block("new.example", "acme elsewhere;")
    site.configure(site.block("old.example"), new, settings=declared)
    site.start(QUICK)
    assert site.verified("old.example").body == b"old.example"
    assert is_temporary(site, "new.example")


@pytest.mark.parametrize(
    "names",
    [
        pytest.param("old.example", id="another issuer"),
        pytest.param("old.example new.example", id="another name"),
    ],
)
def test_nearest(make_site: MakeSite, pebble: Pebble, silent: Silent, names: str) -> None:
    """Where a certificate of before covers a name, nginx starts with it at once."""
    site = make_site(pebble)
    site.configure(site.block("old.example"))
    site.start()
    site.stop()
    declared = issuer("elsewhere", silent.url, None) + "acme_start_wait 60s;"
    site.configure(site.block(names, "acme elsewhere;"), settings=declared)
    site.start(QUICK)
    assert site.issued("old.example")


# --- signals --------------------------------------------------------------------------------


AS_PID_1 = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
NO_NAMESPACE = pytest.mark.skipif(
    subprocess.run([*AS_PID_1, "true"], check=False, capture_output=True).returncode != 0,
    reason="no namespace of processes can be made here",
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
@pytest.mark.parametrize(
    "prefix",
    [
        pytest.param((), id="a process"),
        pytest.param(AS_PID_1, id="PID 1", marks=NO_NAMESPACE),
    ],
)
def test_signals(
    make_site: MakeSite, silent: Silent, number: signal.Signals, prefix: tuple[str, ...]
) -> None:
    """TERM, INT and QUIT end the first wait at once with exit code 0, also as PID 1."""
    site = waiting(make_site(), silent.url, wait="60s")
    program = site.launch(*prefix)
    eventually(lambda: silent.connections)
    began = time.monotonic()
    os.kill(children(program.pid)[0] if prefix else program.pid, number)
    assert program.wait() == 0
    assert time.monotonic() - began < 2
    eventually(lambda: not site.processes(), "the end of all")


def test_terminal(make_site: MakeSite, silent: Silent) -> None:
    """In a terminal the wait is shown, and Ctrl-C leaves it as it was."""
    site = waiting(make_site(), silent.url, wait="60s")
    screen, stderr = pty.openpty()
    termios.tcsetwinsize(stderr, (24, 80))
    environ = site.environ | {"TERM": "xterm"}
    with subprocess.Popen(site.argv(), env=environ, stderr=stderr) as program:
        os.close(stderr)
        seen = read_until(screen, b"there is no certificate yet")
        program.send_signal(signal.SIGINT)
        seen += read_until(screen, None)
        assert program.wait() == 0
    os.close(screen)
    assert b"\x1b[?25l" in seen
    assert seen.rindex(b"\x1b[?25h") > seen.rindex(b"\x1b[?25l")


def read_until(descriptor: int, words: bytes | None) -> bytes:
    """What a terminal shows, up to these words or to its end."""
    seen = b""
    while words is None or words not in seen:
        try:
            seen += os.read(descriptor, 4096)
        except OSError:  # nobody has it open any more
            break
    return seen


def test_interrupted(make_site: MakeSite, start_pebble: StartPebble) -> None:
    """What a signal interrupts is on disk, and the next start makes a certificate of it."""
    ca = start_pebble(validation_sleep=3, nonce_reject=0)
    site = make_site(ca)
    site.configure(site.block("stays.example"))
    program = site.launch()
    eventually(lambda: requests(ca)["POST /chalZ"])
    os.kill(program.pid, signal.SIGTERM)
    assert program.wait() == 0
    pending = site.state / "certificates" / "stays.example" / "pending"
    assert {path.name for path in pending.iterdir()} == {"key.pem", "order.json"}
    site.start()
    eventually(lambda: not is_temporary(site, "stays.example"))
    assert requests(ca)["POST /sign-me-up"] == 1
