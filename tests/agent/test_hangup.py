"""A HUP that comes from elsewhere means the user's configuration as it is now, and nothing else does."""

from __future__ import annotations

import itertools
import os
import re
import resource
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.launcher import eventually
from tests.servers import PATIENCE, Program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.launcher import Site

    MakeSite = Callable[..., Site]

LOCAL = "acme local;"


def started(make_site: MakeSite, **more: str) -> Site:
    """A site with a certificate of its own authority, whose agent sleeps."""
    site = make_site(**more)
    site.configure(site.block("a.internal", LOCAL))
    site.start()
    site.quiet()
    return site


def body(site: Site, name: str = "a.internal") -> bytes:
    """What is answered for a name."""
    return site.shown(name).body


def test_edit(make_site: MakeSite, each_nginx: str) -> None:
    """An edit is taken up with new names and all, and with a certificate for them."""
    site = started(make_site, binary=each_nginx)
    site.configure(site.block("a.internal", LOCAL), site.block("b.internal", LOCAL))
    site.hang_up()
    eventually(lambda: body(site, "b.internal") == b"b.internal")
    assert site.shown("b.internal").leaf.issuer.rfc4514_string().startswith("CN=nginx-acme local")


def test_edits_in_a_row(make_site: MakeSite) -> None:
    """Of edits with a HUP each, at once after one another, the last one is served."""
    site = started(make_site)
    for number in range(20):
        server = site.block("a.internal", LOCAL).replace('return 200 "', f'return 200 "{number} ')
        site.configure(server)
        site.hang_up()
    eventually(lambda: body(site) == b"19 a.internal")
    site.quiet()
    assert body(site) == b"19 a.internal"


def test_broken_edit(make_site: MakeSite) -> None:
    """A mistake is said in the error log with file and line, and the running nginx goes on."""
    site = started(make_site)
    before = site.conf.read_text()
    site.conf.write_text(before.replace(LOCAL, "acme nobody;"))
    site.hang_up()
    message = re.compile(
        rf'\[emerg\] \d+#0: issuer "nobody" is missing in {re.escape(str(site.conf))}:\d+'
    )
    eventually(lambda: message.search(site.error_log()))
    site.quiet()
    assert body(site) == b"a.internal"
    assert site.one_status()["state"] == "valid"
    site.conf.write_text(before.replace('return 200 "', 'return 200 "again '))
    site.hang_up()
    eventually(lambda: body(site) == b"again a.internal")


def test_refused_edit(make_site: MakeSite) -> None:
    """What only nginx finds is said in its words, with the user's path."""
    site = started(make_site)
    site.conf.write_text(site.conf.read_text().replace("return 200", "retrun 200"))
    site.hang_up()
    expected = f'unknown directive "retrun", did you mean "return"? in {site.conf}:'
    eventually(lambda: expected in site.error_log())
    site.quiet()
    assert body(site) == b"a.internal"


def test_no_edit(make_site: MakeSite) -> None:
    """Without an edit nothing is made or said; nginx has done what there was to do."""
    site = started(make_site)
    generations = os.listdir(site.instance / "generations")
    site.reload()
    site.quiet()
    assert os.listdir(site.instance / "generations") == generations
    assert "[error]" not in site.error_log()


def test_reading_is_no_hup(make_site: MakeSite) -> None:
    """A `grep` below the state directory doesn't activate an edit that nobody has reloaded."""
    site = started(make_site)
    site.conf.write_text(site.conf.read_text().replace('return 200 "', 'return 200 "half '))
    found = subprocess.run(
        ("grep", "-r", "internal", site.state), capture_output=True, text=True, check=False
    )
    assert "generations" in found.stdout
    site.quiet()
    assert body(site) == b"a.internal"
    site.hang_up()
    eventually(lambda: body(site) == b"half a.internal")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("nginx.conf", "events {} half", id="main file"),
        pytest.param("answer.inc", 'return 200 "half";', id="included file"),
        pytest.param("answer.inc", "half", id="mistake in one"),
        pytest.param("conf.d/new.conf", "acme local;", id="new file in a folder"),
        pytest.param("more/new.conf", "acme local;", id="new file in a folder elsewhere"),
    ],
)
def test_renewal_is_no_hup(make_site: MakeSite, name: str, text: str) -> None:
    """The reload for a new certificate takes no edit that nobody has reloaded, whatever it is."""
    site = make_site()
    climbing = f"../{site.folder.name}/more/*"
    included = f"include {site.folder}/conf.d/*.conf; include {climbing}; include answer.inc;"
    (site.folder / "answer.inc").write_text('return 200 "first";')
    for folder in ("conf.d", "more"):
        (site.folder / folder).mkdir()
    site.configure(site.block("a.internal", LOCAL).replace("return", f"{included} return"))
    site.start()
    site.quiet()
    first = site.shown("a.internal").leaf
    (site.folder / name).write_text(text)
    assert site.run("renew", "--force", "a.internal").returncode == 0
    eventually(lambda: site.shown("a.internal").leaf != first)
    site.quiet()
    assert body(site) == b"first"


def test_hup_beside_a_renewal(make_site: MakeSite) -> None:
    """A HUP is not forgotten over a reload of our own that comes just after it."""
    site = started(make_site)
    workers = site.workers()
    site.conf.write_text(site.conf.read_text().replace('return 200 "', 'return 200 "new '))
    site.hang_up()
    eventually(lambda: set(site.workers()).isdisjoint(workers))
    assert site.run("renew", "--force", "a.internal").returncode == 0
    eventually(lambda: body(site) == b"new a.internal")


@contextmanager
def uploads(folder: Path) -> Iterator[None]:
    """Files that come to a folder, each in the place of the one before, faster than nginx reads."""
    over = threading.Event()

    def come_and_go() -> None:
        for number in itertools.count():
            file = folder / f"upload{number}"
            file.touch()
            done = over.wait(0.005)
            file.unlink()
            if done:
                return

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_uploads(make_site: MakeSite) -> None:
    """What comes and goes beside the main file is no edit, and an edit is one reload of ours, or two."""
    site = make_site()

    def configure(answer: str) -> None:
        server = site.block("a.internal", LOCAL).replace('return 200 "', f'return 200 "{answer} ')
        site.configure(server, main="error_log logs/error.log notice;")

    def takes_up(answer: str) -> None:
        configure(answer)
        site.hang_up()
        eventually(lambda: body(site) == f"{answer} a.internal".encode())
        site.quiet()

    configure("first")
    with uploads(site.folder):
        site.start()
        site.quiet()
        assert site.own_reloads() == 0
        takes_up("second")
        takes_up("third")
    assert 2 <= site.own_reloads() <= 4


def test_refused_by_the_running_generation(make_site: MakeSite) -> None:
    """An edit that puts right what nginx would refuse now is taken up with a plain HUP."""
    site = started(make_site)
    trusted = site.folder / "trusted.pem"
    trusted.write_bytes((site.state / "local" / "root.pem").read_bytes())
    setting = f"ssl_trusted_certificate {trusted};"
    site.configure(site.block("a.internal", LOCAL), settings=setting)
    assert site.run("-s", "reload").returncode == 0
    site.quiet()
    trusted.unlink()
    server = site.block("a.internal", LOCAL).replace('return 200 "', 'return 200 "right ')
    site.configure(server)
    site.hang_up()
    eventually(lambda: body(site) == b"right a.internal")


def test_bind_mounted_file(make_site: MakeSite) -> None:
    """A main file that is written in place, as through a bind mount, is as good as a new one."""
    site = started(make_site)
    text = site.conf.read_text().replace('return 200 "', 'return 200 "mounted ')
    with site.conf.open("r+") as file:
        file.write(text)
    site.hang_up()
    eventually(lambda: body(site) == b"mounted a.internal")


def test_without_agent(make_site: MakeSite) -> None:
    """With `acme_agent off` nobody is there, and a HUP reads the last generation again."""
    site = make_site()
    site.configure(site.block("a.internal", LOCAL), settings="acme_agent off;")
    site.start()
    before = site.workers()
    assert not site.agents()
    site.conf.write_text(site.conf.read_text().replace('return 200 "', 'return 200 "new '))
    site.hang_up()
    eventually(lambda: set(site.workers()).isdisjoint(before))
    assert body(site) == b"a.internal"
    assert site.run("-s", "reload").returncode == 0
    eventually(lambda: body(site) == b"new a.internal")
    assert not site.agents()


def test_edit_after_a_reload(make_site: MakeSite) -> None:
    """What is saved after a reload waits for the next one."""
    site = started(make_site)
    for answer in ("one", "two"):
        site.configure(
            site.block("a.internal", LOCAL).replace('return 200 "', f'return 200 "{answer} ')
        )
        if answer == "one":
            assert site.run("-s", "reload").returncode == 0
    site.quiet()
    assert body(site) == b"one a.internal"
    site.hang_up()
    eventually(lambda: body(site) == b"two a.internal")


def test_hup_within_a_reload_of_ours(make_site: MakeSite) -> None:
    """A HUP that comes when nginx has just taken what a renewal brought is somebody else's."""
    site = started(make_site)
    workers = site.workers()
    renewal = Program(
        site.argv("renew", "--force", "a.internal"), site.folder / "renew.log", environ=site.environ
    )
    renewal.launch()
    eventually(lambda: site.workers() - workers, "a new worker")
    site.conf.write_text(site.conf.read_text().replace('return 200 "', 'return 200 "new '))
    site.hang_up()
    eventually(lambda: body(site) == b"new a.internal")
    assert renewal.wait(PATIENCE) == 0


def test_look_that_could_not_be_taken(make_site: MakeSite) -> None:
    """A HUP is not forgotten where the agent could start nobody to look at it."""
    site = started(make_site)
    agent = site.quiet()
    limits = resource.prlimit(agent, resource.RLIMIT_NOFILE)
    resource.prlimit(agent, resource.RLIMIT_NOFILE, (3, limits[1]))
    site.conf.write_text(site.conf.read_text().replace('return 200 "', 'return 200 "new '))
    workers = site.workers()
    site.hang_up()
    eventually(lambda: site.workers().isdisjoint(workers), "other workers")
    site.quiet()
    assert body(site) == b"a.internal"
    resource.prlimit(agent, resource.RLIMIT_NOFILE, limits)
    site.wake()
    eventually(lambda: body(site) == b"new a.internal")


def test_look_that_was_cut_short(make_site: MakeSite) -> None:
    """Nor where a look has seen that it came, and then failed: nothing tells of it any more."""
    site = started(make_site)
    agent = site.quiet()
    limits = resource.prlimit(agent, resource.RLIMIT_FSIZE)
    resource.prlimit(agent, resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    text = site.conf.read_text().replace('return 200 "', 'return 200 "new ')
    site.conf.write_text(text + "# long\n" * 10000)
    site.hang_up()
    eventually(lambda: "File too large" in site.error_log(), "the failed look")
    site.quiet()
    assert body(site) == b"a.internal"
    resource.prlimit(agent, resource.RLIMIT_FSIZE, limits)
    site.wake()
    eventually(lambda: body(site) == b"new a.internal")
