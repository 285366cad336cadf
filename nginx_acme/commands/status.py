"""``nginx-acme status [--json]``: each certificate, as it stands.

Of what the running generation wants; of what the configuration wants where none runs yet.
"""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING

from nginx_acme.commands import parser_for
from nginx_acme.launch import utc_now
from nginx_acme.overview import gather
from nginx_acme.report.document import to_json
from nginx_acme.report.table import to_text
from nginx_acme.running import find_home

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nginx_acme.launch import Launch
    from nginx_acme.report import Overview


def run(launch: Launch) -> int:
    """Print it; the exit code is 0 as long as it could be found out."""
    parser = parser_for("status", "Show how each certificate stands.")
    parser.add_argument("--json", action="store_true", help="as a document for programs")
    given = parser.parse_args(launch.command.rest)
    overview = gather(find_home(launch), utc_now())
    if given.json:
        sys.stdout.write(json.dumps(to_json(overview), indent=2) + "\n")
    else:
        sys.stdout.write(_table(overview, launch.environ))
    return 0


def _table(overview: Overview, environ: Mapping[str, str]) -> str:
    """As wide as the terminal; in colours, but for who wants none (no-color.org)."""
    if not sys.stdout.isatty():
        return to_text(overview)
    colored = not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
    return to_text(overview, width=shutil.get_terminal_size().columns, colored=colored)
