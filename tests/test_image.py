"""The container image, with nginx as the first process of a container."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.containers import NGINX, STATE, Container, Served, build, docker, gone_after
from tests.launcher import eventually, issuer, requests

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.launcher import Silent
    from tests.servers import Pebble

    StartPebble = Callable[..., Pebble]

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("docker")]

MAIN = "error_log stderr notice;"


@pytest.fixture
def site() -> Served:
    """What nginx is to serve."""
    return Served()


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """The file that becomes a container's /etc/nginx/nginx.conf, a bind mount of a single file."""
    return tmp_path / "nginx.conf"


def mount(conf: Path) -> tuple[str, ...]:
    """The arguments for that."""
    return ("--volume", f"{conf}:/etc/nginx/nginx.conf:ro")


def trusting(site: Served, ca: Pebble, conf: Path) -> None:
    """Write a configuration whose certificate comes from this CA."""
    site.http = ca.http_port
    conf.with_name("pebble.pem").write_text(ca.api_root.read_text())
    declared = issuer("pebble", ca.directory_url, None, "ssl_trusted_certificate /pebble.pem;")
    conf.write_text(site.conf("first", declared, acme="acme pebble;", main=MAIN))


def root_of(conf: Path) -> tuple[str, ...]:
    """The arguments that give a container the root of that CA's own server."""
    return ("--volume", f"{conf.with_name('pebble.pem')}:/pebble.pem:ro")


def quiet(it: Container) -> int:
    """The only agent, when it has had its first turn."""
    eventually(lambda: it.sh(f"find {STATE}/instances -name workers.json"), "the first turn")
    (pid,) = eventually(it.agents, "an agent")
    return pid


def test_first_process(image: str, site: Served, conf: Path) -> None:
    """It is nginx; edits are taken up by `nginx -s reload` and by a HUP; its stop is clean."""
    conf.write_text(site.conf("first", main=MAIN))
    with gone_after(Container(*mount(conf), image)) as it:
        it.wait()
        assert site.says("first")
        assert it.run("cat", "/proc/1/cmdline").startswith("nginx: master process /usr/sbin/nginx")
        agent = quiet(it)
        conf.write_text(site.conf("second", main=MAIN))
        it.run(*NGINX, "-s", "reload")
        eventually(partial(site.says, "second"), "the edit")
        conf.write_text(site.conf("third", main=MAIN))
        docker("kill", "--signal", "HUP", it.id)
        eventually(partial(site.says, "third"), "the edit")
        assert it.agents() == [agent]
        docker("stop", it.id)
        assert it.state("ExitCode") == "0"
        assert "[alert]" not in it.log()


def test_starts_without_the_ca(
    image: str, site: Served, conf: Path, start_pebble: StartPebble
) -> None:
    """On a volume that another container has filled it needs no CA; `docker logs` tells it all."""
    ca = start_pebble()
    trusting(site, ca, conf)
    with gone_after(Container(*mount(conf), *root_of(conf), image)) as first:
        first.wait()
        before = site.verified(ca.issuer_root()).leaf
        assert "site.internal: issued by Pebble" in first.log()
        docker("stop", first.id)
        ca.stop()
        volumes = ("--volumes-from", first.id)
        with gone_after(Container(*volumes, *mount(conf), image)) as second:
            second.wait()
            assert site.shown().leaf == before


def test_stop_during_the_first_wait(image: str, site: Served, conf: Path, silent: Silent) -> None:
    """`docker stop` ends a start that waits for its CA, and needs no force."""
    declared = issuer("elsewhere", silent.url, None)
    more = f"{MAIN} acme_start_wait 60s;"
    conf.write_text(site.conf("x", declared, acme="acme elsewhere;", main=more))
    with gone_after(Container(*mount(conf), image)) as it:
        eventually(lambda: silent.connections, "the CA's being asked")
        docker("stop", it.id)
        assert it.state("ExitCode") == "0"


def test_restarts(image: str, site: Served, conf: Path, start_pebble: StartPebble) -> None:
    """One that is restarted again and again asks a CA that refuses no more often than it should."""
    ca = start_pebble(blocked=["site.internal"], nonce_reject=0)
    trusting(site, ca, conf)
    with gone_after(Container(*mount(conf), *root_of(conf), image)) as it:
        it.wait()
        assert site.says("first")
        asked = requests(ca)["POST /order-plz"]
        for _ in range(3):
            docker("restart", "--time", "0", it.id)
            eventually(partial(site.says, "first"), "nginx")
        assert requests(ca)["POST /order-plz"] == asked == 1


def look(it: Container) -> None:
    """The health check, as after an hour without one; it must succeed."""
    it.sh("touch --date='2 hours ago' /run/nginx-acme.looked && nginx-acme-healthcheck")


def test_killed_agent(image: str, site: Served, conf: Path) -> None:
    """The health check brings it back, and so does a reload; its messages are in `docker logs`."""
    conf.write_text(site.conf("first", main=MAIN))
    with gone_after(Container(*mount(conf), image)) as it:
        it.wait()
        agent = quiet(it)
        it.run("kill", "-KILL", str(agent))
        eventually(lambda: f"unknown process {agent} exited on signal 9" in it.log())
        look(it)
        assert quiet(it) != agent
        assert "the agent was gone, it is started again" in it.log()
        assert "NGINX-ACME" not in it.log()

        it.run("kill", "-KILL", *map(str, it.agents()))
        eventually(lambda: not it.agents(), "its end")
        it.run("nginx", "-s", "reload")
        conf.write_text(site.conf("second", acme="acme local", main=MAIN))

        def is_told() -> bool:
            docker("kill", "--signal", "HUP", it.id)  # again: this agent may not watch yet
            return 'invalid number of arguments in "acme" directive' in it.log()

        eventually(is_told, "the message of an agent that `docker exec` has started")
        assert site.says("first")


def test_health_without_a_certificate(image: str, site: Served, conf: Path) -> None:
    """Nobody stops a container for a CA that can't be reached; `docker logs` tells of it."""
    declared = issuer("gone", "https://127.0.0.1:9/dir", None)
    conf.write_text(site.conf("first", declared, acme="acme gone;", main=MAIN))
    with gone_after(Container(*mount(conf), image)) as it:
        it.wait()
        quiet(it)
        it.run("nginx-acme-healthcheck")
        assert "NGINX-ACME" not in it.log()
        look(it)
        assert "NGINX-ACME CRITICAL - site.internal is temporary" in it.log()
        assert site.says("first")


def test_templates(image: str, site: Served, tmp_path: Path) -> None:
    """The official image's entrypoint prepares templates, and its link brings all to `docker logs`."""
    entrypoint = tmp_path / "docker-entrypoint.sh"
    entrypoint.write_text(
        "#!/bin/sh\nset -e\n"
        "ln -sf /dev/stderr /var/log/nginx/error.log\n"
        'case "$1" in nginx|nginx-debug)\n'
        '    sed "s/[$]{ANSWER}/$ANSWER/" /etc/nginx/templates/site >/etc/nginx/nginx.conf;;\n'
        'esac\nexec "$@"\n'
    )
    entrypoint.chmod(0o755)
    logged = "error_log /var/log/nginx/error.log notice;"
    (tmp_path / "site").write_text(site.conf("${ANSWER}", main=logged))
    with gone_after(
        Container(
            *("--volume", f"{tmp_path}:/etc/nginx/templates:ro", "--env", "ANSWER=rendered"),
            *("--entrypoint", "/etc/nginx/templates/docker-entrypoint.sh", image, *NGINX),
        )
    ) as it:
        it.wait()
        assert site.says("rendered")
        quiet(it)
        it.sh("echo acme >>/etc/nginx/nginx.conf")
        docker("kill", "--signal", "HUP", it.id)
        eventually(lambda: it.log().count("in /etc/nginx/nginx.conf:") == 1, "the agent's message")


def test_read_only(image: str, site: Served, conf: Path) -> None:
    """With a root file system that is read-only it needs no more than nginx, and the volume."""
    conf.write_text(site.conf("first", main=MAIN))
    ours = ("--read-only", "--tmpfs", "/run", "--tmpfs", "/var/lib/nginx")
    with gone_after(Container(*ours, *mount(conf), image)) as it:
        it.wait()
        quiet(it)
        conf.write_text(site.conf("second", main=MAIN))
        docker("kill", "--signal", "HUP", it.id)
        eventually(partial(site.says, "second"), "the edit")
        assert "[error]" not in it.log()


def test_other_user(image: str, site: Served, conf: Path) -> None:
    """An image whose nginx is no root is one of these, too: its volume belongs to that user."""
    tag = build(f"{image}:other-user", NGINX_USER="101")
    conf.write_text(site.conf("first", main=MAIN))
    ours = ("--tmpfs", "/run:uid=101", "--tmpfs", "/var/lib/nginx:uid=101")
    with gone_after(Container(*ours, *mount(conf), tag)) as it:
        it.wait()
        quiet(it)
        conf.write_text(site.conf("second", main=MAIN))
        docker("kill", "--signal", "HUP", it.id)
        eventually(partial(site.says, "second"), "the edit")
        assert "[error]" not in it.log()


def test_small(image: str) -> None:
    """There is no compiler, no pip and no list of packages in it."""
    found = docker(
        *("run", "--rm", image, "sh", "-c"),
        "command -v gcc cc pip pip3; find /var/lib/apt/lists -name '*Packages*'; true",
    )
    assert found == ""
