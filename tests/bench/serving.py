"""What serving costs: requests per second with what is generated, beside the same written by hand.

    file        a small file over plain HTTP, in a server that answers challenges
    redirect    a server that is nothing but `return 301`, and answers challenges
    TLS         the small file over TLS

Both nginx run at the same time, their only worker on one CPU and wrk on another, and wrk asks the
one and the other in turn. What a worker's CPU takes for a request is the same figure, and less
disturbed by what else the machine does. The certificates come from pebble: the issuer `local` looks
at no challenges, so nothing answers any.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.figures import figure, ratio
from tests.bench.first import SETTINGS
from tests.bench.processes import children
from tests.bench.sites import Nginx
from tests.bench.turns import in_turn
from tests.servers import (
    LOCALHOST,
    Pebble,
    ServerFailed,
    ServerMissing,
    fetch,
    free_port,
    nginx_conf,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.bench.figures import Row
    from tests.bench.options import Options
    from tests.bench.processes import Server
    from tests.bench.sites import Sites

TITLE = "Requests per second with what is generated, beside the same by hand"

LEAST = 0.99
"""Of the requests per second by hand."""
ROUNDS = 20
CONNECTIONS = 16
FILE = "file.html"
BYTES = 512

NAMES = FILE_NAME, MOVED_NAME = "www.example.com", "old.example.com"
SERVERS = """
    keepalive_requests 1000000;
    server {{ listen {tls} ssl; server_name {file_name}; {certificates[0]} root www; }}
    server {{ listen {plain}; server_name {file_name}; root www; }}
    server {{ listen {tls} ssl; server_name {moved_name}; {certificates[1]} return 204; }}
    server {{ listen {plain}; server_name {moved_name}; return 301 https://$host$request_uri; }}
"""

_SAID = re.compile(
    r"(?P<requests>\d+) requests in .*^Requests/sec: +(?P<rate>[\d.]+)", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What wrk found: requests per second, and the worker's CPU time for each, in µs."""

    rate: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Case:
    """What is asked for."""

    name: str
    server_name: str
    tls: bool = False

    @property
    def scheme(self) -> str:
        """As in a URL."""
        return "https" if self.tls else "http"


CASES = (Case("file", FILE_NAME), Case("redirect", MOVED_NAME), Case("TLS", FILE_NAME, tls=True))


def measure(_: Sites, options: Options) -> Iterator[Row]:
    """A row for each case.

    Raises:
        ServerMissing: there is no wrk.
    """
    wrk = _wrk()
    folder = options.folder / "serving"
    pebble = Pebble(folder / "pebble", binary=options.pebble, nonce_reject=0)
    with pebble, _both(folder, pebble, options) as (ours, hand):
        for case in CASES:
            rounds = in_turn(
                options.rounds or ROUNDS,
                ours=partial(ours.asked, wrk, case),
                hand=partial(hand.asked, wrk, case),
            )
            yield _row(case, rounds["ours"], rounds["hand"])


def wrk_version() -> str:
    """The version of wrk, in its own words; ServerMissing where there is none."""
    asked = subprocess.run([_wrk(), "-v"], capture_output=True, text=True, check=False)
    return (asked.stdout + asked.stderr).split()[1]


def _wrk() -> str:
    wrk = shutil.which("wrk")
    if wrk is None:
        raise ServerMissing("wrk is not installed; as root: apt-get install wrk")
    return wrk


def _row(case: Case, ours: list[Asked], hand: list[Asked]) -> Row:
    return {
        "what": case.name,
        "runs": len(ours),
        "requests/s": figure((one.rate for one in ours), 0),
        "by_hand": figure((one.rate for one in hand), 0),
        "ratio": ratio(
            (one.rate for one in ours), (one.rate for one in hand), least=LEAST, digits=3
        ),
        "CPU_us": figure(one.cpu for one in ours),
        "by_hand_us": figure(one.cpu for one in hand),
        "CPU_ratio": ratio((one.cpu for one in ours), (one.cpu for one in hand), digits=3),
    }


@contextmanager
def _both(folder: Path, pebble: Pebble, options: Options) -> Iterator[tuple[_Running, _Running]]:
    """What is generated, and the same by hand on other ports; both serve."""
    ours = Nginx(options.launcher, _prefix(folder / "ours"), free_port(), options)
    settings = SETTINGS.format(
        http=f"{LOCALHOST}:{pebble.http_port}",
        wait=ours.seconds,
        url=pebble.directory_url,
        root=pebble.api_root,
    )
    _configure(ours, settings, pebble.http_port, ["acme pebble;"] * len(NAMES))
    hand, plain_port = (
        Nginx([options.nginx], _prefix(folder / "hand"), free_port(), options),
        free_port(),
    )
    paths = [ours.prefix / "acme" / "certificates" / name / "ecdsa-256.pem" for name in NAMES]
    certificates = [f"ssl_certificate {path}; ssl_certificate_key {path};" for path in paths]
    _configure(hand, "", plain_port, certificates)
    with ours.server() as server:
        _until_verified(ours, server, pebble.issuer_root())
        with hand.server() as bare:
            _until_verified(hand, bare, pebble.issuer_root())
            yield (
                _Running(server, ours.port, pebble.http_port),
                _Running(bare, hand.port, plain_port),
            )


def _prefix(folder: Path) -> Path:
    """A prefix with the file that is served; its main file."""
    for name in ("logs", "temp", "www"):
        (folder / name).mkdir(parents=True)
    (folder / "www" / FILE).write_text("x" * BYTES)
    return folder / "nginx.conf"


def _configure(nginx: Nginx, settings: str, plain_port: int, certificates: Sequence[str]) -> None:
    servers = SERVERS.format(
        tls=f"{LOCALHOST}:{nginx.port}",
        plain=f"{LOCALHOST}:{plain_port}",
        file_name=FILE_NAME,
        moved_name=MOVED_NAME,
        certificates=certificates,
    )
    nginx.main.write_text(nginx_conf(settings + servers, main="worker_processes 1;"))


def _until_verified(nginx: Nginx, server: Server, root: bytes) -> None:
    """Wait until every name is answered for with its certificate, and nothing is under way."""

    def is_verified(name: str) -> bool:
        try:
            return fetch(nginx.port, name, root, path=f"/{FILE}").status < HTTPStatus.BAD_REQUEST
        except OSError:
            return False

    for name in NAMES:
        server.until(partial(is_verified, name), nginx.seconds)
    server.calm(nginx.seconds)


class _Running:
    """A server that wrk asks, with its worker on a processor that wrk isn't on."""

    def __init__(self, server: Server, tls_port: int, plain_port: int) -> None:
        self._ports = {True: tls_port, False: plain_port}
        self._all = sorted(os.sched_getaffinity(0))
        (self._worker,) = children(server.pid)
        os.sched_setaffinity(self._worker, self._all[:1])

    def asked(self, wrk: str, case: Case) -> Asked:
        """By wrk, for a second.

        Raises:
            ServerFailed: it has answered something else than it should.
        """
        url = f"{case.scheme}://{LOCALHOST}:{self._ports[case.tls]}/{FILE}"
        host = f"Host: {case.server_name}"
        before = _nanoseconds(self._worker)
        os.sched_setaffinity(0, self._all[1:] or self._all)  # wrk inherits it
        try:
            ran = subprocess.run(
                [wrk, "-t1", f"-c{CONNECTIONS}", "-d1s", "-H", host, url],
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            os.sched_setaffinity(0, self._all)
        spent = _nanoseconds(self._worker) - before
        found = _SAID.search(ran.stdout)
        if found is None or "errors" in ran.stdout or "Non-2xx" in ran.stdout:
            raise ServerFailed(f"{url}: wrk says\n{ran.stdout}{ran.stderr}")
        return Asked(float(found["rate"]), spent / 1000 / int(found["requests"]))


def _nanoseconds(pid: int) -> int:
    """The CPU time of a process (Documentation/scheduler/sched-stats.rst, /proc/PID/schedstat)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
