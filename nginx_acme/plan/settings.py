"""The directives that are said once in a configuration, as values."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nginx_acme import directives
from nginx_acme.directives import Mistake

if TYPE_CHECKING:
    from nginx_acme.plan.said import Said

DEFAULT_START_WAIT = 15.0

_REFUSED_IN_PATHS = frozenset("$*?[ \t\r\n")


@dataclass(frozen=True, slots=True)
class Settings:
    """None where the configuration says nothing; times in seconds, paths absolute."""

    state_path: str | None = None
    start_wait: float = DEFAULT_START_WAIT
    redirect: bool = True


def read_settings(said: Said) -> Settings:
    """What the configuration says once, or the defaults."""
    state_path: str | None = None
    start_wait, redirect = DEFAULT_START_WAIT, True
    if directive := said.once("acme_state_path"):
        with said.at(directive):
            state_path = _state_path(posixpath.join(said.source.folder, directive.args[0]))
    if directive := said.once("acme_start_wait"):
        with said.at(directive):
            start_wait = directives.seconds(directive.args[0])
    if directive := said.once("acme_redirect"):
        with said.at(directive):
            redirect = directives.flag("acme_redirect", directive.args[0])
    return Settings(state_path, start_wait, redirect)


def refused_in_state_path(path: str) -> str | None:
    """A character that it can't have: nginx takes `$` for a variable, `*?[` for a pattern."""
    return next(iter(sorted(_REFUSED_IN_PATHS & set(path))), None)


def _state_path(path: str) -> str:
    if refused := refused_in_state_path(path):
        raise Mistake(f'invalid "acme_state_path" "{path}", it can\'t have "{refused}" in it')
    return posixpath.normpath(path)
