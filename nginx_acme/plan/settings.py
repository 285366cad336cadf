"""The directives that are said once in a configuration, as values."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nginx_acme import directives
from nginx_acme.directives import Mistake

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nginx_acme.plan.said import Said

DEFAULT_START_WAIT = 15.0

_REFUSED_IN_PATHS = frozenset("$*?[ \t\r\n")


@dataclass(frozen=True, slots=True)
class Settings:
    """None where the configuration says nothing; times in seconds, paths absolute."""

    state_path: str | None = None
    start_wait: float = DEFAULT_START_WAIT
    redirect: bool = True
    answer_any: bool = False
    """Whether every well-formed token is answered, not only those of open challenges."""
    agent: bool = True
    """Whether a process stays beside nginx and renews."""
    issue: bool = True
    """Whether this node asks CAs at all."""
    hooks: tuple[Hook, ...] = ()


@dataclass(frozen=True, slots=True)
class Hook:
    """A program of the operator's (an absolute path), and the event that it is told of."""

    event: str
    program: str


def read_settings(said: Said) -> Settings:
    """What the configuration says once, or the defaults; hooks as often as they are said."""
    values: dict[str, Any] = {}
    for name, (field, read) in _ONCE.items():
        directive = said.once(name)
        if directive is not None:
            with said.at(directive):
                values[field] = read(directive.args[0], said.source.folder)
    hooks: dict[Hook, None] = {}
    for directive in said.named.get("acme_hook", ()):
        with said.at(directive):
            event, program = directive.args
            hook = Hook(directives.hook_event(event), posixpath.join(said.source.folder, program))
            if hook in hooks:
                raise Mistake(f'duplicate hook "{program}" for "{event}"')
            hooks[hook] = None
    return Settings(**values, hooks=tuple(hooks))


def refused_in_state_path(path: str) -> str | None:
    """A character that it can't have: nginx takes `$` for a variable, `*?[` for a pattern."""
    return next(iter(sorted(_REFUSED_IN_PATHS & set(path))), None)


def _state_path(value: str, folder: str) -> str:
    path = posixpath.join(folder, value)
    if refused := refused_in_state_path(path):
        raise Mistake(f'invalid "acme_state_path" "{path}", it can\'t have "{refused}" in it')
    return posixpath.normpath(path)


def _flag(name: str) -> Callable[[str, str], bool]:
    return lambda value, _: directives.flag(name, value)


_ONCE: Mapping[str, tuple[str, Callable[[str, str], Any]]] = {
    "acme_state_path": ("state_path", _state_path),
    "acme_start_wait": ("start_wait", lambda value, _: directives.seconds(value)),
    "acme_redirect": ("redirect", _flag("acme_redirect")),
    "acme_challenge_answer": ("answer_any", lambda value, _: directives.answers_any(value)),
    "acme_agent": ("agent", _flag("acme_agent")),
    "acme_issue": ("issue", _flag("acme_issue")),
}
"""The field of each directive, and what makes its value of the argument and the main folder."""
