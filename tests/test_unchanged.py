"""A start with nothing to do does nothing, and one that has something to do is not taken for it."""

from __future__ import annotations

import shutil
import socket
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from nginx_acme.certificate import temporary
from nginx_acme.manifest import Served, keep_served, kept_served
from tests.launcher import LAUNCHER, eventually
from tests.servers import LOCALHOST, Program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.launcher import Site
    from tests.servers import Pebble

    MakeSite = Callable[..., Site]

LOCAL = "acme local;"

OURS = {
    *("__main__", "binary", "commandline", "disk", "encoding", "errors", "labels", "locks", "log"),
    *("main", "manifest", "master", "process", "spawning", "state_path", "unchanged"),
}
"""What a start with nothing to do imports of ours; whatever is added here is paid by each start."""
ALLOWED = {"_signal", "_socket", "_thread", "fcntl", "posix", "select", "time", "zlib"}
"""What it may import beside: what C has, at no cost."""


@pytest.fixture
def site(make_site: MakeSite) -> Site:
    """One that has been started and stopped, with a certificate of the issuer `local`."""
    site = make_site()
    included = site.folder / "conf.d"
    included.mkdir()
    (included / "a.conf").write_text(site.block("a.example", LOCAL))
    site.configure(f"include {included}/*.conf;")
    restart(site)
    return site


def restart(site: Site) -> tuple[int, int]:
    """Start it, let it settle, stop it; what tells one manifest from another."""
    site.start()
    site.quiet()
    site.stop()
    return mark(site)


def mark(site: Site) -> tuple[int, int]:
    """What tells one manifest from another."""
    status = (site.instance / "manifest").stat()
    return status.st_ino, status.st_mtime_ns


def is_quick(site: Site) -> bool:
    """Start it; whether that had nothing to do. Each start that has writes a manifest anew."""
    before = mark(site)
    site.start()
    return mark(site) == before


# --- nothing to do --------------------------------------------------------------------------


def test_nothing_to_do(site: Site) -> None:
    """Each time nginx runs as before, with its agent."""
    leaf = None
    for _ in range(3):
        assert is_quick(site)
        leaf = leaf or site.shown("a.example").leaf
        assert site.shown("a.example").leaf == leaf
        assert site.one_status()["state"] == "valid"
        assert site.quiet() in site.agents()
        site.stop()


def test_imports_nothing(site: Site) -> None:
    """Nothing of others' is imported, nor what Python itself takes long for, and little of ours."""
    log = site.folder / "logs" / "imports.log"
    python, *rest = LAUNCHER
    before = mark(site)
    argv = (python, "-X", "importtime", *rest, *site.argv()[len(LAUNCHER) :])
    program = site.server = Program(argv, log, environ=site.environ)
    program.launch()
    eventually(lambda: site.pid == program.pid)
    assert mark(site) == before
    lines = [line for line in log.read_text().splitlines() if line.startswith("import time:")]
    imported = [line.rpartition("|")[2].strip() for line in lines]
    late = imported[imported.index("nginx_acme") :]
    others = {name for name in late if name.partition(".")[0] != "nginx_acme"}
    assert others - ALLOWED - set(sys.builtin_module_names) <= {"__future__"}
    assert {name for name in late if name.startswith("nginx_acme.")} == {
        f"nginx_acme.{name}" for name in OURS
    }


def test_takes_up_where_a_reload_left_it(site: Site) -> None:
    """What a reload has made is what the next start begins with."""
    site.start()
    (site.folder / "conf.d" / "b.conf").write_text(site.block("b.example", LOCAL))
    assert site.run("-s", "reload").returncode == 0
    eventually(lambda: site.shown("b.example").body == b"b.example")
    site.quiet()
    site.stop()
    assert is_quick(site)
    assert site.shown("b.example").body == b"b.example"


def test_takes_up_where_a_hup_left_it(site: Site) -> None:
    """So is what the agent has made of a plain HUP."""
    site.start()
    site.quiet()
    (site.folder / "conf.d" / "b.conf").write_text(site.block("b.example", LOCAL))
    site.hang_up()
    eventually(lambda: site.shown("b.example").body == b"b.example")
    site.quiet()
    site.stop()
    assert is_quick(site)
    assert site.shown("b.example").body == b"b.example"


def test_after_a_renewal(make_site: MakeSite, pebble: Pebble) -> None:
    """A renewed certificate is no reason to look at everything."""
    site = make_site(pebble)
    site.configure(site.block("renewed.example"))
    site.start()
    first = site.verified("renewed.example").leaf
    assert site.run("renew", "--force", "renewed.example").returncode == 0
    site.quiet()
    site.stop()
    assert is_quick(site)
    assert site.verified("renewed.example").leaf != first


def test_state_elsewhere(make_site: MakeSite) -> None:
    """The state directory is found where the main file says it is."""
    site = make_site()
    said = "# acme_state_path: see below\nacme_state_path else-where;"
    site.configure(site.block("a.example", LOCAL), settings=said)
    site.runtime = site.folder / "else-where"
    site.start()
    site.quiet()
    (manifest,) = site.runtime.glob("instances/*/manifest")
    before = manifest.stat().st_ino
    site.stop()
    site.start()
    assert manifest.stat().st_ino == before


def test_warnings_are_repeated(make_site: MakeSite) -> None:
    """What was odd at the last start still is, and is said each time."""
    site = make_site()
    site.configure(site.block(r"a.example ~^b", LOCAL))
    restart(site)
    said = site.output()
    assert "[warn]" in said
    assert is_quick(site)
    assert site.output().count("[warn]") == 2 * said.count("[warn]")


# --- something to do ------------------------------------------------------------------------


def add_a_file(site: Site) -> None:
    """One more for a glob."""
    (site.folder / "conf.d" / "b.conf").write_text(site.block("b.example", LOCAL))


def edit(site: Site) -> None:
    """Another answer."""
    path = site.folder / "conf.d" / "a.conf"
    path.write_text(path.read_text().replace('200 "a.example"', '200 "edited"'))


def add_to_the_folder(site: Site) -> None:
    """Nothing that is included, but something that may be named by a relative path."""
    (site.conf.parent / "htpasswd").touch()


def bundle(site: Site) -> Path:
    """The file of its certificate."""
    return site.state / "certificates" / "a.example" / "ecdsa-256.pem"


def damage(site: Site) -> None:
    """A certificate that is none."""
    bundle(site).write_text("garbage")


def lose(site: Site) -> None:
    """No certificate."""
    bundle(site).unlink()


def lose_generation(site: Site) -> None:
    """No generation."""
    (site.instance / "generated").unlink()


def age(site: Site) -> None:
    """A certificate that is over."""
    served = kept_served(str(site.instance))
    assert served is not None
    assert served.until > 10**9
    keep_served(str(site.instance), Served(served.states, 10**9))


def cut_power(site: Site) -> None:
    """A generation of which the disk kept no more than the names."""
    for path in site.instance.glob("generations/*/*nginx.conf"):
        path.write_bytes(b"")


def lose_a_file(site: Site) -> None:
    """A generation that lacks what its main file includes."""
    for path in site.instance.glob("generations/*/**/a.conf"):
        path.unlink()


def sweep(site: Site) -> None:
    """No generations, as a cleaner leaves it."""
    shutil.rmtree(site.instance / "generations")


def revoke(site: Site) -> None:
    """A word on what is revoked: it is read before anything is served."""
    (bundle(site).parent / "revoked.json").write_text("{}")


def give_away(site: Site) -> None:
    """A note that others may have written."""
    (site.instance / "manifest").chmod(0o666)


@pytest.mark.parametrize(
    ("change", "body"),
    [
        (add_a_file, "a.example"),
        (edit, "edited"),
        (add_to_the_folder, "a.example"),
        (damage, "a.example"),
        (lose, "a.example"),
        (lose_generation, "a.example"),
        (age, "a.example"),
        (cut_power, "a.example"),
        (lose_a_file, "a.example"),
        (sweep, "a.example"),
        (revoke, "a.example"),
        (give_away, "a.example"),
    ],
)
def test_changed(site: Site, change: Callable[[Site], None], body: str) -> None:
    """Whatever the last start went by is looked at, and the next one is quick again."""
    change(site)
    assert not is_quick(site)
    assert site.shown("a.example").body == body.encode()
    if change is add_a_file:
        assert site.shown("b.example").body == b"b.example"
    if change is add_to_the_folder:
        assert (site.instance / "generated" / "htpasswd").exists()
    site.quiet()
    site.stop()
    assert is_quick(site)


def test_another_nginx(make_site: MakeSite, nginx: str, tmp_path: Path) -> None:
    """A program that was replaced has accepted nothing yet."""
    program = tmp_path / "nginx"
    program.write_text(f'#!/bin/sh\nexec {nginx} "$@"\n')
    program.chmod(0o755)
    site = make_site(binary=str(program))
    site.configure(site.block("a.example", LOCAL))
    restart(site)
    assert is_quick(site)
    site.quiet()
    site.stop()
    program.write_text(f'#!/bin/sh\n# newer\nexec {nginx} "$@"\n')
    assert not is_quick(site)


def test_other_options(site: Site) -> None:
    """Another pid file is another agent's business."""
    before = mark(site)
    other = f"daemon off; pid {site.folder}/logs/nginx.pid;"
    argv = (*site.argv(), "-g", other)
    site.server = Program(argv, site.folder / "logs" / "other.log", environ=site.environ)
    site.server.launch()
    eventually(lambda: site.pid == site.server.pid)
    assert mark(site) != before


def test_busy_address(make_site: MakeSite, pebble: Pebble) -> None:
    """An address of ours that somebody has is found out, as at each start."""
    site = make_site(pebble)
    site.configure(site.block("busy.example"))
    restart(site)
    with socket.create_server((LOCALHOST, site.http)):
        assert not is_quick(site)
        assert f"{LOCALHOST}:{site.http} is left out" in site.output()
        site.quiet()
        site.stop()
    assert not is_quick(site), "it is free, and may be had"
    assert site.output().count("is left out") == 1


def test_mistake(site: Site) -> None:
    """A mistake in a file that has changed is told, and nginx is not started with what was."""
    (site.folder / "conf.d" / "a.conf").write_text("server { acme locl; }")
    program = site.launch()
    assert program.wait() == 1
    assert "a.conf:1" in site.output()


def test_second_start(site: Site) -> None:
    """While nginx runs, another start is told by nginx itself that its addresses are taken."""
    site.start()
    site.quiet()
    before = mark(site), site.pid
    again = site.run()
    assert again.returncode == 1
    assert "bind()" in again.stderr
    assert (mark(site), site.pid) == before
    assert len(site.agents()) == 1


def test_copied_state(site: Site) -> None:
    """A state directory that was copied has other files, which are looked at."""
    shutil.copytree(site.state, site.folder / "copy", symlinks=True)
    shutil.rmtree(site.state)
    (site.folder / "copy").rename(site.state)
    assert not is_quick(site)


def test_nginx_that_does_not_come(make_site: MakeSite) -> None:
    """What only nginx misses is told with the user's path, at the second start at the latest."""
    site = make_site()
    tls = site.folder / "tls"
    tls.mkdir()
    own = temporary(["own.example"], "ecdsa:256", datetime.now(UTC)).pem
    said = "ssl_certificate tls/own.pem; ssl_certificate_key tls/own.pem;"
    site.configure(site.block("a.example", LOCAL), site.block("own.example", said))
    (tls / "own.pem").write_bytes(own)
    restart(site)
    (tls / "own.pem").unlink()
    assert site.launch().wait() == 1
    eventually(lambda: not (site.instance / "manifest").exists(), "the end of its manifest")
    told = site.run()
    assert told.returncode == 1
    assert f'cannot load certificate "{tls}/own.pem"' in told.stderr
    (tls / "own.pem").write_bytes(own)
    restart(site)
    assert is_quick(site)
