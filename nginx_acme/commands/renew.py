"""``nginx-acme renew [--force NAME]``: get what is due, and let the running nginx take it up.

A no-op where nothing is due, so a timer may call it as often as it likes. With `--finish` it is
what a start leaves behind (`left_behind`).
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from nginx_acme.commands import parser_for
from nginx_acme.errors import NginxAcmeError
from nginx_acme.identifiers import NotCertifiable, name_of
from nginx_acme.left_behind import LeftBehind
from nginx_acme.renewal import Renewal
from nginx_acme.running import current_work, find_home
from nginx_acme.store import Identity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nginx_acme.launch import Launch
    from nginx_acme.work import Work


def run(launch: Launch) -> int:
    """Do it; the exit code is 1 where something failed, 0 where nothing had to be done."""
    parser = parser_for(
        "renew",
        "Get what is due, and let the running nginx take it up. Does nothing where nothing is due.",
    )
    parser.add_argument(
        "--force",
        metavar="NAME",
        action="append",
        default=[],
        help="ask for the certificate with this name now, whatever the time and the failures",
    )
    parser.add_argument("--finish", metavar="STATE", help=argparse.SUPPRESS)
    parser.add_argument("--starter", metavar="PID", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args(launch.command.rest)
    home = find_home(launch, given.finish)
    work = current_work(home)
    if work is None:
        raise NginxAcmeError(f'"{home.instance.path}" has no generation yet, start nginx first')
    if given.finish:
        LeftBehind(home, work, given.starter).finish()
        return 0
    launch.log.add_file(work.error_log)
    outcome = Renewal(home, launch.log).once(_named(given.force, work))
    return 1 if outcome is None or outcome.failed else 0


def _named(force: Iterable[str], work: Work) -> frozenset[Identity]:
    """The certificates that have one of these names; NginxAcmeError for one that none has."""
    try:
        names = frozenset(name_of(text) for text in force)
    except NotCertifiable as reason:
        raise NginxAcmeError(str(reason)) from reason
    unknown = names - {name for one in work.certificates for name in one.names}
    if unknown:
        words = ", ".join(sorted(name.value for name in unknown))
        raise NginxAcmeError(f"no certificate has the name {words}")
    wanted = (one for one in work.certificates if names & set(one.names))
    return frozenset(Identity(*one.identity) for one in wanted)
