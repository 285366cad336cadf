"""A start with nothing to do, beside bare nginx on what was generated, and a bare Python.

From exec until the first connection is accepted. On top of nginx, a start may cost as much as a
Python that does nothing takes three times; and nobody notices it who has a thousand servers.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tests.bench.figures import figure, on_top, ratio
from tests.bench.processes import cpu, run, seconds
from tests.bench.turns import in_turn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.figures import Row
    from tests.bench.options import Options
    from tests.bench.sites import Site, Sites

TITLE = "A start with nothing to do, beside nginx alone"

MOST_PYTHONS = 3
"""On top of nginx alone, with one server."""
MOST = 1.05
"""Of nginx alone, with a thousand servers or more that all say `acme`."""
MANY = 1000


def measure(sites: Sites, options: Options) -> Iterator[Row]:
    """A row for each configuration."""
    for site in sites.each(options.servers):
        yield _row(site, options)


def _row(site: Site, options: Options) -> Row:
    python = (sys.executable, "-I", "-c", "pass")
    rounds = in_turn(
        options.rounds_with(site.kind.weight),
        ours=site.start,
        nginx=site.bare().start,
        python=lambda: run(python, options.environ, site.log),
    )
    ours, nginx, pythons = rounds["ours"], rounds["nginx"], rounds["python"]
    alone = MOST_PYTHONS if site.kind.servers == 1 else None
    many = MOST if site.kind.managed >= MANY else None
    return {
        **site.kind.row(),
        "runs": len(ours),
        "start_s": figure(seconds(ours), 3),
        "nginx_s": figure(seconds(nginx), 3),
        "python_s": figure(seconds(pythons), 3),
        "on_top/python": on_top(seconds(ours), seconds(nginx), seconds(pythons), most=alone),
        "start/nginx": ratio(seconds(ours), seconds(nginx), most=many),
        "CPU_s": figure(cpu(ours), 3),
        "nginx_CPU_s": figure(cpu(nginx), 3),
        "CPU_on_top/python": on_top(cpu(ours), cpu(nginx), cpu(pythons)),
        "CPU/nginx": ratio(cpu(ours), cpu(nginx)),
        "agent_CPU_s": figure((one.beside for one in ours), 3),
    }
