"""A machine in trouble: nginx starts all the same, with one clear line for the operator."""

from __future__ import annotations

import shutil
import socket
import tempfile
from functools import partial
from typing import TYPE_CHECKING

import pytest

from nginx_acme import volumes
from tests.launcher import eventually, requests
from tests.mounts import CAN_MOUNT, bound
from tests.servers import LOCALHOST, fetch_plain, free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.launcher import Site
    from tests.servers import Pebble

    MakeSite = Callable[..., Site]
    StartPebble = Callable[..., Pebble]


def errors(site: Site) -> list[str]:
    """The launcher's errors."""
    return [line for line in site.output().splitlines() if "[error]" in line]


# --- the state directory --------------------------------------------------------------------


def sheltered(make_site: MakeSite, ca: Pebble, open_path: Path) -> Site:
    """A site whose private folder is its own."""
    runtime = open_path / "runtime"
    runtime.mkdir()
    return make_site(ca, environ={"RUNTIME_DIRECTORY": str(runtime)})


def test_file_in_its_place(make_site: MakeSite, pebble: Pebble, open_path: Path) -> None:
    """With a file where the state directory would be, nginx starts and no CA is asked."""
    site = sheltered(make_site, pebble, open_path)
    site.configure(site.block("a.example"))
    site.state.write_text("mine")
    asked = requests(pebble)
    site.start()
    assert site.shown("a.example").body == b"a.example"
    (error,) = errors(site)
    assert f'"{site.state}' in error
    assert "no CA is asked until it can be written" in error
    assert requests(pebble) == asked
    assert site.state.read_text() == "mine"
    eventually(site.agents)


@CAN_MOUNT
def test_read_only(make_site: MakeSite, pebble: Pebble, open_path: Path) -> None:
    """With a state directory that can't be written, its certificates are served as they are."""
    site = sheltered(make_site, pebble, open_path)
    site.configure(site.block("a.example"))
    site.start()
    leaf = site.shown("a.example").leaf
    site.stop()
    site.configure(site.block("a.example"), site.block("new.example"))
    with bound(site.state, site.state, read_only=True):
        asked = requests(pebble)
        site.start()
        assert site.verified("a.example").leaf == leaf
        assert "temporary" in site.shown("new.example").leaf.issuer.rfc4514_string()
        assert len(errors(site)) == 1
        assert requests(pebble) == asked
        site.configure(site.block("a.example"), site.block("newer.example"))
        answer = site.run("-s", "reload")
        assert answer.returncode == 0, answer.stderr
        assert "no CA is asked until it is restarted" in answer.stderr
        assert site.shown("newer.example").body == b"newer.example"
        assert site.run("-s", "stop").returncode == 0
        assert site.server.wait() == 0


@CAN_MOUNT
def test_read_only_configuration(make_site: MakeSite, pebble: Pebble, open_path: Path) -> None:
    """The folder of the configuration needs no writing with the state elsewhere."""
    site = make_site(pebble)
    state = open_path / "state"
    site.configure(site.block("a.example"), settings=f"acme_state_path {state};")
    elsewhere = open_path / "elsewhere"
    for name in ("logs", "temp"):
        shutil.move(site.folder / name, elsewhere / name)
        (site.folder / name).symlink_to(elsewhere / name)
    with bound(site.folder, site.folder, read_only=True):
        site.start()
        assert site.verified("a.example").body == b"a.example"
        assert not errors(site)
        site.stop()
    assert not site.state.exists()


def test_newer_layout(make_site: MakeSite, pebble: Pebble, open_path: Path) -> None:
    """A state of a newer nginx-acme is served and not written, and that is said."""
    site = sheltered(make_site, pebble, open_path)
    site.configure(site.block("a.example"))
    site.start()
    leaf = site.shown("a.example").leaf
    site.stop()
    (site.state / "layout").write_text("99\n")
    before = sorted(map(str, site.state.rglob("*")))
    site.start()
    assert site.verified("a.example").leaf == leaf
    (error,) = errors(site)
    assert "was changed by a newer nginx-acme" in error
    assert sorted(map(str, site.state.rglob("*"))) == before


@pytest.mark.skipif(not volumes.is_ephemeral("/dev/shm"), reason="/dev/shm is no tmpfs here")  # noqa: S108
def test_ephemeral(make_site: MakeSite) -> None:
    """A state directory that goes away with the machine or container is warned of at each start."""
    site = make_site()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as state:
        site.configure(
            site.block("a.internal", "acme local;"), settings=f"acme_state_path {state};"
        )
        for times in (1, 2):
            site.start()
            site.stop()
            warning = f'[warn] the state directory "{state}" goes away with its tmpfs'
            assert site.output().count(warning) == times


@pytest.mark.parametrize(
    ("pattern", "state"),
    [
        pytest.param("[as]*/*", "acme", id="leads into it"),
        pytest.param("sites/*", "sites/state", id="finds it"),
    ],
)
def test_state_among_the_includes(make_site: MakeSite, pattern: str, state: str) -> None:
    """A pattern of the user's finds nothing in the state directory, nor the directory."""
    site = make_site()
    (site.folder / "sites").mkdir()
    for name in ("a", "z"):
        (site.folder / "sites" / name).write_text(site.block(f"{name}.internal", "acme local;"))
    site.configure(f"include {pattern};", settings=f"acme_state_path {state};")
    site.start()
    assert site.run("-s", "reload").returncode == 0
    site.stop()
    site.start()
    assert [site.shown(f"{name}.internal").status for name in ("a", "z")] == [200, 200]
    assert site.run("-t").returncode == 0


# --- addresses ------------------------------------------------------------------------------


def test_busy_address(make_site: MakeSite, pebble: Pebble) -> None:
    """An address that somebody else has is left out, with a warning, and nginx starts."""
    site = make_site(pebble)
    port = free_port()
    with socket.create_server((LOCALHOST, port)):
        site.settings = site.settings.replace(f":{site.http};", f":{site.http} {LOCALHOST}:{port};")
        site.configure(site.block("a.example"))
        site.start()
        assert f"[warn] {LOCALHOST}:{port} is left out, bind()" in site.output()
        eventually(lambda: site.one_status()["state"] == "valid")
    assert site.verified("a.example").body == b"a.example"


def test_no_such_address(make_site: MakeSite, pebble: Pebble) -> None:
    """So is one that this machine doesn't have."""
    site = make_site(pebble)
    site.settings = site.settings.replace(f":{site.http};", f":{site.http} 192.0.2.1:80;")
    site.configure(site.block("a.example"))
    site.start()
    assert "[warn] 192.0.2.1:80 is left out" in site.output()
    assert site.verified("a.example").body == b"a.example"


def test_page_on_the_port(make_site: MakeSite, pebble: Pebble) -> None:
    """A server of the user's on the challenge's port goes on serving, and answers challenges."""
    site = make_site(pebble)
    plain = f"server {{ listen {LOCALHOST}:{site.http}; return 200 page; }}"
    site.configure(site.block("a.example"), plain)
    site.start()
    eventually(lambda: site.one_status()["state"] == "valid")
    assert fetch_plain(site.http, "a.example").body == b"page"
    assert site.verified("a.example").body == b"a.example"
    assert not list(site.state.glob("public/challenges/*/*"))


# --- several at once ------------------------------------------------------------------------


def test_several_instances(make_site: MakeSite, start_pebble: StartPebble) -> None:
    """Two nginx with one state directory share account and certificate, and both serve it."""
    ca = start_pebble(nonce_reject=0)
    one, two = make_site(ca), make_site(ca)
    two.settings = two.settings.replace(f":{ca.http_port};", f":{free_port()};")
    shared = f"acme_state_path {one.folder}/shared; acme_start_wait 0;"
    for site in (one, two):
        site.configure(site.block("a.example"), settings=shared)
        site.launch()
    for site in (one, two):
        eventually(partial(is_up, site))
        eventually(partial(site.issued, "a.example"))
    assert requests(ca)["POST /sign-me-up"] == 1
    assert requests(ca)["POST /certZ"] == 1


def is_up(site: Site) -> bool:
    """Whether nginx runs."""
    return site.pid == site.server.pid
