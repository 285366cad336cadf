"""How it stands as a client sees it now: what a monitoring system asks for.

The second watcher, beside the agent: it makes the handshakes itself, and says so when nobody
else looks any more. It writes nothing and asks no CA.
"""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from nginx_acme.overview import gather
from nginx_acme.proof import key
from nginx_acme.report.plugin import State, to_line
from nginx_acme.running import needed_work, running_master
from nginx_acme.sight import look
from nginx_acme.standing import standings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from nginx_acme.launch import Home
    from nginx_acme.proof import Key
    from nginx_acme.report import Row
    from nginx_acme.sight import Finding
    from nginx_acme.work import Work

LONGEST = 8.0
"""Seconds for all handshakes: monitoring systems give a plugin ten."""
SETTLING = timedelta(minutes=15)
"""What has come may wait so long for the reload that it shares with others."""


def check(home: Home, now: datetime) -> tuple[State, str]:
    """The exit code and the line of the plugin.

    Raises:
        NginxAcmeError: it can't be found out.
    """
    work, overview = needed_work(home), gather(home, now)
    if running_master(home) is None:
        return to_line(replace(overview, nginx_pid=None), agent=work.agent)
    seen = _seen(home, work, now)
    rows = tuple(_as_seen(row, seen, now) for row in overview.rows)
    return to_line(replace(overview, rows=rows), agent=work.agent)


def _seen(home: Home, work: Work, now: datetime) -> Mapping[Key, Finding]:
    found = [one for one in standings(work.certificates, home.store, now) if one.shown]
    return dict(zip(map(key, found), look(work, found, longest=LONGEST), strict=True))


def _as_seen(row: Row, seen: Mapping[Key, Finding], now: datetime) -> Row:
    """With what the handshakes showed in place of what is noted."""
    found = seen.get((row.label, row.key_type))
    if found is None or (found.served is False and _has_just_come(row, now)):
        return replace(row, served=None, unproved=None)
    return replace(row, served=found.served, unproved=found.words)


def _has_just_come(row: Row, now: datetime) -> bool:
    try:
        age = now.timestamp() - os.stat(row.path).st_mtime
    except OSError:
        return False
    return 0 <= age < SETTLING.total_seconds()
