"""Configurations of several files, made of pieces of which it is known what may become of them.

A generated text is compared with a pattern that nothing of ours has made: at which offsets the
program believes that it replaces something is not asked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from hypothesis import strategies as st

from tests.nginx.oracle import SETTINGS
from tests.nginx.writer import GAPS, Writer

MAIN = "conf/nginx.conf"
ODD_NAME = "other/o*d [x].conf"
"""Included by patterns; who means it and no other file must quote it."""

PAIR = r"(?: ssl_certificate (?P<{0}>\S+); ssl_certificate_key (?P={0});)?"
ANSWER = (
    r"(?: if \(-f \$nginx_acme_file_x\) \{ return 200 \$nginx_acme_token\.T; \}"
    r"(?: if \(\$nginx_acme_any\) \{ return 200 \$nginx_acme_token\.\$nginx_acme_any; \})?)?"
)
MAPS = (
    r"(?: map \$request_uri \$nginx_acme_token \{[^\n]*?\$nginx_acme_t; \}"
    r" map \$nginx_acme_token \$nginx_acme_file_x \{[^{}\n]*\}"
    r"(?: map \$host \$nginx_acme_thumbprint \{[^{}\n]*\}"
    r" map \$nginx_acme_token \$nginx_acme_any \{[^{}\n]*\})?"
    rf"(?: server \{{ listen [\d.:]+;{ANSWER} return (?:301 [^;]+|404); \}})? )?"
)
STATUS = (
    r" root \S+; default_type \S+; expires -1; open_file_cache off; types \{ \}"
    r" rewrite \^ /status\.html break; "
)

ODD = (
    ("add_header", "X", '"acme; } \udce9'),
    ("add_header", "X-\xe9", "#acme;\r\n{"),
    ("error_page", "404", "/acme}{"),
    ("proxy_set_header", "X", "${host} ../x"),
    ("add_trailer", "acme", "a}b"),
)
"""What looks as if it concerned us."""


class Piece(NamedTuple):
    """A part of a file: the user's, without our words, and the pattern of what may become of it."""

    text: str
    without: str
    pattern: str


def same(text: str) -> Piece:
    """What stays."""
    return Piece(text, text, re.escape(text))


def ours(text: str) -> Piece:
    """A directive of ours: in its place are spaces, and the tabs and line ends that it had."""
    spaces = re.sub(r"[^\t\r\n]", " ", text)
    return Piece(text, spaces, re.escape(spaces))


def before(put_in: str, text: str) -> Piece:
    """What stays, perhaps with something before it."""
    return Piece(text, text, put_in + re.escape(text))


def joined(*pieces: Piece) -> Piece:
    """One piece of several."""
    return Piece(*map("".join, zip(*pieces, strict=True)))


@dataclass(frozen=True)
class Place:
    """Where a configuration is: a folder with `MAIN` in it, and the ports that it may listen on."""

    root: str
    tls: int
    plain: int

    @property
    def main(self) -> str:
        """The main file."""
        return f"{self.root}/{MAIN}"

    @property
    def state(self) -> str:
        """The state directory."""
        return f"{self.root}/conf/acme"


class Configuration:
    """Draws the files of a configuration."""

    def __init__(self, draw: st.DrawFn, place: Place) -> None:
        self._draw = draw
        self._writer = Writer(draw)
        self._place = place
        self._count = 0

    def files(self) -> dict[str, Piece]:
        """Each file by its path below the folder."""
        servers = [self._server() for _ in range(5)]
        key = self._writer.pick(["key=rsa:2048", "letsencrypt"])
        return {
            MAIN: self._main(servers.pop()),
            "conf/types": same("types { text/html html; acme acme; }"),
            "conf/snippets/acme": self._ours("acme"),
            "conf/snippets/plain": self._shuffled(self._odd(), self._odd()),
            "conf/sites/10.conf": self._shuffled(servers.pop(), servers.pop()),
            "conf/sites/2 \xe9.conf": self._shuffled(servers.pop()),
            "conf/sites/.hidden.conf": same("nonsense"),
            "conf/sites/README": same("acme is no configuration"),
            "other/acme": joined(self._ours("acme", key), self._odd()),
            "other/plain": self._shuffled(self._odd()),
            "other/servers": self._shuffled(self._include("snippets/plain"), servers.pop()),
            ODD_NAME: self._shuffled(self._odd()),
        }

    def _main(self, server: Piece) -> Piece:
        writer, root = self._writer, self._place.root
        inside = [
            server,
            self._ours("acme_http_listen", f"127.0.0.1:{self._place.plain}"),
            self._include("sites/*.conf", f"{root}/conf/sites/*.conf", "sites//*.conf"),
            self._include("../other/servers", f"{root}/other/servers"),
            self._include("types", f"{root}/conf/types", "snippets/../types"),
            self._include("none/*", f"{root}/none/*"),
            self._include("../other/o*", f"{root}/o?her/o* [[]*"),
            *self._some(self._ours("acme_contact", "a@example.com", "mailto:b@example.com")),
            *self._some(self._ours_issuer()),
            *self._some(self._ours("acme")),
            *self._some(self._ours("acme_challenge_answer", "any")),
        ]
        http = joined(
            same(f"{writer.words('http')}{writer.pick(GAPS)}{{ {SETTINGS}"),
            self._shuffled(*inside),
            before(MAPS, "}"),
        )
        return self._shuffled(same(writer.block("events", inside=[])), http)

    def _server(self) -> Piece:
        self._count += 1
        writer, root, number = self._writer, self._place.root, self._count
        names = (f"n{number}.example.com", f".m{number}.example.com", f"~^r{number}")
        said = [
            self._same("server_name", *names[: writer.number(1, 3)]),
            self._same("listen", f"127.0.0.1:{self._place.tls}", "ssl"),
            self._same("ssl_reject_handshake", "on"),
            *self._some(self._same("listen", f"127.0.0.1:{self._place.plain}")),
            *self._draw(
                st.sampled_from(
                    [
                        [self._ours("acme")],
                        [self._ours("acme", "letsencrypt", "key=ecdsa:384")],
                        [self._ours("acme", "off")],
                        [self._include("snippets/acme", f"{root}/conf/snippets/acme")],
                        [self._include("../other/acme", f"{root}/other/acme")],
                        [],
                    ]
                )
            ),
            *self._some(self._include("snippets/plain", "snippets/[p]lain", "snippe[t]s/pl*")),
            *self._some(self._location("/a/")),
            *self._some(self._climbing()),
        ]
        opening = f"{writer.words('server')}{writer.pick(GAPS)}{{"
        put_in = PAIR.format(f"c{number}") + ANSWER
        return joined(same(opening), before(put_in, ""), self._shuffled(*said), same("}"))

    def _location(self, name: str) -> Piece:
        """A location with others in it, one of which may show how the certificates stand."""
        writer = self._writer
        said = [
            *self._some(self._include("snippets/plain", "../other/plain")),
            *self._some(self._odd()),
            *self._some(self._climbing()),
            *self._some(same(f'if ($host = "acme;") {{{writer.directive("return", "204")}}}')),
        ]
        opening = same(f"{writer.words('location', name)}{writer.pick(GAPS)}{{")
        if name.count("/") < 4 and writer.number(0, 1):
            said.append(self._location(f"{name}{len(name)}/"))
        elif writer.number(0, 1):
            shown = self._shuffled(self._ours("acme_status"), *said)
            return joined(opening, shown, Piece("}", "}", STATUS + "}"))
        return joined(opening, self._shuffled(*said), same("}"))

    def _odd(self) -> Piece:
        return self._same(*self._draw(st.sampled_from(ODD)))

    def _same(self, *words: str) -> Piece:
        return same(self._writer.directive(*words))

    def _ours(self, *words: str) -> Piece:
        return ours(self._writer.directive(*words))

    def _ours_issuer(self) -> Piece:
        inside = [
            self._writer.directive("uri", "https://ca.example/directory"),
            self._writer.directive("contact", "c@example.com"),
        ]
        return ours(self._writer.block("acme_issuer", "x", inside=inside))

    def _include(self, *arguments: str) -> Piece:
        """An include, on the last of its lines pointed to where the copy is if that is elsewhere."""
        folder, argument = f"{self._place.root}/conf", self._writer.pick(arguments)
        odd = ODD_NAME.replace("*", r"\\*").replace("[", r"\\[")
        text = self._writer.directive("include", argument)
        path = argument if argument[0] == "/" else f"{folder}/{argument}"
        outside = not path.startswith(f"{folder}/") or ".." in path.split("/")
        if argument == "snippe[t]s/pl*":
            argument = "snippets/plain"
        elif argument == "../other/o*":
            argument = f'".outside{folder}/../{odd}"'
        elif "her/o*" in argument:
            argument = f'".outside{self._place.root}/{odd}"'
        elif outside:
            argument = "" if "*" in path else f".outside{path}"
        elif argument[0] != "/":
            return same(text)
        anew = f"include {argument.removeprefix(f'{folder}/')};" if argument else ""
        return Piece(text, text, re.escape("\n" * text.count("\n") + anew))

    def _climbing(self) -> Piece:
        """A path that is no include, absolute afterwards."""
        name, end = (
            f"{self._writer.words('auth_basic_user_file')}\t",
            self._writer.pick([";", "\n;"]),
        )
        path = self._writer.pick(["../other/htpasswd", "snippets/../../x"])
        text = f"{name}{self._writer.word(path)}{end}"
        return Piece(text, text, re.escape(f"{name}{self._place.root}/conf/{path}{end}"))

    def _some(self, piece: Piece) -> list[Piece]:
        return [piece] if self._writer.number(0, 1) else []

    def _shuffled(self, *pieces: Piece) -> Piece:
        """Pieces in any order, with gaps around them."""
        shuffled = self._draw(st.permutations(pieces))
        gaps = (same(self._writer.pick(GAPS)) for _ in shuffled)
        parts = [part for pair in zip(gaps, shuffled, strict=True) for part in pair]
        return joined(*parts, same(self._writer.pick(["", *GAPS])))


@st.composite
def configurations(draw: st.DrawFn, place: Place) -> dict[str, Piece]:
    """The files of one."""
    return Configuration(draw, place).files()
