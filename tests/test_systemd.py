"""nginx below a real systemd, with what `conf/` has for it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.containers import NGINX_ORG, STATE, Machine, Served, gone_after
from tests.launcher import eventually, issuer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.launcher import Silent
    from tests.servers import Pebble

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("docker")]

MAIN = f"error_log /var/log/nginx/error.log notice; acme_state_path {STATE};"
DROP_INS = "/etc/systemd/system/nginx.service.d"


@pytest.fixture
def machine(image: str, request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A machine with the drop-in and the units of renewal; a parameter is its nginx.service."""
    with gone_after(Machine(image)) as it:
        it.boot()
        unit = getattr(request, "param", None)
        if unit is not None:
            it.write("/etc/systemd/system/nginx.service", unit)
        it.sh("cp -r /conf/nginx.service.d /conf/nginx-acme-renew.* /etc/systemd/system")
        it.systemctl("daemon-reload")
        yield it


@pytest.fixture
def site() -> Served:
    """What nginx is to serve."""
    return Served()


def start(machine: Machine, conf: str) -> int:
    """Start nginx on a configuration; its agent, when it has had its first look."""
    machine.write("/etc/nginx/nginx.conf", conf)
    machine.systemctl("start", "nginx")
    return agent(machine)


def agent(machine: Machine) -> int:
    """The only agent, when it has seen this nginx and sleeps."""
    (pid,) = eventually(lambda: _rested(machine), "a quiet agent")
    return pid


def _rested(machine: Machine) -> list[int]:
    """The agents; none as long as there are several, or a turn that is to come or under way."""
    agents = machine.agents()
    seen = machine.sh(f"find {STATE}/instances -name workers.json -newer /run/nginx.pid || true")
    turns = machine.processes("/opt/nginx-acme/bin/python")
    return agents if seen and len(agents) == 1 and not turns else []


def is_gone(machine: Machine) -> bool:
    """Whether nothing of nginx and of ours is left."""
    return not [pid for title in ("nginx", "/opt/nginx-acme") for pid in machine.processes(title)]


@pytest.mark.parametrize("machine", [None, NGINX_ORG], ids=["debian", "nginx.org"], indirect=True)
def test_unit(machine: Machine, site: Served) -> None:
    """The drop-in fits both units: start, reload, every HUP, restart and stop mean what they did."""
    first = start(machine, site.conf("first", main=MAIN))
    assert machine.show("OOMPolicy") == "continue"
    main = machine.show("MainPID")
    assert main == machine.run("cat", "/run/nginx.pid")
    assert "nginx-acme: agent for /etc/nginx/nginx.conf" in machine.systemctl("status", "nginx")
    assert first in machine.group()

    for told in (
        "reload nginx",
        "kill --signal HUP nginx",
        "kill --signal HUP --kill-who main nginx",
    ):
        machine.write("/etc/nginx/nginx.conf", site.conf(told, main=MAIN))
        machine.systemctl(told)
        eventually(partial(site.says, told), told)
    assert (machine.show("MainPID"), agent(machine)) == (main, first)

    machine.systemctl("restart", "nginx")
    assert agent(machine) != first
    assert machine.show("MainPID") != main
    machine.systemctl("stop", "nginx")
    assert is_gone(machine)
    assert machine.show("Result") == "success"
    assert "SIGKILL" not in machine.run("journalctl", "--unit", "nginx")


@pytest.mark.parametrize("kill_mode", ["control-group", "mixed"])
def test_while_a_ca_is_asked(
    machine: Machine, site: Served, silent: Silent, kill_mode: str
) -> None:
    """A renewal that hangs keeps nginx neither from a reload nor from its stop, and is gone with it."""
    machine.write(f"{DROP_INS}/mode.conf", f"[Service]\nKillMode={kill_mode}\n")
    machine.systemctl("daemon-reload")
    declared = issuer("elsewhere", silent.url, None)

    def conf(answer: str) -> str:
        more = f"{MAIN} acme_start_wait 0;"
        return site.conf(answer, declared, acme="acme elsewhere;", main=more)

    machine.write("/etc/nginx/nginx.conf", conf("first"))
    machine.systemctl("start", "nginx")
    eventually(lambda: silent.connections, "the CA's being asked")
    machine.write("/etc/nginx/nginx.conf", conf("second"))
    machine.systemctl("reload", "nginx")
    eventually(partial(site.says, "second"), "the edit")
    machine.systemctl("stop", "nginx")
    assert is_gone(machine)
    assert machine.show("Result") == "success"


def test_stop_during_the_first_wait(machine: Machine, site: Served, silent: Silent) -> None:
    """A start that waits for its CA can be stopped."""
    declared = issuer("elsewhere", silent.url, None)
    conf = site.conf("x", declared, acme="acme elsewhere;", main=f"{MAIN} acme_start_wait 60s;")
    machine.write("/etc/nginx/nginx.conf", conf)
    machine.systemctl("start", "--no-block", "nginx")
    eventually(lambda: silent.connections, "the CA's being asked")
    machine.systemctl("stop", "nginx")
    assert is_gone(machine)
    assert machine.show("ActiveState") in {"inactive", "failed"}


def test_binary_upgrade(machine: Machine, site: Served) -> None:
    """As Debian upgrades nginx without a restart (USR2, QUIT); the agent goes on with the new one."""
    first = start(machine, site.conf("first", main=MAIN))
    main = machine.show("MainPID")
    machine.run("invoke-rc.d", "nginx", "upgrade")
    new = machine.run("cat", "/run/nginx.pid")
    assert new != main
    eventually(lambda: machine.show("MainPID") == new, "systemd's taking it up")
    machine.write("/etc/nginx/nginx.conf", site.conf("second", main=MAIN))
    machine.systemctl("kill", "--signal", "HUP", "nginx")
    eventually(partial(site.says, "second"), "the edit")
    assert agent(machine) == first
    machine.systemctl("stop", "nginx")
    assert is_gone(machine)


def test_package_upgrade(machine: Machine, site: Served) -> None:
    """An agent whose program was replaced is the new program at its next turn, with the same pid."""
    first = start(machine, site.conf("first", main=MAIN))
    (program,) = machine.sh(
        "echo /opt/nginx-acme/lib/*/site-packages/nginx_acme/agent/process.py"
    ).split()
    machine.sh(f"sed -i 's/nginx-acme: agent for/nginx-acme: newer agent for/' {program}")
    machine.write("/etc/nginx/nginx.conf", site.conf("second", main=MAIN))
    machine.systemctl("kill", "--signal", "HUP", "nginx")
    eventually(partial(site.says, "second"), "the edit")
    eventually(lambda: machine.processes("nginx-acme: newer agent for ") == [first], "the new one")
    assert not machine.agents()


def test_brought_back(machine: Machine, site: Served) -> None:
    """Killed, the agent comes back as nginx's and to stay, whoever brings it: timer, unit, a shell."""
    start(machine, site.conf("first", main=MAIN))
    machine.systemctl("enable", "--now", "nginx-acme-renew.timer")
    for command in (
        "systemctl start nginx-acme-renew",
        "systemctl reload nginx",
        "nginx-acme -s reload",
    ):
        machine.sh(f"kill -KILL {agent(machine)}")
        eventually(lambda: not machine.agents(), "its end")
        assert machine.show("ActiveState") == "active"
        machine.sh(command)
        assert agent(machine) in machine.group()
    assert "NGINX-ACME OK" in machine.run("journalctl", "--unit", "nginx-acme-renew")
    machine.systemctl("stop", "nginx")
    assert is_gone(machine)


def test_failed_units(machine: Machine, site: Served) -> None:
    """`systemctl --failed` shows that what nginx serves isn't well, in spite of the timer."""
    declared = issuer("gone", "https://127.0.0.1:9/dir", None)
    start(machine, site.conf("first", declared, acme="acme gone;", main=MAIN))
    machine.sh("systemctl start nginx-acme-renew || true")
    assert "nginx-acme-renew.service" in machine.systemctl("--failed")
    said = machine.run("journalctl", "--unit", "nginx-acme-renew")
    assert "NGINX-ACME CRITICAL - site.internal is temporary" in said
    assert machine.show("ActiveState") == "active"


def test_rotated_logs(machine: Machine, site: Served) -> None:
    """After Debian's logrotate nginx, the agent and its turns write to the new file."""
    start(machine, site.conf("first", main=MAIN))
    machine.run("logrotate", "--force", "/etc/logrotate.d/nginx")
    machine.write("/etc/nginx/nginx.conf", site.conf("second", acme="acme local", main=MAIN))
    machine.systemctl("kill", "--signal", "HUP", "nginx")
    said = 'invalid number of arguments in "acme" directive'
    eventually(lambda: said in machine.error_log(), "the message")
    assert "reopening logs" not in machine.error_log()
    assert "signal 1 (SIGHUP) received" in machine.error_log()
    assert site.says("first")


def test_sandbox(machine: Machine, site: Served, pebble: Pebble) -> None:
    """In the sandbox that is offered certificates come, are proved and renewed, and edits taken up."""
    site.http = pebble.http_port
    machine.write("/etc/nginx/pebble.pem", pebble.api_root.read_text())
    declared = issuer("pebble", pebble.directory_url, None, "ssl_trusted_certificate pebble.pem;")

    def conf(answer: str, names: str = "site.internal") -> str:
        text = site.conf(answer, declared, acme="acme pebble;", main=MAIN)
        return text.replace("server_name site.internal", f"server_name {names}")

    machine.sh(f"cp /conf/nginx-sandbox.conf {DROP_INS}")
    machine.systemctl("daemon-reload")
    first = start(machine, conf("first"))
    assert site.verified(pebble.issuer_root()).body == b"first"
    machine.write("/etc/nginx/nginx.conf", conf("second", "site.internal www.site.internal"))
    machine.systemctl("kill", "--signal", "HUP", "nginx")
    eventually(partial(site.says, "second"), "the edit")
    eventually(lambda: "nginx reloaded for site.internal" in machine.error_log(), "the certificate")
    assert agent(machine) == first
    machine.systemctl("reload", "nginx")
    log = machine.error_log()
    assert "[alert]" not in log, log
    assert "[error]" not in log, log
    machine.systemctl("restart", "nginx")
    assert agent(machine) in machine.group()
    machine.systemctl("stop", "nginx")
    assert is_gone(machine)
