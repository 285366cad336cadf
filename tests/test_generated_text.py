"""Any configuration keeps its text: what we put in taken out again, nothing has changed.

The configurations are made here, of what the readers of a configuration stumble over: comments
with braces, quotes, tabs, lines that end with CRLF, bytes that are no UTF-8, code in Lua, data
that looks like our directives.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from nginx_acme.generate import Answer, Layout, generate
from nginx_acme.nginx.source import read_source
from nginx_acme.plan import Facts, Identity, concerns_us, make_plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from nginx_acme.nginx.source import Source

FOLDER = "/etc/nginx"
MAIN = f"{FOLDER}/nginx.conf"
STATE = f"{FOLDER}/acme"
END = "}\n# end"
PUT_IN = re.compile(
    r" ssl_certificate (?P<path>/etc/nginx/acme/\S+); ssl_certificate_key (?P=path);"
    r"| if \(-f \$nginx_acme_file_x\) \{ return 200 \$nginx_acme_token\.THUMBPRINT; \}"
    r"| if \(\$nginx_acme_any\) \{ return 200 \$nginx_acme_token\.\$nginx_acme_any; \}"
    rf"| map \$request_uri \$nginx_acme_token [^\n]*(?={END}\Z)"
)

GAPS = [" ", "\t", "\n", "\r\n", "  # acme; {\n", "\n#}\r\n", ' #"\udcff\n']
ENDS = [";", " ;", "\r\n;", " #;\n;", "\t# }\n;"]
DATA = [
    'map $uri $x { acme 1; default "acme;"; }',
    "types { acme acme; }",
    'content_by_lua_block { acme = "}" -- }\n }',
    "location ~ ^/\\{acme\\}$ { return 200 'acme;\n}'; }",
    'add_header X "\\"acme; \udce9";',
    "#acme;\n",
]
IN_SERVERS = ["acme", "acme letsencrypt", "acme key=rsa:2048", "acme off", "include acme.conf", ""]
IN_HTTP = [
    "acme",
    "acme_challenge_answer any",
    "acme_contact a@example.com",
    "acme_issuer x { uri https://ca.example.com/; }",
]


class Writer:
    """Writes the same thing in all the ways that a language without a formatter allows."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def pick(self, choices: Sequence[str]) -> str:
        """One of them."""
        return self._draw(st.sampled_from(choices))

    def directive(self, text: str) -> str:
        """`text`, some words of it in quotes, with anything between that may be there."""
        if not text or text.endswith("}"):
            return text
        quotes = ((quote, word) for word in text.split() for quote in [self.pick(["", "'", '"'])])
        words = [f"{quote}{word}{quote}" for quote, word in quotes]
        return self.pick(GAPS).join(words) + self.pick(ENDS)

    def block(self, pieces: Iterable[str]) -> str:
        """The pieces in any order, and something that isn't ours."""
        texts = self._draw(st.permutations([*pieces, self.pick(DATA)]))
        return "".join(self.pick(GAPS) + text for text in texts) + self.pick(GAPS)

    def server(self, number: int) -> str:
        """A TLS server, which may say `acme` itself, by a file or not at all."""
        said = [f"server_name n{number}.example.com", "listen 443 ssl", self.pick(IN_SERVERS)]
        said.append(self.pick(["listen 80", ""]))
        return f"server {{{self.block(map(self.directive, said))}}}"


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, str]:
    """The files of a configuration, by path."""
    writer = Writer(draw)
    servers = [writer.server(number) for number in range(draw(st.integers(0, 3)))]
    said = [text for text in IN_HTTP if draw(st.booleans())]
    inside = writer.block([*servers, *map(writer.directive, [*said, "include more.conf"])])
    return {
        MAIN: f"events {{}} http {{{inside}{END}",
        f"{FOLDER}/acme.conf": writer.block([writer.directive("acme")]),
        f"{FOLDER}/more.conf": writer.block([writer.server(9)]),
    }


def bundle(identity: Identity | None, key_type: str) -> str:
    """Any path will do."""
    return f"{STATE}/{identity is None}/{key_type}.pem"


def read(files: Mapping[str, str]) -> Source:
    """A configuration of these files."""
    return read_source(
        MAIN, lambda path: files[path].encode("utf-8", "surrogateescape"), lambda _: []
    )


@given(configurations())
@settings(deadline=None)
def test_nothing_else_changes(files: dict[str, str]) -> None:
    """Blanks for our directives, the known words put in; else every character, on its line."""
    source = read(files)
    plan = make_plan(source, Facts((1, 30, 0), "host.example.com"))
    answer = Answer("x", "THUMBPRINT", f"{STATE}/x", tuple(plan.whose_hosts))
    answers = (answer,) if plan.certificates else ()
    changed = generate(source, plan, Layout(bundle, answers, plan.added, f"{STATE}/public"))
    for path, text in changed.items():
        user = files[path]
        for directive in plan.ours:
            if directive.path == path:
                start, end = directive.start, directive.end
                user = user[:start] + re.sub(r"[^\t\r\n]", " ", user[start:end]) + user[end:]
        assert PUT_IN.sub("", text) == user
        assert text.count("\n") == files[path].count("\n")
    assert not concerns_us(read(files | changed))
