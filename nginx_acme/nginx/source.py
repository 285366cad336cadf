r"""Configuration files to a frozen tree of directives with exact places, read as nginx reads them.

What may live here: how text becomes directives, and how `include` joins files. What a directive
means is for others to know; files and folders are read through functions that are given.

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
from bisect import bisect_left, insort
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from nginx_acme.encoding import to_bytes, to_text
from nginx_acme.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence

OPAQUE = frozenset(
    {
        "charset_map",
        "geo",
        "geoip2",  # ngx_http_geoip2_module
        "map",
        "match",  # health checks of nginx Plus and Angie
        "split_clients",
        "types",
        "user_agent",  # Tengine
    }
)
"""Blocks whose entries are data, not directives, although they are written alike.

``types { acme acme; }`` has no directive `acme`. So nobody looks into these blocks, and what
they include is left to nginx.
"""

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

WORD = 2
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


@dataclass(frozen=True)
class SourceFile:
    """One file. No slots, for the index of its lines is made when the first line is asked for."""

    path: str
    text: str
    directives: tuple[Directive, ...]

    def line_at(self, offset: int) -> int:
        """The number of the line that has the character at `offset`, from 1."""
        return bisect_left(self._newlines, offset) + 1

    @cached_property
    def _newlines(self) -> tuple[int, ...]:
        return tuple(match.start() for match in re.finditer("\n", self.text))


@dataclass(frozen=True, slots=True)
class Include:
    """What an `include` stands for.

    `pattern` is its argument as nginx completes it, relative to the folder of the main file;
    `paths` are the files, in nginx's order.
    """

    pattern: str
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file."""

    path: str
    line: int

    def __str__(self) -> str:
        """As nginx writes it."""
        return f"{self.path}:{self.line}"


@dataclass(frozen=True, slots=True)
class Source:
    """A configuration: the main file and everything that it includes.

    `main` is the absolute path of the main file, `files` are in the order in which nginx first
    opens them, `includes` has each `include` that nginx follows by its file and `start`.
    """

    main: str
    files: Mapping[str, SourceFile]
    includes: Mapping[tuple[str, int], Include]

    @property
    def folder(self) -> str:
        """The folder of the main file, without a slash at its end; there relative includes begin."""
        return self.main.rpartition("/")[0] or "/"

    @property
    def texts(self) -> dict[str, str]:
        """The text of each file by its path."""
        return {path: file.text for path, file in self.files.items()}

    @property
    def listed(self) -> frozenset[str]:
        """The folders that are searched for files to include, as far as one pattern names one."""
        patterns = [one.pattern for one in self.includes.values() if is_pattern(one.pattern)]
        folders = (pattern.rpartition("/")[0] for pattern in patterns)
        return frozenset(folder for folder in folders if not is_pattern(folder))

    def expand(self, block: Iterable[Directive]) -> Iterator[Directive]:
        """The directives of `block`, with the directives of the files in place of an `include`."""
        return self._expanded(block, self.files)

    def _expanded(self, block: Iterable[Directive], files: Container[str]) -> Iterator[Directive]:
        """The same, but of no others than these files."""
        unfinished = [iter(block)]
        while unfinished:
            for directive in unfinished[-1]:
                include = self._include(directive)
                if include is not None:
                    unfinished.append(self._included(include, files))
                    break
                yield directive
            else:
                unfinished.pop()

    def walk(self, word: str = "") -> Iterator[tuple[Directive, tuple[Directive, ...]]]:
        """Every directive after includes, in nginx's order, with its ancestors, outermost first.

        A directive of a file that is included twice comes twice. Entries of opaque blocks are no
        directives.

        Args:
            word: blocks and files that surely don't have it in their text are left out.
        """
        having = _Having(self, word)
        ancestors: tuple[Directive, ...] = ()
        unfinished = [self._expanded(self.files[self.main].directives, having.files)]
        while unfinished:
            for directive in unfinished[-1]:
                yield directive, ancestors
                if directive.block and directive.name not in OPAQUE and having.block(directive):
                    ancestors = (*ancestors, directive)
                    unfinished.append(self._expanded(directive.block, having.files))
                    break
            else:
                unfinished.pop()
                ancestors = ancestors[:-1]

    def place(self, directive: Directive) -> Place:
        """Where nginx says that a directive is: the line of the ``;`` or ``{`` after its words."""
        end = directive.end if directive.block is None else directive.opens
        return Place(directive.path, self.files[directive.path].line_at(end - 1))

    def _include(self, directive: Directive) -> Include | None:
        if directive.name != "include":
            return None
        return self.includes.get((directive.path, directive.start))

    def _included(self, include: Include, files: Container[str]) -> Iterator[Directive]:
        return chain.from_iterable(
            self.files[path].directives for path in include.paths if path in files
        )


class _Having:
    """Where a word may be found: in which files, themselves or what they include, and blocks.

    To find a text is a hundred times as fast as to go through its directives; of ten thousand
    servers a few may have the word.
    """

    def __init__(self, source: Source, word: str) -> None:
        self._source = source
        self._word = word
        self.files = {path for path, file in source.files.items() if word in file.text}
        self._ways: dict[str, list[int]] = {}
        """Where each file includes one of those."""
        found = -1
        while found != len(self.files):
            found = len(self.files)
            for (path, _), include in source.includes.items():
                if not self.files.isdisjoint(include.paths):
                    self.files.add(path)
        for (path, start), include in source.includes.items():
            if not self.files.isdisjoint(include.paths):
                insort(self._ways.setdefault(path, []), start)

    def block(self, directive: Directive) -> bool:
        """Whether the block of a directive may have it."""
        path, begin, end = directive.path, directive.opens, directive.end
        end = sys.maxsize if end == UNFINISHED else end
        if self._source.files[path].text.find(self._word, begin, end) >= 0:
            return True
        ways = self._ways.get(path, ())
        place = bisect_left(ways, begin)
        return place < len(ways) and ways[place] < end


class Unreadable(ConfigError):
    """A configuration with a mistake of the kinds that are found here; `source` is all but that.

    A file ends before its mistake there, a block that is not ended with it has `UNFINISHED` as its
    end, and a file that can't be opened is empty; `unopened` has its mistake by its path. So
    nothing of it may be served. nginx, which goes directive by directive, may find another mistake
    before this one.
    """

    def __init__(
        self, mistake: ConfigError, source: Source, unopened: Mapping[str, ConfigError]
    ) -> None:
        super().__init__(mistake.message, mistake.path, mistake.line)
        self.source = source
        self.unopened = unopened


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
                start = token.start(WORD)
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
    word = token[WORD] or ""
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


def read_source(
    main: str, read: Callable[[str], bytes], glob: Callable[[str], Sequence[str]]
) -> Source:
    """Read a configuration: the main file and all that it includes, each file once.

    Args:
        main: the absolute path of the main file, as nginx would be given it.
        read: the bytes of a file; OSError where nginx can't read it.
        glob: the paths that match a pattern, in the order of glob(3); none is no mistake.

    Raises:
        Unreadable: what nginx would say, if it has found no other mistake before.
        ConfigError: the same, where nothing is left to read: without a place if it is the main
            file that can't be opened. Two things are said better: in a loop of includes nginx dies
            of a full stack or of too many open files, and of an included folder it does not tell
            where.
    """
    reading = _Reading(main, read, glob)
    reading.run()
    source = Source(main, reading.files, reading.includes)
    if reading.mistakes:
        raise Unreadable(reading.mistakes[0], source, reading.unopened)
    return source


class _Reading:
    """Reads each file once, in the order in which nginx first opens them: depth first.

    Of a mistake only a loop of includes ends it.
    """

    def __init__(
        self, main: str, read: Callable[[str], bytes], glob: Callable[[str], Sequence[str]]
    ) -> None:
        self.files: dict[str, SourceFile] = {}
        self.includes: dict[tuple[str, int], Include] = {}
        self.mistakes: list[ConfigError] = []
        self.unopened: dict[str, ConfigError] = {}
        self._main = main
        self._read = read
        self._glob = glob

    def run(self) -> None:
        unfinished = {self._main: self._inclusions(self._open(self._main, None))}
        while unfinished:
            inner, inclusions = next(reversed(unfinished.items()))
            inclusion = next(inclusions, None)
            if inclusion is None:
                del unfinished[inner]
                continue
            path, directive = inclusion
            if path in unfinished:
                raise self._error(f'include loop: "{path}" includes itself', directive)
            if path not in self.files:
                unfinished[path] = self._inclusions(self._open(path, directive))

    def _open(self, path: str, directive: Directive | None) -> SourceFile:
        """Read and parse a file that `directive` includes; None for the main file."""
        try:
            text = to_text(self._read(path))
        except OSError as error:
            call = "pread" if isinstance(error, IsADirectoryError) else "open"
            message = f'{call}() "{path}" failed ({error.errno}: {error.strerror})'
            if directive is None:
                raise ConfigError(message) from error
            self.unopened[path] = self._error(message, directive)
            self.mistakes.append(self.unopened[path])
            text = ""
        directives, mistake = parse_until_mistake(text, path)
        if mistake is not None:
            self.mistakes.append(mistake)
        file = self.files[path] = SourceFile(path, text, directives)
        return file

    def _inclusions(self, file: SourceFile) -> Iterator[tuple[str, Directive]]:
        """Each path that a file includes, with the directive that does it."""
        for directive in _visible(file.directives):
            if directive.name == "include":
                try:
                    include = self._include(directive)
                except ConfigError as mistake:
                    self.mistakes.append(mistake)
                    continue
                self.includes[file.path, directive.start] = include
                for path in include.paths:
                    yield path, directive

    def _include(self, directive: Directive) -> Include:
        if directive.block is not None:
            raise self._error('directive "include" is not terminated by ";"', directive)
        if len(directive.args) != 1:
            raise self._error('invalid number of arguments in "include" directive', directive)
        pattern = _full_name(self._main, directive.args[0])
        return Include(pattern, tuple(self._glob(pattern)) if is_pattern(pattern) else (pattern,))

    def _error(self, message: str, directive: Directive) -> ConfigError:
        place = Source(self._main, self.files, self.includes).place(directive)
        return ConfigError(message, place.path, place.line)


def is_pattern(path: str) -> bool:
    """Whether nginx looks for the files that match it, in place of one that is called so."""
    return any(character in path for character in "*?[")


def _full_name(main: str, name: str) -> str:
    """The path of an included file: relative to the folder of the main file.

    Never to that of the file that includes it. It ends at a NUL, for it is a C string.
    """
    path = name if name.startswith("/") else f"{main.rpartition('/')[0]}/{name}"
    return path.partition("\0")[0]


def _visible(directives: Iterable[Directive]) -> Iterator[Directive]:
    """The directives of a file in order, those of its blocks too, without opaque blocks' entries."""
    unfinished = [iter(directives)]
    while unfinished:
        for directive in unfinished[-1]:
            yield directive
            if directive.block and directive.name not in OPAQUE:
                unfinished.append(iter(directive.block))
                break
        else:
            unfinished.pop()
