"""Configurations of any size, with certificates of the issuer `local`, and nginx alone beside them.

They differ in two ways:

    split    every server in a file of its own, or all of them in the main file
    few      only the first server has a certificate, and the others speak plain HTTP: with no
             certificates to load nginx takes a fraction of the time, and ours is what is left

All configurations of a size share a state directory, so that certificates are made once. No CA is
asked, so what is measured is nobody else's time. The names are below .test, for which the local
root may sign as it is.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.processes import Server, Took, run
from tests.servers import LOCALHOST, fetch, free_port, nginx_conf

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tests.bench.options import Options

SECONDS = 60.0
"""For anything, and as much again for each hundred servers with a certificate."""

NAME = "s0.test"
"""The name of the first server."""

SETTINGS = """
    server_names_hash_max_size 65536;
    acme_state_path {state};
"""
SERVER = """
    server {{
        listen {listen};
        server_name s{number}.test;
        {acme}
        root www;
        location / {{
            try_files $uri $uri/ =404;
        }}
        location = /edition {{
            return 200 {edition};
        }}
    }}
"""

MANY = 1000
"""From so many servers on it matters in how many files they are."""

SETTLING = 2.5
"""Seconds after which a file that was changed is no longer looked at twice."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A configuration: of how many servers, in how many files, and how many of them say `acme`."""

    servers: int
    split: bool = False
    few: bool = False

    @classmethod
    def each(cls, servers: int) -> tuple[Kind, ...]:
        """All of this size that are worth a look."""
        if servers < MANY:
            return (cls(servers),)
        return tuple(cls(servers, split, few) for few in (False, True) for split in (False, True))

    @property
    def name(self) -> str:
        """Of its main file."""
        return f"{'split' if self.split else 'whole'}{'-few' if self.few else ''}.conf"

    @property
    def files(self) -> int:
        """In which the servers are."""
        return self.servers if self.split else 1

    @property
    def managed(self) -> int:
        """The servers that say `acme`."""
        return 1 if self.few else self.servers

    @property
    def weight(self) -> int:
        """How long nginx takes with it, as a number of servers that say `acme`."""
        return max(self.managed, self.servers // 20)

    def row(self) -> dict[str, int | str]:
        """What a table says of it."""
        return {"servers": self.servers, "acme": self.managed, "files": self.files}


class Nginx:
    """A command line that is nginx, or becomes it, with this main file and on this port."""

    def __init__(self, program: Sequence[str], main: Path, port: int, options: Options) -> None:
        self.main = main
        self.port = port
        self.prefix = main.parent
        self.seconds = SECONDS
        self._program = program
        self._options = options

    def argv(self, *more: str) -> tuple[str, ...]:
        """The command line, with these arguments, too."""
        return (
            *self._program,
            *("-p", f"{self.prefix}/", "-c", str(self.main), "-e", "logs/error.log"),
            *("-g", "daemon off; pid logs/nginx.pid;"),
            *more,
        )

    def run(self, *more: str) -> Took:
        """What such a command takes to its end."""
        return run(self.argv(*more), self._options.environ, self.log)

    def server(self) -> Server:
        """It is started, and not waited for."""
        environ, binary = self._options.environ, self._options.nginx
        return Server(self.argv(), environ, self.log, binary=binary, port=self.port)

    def start(self) -> Took:
        """What it takes until it accepts a connection; stopped again, with what is beside it."""
        with self.server() as server:
            seconds = server.accepting(self.seconds)
            self._settle(server)
            cpu, beside = server.stop()
        return Took(seconds, cpu, beside=beside)

    @contextmanager
    def running(self) -> Iterator[Server]:
        """It, serving, with nothing under way."""
        with self.server() as server:
            server.accepting(self.seconds)
            self._settle(server)
            yield server

    def _settle(self, server: Server) -> None:
        server.until(lambda: self.edition() is not None, self.seconds)
        server.calm(self.seconds)

    def edition(self) -> int | None:
        """Which edition of the configuration is served; None: none."""
        try:
            return int(fetch(self.port, NAME, None, path="/edition").body)
        except OSError:
            return None

    @property
    def log(self) -> Path:
        """What it writes to the terminal."""
        return self.prefix / "logs" / "output.log"


class Site(Nginx):
    """A configuration in a folder of its own, which is the prefix, too, and started by us."""

    def __init__(self, folder: Path, kind: Kind, state: Path, options: Options) -> None:
        super().__init__(options.launcher, folder / kind.name, free_port(), options)
        self.kind = kind
        self.seconds *= 1 + kind.weight / 100
        self._state = state
        self.plain_port = free_port()
        self.edited = 0
        self._is_settled = False
        for name in ("logs", "temp", "www", "servers"):
            (folder / name).mkdir(parents=True)
        folder.chmod(0o755)
        rest = [self._server(number) for number in range(1, kind.servers)]
        if kind.split:
            for number, text in enumerate(rest, 1):
                self._file(number).write_text(text)
        self._rest = "" if kind.split else "".join(rest)
        self._write()

    def edit(self) -> int:
        """Change the first server; what its /edition is then."""
        self._is_settled = False
        self.edited += 1
        self._write()
        return self.edited

    def touch(self) -> None:
        """Let every file look changed."""
        self._is_settled = False
        for path in (self.main, *self.prefix.glob("servers/*.conf")):
            os.utime(path)

    def prepare(self) -> None:
        """Have certificates and a generation, and let all of it settle, so that a start is warm."""
        if self._is_settled:
            return
        self.start()
        time.sleep(SETTLING)
        self.start()
        self._is_settled = True

    def bare(self) -> Nginx:
        """Nginx alone, on what was generated."""
        nginx = Nginx((self._options.nginx,), self._generated(), self.port, self._options)
        nginx.seconds = self.seconds
        return nginx

    def copy(self) -> Copy:
        """Nginx alone, on its own copy of what was generated and with ports of its own."""
        folder = Path(tempfile.mkdtemp(dir=self.prefix.parent))
        return Copy(self, self._generated(), folder / "copy", self._options)

    def _generated(self) -> Path:
        instances = self._state / "instances"
        (found,) = instances.glob(f"{self.kind.name}-*/generated/{self.kind.name}")
        return found

    def _write(self) -> None:
        first = self._server(0)
        if self.kind.split:
            self._file(0).write_text(first)
            if self.main.exists():
                return
            first = "    include servers/*.conf;"
        text = SETTINGS.format(state=self._state) + first + self._rest
        self.main.write_text(nginx_conf(text))

    def _file(self, number: int) -> Path:
        return self.prefix / "servers" / f"s{number}.conf"

    def _server(self, number: int) -> str:
        managed = number < self.kind.managed
        listen = f"{LOCALHOST}:{self.port} ssl" if managed else f"{LOCALHOST}:{self.plain_port}"
        edition = self.edited if number == 0 else 0
        acme = "acme local;" if managed else ""
        return SERVER.format(listen=listen, number=number, acme=acme, edition=edition)


class Copy(Nginx):
    """Nginx alone, on a copy of what was generated and with ports of its own."""

    def __init__(self, site: Site, generated: Path, folder: Path, options: Options) -> None:
        super().__init__((options.nginx,), folder / generated.name, free_port(), options)
        shutil.copytree(
            generated.parent, folder, ignore=shutil.ignore_patterns("logs", "temp", ".*")
        )
        for name in ("logs", "temp"):
            (folder / name).mkdir()
        ports = {site.port: self.port, site.plain_port: free_port()}
        for path in (self.main, *folder.glob("servers/*.conf")):
            text = path.read_text()
            for theirs, own in ports.items():
                text = text.replace(f"{LOCALHOST}:{theirs}", f"{LOCALHOST}:{own}")
            path.write_text(text)
        self._first = folder / "servers" / "s0.conf" if site.kind.split else self.main
        self._edition = site.edited
        self.seconds = site.seconds

    def edit(self) -> int:
        """Change the first server; what its /edition is then."""
        before, after = (f"return 200 {self._edition + n};" for n in (0, 1))
        self._first.write_text(self._first.read_text().replace(before, after, 1))
        self._edition += 1
        return self._edition


class Sites:
    """The configurations of all parts, each made and prepared when it is first asked for."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._sites: dict[Kind, Site] = {}

    def each(self, servers: Iterable[int]) -> Iterator[Site]:
        """Every configuration with so many servers, ready in the moment when it is given."""
        for number in servers:
            for kind in Kind.each(number):
                yield self.site(kind)

    def site(self, kind: Kind) -> Site:
        """This one, ready for a warm start."""
        if kind not in self._sites:
            folder = self._options.folder / f"{kind.servers}"
            folder.mkdir(mode=0o755, exist_ok=True)
            site = Site(
                folder / kind.name.removesuffix(".conf"), kind, folder / "acme", self._options
            )
            self._sites[kind] = site
        self._sites[kind].prepare()
        return self._sites[kind]
