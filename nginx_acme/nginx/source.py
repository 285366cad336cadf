"""A configuration: its files, each read once, and how `include` joins them, as nginx does it.

What may live here: the way through the directives of all files. How a text becomes directives is
`syntax`'s; files and folders are read through functions that are given.

Nothing here recurses, so no chain of includes is too long.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

from nginx_acme.encoding import to_text
from nginx_acme.errors import ConfigError
from nginx_acme.nginx.syntax import UNFINISHED, parse_until_mistake

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence

    from nginx_acme.nginx.syntax import Directive

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
        """Where each file includes one of those, in their order."""
        found = -1
        while found != len(self.files):
            found = len(self.files)
            # From the last: a file's own includes come after the one that it was opened for.
            for (path, _), include in reversed([*source.includes.items()]):
                if not self.files.isdisjoint(include.paths):
                    self.files.add(path)
        for (path, start), include in source.includes.items():
            if not self.files.isdisjoint(include.paths):
                self._ways.setdefault(path, []).append(start)

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
            message = failure(path, error)
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


def failure(path: str, error: OSError) -> str:
    """What nginx says of a file that it can't read."""
    call = "pread" if isinstance(error, IsADirectoryError) else "open"
    return f'{call}() "{path}" failed ({error.errno}: {error.strerror})'


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
