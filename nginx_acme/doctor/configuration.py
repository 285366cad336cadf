"""Is the configuration one that nginx takes, and one whose challenges nothing hides?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nginx_acme.configtest import in_scratch
from nginx_acme.directives import hint
from nginx_acme.doctor.finding import Finding, fine, odd, wrong
from nginx_acme.draft import test
from nginx_acme.log import level_of
from nginx_acme.nginx.servers import by_name
from nginx_acme.plan.certificates import default_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nginx_acme.nginx.syntax import Directive
    from nginx_acme.understanding import Understood

UNDERSTOOD = "configuration.understood"
ACCEPTED = "configuration.accepted"
WARNING = "configuration.warning"
HIDDEN = "configuration.hidden"
CIPHERS = "configuration.ciphers"

_BEFORE_US = ("server_rewrite_by_lua_block", "server_rewrite_by_lua_file", "server_rewrite_by_lua")
"""They run before the line that answers challenges; everything else comes after it."""
_CHANGING = ("sub_filter", "add_before_body", "add_after_body")
"""They may change what it answers."""


def judge_mistake(main: str, mistake: str) -> Finding:
    """A configuration that can't be understood."""
    return wrong(UNDERSTOOD, main, mistake, "put that right; until then only what runs is examined")


def judge(understood: Understood) -> Iterator[Finding]:
    """What nginx says of what is generated from it, and what we know better.

    Raises:
        StateError: there is no folder to try it in.
    """
    main, plan = understood.home.main, understood.plan
    count = len(plan.certificates)
    words = f"is understood, {count} certificate{'s' * (count != 1)} wanted"
    yield fine(UNDERSTOOD, main, words)
    for message, place in plan.warnings:
        yield odd(WARNING, str(place or main), message)
    yield from _accepted(understood)
    yield from _hidden(understood)
    yield from _unused_keys(understood)


def _accepted(understood: Understood) -> Iterator[Finding]:
    launch, main = understood.launch, understood.home.main
    with in_scratch(understood) as written:
        said = test(launch, launch.command, written)
    lines = [told[1] for line in said.lines if (told := level_of(hint(line))) is not None]
    if not said.ok:
        *others, last = lines or [f"exit code {said.returncode}"]
        yield wrong(ACCEPTED, main, f"nginx refuses it: {last}", "put that right")
        lines = others
    else:
        yield fine(ACCEPTED, main, "nginx accepts it")
    for line in lines:
        yield odd(ACCEPTED, main, f"nginx says: {line}")


def _hidden(understood: Understood) -> Iterator[Finding]:
    """What stands between a challenge and its answer, in servers that a CA may be sent to."""
    for place, directive in _met_by_challenges(understood).items():
        if directive.name in _BEFORE_US:
            yield odd(
                HIDDEN,
                place,
                f'code of "{directive.name}" runs before challenges are answered',
                "let it pass /.well-known/acme-challenge/",
            )
        else:
            yield odd(HIDDEN, place, f'"{directive.name}" may change the answer to a challenge')


def _met_by_challenges(understood: Understood) -> dict[str, Directive]:
    """Such directives by their place."""
    source, plan = understood.source, understood.plan
    servers = list(plan.answering)
    found = [d for s in servers for name in (*_BEFORE_US, *_CHANGING) for d in s.inherited(name)]
    if plan.added:  # our own server inherits what http says
        for http in source.expand(source.files[source.main].directives):
            if http.name == "http" and http.block is not None:
                outer = by_name(source.expand(http.block))
                found += [d for name in (*_BEFORE_US, *_CHANGING) for d in outer.get(name, ())]
    return {str(source.place(directive)): directive for directive in found}


def _unused_keys(understood: Understood) -> Iterator[Finding]:
    """A key that no suite of the server's can use: TLS 1.2 clients can't connect."""
    for managed in understood.plan.managed:
        needed = default_key(managed.server)
        if needed.startswith("rsa") and not any(k.startswith("rsa") for k in managed.key_types):
            yield odd(
                CIPHERS,
                str(understood.source.place(managed.server.block)),
                f"ssl_ciphers has no suite for {', '.join(managed.key_types)}, TLS 1.2 can't be used",
                f'"acme key={needed};", or allow ECDSA suites',
            )
