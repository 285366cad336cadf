"""Text with replacements: what is replaced changes, everything else stays byte for byte.

What may live here: how to write, and how to change, the language that `syntax` reads. Nothing
here knows what a directive means.

The obvious design, to build the text anew from the tree, was tried first with crossplane: it lost
comments, quotes and bytes that it did not understand, and every line that nginx then complained
of was one that the admin had never written. So only the text of single directives is replaced,
and no replacement may change the number of lines.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from nginx_acme.nginx.source import is_pattern
from nginx_acme.nginx.syntax import TOKEN, WORD_GROUP

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nginx_acme.nginx.syntax import Directive

_BARE = re.compile(r"""[^ \t\r\n;{}"'#\\]*[^ \t\r\n;{}"'#\\$]""")
_SPECIAL = re.compile(r"[*?\[\\]")
_ESCAPES = str.maketrans({'"': '\\"', "\\": "\\\\", "\t": "\\t", "\r": "\\r", "\n": "\\n"})


class Replacement(NamedTuple):
    """`text` in place of what stands from `start` to before `end`; an insertion if they are equal."""

    start: int
    end: int
    text: str


def apply(text: str, replacements: Iterable[Replacement]) -> str:
    """`text` with all the replacements; insertions at one offset keep their order.

    Raises:
        ValueError: two of them overlap, one lies outside of the text, or one would change the
            number of lines: nginx's messages about the new text would name wrong lines of the old.
    """
    pieces: list[str] = []
    done = 0
    for start, end, new in sorted(replacements, key=lambda r: (r.start, r.end)):
        if not done <= start <= end <= len(text):
            raise ValueError(f"replacement of {start} to {end} overlaps or lies outside")
        if new.count("\n") != text.count("\n", start, end):
            raise ValueError(f"replacement of {start} to {end} changes the number of lines")
        pieces += (text[done:start], new)
        done = end
    return "".join((*pieces, text[done:]))


def blank(text: str, start: int, end: int) -> Replacement:
    """What removes the text from `start` to before `end`: spaces; line ends and tabs stay."""
    return Replacement(start, end, re.sub(r"[^\t\r\n]", " ", text[start:end]))


def quote(argument: str) -> str:
    """A word that nginx reads as exactly this argument, on one line, bare where that is safe.

    Safe means in front of white space, ``;``, ``{`` and ``)``, so no bare word ends with ``$``.
    """
    if _BARE.fullmatch(argument):
        return argument
    return f'"{argument.translate(_ESCAPES)}"'


def exactly(path: str) -> str:
    """What an `include` has to say for the file at this path and no other one."""
    return _SPECIAL.sub(r"\\\g<0>", path) if is_pattern(path) else path


def argument_spans(text: str, directive: Directive) -> tuple[tuple[int, int], ...]:
    """Where the name and each argument of a directive of `text` stand, with their quotes.

    Pairs of the offset of the first character and the offset after the last.
    """
    spans: list[tuple[int, int]] = []
    offset = directive.start
    while (token := TOKEN.match(text, offset)) and token[WORD_GROUP]:
        offset = token.end()
        spans.append((token.start(WORD_GROUP), offset))
    return tuple(spans)
