"""A new generation when every file has changed, beside `nginx -t` on one.

    test     `-t`, which makes one, beside `nginx -t`
    start    a start, which makes one and lets nginx look at it, beside `nginx -t` and a start of nginx

Reading, planning, generating and writing may take as long as nginx takes to look at it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tests.bench.figures import Figure, figure, on_top
from tests.bench.processes import cpu, seconds
from tests.bench.turns import in_turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.bench.figures import Row
    from tests.bench.options import Options
    from tests.bench.processes import Took
    from tests.bench.sites import Site, Sites

TITLE = "A new generation when every file has changed, beside nginx -t"

MOST = 1
"""Of what `nginx -t` takes, on top of it."""
MOST_MIB = 200
"""While generating; nginx itself isn't counted."""
MANY = 10_000
"""Servers for which that is promised."""


def measure(sites: Sites, options: Options) -> Iterator[Row]:
    """A row for each configuration."""
    for site in sites.each(options.servers):
        yield _row(site, options)


def _row(site: Site, options: Options) -> Row:
    bare = site.bare()

    def changed(then: Callable[[], Took]) -> Took:
        site.edit()
        site.touch()
        return then()

    rounds = in_turn(
        options.few_rounds_with(site.kind.weight),
        test=lambda: changed(lambda: site.run("-t")),
        nginx_test=lambda: bare.run("-t"),
        start=lambda: changed(site.start),
        nginx_start=bare.start,
    )
    test, nginx_test = rounds["test"], rounds["nginx_test"]
    both = [
        replace(a, seconds=a.seconds + b.seconds, cpu=a.cpu + b.cpu)
        for a, b in zip(rounds["nginx_start"], nginx_test, strict=True)
    ]
    most = MOST if site.kind.servers >= MANY else None
    return {
        **site.kind.row(),
        "runs": len(test),
        "-t_s": figure(seconds(test), 3),
        "nginx_-t_s": figure(seconds(nginx_test), 3),
        "on_top": on_top(seconds(test), seconds(nginx_test), seconds(nginx_test), most=most),
        "CPU_on_top": on_top(cpu(test), cpu(nginx_test), cpu(nginx_test), most=most),
        "MiB": Figure(tuple(one.memory / 2**20 for one in test), 0, most=MOST_MIB),
        "start_s": figure(seconds(rounds["start"]), 3),
        "start_on_top": on_top(
            seconds(rounds["start"]), seconds(both), seconds(nginx_test), most=most
        ),
        "start_CPU_on_top": on_top(cpu(rounds["start"]), cpu(both), cpu(nginx_test), most=most),
    }
