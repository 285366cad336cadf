"""``nginx-acme status [--json|--check]``: each certificate, as it stands.

Of what the running generation wants; of what the configuration wants where none runs yet.
"""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING

from nginx_acme.check import check
from nginx_acme.commands import parser_for
from nginx_acme.errors import NginxAcmeError
from nginx_acme.launch import utc_now
from nginx_acme.log import printable
from nginx_acme.overview import gather
from nginx_acme.report.document import to_json
from nginx_acme.report.plugin import State, line
from nginx_acme.report.table import to_text
from nginx_acme.running import needed_home

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nginx_acme.launch import Launch
    from nginx_acme.report import Overview


def run(launch: Launch) -> int:
    """Print it; the exit code is 0 as long as it could be found out."""
    parser = parser_for("status", "Show how each certificate stands.")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as a document for programs")
    form.add_argument("--check", action="store_true", help="as a monitoring plugin, by handshakes")
    given = parser.parse_args(launch.command.rest)
    if given.check:
        return _check(launch)
    overview = gather(needed_home(launch), utc_now())
    if given.json:
        sys.stdout.write(json.dumps(to_json(overview), indent=2) + "\n")
    else:
        sys.stdout.write(_table(overview, launch.environ))
    return 0


def _check(launch: Launch) -> int:
    """The plugin's line, and its exit code, also where nothing can be found out."""
    try:
        state, text = check(needed_home(launch), utc_now())
    except NginxAcmeError as error:
        state, text = State.UNKNOWN, line(State.UNKNOWN, str(error))
    sys.stdout.write(f"{printable(text)}\n")
    return state


def _table(overview: Overview, environ: Mapping[str, str]) -> str:
    """As wide as the terminal; in colours, but for who wants none (no-color.org)."""
    if not sys.stdout.isatty():
        return to_text(overview)
    colored = not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
    return to_text(overview, width=shutil.get_terminal_size().columns, colored=colored)
