"""What crossplane 0.5.8 gets wrong, each fault a test: nginx and our reader agree on it.

Its parser was the obvious one to build on, and its builder would have written a configuration
that starts and means something else. None of this may ever come back by another way.
What it gets right, it reads as we do: that is a test, too.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import crossplane
import pytest

from nginx_acme.errors import ConfigError
from nginx_acme.generate import Layout, generate
from nginx_acme.nginx.edit import quote
from nginx_acme.nginx.files import glob_files, read_bytes
from nginx_acme.nginx.source import read_source
from nginx_acme.nginx.syntax import parse
from nginx_acme.plan import Facts, make_plan
from tests.nginx.oracle import Argument, ascii_lower

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from nginx_acme.nginx.syntax import Directive
    from tests.nginx.oracle import Oracle

Words = tuple[str, ...]

READ = [
    pytest.param(
        "access_log /l/x_${a} fmt;\nreturn 200 ${a} ;\nadd_header ${a}\tb;\na${b} c;\nd ${e}\n;",
        [
            ("access_log", "/l/x_${a}", "fmt"),
            ("return", "200", "${a}"),
            ("add_header", "${a}", "b"),
            ("a${b}", "c"),
            ("d", "${e}"),
        ],
        id="1: white space after a variable in braces is part of the word",
    ),
    pytest.param(
        'return 200 "#x";\n"#" 1;\n\'#fff\' "#000" x;',
        [("return", "200", "#x"), ("#", "1"), ("#fff", "#000", "x")],
        id="3: a quoted word that begins with # is a comment",
    ),
    pytest.param(
        "return 200 a}b;\nrewrite ^/a\\d\\}$ /b}};",
        [("return", "200", "a}b"), ("rewrite", "^/a\\d\\}$", "/b}}")],
        id="4: a closing brace inside of a word ends the directive",
    ),
    pytest.param(
        'a "\udce9 \udcff";\nb "x\r\ny\rz";\nc \udce9;',
        [("a", "\udce9 \udcff"), ("b", "x\r\ny\rz"), ("c", "\udce9")],
        id="5: bytes that are no UTF-8 and line ends in quotes change",
    ),
    pytest.param(
        "a\xa0b c\u3000d;\ne\x0bf g\x0ch\x1ci\x1dj\x1ek\x1fl;",
        [("a\xa0b", "c\u3000d"), ("e\x0bf", "g\x0ch\x1ci\x1dj\x1ek\x1fl")],
        id="6: other spaces of Unicode and ASCII separate words",
    ),
    pytest.param(
        "if 1;\n'if' 2;",
        [("if", "1"), ("if", "2")],
        id="9: a key called if gets parentheses",
    ),
]


@pytest.mark.parametrize(("text", "words"), READ)
def test_misread(oracle: Oracle, text: str, words: list[Words]) -> None:
    """Our reader sees the words that nginx sees, where crossplane sees others."""
    read = parse(text, "x")
    assert [(directive.name, *directive.args) for directive in read] == words
    assert oracle.arguments(text) == [
        Argument(name, ascii_lower(argument), text.count("\n", 0, directive.end) + 1)
        for directive, (name, *arguments) in zip(read, words, strict=True)
        for argument in arguments
    ]


def test_variable_in_braces_before_a_block(oracle: Oracle) -> None:
    """1: the space after a variable in braces is no part of a location's name."""
    text = "events {} http { server { location /x${a} { nonsense; } } }"
    assert oracle.complaint(text) == 'unknown directive "nonsense" in nginx.conf:1'
    location = parse(text, "x")[1]
    while location.name != "location":
        (location,) = location.block or ()
    assert location.args == ("/x${a}",)


REFUSED = [
    pytest.param(
        "http { listen 80 }\nevents {}", 'unexpected "}"', 1, id="2: a brace ends a directive"
    ),
    pytest.param(
        "events {}\nhttp {}\nuser x",
        'unexpected end of file, expecting ";" or "}"',
        3,
        id="10: no message for a missing semicolon at the end",
    ),
    pytest.param("events {}\nuser 'a'x;", 'unexpected "x"', 2, id="a word after a quote"),
]


@pytest.mark.parametrize(("text", "message", "line"), REFUSED)
def test_accepted_or_refused_in_silence(oracle: Oracle, text: str, message: str, line: int) -> None:
    """What nginx refuses is refused with its words; crossplane goes on, or tells nothing."""
    with pytest.raises(ConfigError) as caught:
        parse(text, "nginx.conf")
    assert str(caught.value) == f"{message} in nginx.conf:{line}" == oracle.complaint(text)


WRITTEN = [
    pytest.param("a \x01\x7f\x1b", id="7: controls are written as escapes of Python"),
    pytest.param("a \u2028\u200b\xad", id="7: what Unicode doesn't print is written as escapes"),
    pytest.param("a'b \"c", id="8: both kinds of quotes in one argument"),
    pytest.param("a\\'b \\\"c\\", id="8: both kinds of quotes with backslashes"),
    pytest.param("#x", id="3: quotes around a # are lost"),
    pytest.param("a\r\nb \udce9", id="5: line ends and other bytes"),
]


@pytest.mark.parametrize("argument", WRITTEN)
def test_miswritten(oracle: Oracle, argument: str) -> None:
    """An argument that we write is read by nginx as it was; crossplane writes another one."""
    read = oracle.arguments(f"x {quote(argument)} {quote(argument)};")
    assert read == [Argument("x", ascii_lower(argument), 1)] * 2


def test_lines(oracle: Oracle) -> None:
    """11: nginx's complaint about a generated text names the line that the user wrote."""
    text = 'events {} # {\nhttp {\r\n  acme_contact\n # a comment\n  "a@example.com" ;\n\n\tx y;\n}'
    main = oracle.write("nginx.conf", text)
    source = read_source(main, read_bytes, glob_files)
    plan = make_plan(source, Facts((1, 30, 0), "host.example.com"))
    changed = generate(source, plan, Layout(lambda *_: "", (), (), ""))
    assert oracle.complaint(text) == 'unknown directive "acme_contact" in nginx.conf:5'
    assert oracle.complaint(changed[main]) == 'unknown directive "x" in nginx.conf:7'


# --- what it gets right -----------------------------------------------------------------------


PLAIN = """
user www-data;
worker_processes auto;
error_log /var/log/nginx/error.log warn; # the usual one
events {
    worker_connections 768;
}
http {
    log_format main '$remote_addr - $remote_user [$time_local] "$request" '
                    '$status "$http_user_agent"';
    map $http_upgrade $connection_upgrade { default upgrade; '' close; }
    types { text/html html htm; }
    upstream app { server unix:/run/app.sock; server 127.0.0.1:8080 backup; }
    server {
        listen 443 ssl http2 default_server;
        listen [::]:443 ssl;
        server_name example.com *.example.com ~^www\\d+\\.example\\.com$;
        add_header Strict-Transport-Security "max-age=31536000; includeSubDomains" always;
        location ~ "^/[a-z]{2}/" { return 301 https://$host$request_uri; }
        location ~ \\.php$ {
            fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
            rewrite ^/(.*)$ /index.php?q=$1 last;
        }
        location / {
            if ($request_method = POST) { return 405; }
            proxy_set_header X-Forwarded-For "${proxy_add_x_forwarded_for}";
            try_files $uri $uri/ =404;
        }
    }
}
"""


def test_crossplane_agrees(tmp_path: Path) -> None:
    """A second reader of the language sees the same words in what it reads right."""
    path = tmp_path / "nginx.conf"
    path.write_text(PLAIN)
    theirs = [str(token) for token, _, _ in crossplane.lex(str(path))]
    assert [t for t in theirs if not t.startswith("#")] == list(flat(parse(PLAIN, "x")))


def flat(directives: Iterable[Directive]) -> Iterable[str]:
    """The tokens of a tree."""
    for directive in directives:
        yield directive.name
        yield from directive.args
        if directive.block is None:
            yield ";"
        else:
            yield from itertools.chain("{", flat(directive.block), "}")
