"""The benchmarks: what a start costs, with certificates to get and without.

`make bench` runs them (ARGS="--certificates 1,10" a part of them). They stand with the tests
because they start the same servers. For each number of certificates, in one folder:

    issuing   the first start: each certificate comes from pebble, whose manners are good here (no
              refused nonces, no reused authorizations, no sleep before a validation)
    starting  with those certificates, again and again, in turn with bare nginx on the same
              generated configuration; and `-t` in turn with `nginx -t`
    beside    while nginx runs: the agent that sleeps, a `renew` with nothing due, and an edit with a
              plain HUP until it is served, in turn with nginx on a configuration of its own

What is compared runs in turn, since other work on a machine changes by the minute. Figures are
medians, ratios medians of the ratios of neighbours. The folder is in /var/tmp, because /tmp may
be memory, where fsync costs nothing.

A pebble that hangs (the newer one may deadlock where new orders meet looks at authorizations) is
told from an nginx-acme that does; such a run is repeated.
"""

# ruff: noqa: T201 - it talks to a person

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import signal
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tests.servers import (
    LOCALHOST,
    ROOT,
    NginxServer,
    Pebble,
    Program,
    ServerFailed,
    ServerMissing,
    environment,
    fetch,
    find_newer,
    find_program,
    free_port,
    listens,
    nginx_conf,
    nginx_version,
    pebble_version,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

REPORT = ROOT / "build" / "bench.json"

RUNS = ((1, 7), (10, 5), (100, 3))
"""Up to so many certificates, so many first starts; beyond, one."""

STARTS = 5
"""Starts with valid certificates, at least, for each number of them."""

SECONDS = 60.0
"""For one start, and as much again for each hundred certificates."""

HANGS = 3
"""Hanging CAs in a row that are borne."""

PAUSE = 0.004
"""Seconds between two looks whether nginx listens."""

SITE = """
    server_names_hash_max_size 65536;
    acme_state_path acme;
    acme_http_listen {http};
    acme_start_wait {wait}s;
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

PACKAGES = ("nginx-acme", "aiohttp", "cryptography", "httpx", "josepy")


class Hanging(ServerFailed):
    """The CA hangs, so nothing can be said about who waits for it."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is measured, and with which servers; `runs`: None for what the number suggests."""

    certificates: tuple[int, ...]
    retry_after: tuple[int, ...]
    runs: int | None
    nginx: str
    pebble: str
    report: Path

    def runs_with(self, certificates: int) -> int:
        """How many first starts: fewer of those that take long."""
        if self.runs is not None:
            return self.runs
        return next((runs for most, runs in RUNS if certificates <= most), 1)


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run took.

    - `seconds`: to its end, or for a server from exec to its first verified HTTPS answer;
    - `cpu`: seconds, user and system, of the process and of its children that have ended;
    - `memory`: bytes, the most that it and its children had at once; 0 where nobody looked;
    - `all_seconds`: to a verified answer for each name;
    - `requests`: that the CA got.
    """

    seconds: float
    cpu: float
    memory: int = 0
    all_seconds: float = 0
    requests: int = 0


@dataclass(frozen=True, slots=True)
class Round:
    """The same with and without nginx-acme, one right after the other."""

    start: Figures
    bare_start: Figures
    test: Figures
    bare_test: Figures
    python: Figures
    """An interpreter that does nothing: what no program in Python can do without."""


@dataclass(frozen=True, slots=True)
class Beside:
    """What goes on beside an nginx that runs.

    - `agent`: bytes in memory of the agent that sleeps;
    - `renew`: with nothing due;
    - `edit`: from a HUP to the edited answer, with nginx-acme and with nginx alone.
    """

    agent: int
    renew: Figures
    edit: Figures
    bare_edit: Figures


@dataclass(frozen=True, slots=True)
class Row:
    """All runs with one number of certificates."""

    certificates: int
    retry_after: int
    first: tuple[Figures, ...]
    rounds: tuple[Round, ...]
    beside: tuple[Beside, ...]


# --- one site -------------------------------------------------------------------------------


class Site:
    """So many servers, each with a name and a certificate of its own, and the CA for them."""

    def __init__(self, folder: Path, certificates: int, retry_after: int, options: Options) -> None:
        folder.chmod(0o755)
        self.folder = folder
        self.names = [f"s{number}.example.com" for number in range(certificates)]
        self.seconds = SECONDS * (1 + certificates / 100)
        self.tls_port = free_port()
        self.pebble = Pebble(
            folder / "pebble",
            binary=options.pebble,
            nonce_reject=0,
            authz_reuse=0,
            retry_after=retry_after,
        )
        launcher = Path(sys.executable).with_name("nginx-acme")
        config = nginx_conf(self._site())
        self.nginx = NginxServer(folder, config, binary=options.nginx, launcher=[str(launcher)])
        self._environ = environment(NGINX_ACME_NGINX=options.nginx)
        self._log = folder / "output.log"

    def _site(self) -> str:
        site = SITE.format(
            http=f"{LOCALHOST}:{self.pebble.http_port}",
            wait=int(self.seconds),
            url=self.pebble.directory_url,
            root=self.pebble.api_root,
        )
        tls = f"{LOCALHOST}:{self.tls_port}"
        return site + "".join(SERVER.format(tls=tls, name=name) for name in self.names)

    def first(self) -> Figures:
        """The first start, which gets every certificate.

        Raises:
            Hanging: it failed, and the CA hangs.
            ServerFailed: it failed.
        """
        before = self._requests()
        figures = self._start(self.nginx.argv(), self.names)
        return replace(figures, requests=self._requests() - before)

    def round(self) -> Round:
        """Everything that needs no CA, with the certificates that are there."""
        return Round(
            start=self._start(self.nginx.argv(), self.names[:1]),
            bare_start=self._start(self._bare(), self.names[:1]),
            test=self._run(self.nginx.argv("-t")),
            bare_test=self._run(self._bare("-t")),
            python=self._run((sys.executable, "-I", "-c", "pass")),
        )

    def beside(self) -> Beside:
        """What the agent costs, and what it does."""
        program = Program(self.nginx.argv(), self._log, environ=self._environ)
        begin = time.perf_counter()
        program.launch()
        try:
            self._answering(self.names[0], program, self.pebble.issuer_root(), begin)
            agent = self._agent(program, begin)
            memory = _resident_alone(agent)
            renew = self._run(self.nginx.argv("renew"))
            edit = self._edit(self.nginx.conf, program, self.tls_port)
            return Beside(memory, renew, edit, self._bare_edit())
        finally:
            program.stop()

    def _agent(self, program: Program, begin: float) -> int:
        """The agent, when its first turn is over."""
        while True:
            for path in self.folder.glob("acme/locks/agent-*.lock"):
                pid = int(path.read_text().split()[1])
                began = list(self.folder.glob("acme/instances/*/workers.json"))
                if began and not _children(pid):
                    return pid
            self._look_after(program, begin)

    def _edit(self, conf: Path, program: Program, port: int) -> Figures:
        """Edit every answer, tell nginx, and wait until it is given."""
        conf.write_text(conf.read_text().replace("return 200;", "return 201;"))
        begin = time.perf_counter()
        os.kill(program.pid, signal.SIGHUP)
        while fetch(port, self.names[0], None).status != 201:
            self._look_after(program, begin)
        return Figures(time.perf_counter() - begin, 0)

    def _bare_edit(self) -> Figures:
        """The same with nginx alone, on its own copy of the generated configuration."""
        (generated,) = self.folder.glob("acme/instances/*/generated/nginx.conf")
        text = generated.read_text()
        ports = {port: free_port() for port in (self.tls_port, self.pebble.http_port)}
        for ours, other in ports.items():
            text = text.replace(f"{LOCALHOST}:{ours}", f"{LOCALHOST}:{other}")
        with NginxServer(self.folder / "bare", text, binary=self.nginx.binary) as bare:
            return self._edit(bare.conf, bare.server, ports[self.tls_port])

    def _bare(self, *more: str) -> tuple[str, ...]:
        """The command line of nginx itself with the generated configuration."""
        (generated,) = self.folder.glob("acme/instances/*/generated/nginx.conf")
        _, *argv = self.nginx.argv(*more)
        theirs = (str(generated) if word == str(self.nginx.conf) else word for word in argv)
        return (self.nginx.binary, *theirs)

    def _run(self, argv: Sequence[str]) -> Figures:
        """Run a program to its end."""
        before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(argv, env=self._environ, capture_output=True, check=False)
        seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode != 0:
            raise ServerFailed(f"{argv[0]}: exit code {done.returncode}\n{done.stderr.decode()}")
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Figures(seconds, cpu)

    def _start(self, argv: Sequence[str], names: Sequence[str]) -> Figures:
        """Start a server until it answers verified for these names, and stop it."""
        root = self.pebble.issuer_root()
        program = Program(argv, self._log, environ=self._environ)
        begin = time.perf_counter()
        program.launch()
        try:
            memory = self._answering(names[0], program, root, begin)
            seconds, cpu = time.perf_counter() - begin, _cpu_seconds(program.pid)
            late = [name for name in names if not self._answers(name, root)]
            for name in late:
                self._answering(name, program, root, begin)
            all_seconds = time.perf_counter() - begin if late else seconds
        finally:
            program.stop()
        return Figures(seconds, cpu, memory, all_seconds)

    def _answering(self, name: str, program: Program, root: bytes, begin: float) -> int:
        """Wait until a name is answered for; the most memory that was in use meanwhile."""
        memory = 0
        while not (listens(self.tls_port) and self._answers(name, root)):
            memory = max(memory, _resident(program.pid))
            self._look_after(program, begin)
        return memory

    def _answers(self, name: str, root: bytes) -> bool:
        """Whether it answers, verified; with a temporary certificate it is not.

        Nor does `nginx -t`, which listens for a moment, too.
        """
        try:
            return fetch(self.tls_port, name, root).status == 200
        except OSError:
            return False

    def _look_after(self, program: Program, begin: float) -> None:
        """Wait a little, as long as there is hope."""
        if program.returncode is not None:
            raise self._failed(program, f"exit code {program.returncode}")
        if time.perf_counter() - begin > self.seconds:
            raise self._failed(program, f"no verified answer in {self.seconds:g} s")
        time.sleep(PAUSE)

    def _failed(self, program: Program, what: str) -> ServerFailed:
        if self.pebble.hangs():
            return Hanging(f"pebble hangs: {what}")
        return ServerFailed(f"{what}\n{program.output()}\n{self.nginx.error_log()[-3000:]}")

    def _requests(self) -> int:
        """What pebble has logged so far; its management is not among it."""
        return self.pebble.server.log.read_bytes().count(b" -> calling handler()\n")


def _cpu_seconds(pid: int) -> float:
    """User and system, with the children that were waited for (proc(5), fields 14 to 17)."""
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    ticks = sum(map(int, text.rpartition(")")[2].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _resident(pid: int) -> int:
    """Bytes in memory of a process and its children; what they share counts for each."""
    try:
        return sum(map(_resident_alone, (pid, *_children(pid))))
    except OSError:  # one of them ended meanwhile
        return 0


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return list(map(int, file.read().split()))


def _resident_alone(pid: int) -> int:
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- many runs ------------------------------------------------------------------------------


def measure(certificates: int, retry_after: int, options: Options) -> Row:
    """All runs with one number of certificates; every first start has a folder and a CA anew."""
    runs = options.runs_with(certificates)
    first: list[Figures] = []
    rounds: list[Round] = []
    beside: list[Beside] = []
    hangs = 0
    while len(first) < runs:
        try:
            figures, again, more = _one_site(certificates, retry_after, options, -(-STARTS // runs))
        except Hanging as hanging:
            hangs += 1
            print(f"{hanging}; once more", file=sys.stderr)
            if hangs == HANGS:
                raise
            continue
        first.append(figures)
        rounds += again
        beside.append(more)
    return Row(certificates, retry_after, tuple(first), tuple(rounds), tuple(beside))


def _one_site(
    certificates: int, retry_after: int, options: Options, rounds: int
) -> tuple[Figures, list[Round], Beside]:
    with tempfile.TemporaryDirectory(prefix="nginx-acme-bench-", dir="/var/tmp") as folder:
        site = Site(Path(folder), certificates, retry_after, options)
        with site.pebble:
            return site.first(), [site.round() for _ in range(rounds)], site.beside()


# --- what is said ---------------------------------------------------------------------------


def versions(options: Options) -> dict[str, str]:
    """What was measured, and where."""
    found = {
        "nginx": ".".join(map(str, nginx_version(options.nginx))),
        "pebble": ".".join(map(str, pebble_version(options.pebble))),
        "Python": platform.python_version(),
        "OpenSSL": ssl.OPENSSL_VERSION.split()[1],
        "Linux": platform.release(),
        "processors": str(len(os.sched_getaffinity(0))),
    }
    return found | {name: importlib.metadata.version(name) for name in PACKAGES}


def print_first(rows: Sequence[Row]) -> None:
    """What getting certificates took."""
    header = "certificates Retry-After runs first_answer_s all_s CPU_s MiB requests for_each"
    lines = [
        (
            f"{row.certificates}",
            f"{row.retry_after}",
            f"{len(row.first)}",
            f"{_median(run.seconds for run in row.first):.2f}",
            f"{_median(run.all_seconds for run in row.first):.2f}",
            f"{_median(run.cpu for run in row.first):.2f}",
            f"{_median(run.memory for run in row.first) / 2**20:.0f}",
            f"{_median(run.requests for run in row.first):.0f}",
            f"{_median(run.requests for run in row.first) / row.certificates:.2f}",
        )
        for row in rows
    ]
    _print_table("First start, with certificates from pebble", header, lines)


def print_rounds(rows: Sequence[Row]) -> None:
    """What the later starts and tests took, beside nginx alone."""
    header = "certificates runs start_s nginx_s ratio CPU_s MiB -t_s nginx_-t_s ratio python_s"
    lines = [
        (
            f"{row.certificates}",
            f"{len(row.rounds)}",
            f"{_median(each.start.seconds for each in row.rounds):.3f}",
            f"{_median(each.bare_start.seconds for each in row.rounds):.3f}",
            f"{_median(_ratio(each.start, each.bare_start) for each in row.rounds):.2f}",
            f"{_median(each.start.cpu for each in row.rounds):.2f}",
            f"{_median(each.start.memory for each in row.rounds) / 2**20:.0f}",
            f"{_median(each.test.seconds for each in row.rounds):.3f}",
            f"{_median(each.bare_test.seconds for each in row.rounds):.3f}",
            f"{_median(_ratio(each.test, each.bare_test) for each in row.rounds):.2f}",
            f"{_median(each.python.seconds for each in row.rounds):.3f}",
        )
        for row in rows
    ]
    title = "Start and test with valid certificates, beside nginx with the generated configuration"
    _print_table(title, header, lines)


def print_beside(rows: Sequence[Row]) -> None:
    """What the agent costs and does, beside nginx alone."""
    header = "certificates runs agent_MiB renew_s renew_CPU_s edit_s nginx_edit_s"
    lines = [
        (
            f"{row.certificates}",
            f"{len(row.beside)}",
            f"{_median(each.agent for each in row.beside) / 2**20:.1f}",
            f"{_median(each.renew.seconds for each in row.beside):.2f}",
            f"{_median(each.renew.cpu for each in row.beside):.2f}",
            f"{_median(each.edit.seconds for each in row.beside):.2f}",
            f"{_median(each.bare_edit.seconds for each in row.beside):.2f}",
        )
        for row in rows
    ]
    title = "Beside a running nginx: the agent, a renew with nothing due, an edit with a plain HUP"
    _print_table(title, header, lines)


def _print_table(title: str, header: str, lines: Iterable[Sequence[str]]) -> None:
    table = [[word.replace("_", " ") for word in header.split()], *lines]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    print(f"\n{title}")
    for line in table:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def _ratio(ours: Figures, bare: Figures) -> float:
    return ours.seconds / bare.seconds


def write_report(path: Path, found: Mapping[str, str], rows: Sequence[Row]) -> None:
    """Every single figure, for other programs."""
    path.parent.mkdir(exist_ok=True)
    report = {"versions": dict(found), "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(report, indent=1) + "\n")


def _options() -> Options:
    parser = argparse.ArgumentParser(prog="make bench", description="What a start costs.")
    parser.add_argument("--certificates", default="1,10,100,1000", help="how many (%(default)s)")
    parser.add_argument("--retry-after", default="0,1", help="pebble's, in s (%(default)s)")
    parser.add_argument("--runs", type=int, help="first starts for each row")
    parser.add_argument("--nginx", help="path of another nginx")
    parser.add_argument("--pebble", help="path of another pebble, 2.5 or newer")
    parser.add_argument("--report", type=Path, default=REPORT, help="where the JSON goes")
    said = parser.parse_args()
    return Options(
        certificates=_numbers(said.certificates),
        retry_after=_numbers(said.retry_after),
        runs=said.runs,
        nginx=said.nginx or find_program("nginx"),
        pebble=said.pebble or find_newer("pebble"),
        report=said.report,
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def main() -> int:
    """Measure row after row; what there is when one fails is told and kept all the same."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is stopped
    try:
        options = _options()
    except ServerMissing as missing:
        print(f"make bench: {missing}", file=sys.stderr)
        return 1
    found = versions(options)
    print(", ".join(f"{name} {version}" for name, version in found.items()), flush=True)
    rows: list[Row] = []
    try:
        for row in _rows(options):
            rows.append(row)
            seconds = _median(run.all_seconds for run in row.first)
            print(f"{row.certificates}, Retry-After {row.retry_after}: {seconds:.2f} s", flush=True)
    except (ServerFailed, OSError) as error:
        print(f"make bench: {error}", file=sys.stderr)
        return 1
    finally:
        print_first(rows)
        print_rounds(rows)
        print_beside(rows)
        write_report(options.report, found, rows)
    return 0


def _rows(options: Options) -> Iterator[Row]:
    measure(1, options.retry_after[0], replace(options, runs=1))  # the first one is cold
    for retry_after in options.retry_after:
        for certificates in options.certificates:
            yield measure(certificates, retry_after, options)


if __name__ == "__main__":
    sys.exit(main())
