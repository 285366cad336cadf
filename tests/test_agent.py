"""What a start leaves behind when it goes on without all of its certificates."""

from __future__ import annotations

import json
import re
import subprocess
from functools import partial
from typing import TYPE_CHECKING

from tests.launcher import LAUNCHER, eventually, issuer

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.launcher import Silent, Site
    from tests.servers import Pebble

    MakeSite = Callable[..., Site]
    StartPebble = Callable[..., Pebble]


def is_real(site: Site, name: str) -> bool:
    """Whether nginx serves a certificate of pebble's."""
    return "Pebble" in site.shown(name).leaf.issuer.rfc4514_string()


def test_one_for_all(make_site: MakeSite, start_pebble: StartPebble) -> None:
    """It stays as long as something is missing, sees what a reload brings, and is the only one."""
    ca = start_pebble()
    site = make_site(ca)
    site.configure(site.block("a.example"))
    ca.stop()
    site.start()
    (left,) = eventually(site.agents)
    eventually(lambda: holder(site) == left)
    ca.start()
    forgive(site, "a.example")
    site.configure(site.block("a.example"), site.block("b.example"))
    assert site.run("-s", "reload").returncode == 0
    eventually(partial(is_real, site, "b.example"))
    eventually(partial(is_real, site, "a.example"))
    assert site.quiet() == left


def holder(site: Site) -> int:
    """The process that has the lock for it; 0 as long as there is none."""
    for path in site.state.glob("locks/agent-*.lock"):
        return int(path.read_text().split()[1])
    return 0


def forgive(site: Site, name: str) -> None:
    """As if the time for the next attempt had come."""
    note = site.state / "certificates" / name / "state.json"
    fields = json.loads(note.read_text())
    fields["key_types"]["ecdsa:256"]["next"] = fields["key_types"]["ecdsa:256"]["at"]
    note.write_text(json.dumps(fields))


def test_ends_with_nginx(make_site: MakeSite, silent: Silent) -> None:
    """It ends with its nginx, also while it waits for a CA; the next start leaves its own."""
    site = make_site()
    declared = issuer("elsewhere", silent.url, None) + "acme_start_wait 0;"
    site.configure(site.block("a.example", "acme elsewhere;"), settings=declared)
    site.start()
    eventually(lambda: silent.connections)
    (first,) = site.agents()
    site.crash()
    site.start()
    (second,) = eventually(lambda: [pid for pid in site.agents() if pid != first])
    eventually(lambda: site.agents() == [second], "the end of the first")
    assert len(eventually(lambda: silent.connections[1:])) == 1


def test_not_held_up(make_site: MakeSite, pebble: Pebble, silent: Silent) -> None:
    """A certificate that has come is served while another one's CA keeps us waiting."""
    site = make_site(pebble)
    declared = issuer("elsewhere", silent.url, None) + "acme_start_wait 0;"
    slow = site.block("slow.example", "acme elsewhere;")
    site.configure(site.block("quick.example"), slow, settings=declared)
    site.start()
    eventually(partial(is_real, site, "quick.example"))
    assert site.status()["slow.example ecdsa:256"]["problem"] is None


def test_daemon(make_site: MakeSite, silent: Silent) -> None:
    """Where nginx is a daemon, nothing of the caller's is kept open."""
    site = make_site()
    declared = issuer("elsewhere", silent.url, None) + "acme_start_wait 0;"
    site.configure(
        site.block("a.example", "acme elsewhere;"), settings=declared, main="pid logs/nginx.pid;"
    )
    argv = [*LAUNCHER, "-p", f"{site.folder}/", "-c", str(site.conf), "-e", "logs/error.log"]
    started = subprocess.run(
        argv, env=site.environ, capture_output=True, text=True, timeout=20, check=False
    )
    assert (started.returncode, started.stdout) == (0, "")
    eventually(lambda: silent.connections)
    assert len(site.agents()) == 1
    stopped = subprocess.run([*argv, "-s", "stop"], env=site.environ, timeout=20, check=False)
    assert stopped.returncode == 0
    eventually(lambda: not site.processes(), "the end of all")


def test_says_it_where_nginx_does(make_site: MakeSite, pebble: Pebble) -> None:
    """In a container, where nginx logs to stderr, so does what is left behind; with its pid."""
    site = make_site(pebble)
    site.configure(
        site.block("a.example"), settings="acme_start_wait 0;", main="error_log stderr notice;"
    )
    site.start()
    eventually(partial(is_real, site, "a.example"))
    line = re.compile(
        r"^\d{4}/\d\d/\d\d \S+ \[notice\] \d+#0: nginx reloaded for a.example$", re.MULTILINE
    )
    assert len(eventually(lambda: line.findall(site.output()))) == 1


def test_log_file(make_site: MakeSite, pebble: Pebble) -> None:
    """Else it writes to nginx's error log, and nothing to the terminal."""
    site = make_site(pebble)
    site.configure(site.block("a.example"), settings="acme_start_wait 0;")
    site.start()
    eventually(partial(is_real, site, "a.example"))
    eventually(lambda: "#0: nginx reloaded for a.example" in site.error_log())
    assert "reloaded" not in site.output()
