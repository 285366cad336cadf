"""A reload when one file has changed, until it is served, beside `nginx -t` and a HUP alone.

Both run at the same time, nginx alone on its own copy of what was generated. A file that has not
changed isn't read again; which ones are is told by Python itself, in a reload of its own
(`sys.addaudithook`).
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

from tests.bench.figures import Figure, figure, on_top, ratio
from tests.bench.processes import Took, cpu, run, seconds
from tests.bench.turns import in_turn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.figures import Row
    from tests.bench.options import Options
    from tests.bench.processes import Server
    from tests.bench.sites import Copy, Site, Sites

TITLE = "A reload when one file has changed, beside nginx -t and a HUP"

MOST = 1
"""Of the CPU time of `nginx -t`, on top of it."""
MOST_READ = 2
"""Files: the one that has changed, and the main file, which says where the state directory is."""
MANY = 10_000
"""Servers for which that is promised."""

_NOTE_READ = """
import atexit, os, runpy, sys
note, folder = sys.argv[1:3]
del sys.argv[:3]
read = set()

def hook(event, args):
    if event == "open" and isinstance(args[0], (str, bytes)):
        path = os.fsdecode(args[0])
        if path.endswith(".conf") and path.startswith(folder):
            read.add(path)

def write():
    with open(note, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write("\\n".join(sorted(read)))

atexit.register(write)
sys.addaudithook(hook)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def measure(sites: Sites, options: Options) -> Iterator[Row]:
    """A row for each configuration."""
    for site in sites.each(options.servers):
        yield _row(site, options)


def _row(site: Site, options: Options) -> Row:
    copy = site.copy()
    with site.running() as server, copy.running() as bare:
        tests: list[Took] = []
        rounds = in_turn(
            options.few_rounds_with(site.kind.weight),
            ours=lambda: _reload(site, server),
            nginx=lambda: _bare_reload(copy, bare, tests),
        )
        ours, nginx = rounds["ours"], rounds["nginx"]
        read = _files_read(site, options)
    most = MOST if site.kind.servers >= MANY else None
    return {
        **site.kind.row(),
        "runs": len(ours),
        "reload_s": figure(seconds(ours), 3),
        "nginx_s": figure(seconds(nginx), 3),
        "reload/nginx": ratio(seconds(ours), seconds(nginx)),
        "CPU_s": figure(cpu(ours), 3),
        "nginx_-t_CPU_s": figure(cpu(tests), 3),
        "CPU_on_top": on_top(cpu(ours), cpu(tests), cpu(tests), most=most),
        "files_read": Figure((read,), 0, most=MOST_READ),
    }


def _reload(site: Site, server: Server) -> Took:
    edition = site.edit()
    took = site.run("-s", "reload")
    more = server.until(lambda: site.edition() == edition, site.seconds)
    server.calm(site.seconds)
    return Took(took.seconds + more, took.cpu)


def _bare_reload(copy: Copy, server: Server, tests: list[Took]) -> Took:
    edition = copy.edit()
    tests.append(copy.run("-t"))
    os.kill(server.pid, signal.SIGHUP)
    more = server.until(lambda: copy.edition() == edition, copy.seconds)
    return Took(tests[-1].seconds + more, tests[-1].cpu)


def _files_read(site: Site, options: Options) -> int:
    """How many files of the configuration a reload reads when one of them has changed."""
    note = site.prefix / "read.txt"
    site.edit()
    argv = site.argv("-s", "reload")
    watched = (sys.executable, "-c", _NOTE_READ, str(note), str(site.prefix), *argv)
    run(watched, options.environ, site.log)
    return len(note.read_text().splitlines())
