"""Whole configurations, read by nginx and by the reader: the same files, blocks and mistakes.

What nginx makes of the words of one text is the matter of `test_syntax`. Here it is which files it
opens, which directive belongs to which block, through files that are included in several of them,
and what it says of a slip of the hand in any of these files.
"""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

from hypothesis import event, given
from hypothesis import strategies as st

from nginx_acme.encoding import to_bytes
from nginx_acme.errors import ConfigError
from nginx_acme.nginx.files import glob_files, read_bytes
from nginx_acme.nginx.source import Source, Unreadable, _Reading, read_source
from tests.nginx.oracle import SETTINGS
from tests.nginx.writer import Writer, examples

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from nginx_acme.nginx.syntax import Directive
    from tests.nginx.oracle import Oracle

VALUES = (
    "a",
    "a b",
    "};{",
    "#x",
    "\"'",
    "\\",
    "\\\\",
    "\xe9",
    "\udce9",
    "\xa0",
    "a}b",
    ")",
    "/~^*",
)
SHARED = ("all/1", "all/2.x", "all/10.x", "all/\xe9.x", "all/\udce9.x", "all/sub/x")
"""Files that may be included anywhere."""
LOCAL = ("local/1", "local/2")
"""Files that may be included in a location."""
SERVERS = ("one", "two")
URIS = ("/1", "/1?i=1", "/1?i=2", "/2", "/2?i=1", "/2?i=2", "/3/", "/3/4/", "/5")

SYNTAX = re.compile(
    r"unexpected |too long parameter|open\(\) |pread\(\) "
    r'|invalid number of arguments in "include"|directive "include" is not'
)
"""What nginx says of the mistakes that the reader knows."""


class Configuration:
    """Draws the files of a configuration that listens on a socket."""

    def __init__(self, draw: st.DrawFn, folder: str, socket: str) -> None:
        self._writer = Writer(draw)
        self._folder = folder
        self._socket = socket
        self._count = 0

    def files(self) -> dict[str, str]:
        """Their texts by name."""
        writer = self._writer
        servers = [self._server(name) for name in SERVERS]
        http = writer.block("http", inside=[SETTINGS, *self._headers(), *servers, *self._headers()])
        files = {"nginx.conf": writer.file([writer.block("events", inside=[]), http])}
        files |= {name: writer.file(self._shared(later)) for name, later in _with_later(SHARED)}
        files |= {name: writer.file(self._local(later)) for name, later in _with_later(LOCAL)}
        for _ in range(writer.number(0, 2)):
            files = writer.slip(files)
        return files

    def _server(self, name: str) -> str:
        writer = self._writer
        said = [
            writer.directive("server_name", name),
            writer.directive("listen", f"unix:{self._socket}"),
        ]
        inner = writer.block("location", "/3/4/", inside=[*self._local(LOCAL), self._answer()])
        locations = [
            writer.block("location", "=", "/1", inside=[*self._local(LOCAL), self._answer()]),
            writer.block("location", "/2", inside=[*self._local(LOCAL), self._answer()]),
            writer.block("location", "/3/", inside=[*self._shared(SHARED), inner, self._answer()]),
        ]
        return writer.block("server", inside=[*said, *self._shared(SHARED), *locations])

    def _answer(self) -> str:
        return self._writer.directive("return", "204")

    def _headers(self) -> Iterator[str]:
        for _ in range(self._writer.number(0, 2)):
            self._count += 1
            value = self._writer.pick(VALUES)
            yield self._writer.directive("add_header", f"X{self._count}", value, "always")

    def _shared(self, later: tuple[str, ...]) -> Iterator[str]:
        """What may stand anywhere, with files from `later`."""
        yield from self._headers()
        writer = self._writer
        for _ in range(writer.number(0, 1)):
            name = writer.pick(["none/*", *self._named(later)])
            yield writer.directive("include", name)
        yield from self._headers()

    def _named(self, later: tuple[str, ...]) -> list[str]:
        """Names and patterns of these files and no other one of the folder."""
        patterns = ["all/*.x", "all/?.x", "all/[1-9]*x", "all/[^/]?*.*"] if later == SHARED else []
        return [*later, *patterns, *(f"{self._folder}/{name}" for name in (*later, *patterns))]

    def _local(self, later: tuple[str, ...]) -> Iterator[str]:
        """What may stand in a location."""
        yield from self._shared(SHARED)
        writer = self._writer
        if writer.number(0, 1):
            condition = ("if", "($arg_i", "=", f"{writer.number(1, 2)})")
            inside = [*self._shared(SHARED), self._answer()]
            # No word of a condition is in quotes, for nginx looks for its parentheses.
            yield f"{' '.join(condition)}{{{writer.file(inside)}}}"
        if later and writer.number(0, 1):
            yield writer.directive("include", writer.pick(later))


def _with_later(names: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each name with those after it: what a file may include without a loop."""
    for number, name in enumerate(names):
        yield name, names[number + 1 :]


# What nginx is expected to say, by what the reader read ----------------------------------------


class Expected:
    """The answers of an nginx that has read a configuration as the reader has."""

    def __init__(self, source: Source) -> None:
        self._source = source
        main = source.files[source.main].directives
        self._http = [d for d in source.expand(main) if d.name == "http"]

    def can_be_asked(self, address: str) -> bool:
        """Whether it is safe and of use to start it: a slip may have changed what it does."""
        return all(
            [d.args for d in self._inside(server, "listen")] == [(f"unix:{address}",)]
            and not any(self._inside(server, "return", "if"))
            for server in self._servers()
        )

    def headers(self, host: str, uri: str) -> bytes:
        """The header lines in the answer to a request."""
        servers = list(self._servers())
        named = (s for s in servers if any(host in d.args for d in self._inside(s, "server_name")))
        blocks = [*self._http[:1], next(named, servers[0])]
        path, _, query = uri.partition("?i=")
        while (location := self._location(blocks[-1], path)) is not None:
            blocks.append(location)
        if query:
            condition = ("($arg_i", "=", f"{query})")
            ifs = (d for d in self._inside(blocks[-1], "if") if d.args == condition)
            blocks += [d for d in [next(ifs, None)] if d is not None]
        found = any(self._inside(blocks[-1], "return"))
        said = ([*self._inside(block, "add_header")] for block in reversed(blocks))
        lines = (
            f"{d.args[0]}: {d.args[1]}\r\n"
            for d in next(filter(None, said), [])
            if d.args[1] and (found or len(d.args) > 2)
        )
        return "".join(lines).encode("utf-8", "surrogateescape")

    def _inside(self, block: Directive, *names: str) -> Iterator[Directive]:
        return (d for d in self._source.expand(block.block or ()) if d.name in names)

    def _servers(self) -> Iterator[Directive]:
        for http in self._http:
            yield from self._inside(http, "server")

    def _location(self, block: Directive, path: str) -> Directive | None:
        found = {d.args: d for d in self._inside(block, "location")}
        exact = found.get(("=", path))
        prefixes = [args[0] for args in found if len(args) == 1 and path.startswith(args[0])]
        return exact or (found[max(prefixes, key=len),] if prefixes else None)


@examples(40)
@given(data=st.data())
def test_any_configuration(oracle: Oracle, data: st.DataObject) -> None:
    """Nginx opens the same files, has the same directives in each block, or says the same no."""
    files = data.draw(configurations(str(oracle.folder), oracle.address))
    for name, text in files.items():
        oracle.write(name, text)
    main = f"{oracle.folder}/nginx.conf"
    reading = _Reading(main, read_bytes, glob_files)
    try:
        reading.run()
    except ConfigError:
        event("a loop of includes")  # of which nginx dies
        return
    dump, complaint = oracle.dump(main)
    mistakes = [str(mistake).replace(f"{oracle.folder}/", "") for mistake in reading.mistakes]
    source = Source(main, reading.files, reading.includes)
    if mistakes:
        event("unreadable")
        assert complaint is not None
        if complaint.startswith("pread()"):  # of a folder, and it doesn't say who includes that
            mistakes = [mistake.rpartition(" in ")[0] for mistake in mistakes]
        assert complaint in mistakes or not SYNTAX.match(complaint)
        return
    if complaint is not None:
        event("refused")
        assert not SYNTAX.match(complaint)
        return
    read = {path: f.text.encode("utf-8", "surrogateescape") for path, f in source.files.items()}
    assert list(dump.items()) == list(read.items())
    expected = Expected(source)
    event("accepted")
    if expected.can_be_asked(oracle.address):
        event("asked")
        requests = [(host, uri) for host in SERVERS for uri in URIS]
        answers = oracle.headers(main, requests)
        assert answers == [expected.headers(*request) for request in requests]


@st.composite
def configurations(draw: st.DrawFn, folder: str, socket: str) -> dict[str, str]:
    """The files of one, some with a slip in them."""
    return Configuration(draw, folder, socket).files()


# Without nginx ----------------------------------------------------------------------------------


@examples(100)
@given(data=st.data(), files=configurations("", "/socket"))
def test_any_word(data: st.DataObject, files: Mapping[str, str]) -> None:
    """Who walks to a word alone meets each directive that has it, where it stands among the others."""
    included = "".join(text for name, text in files.items() if name != "nginx.conf")
    word = data.draw(st.sampled_from(["if", *sorted(set(re.findall(r"X\d+", included)))]))
    try:
        source = read({f"/{name}": text for name, text in files.items()})
    except ConfigError:
        event("a loop of includes")
        return
    everything, found = (
        [(d, ancestors) for d, ancestors in walk if word in (d.name, *d.args)]
        for walk in (source.walk(), source.walk(word))
    )
    event(f"found: {bool(found)}")
    assert found == everything


def read(files: Mapping[str, str]) -> Source:
    """What can be read of them; for patterns any rules do."""

    def content(path: str) -> bytes:
        if path not in files:
            raise FileNotFoundError(2, "No such file or directory", path)
        return to_bytes(files[path])

    def matches(pattern: str) -> list[str]:
        return fnmatch.filter(files, pattern)

    try:
        return read_source("/nginx.conf", content, matches)
    except Unreadable as mistake:
        return mistake.source
