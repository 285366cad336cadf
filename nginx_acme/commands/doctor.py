"""``nginx-acme doctor [--json]``: what is well, what isn't, and what to do about it.

Asks no CA, and writes nothing but probes that it removes.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import sys
from typing import TYPE_CHECKING

from nginx_acme.commands import parser_for
from nginx_acme.doctor import examine
from nginx_acme.doctor.shown import is_well, to_json, to_text
from nginx_acme.launch import utc_now
from nginx_acme.nginx.listen import Address, parse_listen

if TYPE_CHECKING:
    from nginx_acme.launch import Launch

_DNS_PORT = 53


def run(launch: Launch) -> int:
    """Print it; the exit code is 1 if something is wrong, 0 for what is only odd."""
    parser = parser_for(
        "doctor",
        "Look for what keeps certificates from being issued, renewed or served. Asks no CA.",
    )
    parser.add_argument("--json", action="store_true", help="as a document for programs")
    parser.add_argument(
        "--resolver",
        metavar="ADDRESS[:PORT]",
        type=_server,
        help="the DNS server to ask in place of this host's, such as one that the internet uses",
    )
    given = parser.parse_args(launch.command.rest)
    now = utc_now()
    findings = examine(launch, now, given.resolver)
    if findings is None and not given.json:
        sys.stdout.write(f"{launch.main}: no directive of nginx-acme, nginx gets it as it is\n")
        return 0
    findings = findings or []
    if given.json:
        sys.stdout.write(json.dumps(to_json(findings, now), indent=2) + "\n")
    else:
        colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        sys.stdout.writelines(f"{line}\n" for line in to_text(findings, colours=colours))
    return 0 if is_well(findings) else 1


def _server(text: str) -> Address:
    """What --resolver says."""
    try:
        found = str(ipaddress.ip_address(text)), _DNS_PORT
    except ValueError:
        try:
            (listen,) = parse_listen((text,), _DNS_PORT)
            found = str(ipaddress.ip_address(listen.address.host)), listen.address.port
        except ValueError as error:
            raise argparse.ArgumentTypeError(f'"{text}" is no address of a DNS server') from error
    return Address(*found)
