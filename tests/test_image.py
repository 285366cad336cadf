"""The container image and the systemd units, in real containers."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.servers import ROOT, fetch, listens, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BASE = "nginx-acme-tests/debian:bookworm"
IMAGE = "nginx-acme-tests/nginx-acme"
pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("docker")]

CONF = """
worker_processes 1;
pid /run/nginx.pid;
error_log stderr notice;
events {
}
http {
    server {
        listen 443 ssl;
        server_name site.internal;
        acme local;
        return 200 "first\\n";
    }
}
"""


def docker(*arguments: str) -> str:
    """What a docker command prints; it must succeed."""
    ended = subprocess.run(("docker", *arguments), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def runs() -> bool:
    """Whether there is a container engine, and what makes its base image."""
    if not (shutil.which("docker") and shutil.which("debootstrap") and os.geteuid() == 0):
        return False
    asked = subprocess.run(("docker", "info"), capture_output=True, check=False)
    return asked.returncode == 0


@pytest.fixture(scope="module")
def image() -> str:
    """The image, built from the Dockerfile."""
    if not runs():
        pytest.skip("needs root, docker (running) and debootstrap")
    subprocess.run((str(ROOT / "tests" / "image.sh"), BASE), check=True)
    docker("build", "--quiet", "--build-arg", f"BASE={BASE}", "--tag", IMAGE, str(ROOT))
    return IMAGE


class Container:
    """A container that runs."""

    def __init__(self, *arguments: str) -> None:
        self.id = docker("run", "--detach", *arguments)
        self.address = docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", self.id)

    def run(self, *command: str) -> str:
        """What a command in it prints; it must succeed."""
        return docker("exec", self.id, *command)

    def root(self) -> bytes:
        """The root of its issuer `local`."""
        return self.run("cat", "/var/lib/nginx-acme/local/root.pem").encode()

    def body(self) -> bytes:
        """The verified answer of its site."""
        return fetch(443, "site.internal", self.root(), host=self.address).body

    def state(self, field: str) -> str:
        """A field of the container's state, such as Running or ExitCode."""
        return docker("inspect", "--format", f"{{{{.State.{field}}}}}", self.id)

    def log(self) -> str:
        """What it wrote to stderr."""
        asked = subprocess.run(("docker", "logs", self.id), capture_output=True, check=True)
        return asked.stderr.decode()

    def wait(self) -> None:
        """Wait until nginx serves; its port alone says little, since `nginx -t` listens, too."""
        wait_for(lambda: "start worker" in self.log() or self.state("Running") == "false", 60)
        assert self.state("Running") == "true", self.log()

    def systemctl(self, verb: str, unit: str) -> None:
        """Have systemd do it; what the unit said is shown when that fails."""
        self.run(
            *("sh", "-c"),
            f"systemctl {verb} {unit} || {{ journalctl --unit {unit} >&2; exit 1; }}",
        )


@contextlib.contextmanager
def container(*arguments: str) -> Iterator[Container]:
    """A container for a while, its volumes included."""
    it = Container(*arguments)
    try:
        yield it
    finally:
        docker("rm", "--force", "--volumes", it.id)


def test_serves(image: str, tmp_path: Path) -> None:
    """Process 1 is nginx, `docker exec … nginx -s reload` takes up an edit, and stop is clean."""
    conf = tmp_path / "nginx.conf"
    conf.write_text(CONF)
    mount = ("--volume", f"{tmp_path}:/etc/site:ro")
    command = ("nginx", "-c", "/etc/site/nginx.conf", "-g", "daemon off;")
    with container(*mount, image, *command) as it:
        it.wait()
        assert it.body() == b"first\n"
        assert it.run("cat", "/proc/1/cmdline").startswith("nginx: master process /usr/sbin/nginx")
        conf.write_text(CONF.replace("first", "second"))
        it.run(*command, "-s", "reload")
        wait_for(lambda: it.body() == b"second\n", 10, "the edit")
        docker("stop", it.id)
        assert it.state("ExitCode") == "0"


def test_keeps_its_state(image: str, tmp_path: Path) -> None:
    """A new container on the same volume has the same certificate."""
    (tmp_path / "nginx.conf").write_text(CONF)
    mount = ("--volume", f"{tmp_path}/nginx.conf:/etc/nginx/nginx.conf:ro")
    command = (image, "nginx", "-g", "daemon off;")
    with container(*mount, *command) as it:
        it.wait()
        before = fetch(443, "site.internal", it.root(), host=it.address).leaf
        docker("stop", it.id)
        with container(*mount, "--volumes-from", it.id, *command) as other:
            other.wait()
            assert fetch(443, "site.internal", other.root(), host=other.address).leaf == before


def test_small(image: str) -> None:
    """There is no compiler, no pip and no list of packages in it."""
    found = docker(
        *("run", "--rm", image, "sh", "-c"),
        "command -v gcc cc pip pip3; find /var/lib/apt/lists -name '*Packages*'; true",
    )
    assert found == ""


def test_units(image: str) -> None:
    """Under systemd the drop-in starts and reloads nginx as its unit did, and the timer renews."""
    with container(
        *("--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", "--env", "container=docker"),
        *("--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"),
        *("--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp"),  # noqa: S108 - its own
        *("--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw"),
        *("--volume", f"{ROOT}/conf:/conf:ro"),
        *(image, "/sbin/init"),
    ) as it:
        wait_for(lambda: it.run("find", "/run/systemd", "-name", "private"), 10, "systemd")
        it.run("systemctl", "is-system-running", "--wait")
        it.run(
            "sh", "-c", "cp -r /conf/nginx.service.d /conf/nginx-acme-renew.* /etc/systemd/system"
        )
        conf = CONF.replace("http {", "http {\n    acme_state_path /var/lib/nginx-acme;")
        it.run("sh", "-c", f"cat >/etc/nginx/nginx.conf <<'END'\n{conf}\nEND")
        it.run("systemctl", "daemon-reload")
        it.systemctl("restart", "nginx")
        assert it.body() == b"first\n"
        main = it.run("systemctl", "show", "nginx", "--property", "MainPID", "--value")
        assert main == it.run("cat", "/run/nginx.pid")
        it.run("sed", "-i", "s/first/second/", "/etc/nginx/nginx.conf")
        it.systemctl("reload", "nginx")
        wait_for(lambda: it.body() == b"second\n", 10, "the edit")
        assert main == it.run("systemctl", "show", "nginx", "--property", "MainPID", "--value")
        it.run("systemctl", "enable", "--now", "nginx-acme-renew.timer")
        it.systemctl("start", "nginx-acme-renew")
        it.run("systemctl", "stop", "nginx")
        assert not listens(443, it.address)
