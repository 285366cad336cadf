"""``nginx-acme plan [--diff]``: what would be requested from whom, and what nginx would read.

Reads the configuration as it is now. Asks nobody and writes nothing.
"""

from __future__ import annotations

import difflib
import sys
from typing import TYPE_CHECKING

from nginx_acme.account import find_account
from nginx_acme.acme.presets import rates
from nginx_acme.commands import parser_for
from nginx_acme.errors import ConfigError, StateError
from nginx_acme.generate import generate
from nginx_acme.launch import utc_now
from nginx_acme.places import foresee
from nginx_acme.policy import Keep, Renew, Wait
from nginx_acme.policy.forecast import forecast
from nginx_acme.policy.limits import Ask, Limits
from nginx_acme.standing import standings
from nginx_acme.understanding import understand

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nginx_acme.launch import Launch
    from nginx_acme.plan import Certificate, Issuer
    from nginx_acme.standing import Standing
    from nginx_acme.understanding import Understood


def run(launch: Launch) -> int:
    """Print it; the exit code is 0 as long as the configuration has no mistake."""
    parser = parser_for(
        "plan", "Show which certificates the configuration asks for, and from whom. Asks nobody."
    )
    parser.add_argument(
        "--diff", action="store_true", help="how nginx's files differ from the user's"
    )
    given = parser.parse_args(launch.command.rest)
    understood = understand(launch)
    if understood is None:
        launch.demand_main()
        sys.stdout.write(f"{launch.main}: no directive of nginx-acme, nginx gets it as it is\n")
        return 0
    understood.tell_warnings()
    lines = _diff(understood) if given.diff else _plan(understood)
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 0


def _plan(understood: Understood) -> Iterator[str]:
    plan = understood.plan
    yield f"configuration  {understood.home.main}"
    yield f"state          {understood.home.store.root}"
    if not plan.settings.issue:
        yield 'requests       none, "acme_issue" is off: what is new in the state directory is taken'
    for certificate in plan.certificates:
        yield ""
        yield from _certificate(understood, certificate)
    for issuer in plan.issuers:
        yield from _how_long(understood, issuer)
    if plan.listens:
        yield ""
        added = {listen.address for listen in plan.added}
        shown = [f"{x.address}{' (added)' if x.address in added else ''}" for x in plan.listens]
        yield f"challenges are answered on {', '.join(shown)}"


def _certificate(understood: Understood, certificate: Certificate) -> Iterator[str]:
    issuer = certificate.issuer
    yield ", ".join(name.value for name in certificate.names)
    if certificate.optional:
        yield f"    if it has an address: {', '.join(sorted(certificate.optional))}"
    where = "" if issuer.local else f" ({issuer.directory_url})"
    yield f"    from {issuer.name}{where}"
    if certificate.profile:
        yield f"    profile {certificate.profile}"
    for place in certificate.places:
        yield f"    for {place}"
    try:
        for one in standings([certificate], understood.home.store, utc_now()):
            yield f"    {one.key_type}: {_what(one, issue=understood.plan.settings.issue)}"
    except StateError as error:  # of a user who may not look
        yield f"    {', '.join(certificate.key_types)}: {error}"


def _what(one: Standing, *, issue: bool) -> str:
    match one.decision:
        case Renew() | Wait() if not issue:
            return "to be taken when there is a new one"
        case Renew(because):
            return f"to be requested, {because}"
        case Wait(until, because):
            return f"to be requested at {until:%Y-%m-%d %H:%M} UTC, {because}"
        case Keep(until):
            return f"to be renewed on {until:%Y-%m-%d}"


def _how_long(understood: Understood, issuer: Issuer) -> Iterator[str]:
    """When the last one can be there, where an issuer doesn't take all orders at once."""
    known, now = rates(issuer.directory_url), utc_now()
    if known is None:
        return
    try:
        found = standings(understood.plan.certificates, understood.home.store, now)
        wanted = {one.certificate for one in found if one.bundle is None}
        account = find_account(understood.home.store, issuer)
        limits = (account.limits.load() if account else None) or Limits()
    except (ConfigError, StateError):  # it is told where it matters
        return
    queue = [Ask(each.identity[1]) for each in wanted if each.issuer == issuer]
    expected = forecast(queue, limits.believable(known, now)[0], known, now)
    if expected.last > now:
        yield ""
        yield (
            f"{issuer.name} takes {known.account.orders} orders at once and then one every"
            f" {known.account.seconds:g} s; {len(queue)} certificates will be there by"
            f" {expected.last:%Y-%m-%d %H:%M} UTC"
        )
    for name, (number, last) in expected.crowded.items():
        yield (
            f"    {number} of them are for names below {name}, which takes until"
            f" {last:%Y-%m-%d}; one for *.{name} would do, by a dns-01 challenge"
        )


def _diff(understood: Understood) -> Iterator[str]:
    """The changed files against the user's, as a start would make them."""
    places = foresee(understood.plan, understood.home.store)
    layout = places.layout(understood.plan.added, understood.home.instance.public)
    files = generate(understood.source, understood.plan, layout)
    for path, text in files.items():
        yield from difflib.unified_diff(
            understood.source.files[path].text.split("\n"),
            text.split("\n"),
            path,
            f"{path} (generated)",
            lineterm="",
        )
