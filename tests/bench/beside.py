"""What goes on beside an nginx that runs: the agent asleep, a `renew` with nothing due, and an edit
with a plain HUP until it is served, beside nginx alone on its own copy.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from tests.bench.figures import figure, ratio
from tests.bench.processes import Took, cpu, resident, seconds
from tests.bench.sites import Kind
from tests.bench.turns import in_turn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.figures import Row
    from tests.bench.options import Options
    from tests.bench.processes import Server
    from tests.bench.sites import Copy, Site, Sites

TITLE = "Beside a running nginx: the agent, a renew with nothing due, an edit with a plain HUP"


def measure(sites: Sites, options: Options) -> Iterator[Row]:
    """A row for each size."""
    for servers in options.servers:
        yield _row(sites.site(Kind(servers)), options)


def _row(site: Site, options: Options) -> Row:
    copy = site.copy()
    with site.running() as server, copy.running() as bare:
        agents = [resident(pid) for pid in server.beside()]
        rounds = in_turn(
            options.few_rounds_with(site.kind.weight),
            renew=lambda: site.run("renew"),
            edit=lambda: _edit(site, server),
            nginx_edit=lambda: _edit(copy, bare),
        )
    edits, nginx_edits = rounds["edit"], rounds["nginx_edit"]
    return {
        **site.kind.row(),
        "runs": len(edits),
        "agent_MiB": figure((size / 2**20 for size in agents), 1),
        "renew_s": figure(seconds(rounds["renew"]), 3),
        "renew_CPU_s": figure(cpu(rounds["renew"]), 3),
        "edit_s": figure(seconds(edits), 3),
        "nginx_edit_s": figure(seconds(nginx_edits), 3),
        "edit/nginx": ratio(seconds(edits), seconds(nginx_edits)),
    }


def _edit(site: Site | Copy, server: Server) -> Took:
    """Edit, tell nginx, and wait until it is served."""
    edition = site.edit()
    os.kill(server.pid, signal.SIGHUP)
    took = server.until(lambda: site.edition() == edition, site.seconds)
    server.calm(site.seconds)
    return Took(took, 0)
