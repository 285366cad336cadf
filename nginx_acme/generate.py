"""A plan and the user's text become the text that nginx runs.

What may live here: which characters are put where. The user's files are copied byte for byte
with replacements at exact places, and never a line more or less, so that the line numbers in
nginx's messages are those of the user's own files.

Text goes in at braces and not where `acme` stands, because `acme;` may stand in a snippet that
several servers include. Everything for all servers goes in before the closing brace of `http`: a
server put first would become its address's default, and `map_hash_bucket_size` is refused as a
duplicate after the first `map`.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nginx_acme.nginx.edit import Replacement, apply, argument_spans, blank, exactly, quote
from nginx_acme.nginx.maps import key, sizes
from nginx_acme.nginx.paths import inside, may_be_unmirrored, unmirrored
from nginx_acme.nginx.source import is_pattern
from nginx_acme.plan.addresses import HTTPS_PORT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from nginx_acme.nginx.listen import Listen
    from nginx_acme.nginx.source import Include, Source, SourceFile
    from nginx_acme.nginx.syntax import Directive
    from nginx_acme.plan import Identity, Managed, Plan, StatusLocation

OUTSIDE = ".outside"
"""Where in a generation the files lie that aren't below the main file's folder."""

_CHALLENGE_MAP = (
    ' map $request_uri $nginx_acme_token { default "";'
    r' "~^/\.well-known/acme-challenge/(?<nginx_acme_t>[-_A-Za-z0-9]{16,128})(\?|$)"'
    " $nginx_acme_t; }"
)

STATUS_FILES = {
    "html": ("status.html", "text/html"),
    "json": ("status.json", "application/json"),
    "prometheus": ("metrics.prom", "text/plain; version=0.0.4; charset=utf-8"),
}
"""The file of each format that a location can serve, and its type. The first two are ASCII."""

_FILE = "nginx_acme_file_"
_ANSWERS = re.compile(
    rf"(?: if \(-f \${_FILE}\w+\) \{{ return 200 \$nginx_acme_token\.[-\w]+; \}})+"
)
"""Of all accounts, in one server."""
_ANY = " if ($nginx_acme_any) { return 200 $nginx_acme_token.$nginx_acme_any; }"
"""After the others: an open token is answered for the account that it is open for."""
_ANY_MAP = ' map $nginx_acme_token $nginx_acme_any { "" ""; default $nginx_acme_thumbprint; }'
_HOSTS = re.compile(r" map \$host \$nginx_acme_thumbprint \{[^{}]*\}")
_HOST = re.compile(r" (\S+) ([-\w]+);")

_LONGEST_VARIABLE = 46
"""Characters; with a longer name nginx's `variables_hash_bucket_size` had to be raised."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An account whose challenges nginx answers.

    `name` is its folder's in the store, made of what a variable may have and different at its
    end, `folder` holds an empty file for each open token. `hosts` are those that answer any token
    for this account (`acme_challenge_answer any`), as nginx's ``$host`` has them.
    """

    name: str
    thumbprint: str
    folder: str
    hosts: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        """The variable that has the path of a token's file, without its ``$``."""
        return _FILE + self.name[-(_LONGEST_VARIABLE - len(_FILE)) :]

    @property
    def answering(self) -> str:
        """What answers in a server."""
        return f" if (-f ${self.variable}) {{ return 200 $nginx_acme_token.{self.thumbprint}; }}"

    @property
    def mapping(self) -> str:
        """What gives the variable its value."""
        path = quote(self.folder + "/$nginx_acme_token")
        return f' map $nginx_acme_token ${self.variable} {{ "" ""; default {path}; }}'


@dataclass(frozen=True, slots=True)
class Layout:
    """What the generated text depends on besides the plan: the places of our files, no states.

    `bundle` gives the path of a certificate's file by identity and key type; no identity: the
    certificate of those that have no name. `public` is the folder of what is served of how the
    certificates stand.
    """

    bundle: Callable[[Identity | None, str], str]
    answers: tuple[Answer, ...]
    added: tuple[Listen, ...]
    public: str


def generate(source: Source, plan: Plan, layout: Layout) -> dict[str, str]:
    """The files that differ from the user's: their paths there, and their new text."""
    return _Generator(source, plan, layout).files()


def answers_for(text: str, answer: Answer) -> bool:
    """Whether a text that `generate` made is the one that has the map for an account."""
    return answer.mapping in text


def with_answer(text: str, answer: Answer) -> str:
    """A text that `generate` made, as it would be with one account more, before the others."""
    text = text.replace(_CHALLENGE_MAP, _CHALLENGE_MAP + answer.mapping)
    return _ANSWERS.sub(lambda found: answer.answering + found[0], text)


def with_hosts_of(text: str, old: Answer, new: Answer) -> str:
    """A text that `generate` made, with any token of an account's hosts answered for another."""
    before, after = f" {old.thumbprint};", f" {new.thumbprint};"
    return _HOSTS.sub(lambda found: found[0].replace(before, after), text)


def with_hosts(text: str, answers: Iterable[Answer]) -> str:
    """A text that `generate` made, with any token of these accounts' hosts answered for them."""
    anew = {key(host): answer.thumbprint for answer in answers for host in answer.hosts}

    def entry(found: re.Match[str]) -> str:
        return f" {found[1]} {anew.get(found[1], found[2])};"

    return _HOSTS.sub(lambda table: _HOST.sub(entry, table[0]), text)


def mirrored(folder: str, path: str) -> str:
    """Where a file of the user lies in a generation, relative to its top."""
    rest = inside(folder, path)
    return rest if rest is not None else OUTSIDE + path


class _Generator:
    def __init__(self, source: Source, plan: Plan, layout: Layout) -> None:
        self._source = source
        self._plan = plan
        self._layout = layout
        self._edits: dict[str, dict[Replacement, None]] = {}
        self._ours = {(directive.path, directive.start) for directive in plan.ours}
        directives = source.expand(source.files[source.main].directives)
        http = (one for one in directives if one.name == "http" and one.block is not None)
        self._http = next(http, None)
        self._hosts = [host for answer in layout.answers for host in answer.hosts]

    def files(self) -> dict[str, str]:
        self._blank_ours()
        for managed in self._plan.managed:
            self._edit_after(managed.server.block, self._certificates(managed))
        if answers := self._answers():
            for server in self._plan.answering:
                self._edit_after(server.block, answers)
            self._edit_map_sizes()
        for location in self._plan.status:
            brace = location.block.end - 1
            text = self._status(location)
            self._edit(location.block.path, Replacement(brace, brace, text))
        self._edit_http()
        self._edit_unmirrored_paths()
        self._edit_includes()
        return {
            path: apply(self._source.files[path].text, edits) for path, edits in self._edits.items()
        }

    def _edit(self, path: str, *replacements: Replacement) -> None:
        """Each once, in order: a server that is included twice is edited once."""
        self._edits.setdefault(path, {}).update(dict.fromkeys(replacements))

    def _edit_after(self, block: Directive, text: str) -> None:
        self._edit(block.path, Replacement(block.opens, block.opens, text))

    def _blank_ours(self) -> None:
        for directive in self._plan.ours:
            text = self._source.files[directive.path].text
            self._edit(directive.path, blank(text, directive.start, directive.end))

    def _certificates(self, managed: Managed) -> str:
        paths = [quote(self._layout.bundle(managed.identity, key)) for key in managed.key_types]
        return "".join(f" ssl_certificate {path}; ssl_certificate_key {path};" for path in paths)

    def _answers(self) -> str:
        answers = "".join(answer.answering for answer in self._layout.answers)
        return answers + (_ANY if self._hosts else "")

    def _status(self, location: StatusLocation) -> str:
        """One file for every URI of a location.

        After what the user wrote there, for `break` ends what is said with `if`. Not by `alias`:
        that is refused in a named location, and of ``/status/`` it makes a folder. What the
        location says itself isn't said again, which nginx would refuse.
        """
        name, content_type = STATUS_FILES[location.format]
        wanted = {
            "root": quote(self._layout.public),
            "default_type": quote(content_type),
            "expires": "-1",
            "open_file_cache": "off",
        }
        said = [f" {one} {value};" for one, value in wanted.items() if one not in location.says]
        return f"{''.join(said)} types {{ }} rewrite ^ /{name} break; "

    def _edit_http(self) -> None:
        """The maps and the added server, in `http` or in one of our own on the last line."""
        text = self._maps() + self._added_server()
        if not text:
            return
        directives = self._source.files[self._source.main].directives
        if self._http is not None:
            brace = self._http.end - 1
            self._edit(self._http.path, Replacement(brace, brace, text + " "))
        elif directives:
            end = directives[-1].end
            block = f" http {{ access_log off;{self._sizes(sizes(self._hosts))}{text} }}"
            self._edit(self._source.main, Replacement(end, end, block))

    def _edit_map_sizes(self) -> None:
        """Make room for our hosts in the tables of maps, where the user gave them less.

        What the user says is changed in its place; a second one would be a duplicate.
        """
        if self._http is None:
            return
        needed = sizes(self._hosts)
        for directive in self._source.expand(self._http.block or ()) if needed else ():
            least = needed.pop(directive.name, 0)
            if least and _is_less(directive, least):
                text = self._source.files[directive.path].text
                start, end = argument_spans(text, directive)[1]
                self._edit(directive.path, _keeping_lines(text, start, end, str(least)))
        if needed:
            self._edit_after(self._http, self._sizes(needed))

    def _sizes(self, needed: Mapping[str, int]) -> str:
        return "".join(f" {name} {value};" for name, value in needed.items())

    def _maps(self) -> str:
        answers = self._layout.answers
        if not answers:
            return ""
        text = _CHALLENGE_MAP + "".join(answer.mapping for answer in answers)
        return text + (_host_map(answers) + _ANY_MAP if self._hosts else "")

    def _added_server(self) -> str:
        if not self._layout.added:
            return ""
        listens = "".join(f" listen {listen.address};" for listen in self._layout.added)
        return f" server {{{listens}{self._answers()}{self._otherwise()} }}"

    def _otherwise(self) -> str:
        """What the added server says to anything that is no challenge."""
        ports = self._plan.redirect_ports
        usual = next(filter(None, ports.values()), None)
        if usual is None or not self._plan.settings.redirect:
            return " return 404;"
        special = "".join(
            f" if ($host {_is_host(name)}) {{{_elsewhere(port)} }}"
            for name, port in _unusual(ports, usual)
        )
        return special + _elsewhere(usual)

    def _edit_unmirrored_paths(self) -> None:
        """Make absolute what a mirror of the folder hasn't (`nginx.paths`)."""
        for file in self._source.files.values():
            if not may_be_unmirrored(file.text):
                continue
            for directive in self._everywhere(file):
                if (directive.path, directive.start) in self._source.includes:
                    continue
                for index, path in unmirrored(directive, self._source.folder):
                    start, end = argument_spans(file.text, directive)[index + 1]
                    self._edit(file.path, _keeping_lines(file.text, start, end, quote(path)))

    def _edit_includes(self) -> None:
        """Let every include find the copies, and none find what wasn't there to be read."""
        for path in dict.fromkeys(path for path, _ in self._source.includes):
            file = self._source.files[path]
            for directive in self._everywhere(file):
                include = self._source.includes.get((path, directive.start))
                text = None if include is None else self._include(directive.args[0], include)
                if text is not None:
                    start, end = directive.start, directive.end
                    self._edit(path, _keeping_lines(file.text, start, end, text))

    def _include(self, argument: str, include: Include) -> str | None:
        """The text in place of an `include`; None where it may stay as it is."""
        folder = self._source.folder
        rest = inside(folder, include.pattern)
        if rest is None or is_pattern(posixpath.dirname(rest)):
            places = (mirrored(folder, path) for path in include.paths)
            return " ".join(f"include {quote(exactly(place))};" for place in places)
        return f"include {quote(rest)};" if argument.startswith("/") else None

    def _everywhere(self, file: SourceFile) -> Iterator[Directive]:
        """All directives of a file, whatever the blocks they stand in, that nginx gets to see."""
        stack = [iter(file.directives)]
        while stack:
            for directive in stack[-1]:
                if (directive.path, directive.start) in self._ours:
                    continue
                yield directive
                if directive.block:
                    stack.append(iter(directive.block))
                    break
            else:
                stack.pop()


def _host_map(answers: Iterable[Answer]) -> str:
    entries = (f" {key(host)} {answer.thumbprint};" for answer in answers for host in answer.hosts)
    return f' map $host $nginx_acme_thumbprint {{ default "";{"".join(entries)} }}'


def _is_less(directive: Directive, least: int) -> bool:
    """Whether it gives less; what is no number is for nginx to refuse."""
    number = directive.args[0] if directive.args else ""
    return number.isdecimal() and int(number) < least


def _unusual(ports: Mapping[str, int | None], usual: int) -> Iterator[tuple[str, int | None]]:
    """The names with another port, and those that these would take with them.

    In the order in which nginx chooses: a name before a wildcard, the longest wildcard first.
    """
    unusual = {name for name, port in ports.items() if port != usual}
    wide = tuple(name[1:] for name in unusual if name[0] == "*")
    for name in sorted(ports, key=lambda name: (name[0] == "*", -len(name))):
        if name in unusual or name.endswith(wide):
            yield name, ports[name]


def _is_host(name: str) -> str:
    """What an `if` compares with, and how."""
    if name[0] == "*":
        ending = name[1:].replace(".", r"\.")
        return f"~ {ending}$"
    return f"= {quote(f'[{name}]' if ':' in name else name)}"


def _elsewhere(port: int | None) -> str:
    """The way to https for a host that has one."""
    if port is None:
        return " return 404;"
    return f" return 301 https://$host{'' if port == HTTPS_PORT else f':{port}'}$request_uri;"


def _keeping_lines(text: str, start: int, end: int, new: str) -> Replacement:
    """`new` at the end of what it replaces, for that is the line which nginx tells."""
    return Replacement(start, end, "\n" * text.count("\n", start, end) + new)
