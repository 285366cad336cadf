r"""A configuration's text to directives with exact places, read as nginx reads it.

What may live here: how one text becomes directives. Where it comes from, and what it includes, is
`source`'s; what a directive means is for others to know.

Every word is found by one regular expression that follows `ngx_conf_read_token()` (nginx 1.22 to
1.31, src/core/ngx_conf_file.c), and every refusal is nginx's sentence with nginx's line:

- words are separated by space, tab, CR and LF, by nothing else that Unicode calls a space;
- ``#`` begins a comment only where a word may begin, and only LF ends it;
- a word that begins with a quote ends at the same quote, and then nginx wants white space,
  ``;``, ``{`` or ``)``; quotes further inside a word are letters;
- ``}`` ends a block only where a word may begin; ``{`` after ``$`` belongs to the word;
- a backslash takes the next character with it; of these pairs only ``\" \' \\ \t \r \n`` are
  replaced, in quotes or not;
- a word or a comment must fit in nginx's buffer of 4096 bytes.

The obvious design was tried first: crossplane's lexer. It glues ``${a} b`` together, ends a word
at any ``}``, takes a no-break space for a separator, accepts a block without its last ``;`` and
text right after a closing quote, knows no columns, and takes three to four times as long. Now it
is an oracle of the tests, for what it reads right.

Text is what `encoding` makes of the file's bytes; offsets are indexes into it. Nothing here recurses,
so no nesting is too deep.
"""

from __future__ import annotations

import re
import sys
from typing import NamedTuple

from nginx_acme.encoding import to_bytes, to_text
from nginx_acme.errors import ConfigError

UNFINISHED = -1
"""The end of a block that a mistake has kept from ending (`parse_until_mistake`)."""

_GAP = r"[ \t\r\n]*+(?:#[^\n]*+[ \t\r\n]*+)*"
_BARE = r"""(?!["'#}])(?:(?:[^ \t\r\n;{\\$]|\\.|\$\{*+)[^ \t\r\n;{\\$]*+)+"""
_QUOTED = r""""[^"\\]*+(?:\\.[^"\\]*+)*"|'[^'\\]*+(?:\\.[^'\\]*+)*'"""

TOKEN = re.compile(
    rf"{_GAP}(?:([;{{}}])|({_BARE}|(?:{_QUOTED})(?=[ \t\r\n;{{)]))|([\"'\\]))", re.DOTALL
)
"""What nginx reads next, after white space and comments, in one of three groups.

They are ``;``, ``{`` or ``}``; a word as it is written, with its quotes; the first character of a
word that nginx refuses or whose end is missing. Without a match nothing is left to read.
"""

WORD_GROUP = 2
"""The group of `TOKEN` that is a word."""

_COMMENT = re.compile(r"#[^\n]*+")
_CLOSED = re.compile(_QUOTED, re.DOTALL)
_ESCAPE = re.compile(r"""\\(["'\\trn])""")
_ESCAPED = {"t": "\t", "r": "\r", "n": "\n"}
_LUA = re.compile(
    r"""[{}]|(?:--)?\[(?P<level>=*)\[|--[^\n]*+|"(?:\\[^\n]|[^"\n\\])*"|'(?:\\[^\n]|[^'\n\\])*'"""
)

_END_IN_DIRECTIVE = 'unexpected end of file, expecting ";" or "}"'
_END_IN_BLOCK = 'unexpected end of file, expecting "}"'

_BUFFER = 4096
_SURELY_FITS = _BUFFER // 4
"""Characters; one of them has at most four bytes."""


class Directive(NamedTuple):
    """A directive, or an entry of an opaque block, as nginx sees it and where it is written.

    A tuple and no dataclass, for a hundred thousand of them are made in one start.
    """

    name: str
    args: tuple[str, ...]
    """Without quotes and escapes."""
    path: str
    """The file it stands in, as nginx opened it."""
    start: int
    """Offset of the first character of the name, its quote if it has one."""
    end: int
    """Offset after the ``;`` or ``}``; `UNFINISHED` in a text with a mistake."""
    opens: int
    """Offset after the ``{``; -1 without a block."""
    block: tuple[Directive, ...] | None
    """None without a block. A block of Lua code is empty."""


class _Open(NamedTuple):
    """A block whose ``}`` is still to come, with what is in it so far; the file is one, too."""

    words: list[str]
    start: int
    opens: int
    inside: list[Directive]


def parse(text: str, path: str) -> tuple[Directive, ...]:
    """The directives of a file's text; `path` is only repeated in them and in errors.

    Raises:
        ConfigError: what nginx says of such a text, and the line it says it of.
    """
    return _parse(text, path, [_Open([], 0, 0, [])])


def parse_until_mistake(text: str, path: str) -> tuple[tuple[Directive, ...], ConfigError | None]:
    """The same for a text that nginx may refuse: what comes before its mistake, and that."""
    unfinished = [_Open([], 0, 0, [])]
    try:
        return _parse(text, path, unfinished), None
    except ConfigError as mistake:
        while len(unfinished) > 1:
            words, start, opens, inside = unfinished.pop()
            block = (words[0], tuple(words[1:]), path, start, UNFINISHED, opens, tuple(inside))
            unfinished[-1].inside.append(Directive(*block))
        return tuple(unfinished[0].inside), mistake


def _parse(text: str, path: str, outer: list[_Open]) -> tuple[Directive, ...]:
    directives = outer[0].inside
    words: list[str] = []
    start = offset = 0
    block: tuple[Directive, ...] | None
    while token := TOKEN.match(text, offset):
        before, offset = offset, token.end()
        if offset - before > _SURELY_FITS:
            _check_room(text, path, before, token)
        mark, word, _ = token.groups()
        if word:
            if not words:
                start = token.start(WORD_GROUP)
            word = unquote(word) if "\\" in word or word[0] in "\"'" else word
            words.append(sys.intern(word))  # ten thousand servers say the same few words
            continue
        if mark == "}" and len(outer) > 1 and not words:
            block = tuple(directives)
            words, start, opens, _ = outer.pop()
            directives = outer[-1].inside
        elif not words or mark not in (";", "{"):
            raise _refusal(text, path, offset - 1)
        elif mark == ";":
            opens, block = -1, None
        elif words[0].endswith("_by_lua_block"):
            opens, block = offset, ()
            offset = _end_of_lua(text, path, offset)
        else:
            directives = []
            outer.append(_Open(words, start, offset, directives))
            words = []
            continue
        directives.append(Directive(words[0], tuple(words[1:]), path, start, offset, opens, block))
        words = []
    _check_comments(text, path, offset, len(text))
    if words or len(outer) > 1:
        message = _END_IN_DIRECTIVE if words else _END_IN_BLOCK
        raise _error(message, text, path, len(text))
    return tuple(directives)


def unquote(word: str) -> str:
    """The argument that nginx makes of a word as it is written."""
    if word[0] in "\"'":
        word = word[1:-1]
    return _ESCAPE.sub(lambda pair: _ESCAPED.get(pair[1], pair[1]), word)


def _end_of_lua(text: str, path: str, offset: int) -> int:
    """The offset after the ``}`` that ends the Lua code which begins at `offset`.

    Read as the Lua module reads it (lua-nginx-module, util/gen-lexer-c): braces count outside of
    strings, comments and long brackets, and a string does not go on in the next line.
    """
    depth, last = 1, offset
    while token := _LUA.search(text, offset):
        offset = token.end()
        if token["level"] is not None:
            offset = _end_of_long_bracket(text, path, token)
        elif token[0] == "{":
            depth, last = depth + 1, offset
        elif token[0] == "}":
            depth -= 1
            if not depth:
                return offset
    message = "unexpected end of file, expecting terminating characters for lua code block"
    raise _error(message, text, path, last)


def _end_of_long_bracket(text: str, path: str, opening: re.Match[str]) -> int:
    closing = f"]{opening['level']}]"
    found = text.find(closing, opening.end())
    if found < 0:
        message = (
            f'Lua code block missing the closing long bracket "{closing}", '
            "the inlined Lua code may be too long"
        )
        raise _error(message, text, path, opening.start())
    return found + len(closing)


def _refusal(text: str, path: str, offset: int) -> ConfigError:
    """What nginx says of the character at `offset`, which can't stand where it stands."""
    if text[offset] in ";{}":
        return _error(f'unexpected "{text[offset]}"', text, path, offset)
    quoted = _CLOSED.match(text, offset)
    end = quoted.end() if quoted else len(text)
    _check_length(text, path, offset, end)
    if end == len(text):
        return _error(_END_IN_DIRECTIVE, text, path, end)
    return _error(f'unexpected "{to_text(to_bytes(text[end])[:1])}"', text, path, end)


def _check_room(text: str, path: str, before: int, token: re.Match[str]) -> None:
    """Refuse a comment or a word that nginx's buffer can't hold."""
    word = token[WORD_GROUP] or ""
    end = token.end()
    _check_comments(text, path, before, end - len(word))
    if word:
        spaced = text.startswith((" ", "\t", "\r", "\n"), end)
        _check_length(text, path, end - len(word), end + spaced)


def _check_comments(text: str, path: str, start: int, end: int) -> None:
    for comment in _COMMENT.finditer(text, start, end):
        _check_length(text, path, comment.start(), comment.end())


def _check_length(text: str, path: str, start: int, end: int) -> None:
    """Refuse a word if its bytes, and the one at `end` where there is one, don't fit at once."""
    quote = text[start] if text[start] in "\"'" else ""
    held = to_bytes(text[start + len(quote) : end])
    if len(held) + (end < len(text)) <= _BUFFER:
        return
    if quote and not _CLOSED.match(quote + to_text(held[:_BUFFER])):
        message = f'too long parameter, probably missing terminating "{quote}" character'
    else:
        message = f'too long parameter "{to_text(held[:10])}..." started'
    raise _error(message, text, path, start)


def _error(message: str, text: str, path: str, offset: int) -> ConfigError:
    return ConfigError(message, path, text.count("\n", 0, offset) + 1)
