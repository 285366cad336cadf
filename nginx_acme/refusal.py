"""Why nginx refuses a configuration that can't be read to its end.

nginx stops at the first mistake of any kind, directive by directive; the reader here goes file by
file, and knows the mistakes that keep it from reading. Where a server's brace is missing it could
only say that the file ends too early, and nginx says which `server` is not allowed in which line.
So nginx is asked, with the files as they are but for our directives.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nginx_acme import generation
from nginx_acme.directives import OUR_WORD, RULES, hint
from nginx_acme.errors import ConfigError, NginxRejected, StateError
from nginx_acme.generate import Layout, generate
from nginx_acme.nginx.source import Source, SourceFile
from nginx_acme.nginx.syntax import UNFINISHED
from nginx_acme.plan import Facts, make_plan
from nginx_acme.plan.said import is_variable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from nginx_acme.errors import NginxAcmeError
    from nginx_acme.generation import Generation
    from nginx_acme.judgement import Judgement
    from nginx_acme.nginx.source import Unreadable
    from nginx_acme.nginx.syntax import Directive
    from nginx_acme.plan import Plan

_NOT_TOLD = (
    'no "ssl_certificate" is defined',
    *(f'unknown directive "{name}"' for name in RULES),
)
"""What nginx would not say of the whole configuration, with what is ours in it."""


def refusal(
    mistake: Unreadable, folder: str, state: str, test: Callable[[Generation], Judgement]
) -> NginxAcmeError:
    """What nginx says of a configuration with a mistake; that mistake, if it says nothing.

    Args:
        mistake: what has been found in reading, with all that could be read.
        folder: a private one, to write a generation into.
        state: the state directory.
        test: what nginx says of a generation.
    """
    source = mistake.source
    plan = replace(_nothing(), ours=tuple(_ours(source)))
    files = source.texts | generate(source, plan, Layout(lambda *_: "", (), (), ""))
    there = {path: text for path, text in files.items() if path not in mistake.unopened}
    try:
        written = generation.write(folder, source.main, there, listed=source.listed, exclude=state)
        said = test(written)
    except (ConfigError, StateError):
        return mistake
    if said.ok or any(words in line for words in _NOT_TOLD for line in said.lines):
        return mistake
    return NginxRejected(tuple(hint(_opened(line, mistake.unopened)) for line in said.messages))


def _opened(line: str, unopened: Mapping[str, ConfigError]) -> str:
    """The line with the reason for which a file can't be opened where the user has it."""
    for path, error in unopened.items():
        before, call, rest = line.partition("] ")
        if rest.startswith((f'open() "{path}"', f'pread() "{path}"')):
            return f"{before}{call}{error}"
    return line


def _nothing() -> Plan:
    """What follows from a configuration without a word."""
    return make_plan(Source("/", {"/": SourceFile("/", "", ())}, {}), Facts((), ""))


def _ours(source: Source) -> Iterator[Directive]:
    """Our directives that can be taken out; those inside of one go with it."""
    for directive, ancestors in source.walk(OUR_WORD):
        ours = directive.name in RULES or is_variable(directive)
        inside = any(outer.name in RULES for outer in ancestors)
        if ours and not inside and directive.end != UNFINISHED:
            yield directive
