"""The container image in real containers, with nginx as its only process or below systemd.

Like `servers` it knows nothing of pytest. Containers share the network of this machine, so that
pebble, on its loopback, sees them and is seen; the ports are free ones.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from tests.launcher import eventually
from tests.servers import LOCALHOST, ROOT, fetch, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers import Answer

IMAGE = "nginx-acme-tests/nginx-acme"
STATE = "/var/lib/nginx-acme"
NGINX = ("nginx", "-g", "daemon off;")
"""What the image is started with."""

SYSTEMD = (
    *("--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", "--env", "container=docker"),
    *("--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"),
    *("--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp"),  # noqa: S108 - its own
    *("--volume", f"{ROOT}/conf:/conf:ro"),
)
"""What `docker run` is told for systemd."""

NGINX_ORG = """
[Unit]
Description=nginx - high performance web server
After=network-online.target remote-fs.target nss-lookup.target

[Service]
Type=forking
PIDFile=/run/nginx.pid
ExecStart=/usr/sbin/nginx -c /etc/nginx/nginx.conf
ExecReload=/bin/sh -c "/bin/kill -s HUP $(/bin/cat /run/nginx.pid)"
ExecStop=/bin/sh -c "/bin/kill -s TERM $(/bin/cat /run/nginx.pid)"

[Install]
WantedBy=multi-user.target
"""
"""The nginx.service of nginx.org's packages."""


def docker(*arguments: str) -> str:
    """What a docker command prints; it must succeed."""
    ended = subprocess.run(("docker", *arguments), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def can_run() -> bool:
    """Whether there is a container engine, and what makes its base image."""
    if not (shutil.which("docker") and shutil.which("debootstrap") and os.geteuid() == 0):
        return False
    asked = subprocess.run(("docker", "info"), capture_output=True, check=False)
    return asked.returncode == 0


def build(tag: str = IMAGE, **arguments: str) -> str:
    """Build the image from the Dockerfile, on a base that is made where there is none yet."""
    script = ROOT / "tests" / "image.sh"
    version = hashlib.sha256(script.read_bytes()).hexdigest()[:12]
    base = f"nginx-acme-tests/debian:{version}"
    subprocess.run((str(script), base), check=True)
    given = {"BASE": base, **arguments}
    more = [word for item in given.items() for word in ("--build-arg", "=".join(item))]
    docker("build", "--quiet", *more, "--tag", tag, str(ROOT))
    return tag


class Container:
    """A container that runs."""

    def __init__(self, *arguments: str) -> None:
        self.id = docker("run", "--detach", "--network", "host", *arguments)

    def run(self, *command: str) -> str:
        """What a command in it prints; it must succeed."""
        return docker("exec", self.id, *command)

    def sh(self, script: str) -> str:
        """The same for a script."""
        return self.run("sh", "-c", script)

    def write(self, path: str, text: str) -> None:
        """Write a file in it."""
        subprocess.run(
            ("docker", "exec", "--interactive", self.id, "tee", path),
            input=text.encode(),
            stdout=subprocess.DEVNULL,
            check=True,
        )

    def state(self, field: str) -> str:
        """A field of the container's state, such as Running or ExitCode."""
        return docker("inspect", "--format", f"{{{{.State.{field}}}}}", self.id)

    def log(self) -> str:
        """What it wrote to stderr."""
        asked = subprocess.run(("docker", "logs", self.id), capture_output=True, check=True)
        return asked.stderr.decode()

    def processes(self, title: str) -> list[int]:
        """The processes in it whose command line begins so, by its own numbers."""
        script = 'cd /proc && for p in [0-9]*; do echo "$p $(tr "\\0" " " <$p/cmdline 2>/dev/null)"; done'
        lines = (line.partition(" ") for line in self.sh(script).splitlines())
        return [int(pid) for pid, _, shown in lines if shown.startswith(title)]

    def agents(self) -> list[int]:
        """Its agents."""
        return self.processes("nginx-acme: agent for ")

    def wait(self) -> Self:
        """Wait until nginx serves; its port alone says little, since `nginx -t` listens, too."""
        eventually(lambda: "start worker" in self.log() or self.state("Running") == "false")
        assert self.state("Running") == "true", self.log()
        return self


class Machine(Container):
    """A container with systemd as its first process; nginx doesn't run yet.

    What it has in /conf is the project's.
    """

    def __init__(self, image: str) -> None:
        unified = Path("/sys/fs/cgroup/unified")  # what each recent distribution has is preferred
        groups = unified if unified.is_dir() else unified.parent
        mount = ("--volume", f"{groups}:/sys/fs/cgroup:rw")
        super().__init__(*SYSTEMD, *mount, image, "/sbin/init")

    def boot(self) -> None:
        """Wait until it has started all that it starts."""
        eventually(lambda: self.sh("ls /run/systemd/private || true"), "systemd")
        self.run("systemctl", "is-system-running", "--wait")

    def systemctl(self, *words: str) -> str:
        """Have systemd do it; what its units said is shown when that fails."""
        return self.sh(f"systemctl {' '.join(words)} || {{ journalctl --no-pager >&2; exit 1; }}")

    def show(self, name: str, unit: str = "nginx") -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", unit, "--property", name, "--value")

    def group(self, unit: str = "nginx") -> list[int]:
        """The processes of a unit."""
        path = self.show("ControlGroup", unit)
        lists = (f"/sys/fs/cgroup{of_v1}{path}/cgroup.procs" for of_v1 in ("", "/systemd"))
        return [int(pid) for pid in self.sh(f"cat {' '.join(lists)} 2>/dev/null || true").split()]

    def error_log(self) -> str:
        """What nginx and ours have written to nginx's error log."""
        return self.run("cat", "/var/log/nginx/error.log")


C = TypeVar("C", bound=Container)


@contextmanager
def gone_after(container: C) -> Iterator[C]:
    """Remove it afterwards, its volumes included."""
    try:
        yield container
    finally:
        docker("rm", "--force", "--volumes", container.id)


class Served:
    """A site on free ports of this machine: what its configuration says and what it answers."""

    def __init__(self) -> None:
        self.tls, self.http = free_port(), free_port()

    def conf(self, answer: str, *more: str, acme: str = "acme local;", main: str = "") -> str:
        """A configuration in which site.internal answers so; `more` is in its http block."""
        inside = "\n    ".join(more)
        return f"""worker_processes 1;
pid /run/nginx.pid;
{main}
events {{
}}
acme_http_listen {LOCALHOST}:{self.http};
http {{
    access_log off;
    {inside}
    server {{
        listen {LOCALHOST}:{self.tls} ssl;
        server_name site.internal;
        {acme}
        return 200 "{answer}";
    }}
}}
"""

    def shown(self) -> Answer:
        """What is answered, whatever the certificate."""
        return fetch(self.tls, "site.internal", None)

    def says(self, answer: str) -> bool:
        """Whether it answers so by now."""
        with suppress(OSError):
            return self.shown().body == answer.encode()
        return False

    def verified(self, root: bytes) -> Answer:
        """What is answered; ssl.SSLCertVerificationError where its certificate doesn't verify."""
        return fetch(self.tls, "site.internal", root)
