"""The agent: it gets what a start went on without, renews, and lives as long as its nginx."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nginx_acme.master import exists, find_master, workers
from tests.launcher import LAUNCHER, children, eventually, issuer
from tests.servers import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.launcher import Silent, Site
    from tests.servers import Pebble

    MakeSite = Callable[..., Site]
    StartPebble = Callable[..., Pebble]


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
    eventually(partial(site.issued, "b.example"))
    eventually(partial(site.issued, "a.example"))
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
    for limits in site.state.glob("accounts/*/limits.json"):
        limits.unlink()


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
    eventually(partial(site.issued, "quick.example"))
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
    """In a container, where nginx logs to stderr, so does the agent; with its pid."""
    site = make_site(pebble)
    site.configure(
        site.block("a.example"), settings="acme_start_wait 0;", main="error_log stderr notice;"
    )
    site.start()
    eventually(partial(site.issued, "a.example"))
    line = re.compile(
        r"^\d{4}/\d\d/\d\d \S+ \[notice\] \d+#0: nginx reloaded for a.example$", re.MULTILINE
    )
    assert len(eventually(lambda: line.findall(site.output()))) == 1


def test_log_file(make_site: MakeSite, pebble: Pebble) -> None:
    """Else it writes to nginx's error log, and nothing to the terminal."""
    site = make_site(pebble)
    site.configure(site.block("a.example"), settings="acme_start_wait 0;")
    site.start()
    eventually(partial(site.issued, "a.example"))
    eventually(lambda: "#0: nginx reloaded for a.example" in site.error_log())
    assert "reloaded" not in site.output()


# --- beside nginx -----------------------------------------------------------------------------


def test_sleeps(make_site: MakeSite) -> None:
    """With nothing to do it isn't woken, whatever nginx serves; and it is small."""
    site = started(make_site)
    agent = site.quiet()
    before = switches(agent)
    for _ in range(50):
        assert site.shown("a.internal").body == b"a.internal"
    assert switches(agent) == before
    assert resident(agent) < 15 * 1024


def started(make_site: MakeSite, **more: Any) -> Site:
    """A site with a certificate of its own authority, whose agent sleeps."""
    site = make_site()
    site.configure(site.block("a.internal", "acme local;"), **more)
    site.start()
    site.quiet()
    return site


def switches(pid: int) -> list[str]:
    """How often a process has been woken."""
    return re.findall(r"ctxt_switches:\t(\d+)", Path(f"/proc/{pid}/status").read_text())


def resident(pid: int) -> int:
    """How much memory it has, in KiB."""
    (found,) = re.findall(r"VmRSS:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found)


def test_no_signal_of_nginx_is_for_it(make_site: MakeSite) -> None:
    """`systemctl kill -s HUP` reaches every process of the unit."""
    site = started(make_site)
    agent = site.quiet()
    for name in ("HUP", "QUIT", "USR1", "USR2", "WINCH"):
        os.kill(agent, signal.Signals[f"SIG{name}"])
    assert site.quiet() == agent
    os.kill(agent, signal.SIGTERM)
    eventually(lambda: not site.agents(), "its end")


def test_hup_before_there_is_nginx(make_site: MakeSite, silent: Silent) -> None:
    """One that comes while a start waits for its CA means the configuration as it is then."""
    site = make_site()
    declared = issuer("elsewhere", silent.url, None) + "acme_start_wait 3s;"

    def configure(names: str) -> None:
        site.configure(site.block(names, "acme elsewhere;"), settings=declared)

    configure("a.example")
    program = site.launch()
    eventually(lambda: silent.connections, "the CA's being asked")
    configure("a.example b.example")
    os.kill(program.pid, signal.SIGHUP)
    eventually(partial(answers, site, b"a.example b.example"), "the edit")


def test_hup_before_there_is_an_agent(make_site: MakeSite) -> None:
    """One that comes as soon as there is a pid file, before the agent watches, is not lost."""
    site = make_site()
    site.configure(site.block("a.internal", "acme local;"))
    program = site.launch()
    eventually(lambda: site.pid == program.pid, "a pid file")
    site.configure(site.block("a.internal b.internal", "acme local;"))
    os.kill(program.pid, signal.SIGHUP)
    eventually(partial(answers, site, b"a.internal b.internal"), "the edit")


def test_edit_without_a_hup(make_site: MakeSite) -> None:
    """Whoever only edits is left alone, by a new agent, too."""
    site = started(make_site)
    agent = site.quiet()
    site.configure(site.block("a.internal b.internal", "acme local;"))
    os.kill(agent, signal.SIGKILL)
    eventually(lambda: not site.agents())
    assert site.run("renew").returncode == 0
    assert site.quiet() != agent
    assert answers(site, b"a.internal")


def answers(site: Site, body: bytes) -> bool:
    """Whether it answers so by now."""
    with suppress(OSError):
        return site.shown("localhost").body == body
    return False


def test_state_path_of_the_environment(make_site: MakeSite, open_path: Path) -> None:
    """Where the environment says where the state is, as in a container, it says so to the agent."""
    state = open_path / "state"
    site = make_site(environ={"NGINX_ACME_STATE_PATH": str(state)})
    site.runtime = state
    site.configure(site.block("a.internal", "acme local;"))
    site.start()
    site.quiet()
    site.configure(site.block("a.internal", "acme local;"), site.block("b.internal", "acme local;"))
    site.hang_up()
    eventually(lambda: site.shown("b.internal").body == b"b.internal", "the edit")
    site.quiet()
    assert set(os.listdir(state / "certificates")) == {"a.internal", "b.internal"}
    assert not site.state.exists()
    assert "[warn]" not in site.error_log()


def test_brought_back(make_site: MakeSite) -> None:
    """One that was killed is brought back by the next `renew`, and by a reload."""
    site = started(make_site)
    os.kill(site.quiet(), signal.SIGKILL)
    eventually(lambda: not site.agents())
    answer = site.run("renew")
    assert "the agent was gone, it is started again" in answer.stderr
    os.kill(site.quiet(), signal.SIGKILL)
    eventually(lambda: not site.agents())
    assert site.run("-s", "reload").returncode == 0
    site.quiet()
    assert "the agent was gone" not in site.run("renew").stderr


def test_switched_off_and_on(make_site: MakeSite) -> None:
    """`acme_agent off` ends it at the reload that brings it, and `on` brings it back."""
    site = started(make_site)
    site.configure(site.block("a.internal", "acme local;"), settings="acme_agent off;")
    assert site.run("-s", "reload").returncode == 0
    eventually(lambda: not site.agents(), "its end")
    assert "agent" not in site.run("renew").stderr
    site.configure(site.block("a.internal", "acme local;"))
    assert site.run("-s", "reload").returncode == 0
    site.quiet()


def test_binary_upgrade(make_site: MakeSite, each_nginx: str) -> None:
    """It goes on beside the new master of USR2, WINCH and QUIT, and knows its HUP."""
    site = make_site(binary=each_nginx)
    site.configure(site.block("a.internal", "acme local;"), main="pid logs/nginx.pid;")
    argv = [*LAUNCHER, "-p", f"{site.folder}/", "-c", str(site.conf), "-e", "logs/error.log"]
    subprocess.run(argv, env=site.environ, timeout=20, check=True, stderr=subprocess.DEVNULL)
    agent, old = site.quiet(), master(site)
    os.kill(old, signal.SIGUSR2)
    eventually(lambda: master(site) != old, "another master")
    new = master(site)
    eventually(lambda: workers(new), "workers of the new one")
    os.kill(old, signal.SIGWINCH)
    eventually(lambda: not workers(old), "no workers of the old one")
    os.kill(old, signal.SIGQUIT)
    eventually(lambda: not exists(old), "the end of the old one")
    site.conf.write_text(site.conf.read_text().replace('return 200 "', 'return 200 "new '))
    os.kill(new, signal.SIGHUP)
    eventually(lambda: site.shown("a.internal").body == b"new a.internal")
    assert site.quiet() == agent
    os.kill(new, signal.SIGTERM)
    eventually(lambda: not site.processes(), "the end of all")


def master(site: Site) -> int:
    """The master that the pid file names."""
    pid_file = str(site.folder / "logs" / "nginx.pid")
    found = eventually(lambda: find_master(pid_file), "a master")
    assert found is not None
    return found.pid


def test_package_upgrade(make_site: MakeSite, tmp_path: Path) -> None:
    """When its program has changed, it is the new one from its next turn on, which takes place."""
    package = tmp_path / "package" / "nginx_acme"
    shutil.copytree(ROOT / "nginx_acme", package, ignore=shutil.ignore_patterns("__pycache__"))
    site = make_site()
    site._program = (*LAUNCHER[:-1], str(package.parent))
    site.configure(site.block("a.internal", "acme local;"))
    site.start()
    agent = site.quiet()
    program = package / "agent" / "process.py"
    renewed = program.with_suffix(".new")
    renewed.write_text(
        program.read_text().replace("nginx-acme: agent for", "nginx-acme: agent for 2")
    )
    renewed.rename(program)
    site.conf.write_text(site.conf.read_text().replace('return 200 "', 'return 200 "new '))
    os.kill(site.server.pid, signal.SIGHUP)
    eventually(lambda: site.shown("a.internal").body == b"new a.internal", "the edit")
    title = Path(f"/proc/{agent}/cmdline")
    eventually(lambda: b"agent for 2 " in title.read_bytes(), "the new program")
    assert site.quiet() == agent


def test_turn_that_fails(make_site: MakeSite, pebble: Pebble) -> None:
    """What can't be kept is said by each turn, and then not for a while; all goes on when it can be."""
    site = make_site(pebble)
    site.configure(site.block("a.example"))
    site.start()
    agent = site.quiet()
    folder = site.state / "certificates"
    folder.rename(site.state / "elsewhere")
    folder.write_text("in the way")
    assert site.run("-s", "reload").returncode == 1
    site.wake()
    eventually(lambda: "[error]" in site.error_log())
    assert site.quiet() == agent
    assert len(re.findall(r"\[error\].*cannot make the folder", site.error_log())) <= 2
    folder.unlink()
    (site.state / "elsewhere").rename(folder)
    site.wake()
    site.quiet()
    assert site.one_status()["state"] == "valid"


def test_first_turn_that_fails(make_site: MakeSite) -> None:
    """When it is had again, an edit since then waits for its HUP as after any other."""
    site = started(make_site)
    site.stop()
    noted = site.instance / "workers.json"
    noted.unlink()
    noted.mkdir()
    site.start()
    eventually(lambda: re.search(rf"\[error\].*{noted}", site.error_log()), "the failed turn")
    (agent,) = site.agents()
    eventually(lambda: not children(agent), "its end")
    noted.rmdir()
    site.configure(site.block("a.internal b.internal", "acme local;"))
    published = site.state / "public" / "instances" / site.instance.name / "status.json"
    before = published.stat().st_mtime_ns
    site.wake()
    eventually(lambda: published.stat().st_mtime_ns != before, "the next turn")
    eventually(lambda: not children(agent), "its end")
    assert answers(site, b"a.internal")
    site.hang_up()
    eventually(partial(answers, site, b"a.internal b.internal"), "the edit")


def test_for_nobody(make_site: MakeSite) -> None:
    """A person who types the word is told what it is."""
    site = make_site()
    for rest in ((), ("{}",), ("[", "x")):
        answer = site.run("agent", *rest)
        assert answer.returncode == 1
        assert answer.stderr == (
            "nginx-acme: [emerg] the agent is started by nginx-acme itself, with nginx\n"
        )


def test_off_from_the_start(make_site: MakeSite, silent: Silent) -> None:
    """With `acme_agent off` it is said that something is missing, and nobody gets it."""
    site = make_site()
    declared = issuer("elsewhere", silent.url, None) + "acme_start_wait 0; acme_agent off;"
    site.configure(site.block("a.example", "acme elsewhere;"), settings=declared)
    site.start()
    assert '"acme_agent" is off: certificates are missing until' in site.output()
    assert not site.agents()
    assert not silent.connections


def test_killed_in_a_turn(make_site: MakeSite, silent: Silent) -> None:
    """Killed while it has somebody asked, it leaves a turn that ends; the next agent goes on."""
    site = make_site()
    declared = issuer("elsewhere", silent.url, None) + "acme_start_wait 0;"
    own = site.block("own.internal", "acme local;")
    site.configure(own, site.block("a.example", "acme elsewhere;"), settings=declared)
    site.start()
    eventually(lambda: silent.connections)
    (agent,) = site.agents()
    os.kill(agent, signal.SIGKILL)
    eventually(lambda: not site.agents())
    assert site.shown("own.internal").body == b"own.internal"
    assert site.run("-s", "reload").returncode == 0
    eventually(site.agents)
    site.stop()
    eventually(lambda: not site.processes(), "the end of all")
