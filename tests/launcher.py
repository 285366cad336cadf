"""The launcher as it is used: a process of its own, on a folder with a configuration of ours.

Like `servers` it knows nothing of pytest. What nginx-acme keeps is looked at from outside: by
`status --json`, by what nginx serves, and by the files that are promised.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from nginx_acme import locks
from tests.servers import (
    LOCALHOST,
    PATIENCE,
    ROOT,
    NginxServer,
    Pebble,
    Program,
    fetch,
    free_port,
    listens,
    nginx_conf,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers import Answer

T = TypeVar("T")

_RUN = "import sys; sys.path.insert(0, sys.argv.pop(1)); from nginx_acme.__main__ import run; run()"
LAUNCHER = (sys.executable, "-I", "-c", _RUN, str(ROOT))
"""The nginx-acme of this tree, wherever the tests are started."""

_TOLD = re.compile(r"signal 1 \(SIGHUP\) received from (\d+)")
_REQUEST = re.compile(r" (GET|HEAD|POST) (/\S+?)/? -> calling handler", re.MULTILINE)


class Site(NginxServer):
    """A folder with a configuration of ours, started by the launcher, any number of times.

    `ca` is the pebble that its issuer `pebble` is; without one there is no such issuer. Settings
    that every configuration here has are in `settings`.
    """

    def __init__(self, folder: Path, ca: Pebble | None = None, **more: Any) -> None:
        self.ca = ca
        self.tls = free_port()
        self.http = ca.http_port if ca else free_port()
        self.settings = f"acme_http_listen {LOCALHOST}:{self.http};"
        if ca is not None:
            self.settings += issuer("pebble", ca.directory_url, ca.api_root)
        self.runtime: Path | None = None
        """Where its generations are, if that isn't the state directory."""
        self._switches: list[bytes] = []
        super().__init__(folder, "", launcher=LAUNCHER, **more)

    @property
    def environ(self) -> dict[str, str]:
        """The environment that it is started with."""
        return dict(self._environ)

    @property
    def state(self) -> Path:
        """The state directory, where nothing else is said."""
        return self.folder / "acme"

    @property
    def instance(self) -> Path:
        """The only instance's folder."""
        (instance,) = (self.state / "instances").iterdir()
        return instance

    def block(self, names: str, acme: str = "acme pebble;", *, listen: str = "") -> str:
        """A server block that answers with its names."""
        listen = listen or f"{LOCALHOST}:{self.tls}"
        return (
            f'server {{ listen {listen} ssl; server_name {names}; {acme} return 200 "{names}"; }}'
        )

    def configure(self, *servers: str, settings: str = "", main: str = "") -> Self:
        """Write the configuration, a line for each of these."""
        self.conf.write_text(nginx_conf("\n".join((self.settings, settings, *servers)), main=main))
        return self

    def launch(self, *prefix: str) -> Program:
        """Start it without waiting for anything; `prefix` is a program that starts it."""
        log = self.folder / "logs" / "output.log"
        self.server = Program((*prefix, *self.argv()), log, environ=self._environ)
        self.server.launch()
        return self.server

    def start(self, seconds: float = PATIENCE) -> None:
        """Start it and wait until it is nginx and listens, which is before it writes its pid."""
        program = self.launch()
        wait_for(lambda: program.returncode is not None or self.pid == program.pid, seconds)
        if program.returncode is not None:
            raise AssertionError(f"exit code {program.returncode}\n{program.output()}")
        eventually(self.workers, "workers")

    def hang_up(self) -> None:
        """What `kill -HUP` does."""
        assert self.pid is not None
        os.kill(self.pid, signal.SIGHUP)

    def reload(self, seconds: float = PATIENCE) -> None:
        """HUP, and wait for other workers: from then on the agent has a look at it to take."""
        super().reload(seconds)

    def wake(self) -> None:
        """Let the agent have a turn, as another process of ours does."""
        new = self.instance / "new"
        new.touch()
        new.rename(self.instance / "wake")

    def crash(self) -> None:
        """SIGKILL for the master, as of an out-of-memory killer; its workers follow."""
        workers = self.workers()
        self.server.stop(9)  # type: ignore[arg-type]
        for worker in workers:
            with suppress(ProcessLookupError):
                os.kill(worker, 9)
        eventually(lambda: not listens(self.tls), "nobody listening")

    # What is seen from outside ------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """What `status --json` says of certificates, by their first name and key type."""
        answer = self.run("status", "--json")
        assert answer.returncode == 0, answer.stderr
        rows = json.loads(answer.stdout)["certificates"]
        return {f"{row['names'][0]} {row['key_type']}": row for row in rows}

    def one_status(self) -> dict[str, Any]:
        """The same for the only certificate there is."""
        (row,) = self.status().values()
        assert isinstance(row, dict)
        return row

    def shown(self, name: str, *, port: int | None = None) -> Answer:
        """What nginx answers for a name, whatever its certificate."""
        return fetch(port or self.tls, name, None)

    def verified(self, name: str, *, port: int | None = None, host: str = LOCALHOST) -> Answer:
        """The same with the CA's root; ssl.SSLCertVerificationError where it doesn't verify."""
        assert self.ca is not None
        return fetch(port or self.tls, name, self.ca.issuer_root(), host=host)

    def issued(self, name: str) -> bool:
        """Whether a certificate of pebble's is served for a name, and no temporary one."""
        return "Pebble" in self.shown(name).leaf.issuer.rfc4514_string()

    def lock_generation(self) -> locks.Lock:
        """Keep everybody of ours from switching and reloading, as one of them does for a moment.

        There is no other way to make the agent wait at that place.
        """
        path = f"{self.state}/locks/generation-{self.instance.name}.lock"
        return locks.lock(path, wait=PATIENCE)

    def own_reloads(self) -> int:
        """HUPs that came from anybody but the test, where its error log has notices."""
        return sum(pid != str(os.getpid()) for pid in _TOLD.findall(self.error_log()))

    def output(self) -> str:
        """All that it has written to the terminal, of all starts."""
        log = self.folder / "logs" / "output.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def processes(self) -> list[int]:
        """The processes that have to do with this folder."""
        return list(_processes_about(str(self.folder)))

    def agents(self) -> list[int]:
        """Those of them that are agents, by what `ps` shows; not what they are about to start."""
        found = [pid for pid in self.processes() if b": agent for" in _read(pid, "cmdline")]
        return [pid for pid in found if not any(pid in children(other) for other in found)]

    def quiet(self) -> int:
        """Wait until the agent has nothing to do; its pid."""
        pid = eventually(self._sleeping_agent, "a quiet agent")
        assert pid is not None
        return pid

    def _sleeping_agent(self) -> int | None:
        """The agent, if it has done its first turn beside this nginx and sleeps.

        One that is about to do something is not seen to sleep, however long it gets no CPU.
        """
        found = self.agents()
        if len(found) != 1 or children(found[0]) or not self._had_first_turn():
            return None
        status = _read(found[0], "status")
        before, self._switches = self._switches, status.split(b"_switches:")[1:]
        return found[0] if self._switches == before and b"\nState:\tS" in status else None

    def _had_first_turn(self) -> bool:
        """Whether the workers of this nginx were noted, and not only those of the start before."""
        noted = (self.runtime or self.state).glob("**/instances/*/workers.json")
        started = _written(self.folder / "logs" / "nginx.pid")
        return any(_written(path) > started for path in noted)


def eventually(predicate: Callable[[], T], what: str = "it") -> T:
    """Ask until the answer is true and return it."""
    return wait_for(predicate, what=what)


def issuer(name: str, uri: str, root: Path | None, *more: str) -> str:
    """An `acme_issuer` block."""
    trusted = f"ssl_trusted_certificate {root};" if root else ""
    rest = " ".join(more)
    return f"acme_issuer {name} {{ uri {uri}; {trusted} accept_terms_of_service; {rest} }}"


def requests(ca: Pebble) -> Counter[str]:
    """How often each of pebble's resources was asked for."""
    return Counter(" ".join(found) for found in _REQUEST.findall(ca.server.log.read_text()))


class Silent:
    """A CA that accepts connections and says nothing; it counts them."""

    def __init__(self) -> None:
        self.port = free_port()
        self.connections: list[socket.socket] = []
        self._listener = socket.create_server((LOCALHOST, self.port))
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Its directory."""
        return f"https://{LOCALHOST}:{self.port}/dir"

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self.connections.append(self._listener.accept()[0])

    def close(self) -> None:
        """Gone."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for connection in self.connections:
            connection.close()

    def __enter__(self) -> Self:
        """It listens already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


def _processes_about(folder: str) -> Iterator[int]:
    needle = os.fsencode(folder)
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        if needle in _read(pid, "cmdline") or needle in _read(pid, "environ"):
            yield pid


def _read(pid: int, what: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:
        return b""


def _written(path: Path) -> int:
    """When a file was written; 0 while it isn't there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def children(pid: int) -> list[int]:
    """The processes that a process has started itself and not collected yet."""
    return [int(child) for child in _read(pid, f"task/{pid}/children").split()]
