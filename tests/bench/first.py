"""The first start, whose certificates come from pebble, with good manners: no refused nonces, no
reused authorizations, no sleep before a validation.

Every run has a folder and a CA anew. A pebble that hangs (the newer one may deadlock where new
orders meet looks at authorizations) is told from an nginx-acme that does, and the run is repeated.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.figures import figure
from tests.bench.processes import children, resident
from tests.bench.sites import SECONDS, Nginx
from tests.servers import LOCALHOST, Pebble, ServerFailed, fetch, free_port, nginx_conf

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.figures import Row
    from tests.bench.options import Options
    from tests.bench.sites import Sites

TITLE = "A first start, with certificates from pebble, until it answers verified"

RUNS = ((1, 5), (10, 5), (100, 3))
"""Up to so many certificates, so many first starts; beyond, one."""

HANGS = 3
"""Hanging CAs in a row that are borne."""

SETTINGS = """
    server_names_hash_max_size 65536;
    acme_state_path acme;
    acme_http_listen {http};
    acme_start_wait {wait:.0f}s;
    acme_issuer pebble {{
        uri {url};
        ssl_trusted_certificate {root};
        accept_terms_of_service;
    }}
"""
SERVER = """
    server {{
        listen {tls} ssl;
        server_name {name};
        acme pebble;
        return 200;
    }}
"""


class Hanging(ServerFailed):
    """The CA hangs, so nothing can be said about who waits for it."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one first start took.

    - `first`, `last`: seconds until one name, and all, were answered verified;
    - `cpu`: seconds, of it and of the nginx that it became;
    - `memory`: bytes, the most that it and its children had at once;
    - `requests`: that the CA got.
    """

    first: float
    last: float
    cpu: float
    memory: int
    requests: int


def measure(_: Sites, options: Options) -> Iterator[Row]:
    """A row for each number of certificates, and for each Retry-After of the CA's."""
    for retry_after in options.retry_after:
        for certificates in options.certificates:
            yield _row(certificates, retry_after, options)


def _row(certificates: int, retry_after: int, options: Options) -> Row:
    suggested = next((runs for most, runs in RUNS if certificates <= most), 1)
    runs = [
        _patient_run(certificates, retry_after, options) for _ in range(options.rounds or suggested)
    ]
    requests = [run.requests for run in runs]
    return {
        "certificates": certificates,
        "Retry-After": retry_after,
        "runs": len(runs),
        "first_answer_s": figure(run.first for run in runs),
        "all_s": figure(run.last for run in runs),
        "CPU_s": figure(run.cpu for run in runs),
        "MiB": figure((run.memory / 2**20 for run in runs), 0),
        "requests": figure(requests, 0),
        "for_each": figure(number / certificates for number in requests),
    }


def _patient_run(certificates: int, retry_after: int, options: Options) -> Run:
    for hangs in range(1, HANGS + 1):
        try:
            return _run(certificates, retry_after, options)
        except Hanging as hanging:
            if hangs == HANGS:
                raise
            print(f"{hanging}; once more", file=sys.stderr)  # noqa: T201 - to a person
    raise AssertionError


def _run(certificates: int, retry_after: int, options: Options) -> Run:
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        folder.chmod(0o755)
        pebble = Pebble(
            folder / "pebble",
            binary=options.pebble,
            nonce_reject=0,
            authz_reuse=0,
            retry_after=retry_after,
        )
        with pebble:
            return _Start(folder, pebble, certificates, options).run()


class _Start:
    def __init__(self, folder: Path, pebble: Pebble, certificates: int, options: Options) -> None:
        self._pebble = pebble
        self._root = pebble.issuer_root()
        self._names = [f"s{number}.example.com" for number in range(certificates)]
        self._seconds = SECONDS * (1 + certificates / 100)
        for made in ("logs", "temp"):
            (folder / made).mkdir()
        self._nginx = Nginx(options.launcher, folder / "nginx.conf", free_port(), options)
        tls = f"{LOCALHOST}:{self._nginx.port}"
        settings = SETTINGS.format(
            http=f"{LOCALHOST}:{pebble.http_port}",
            wait=self._seconds,
            url=pebble.directory_url,
            root=pebble.api_root,
        )
        servers = "".join(SERVER.format(tls=tls, name=name) for name in self._names)
        self._nginx.main.write_text(nginx_conf(settings + servers))

    def run(self) -> Run:
        """What it takes.

        Raises:
            Hanging: it failed, and the CA hangs.
            ServerFailed: it failed.
        """
        begin, before = time.perf_counter(), self._requests()
        server, most = self._nginx.server(), 0

        def answered(name: str) -> bool:
            nonlocal most
            most = max(most, _memory(server.pid))
            return self._answers(name)

        try:
            server.until(lambda: answered(self._names[0]), self._seconds)
            first = last = time.perf_counter() - begin
            for name in self._names[1:]:
                server.until(partial(self._answers, name), self._seconds)
                last = time.perf_counter() - begin
        except ServerFailed as failed:
            if self._pebble.hangs():
                raise Hanging(f"pebble hangs: {failed}") from failed
            raise
        finally:
            cpu, _ = server.stop()
        return Run(first, last, cpu, most, self._requests() - before)

    def _answers(self, name: str) -> bool:
        """Whether it answers, verified; with a temporary certificate it is not."""
        try:
            return fetch(self._nginx.port, name, self._root).status == HTTPStatus.OK
        except OSError:
            return False

    def _requests(self) -> int:
        """What pebble has logged so far; its management is not among it."""
        return self._pebble.server.log.read_bytes().count(b" -> calling handler()\n")


def _memory(pid: int) -> int:
    """Bytes in memory of a process and its children; what they share counts for each."""
    try:
        return sum(map(resident, (pid, *children(pid))))
    except OSError:  # one of them ended meanwhile
        return 0
