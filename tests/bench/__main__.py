"""The benchmarks: what nginx-acme costs, beside nginx alone.

`make bench` runs them (ARGS="--only warm --servers 1,1000" a part of them) and writes all single
values to build/bench.json. They stand with the tests because they start the same servers. Each
part is a module, with a title, rows that it yields as they are measured, and targets where there
are any: a median beyond its target has a cross beside it.

What is compared runs in turn, and only ratios of neighbours mean something: a machine has other
things to do. The folder is in /var/tmp, because /tmp may be memory, where fsync costs nothing.
"""

# ruff: noqa: T201 - it talks to a person

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import signal
import ssl
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import beside, first, generation, reload, serving, warm
from tests.bench.figures import Table, to_json, to_text
from tests.bench.options import Options, environ_for, launcher
from tests.bench.processes import adopt_orphans
from tests.bench.sites import Sites
from tests.servers import (
    ROOT,
    ServerFailed,
    ServerMissing,
    find_program,
    nginx_version,
    pebble_version,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.figures import Row

REPORT = ROOT / "build" / "bench.json"

PARTS = {
    "first": first,
    "warm": warm,
    "generation": generation,
    "reload": reload,
    "beside": beside,
    "serving": serving,
}

PACKAGES = ("nginx-acme", "aiohttp", "cryptography", "httpx", "josepy")


def versions(options: Options) -> dict[str, str]:
    """What was measured, and where."""
    found = {
        "nginx": ".".join(map(str, nginx_version(options.nginx))),
        "Python": platform.python_version(),
        "OpenSSL": ssl.OPENSSL_VERSION.split()[1],
        "Linux": platform.release(),
        "processors": str(len(os.sched_getaffinity(0))),
    }
    with suppress(ServerMissing):
        found["pebble"] = ".".join(map(str, pebble_version(options.pebble)))
    with suppress(ServerMissing):
        found["wrk"] = serving.wrk_version()
    return found | {name: importlib.metadata.version(name) for name in PACKAGES}


def main() -> int:
    """Measure part after part; what there is when one fails is told and kept all the same."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is stopped
    said = _said()
    adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="nginx-acme-bench-", dir="/var/tmp") as folder:
        try:
            Path(folder).chmod(0o755)  # nginx's workers read what they serve
            options = _options(said, Path(folder))
            report = _Report(said.report, versions(options))
            sites = Sites(options)
            for part in said.only or PARTS:
                report.add(part, PARTS[part].measure(sites, options))
        except (ServerMissing, ServerFailed, OSError) as error:
            print(f"make bench: {error}", file=sys.stderr)
            return 1
    return 1 if said.only and report.lacks_something else 0


class _Report:
    """What is printed, and what is written for other programs."""

    def __init__(self, path: Path, found: dict[str, str]) -> None:
        self._path = path
        self._versions = found
        self._tables: list[Table] = []
        self.lacks_something = False
        """Whether a program that a part needs is not installed."""
        print(", ".join(f"{name} {version}" for name, version in found.items()), flush=True)

    def add(self, part: str, measured: Iterator[Row]) -> None:
        """A table of what is measured, as far as it comes."""
        rows: list[Row] = []
        table = Table(part, PARTS[part].TITLE, rows)
        try:
            for row in measured:
                rows.append(row)
                first = ", ".join(f"{name} {row[name]}" for name in list(row)[:4])
                print(f"{part}: {first}", file=sys.stderr, flush=True)
        except ServerMissing as missing:
            self.lacks_something = True
            print(f"make bench: no {part}: {missing}", file=sys.stderr)
        finally:
            if rows:
                self._tables.append(table)
                print(f"\n{to_text(table)}\n", flush=True)
                self._write()

    def _write(self) -> None:
        self._path.parent.mkdir(exist_ok=True)
        tables = list(map(to_json, self._tables))
        report = {"versions": self._versions, "tables": tables}
        self._path.write_text(json.dumps(report, indent=1) + "\n")


def _said() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description="What nginx-acme costs.")
    parts = ",".join(PARTS)
    parser.add_argument("--only", type=_parts, help=f"some of the parts ({parts})")
    parser.add_argument(
        "--servers",
        type=_numbers,
        default="1,1000,10000",
        help="sizes of the configurations with certificates of our own (%(default)s)",
    )
    parser.add_argument(
        "--certificates", type=_numbers, default="1,10,100", help="from pebble (%(default)s)"
    )
    parser.add_argument(
        "--retry-after", type=_numbers, default="0,1", help="pebble's, in s (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, help="how often, in place of what the size suggests")
    parser.add_argument("--nginx", help="path of another nginx")
    parser.add_argument("--pebble", help="path of another pebble, 2.5 or newer")
    parser.add_argument("--report", type=Path, default=REPORT, help="where the JSON goes")
    return parser.parse_args()


def _options(said: argparse.Namespace, folder: Path) -> Options:
    nginx = said.nginx or find_program("nginx")
    return Options(
        folder=folder,
        servers=said.servers,
        certificates=said.certificates,
        retry_after=said.retry_after,
        rounds=said.rounds,
        nginx=nginx,
        given_pebble=said.pebble,
        launcher=launcher(),
        environ=environ_for(nginx),
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def _parts(text: str) -> list[str]:
    names = text.split(",")
    if not PARTS.keys() >= set(names):
        raise argparse.ArgumentTypeError(f"the parts are {', '.join(PARTS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
