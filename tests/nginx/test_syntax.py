"""The reader of nginx's language: it sees what nginx sees, and refuses what nginx refuses."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_acme.encoding import to_bytes, to_text
from nginx_acme.errors import ConfigError
from nginx_acme.nginx.syntax import parse
from tests.nginx.oracle import Argument, ascii_lower
from tests.nginx.writer import examples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nginx_acme.nginx.syntax import Directive
    from tests.nginx.oracle import Oracle

END = 'unexpected end of file, expecting ";" or "}"'
END_OF_BLOCK = 'unexpected end of file, expecting "}"'


WORDS = [
    pytest.param("a b c;", ("a", "b", "c"), id="words"),
    pytest.param(" \t\r\n a \t\r\n b \t\r\n ; ", ("a", "b"), id="white space"),
    pytest.param("a\xa0b c;", ("a\xa0b", "c"), id="a no-break space is a letter"),
    pytest.param("a\u3000\x0b\x0c\x1c\x85b;", ("a\u3000\x0b\x0c\x1c\x85b",), id="other spaces"),
    pytest.param("a \udce9\udcff;", ("a", "\udce9\udcff"), id="bytes that are no UTF-8"),
    pytest.param("\ufeffa b;", ("\ufeffa", "b"), id="a byte order mark is a letter"),
    pytest.param("a x\0y;", ("a", "x\0y"), id="NUL is a letter"),
    pytest.param("a 'b c' \"d e\";", ("a", "b c", "d e"), id="quotes"),
    pytest.param("'a' b;", ("a", "b"), id="quoted name"),
    pytest.param("a '' \"\";", ("a", "", ""), id="empty words"),
    pytest.param("a '\"' \"'\";", ("a", '"', "'"), id="a quote in the other quotes"),
    pytest.param("a b'c d\"e;", ("a", "b'c", 'd"e'), id="quotes inside a word are letters"),
    pytest.param("a 'b\r\nc\nd';", ("a", "b\r\nc\nd"), id="line ends in quotes stay"),
    pytest.param("a ';{}#';", ("a", ";{}#"), id="marks in quotes"),
    pytest.param('a "b")c d;', ("a", "b", ")c", "d"), id="a word begins with ) after a quote"),
    pytest.param("a 'b')) c;", ("a", "b", "))", "c"), id="two parentheses after a quote"),
    pytest.param("a ('b');", ("a", "('b')"), id="quotes in parentheses are letters"),
    pytest.param("a ( 'b');", ("a", "(", "b", ")"), id="quotes after a parenthesis alone"),
    pytest.param("a $b;", ("a", "$b"), id="variable"),
    pytest.param("a ${b} c;", ("a", "${b}", "c"), id="${b} and a space"),
    pytest.param("a x_${b} c;", ("a", "x_${b}", "c"), id="${b} at the end of a word"),
    pytest.param("a x${b}y;", ("a", "x${b}y"), id="${b} inside a word"),
    pytest.param("a ${b;", ("a", "${b"), id="${b without its end"),
    pytest.param("a ${{{b;", ("a", "${{{b"), id="more braces after a dollar"),
    pytest.param("a $ $$ b$;", ("a", "$", "$$", "b$"), id="dollars"),
    pytest.param("a '${' b;", ("a", "${", "b"), id="${ in quotes"),
    pytest.param("a b}c d}};", ("a", "b}c", "d}}"), id="} inside a word is a letter"),
    pytest.param(r"a ^/x\d\}$;", ("a", r"^/x\d\}$"), id="} in a regular expression"),
    pytest.param(r"a ^\d\{2\}$;", ("a", r"^\d\{2\}$"), id="escaped braces"),
    pytest.param(r"\{a b;", (r"\{a", "b"), id="escaped first character"),
    pytest.param(r"a \;b\ c \#d;", ("a", r"\;b\ c", r"\#d"), id="escaped marks keep the backslash"),
    pytest.param(r'a "\"" \"b;', ("a", '"', '"b'), id="escaped quotes"),
    pytest.param(r"a '\'' \'b;", ("a", "'", "'b"), id="escaped single quotes"),
    pytest.param(r"a '\\' \\ b\\;", ("a", "\\", "\\", "b\\"), id="escaped backslash"),
    pytest.param(r"a b\t\r\n 'c\t\r\n';", ("a", "b\t\r\n", "c\t\r\n"), id="escaped controls"),
    pytest.param(r"a \\n \\\n;", ("a", r"\n", "\\\n"), id="backslashes in pairs"),
    pytest.param(r"a \d\0\x '\d\0';", ("a", r"\d\0\x", r"\d\0"), id="other escapes stay"),
    pytest.param("a b\\\nc;", ("a", "b\\\nc"), id="escaped line end"),
    pytest.param("a # b; {\n c;", ("a", "c"), id="comment between words"),
    pytest.param("# x\n#\n\n a b;# c", ("a", "b"), id="comments around"),
    pytest.param("# x\r y;\na b;", ("a", "b"), id="CR ends no comment"),
    pytest.param("# x \\\na b;", ("a", "b"), id="a backslash does not continue a comment"),
    pytest.param("# 'x\na b;", ("a", "b"), id="a quote in a comment"),
    pytest.param("a b#c #d\n;", ("a", "b#c"), id="# inside a word is a letter"),
    pytest.param("a '#b' \"#fff\";", ("a", "#b", "#fff"), id="# in quotes"),
]


@pytest.mark.parametrize(("text", "words"), WORDS)
def test_words(oracle: Oracle, text: str, words: tuple[str, ...]) -> None:
    """The words of a directive are those that nginx reads."""
    (directive,) = parse(text, "x")
    assert (directive.name, *directive.args) == words
    assert oracle.arguments(text) == arguments(text)


def arguments(text: str) -> list[Argument] | str:
    """What the oracle would say of a text, by our reader."""
    for brace in re.finditer("{", text):
        if complaint(text[: brace.end()]).startswith(END_OF_BLOCK):
            return f'unexpected "{{" in text.conf:{line_of(text, brace.start())}'
    return complaint(text) or [
        Argument(directive.name, ascii_lower(argument), line_of(text, directive.end))
        for directive in parse(text, "text.conf")
        for argument in directive.args
    ]


def complaint(text: str, path: str = "text.conf") -> str:
    """What our reader refuses a text for; empty if it does not."""
    try:
        parse(text, path)
    except ConfigError as error:
        return str(error)
    return ""


def line_of(text: str, offset: int) -> int:
    """The line of an offset, counted in the simplest way."""
    return text[:offset].count("\n") + 1


PIECES = (
    *("a", "B", "t", "n", " ", "\n", "\t", "\r", ";", "; ", "{", "}", "#", '"', "'", "\\", "$"),
    *("${", "${a}", ")", "(", "é", "\0", "\xa0", "\x0b", "\x85", "\u3000", "\udce9", '"a"', "'b' "),
)
"""What texts are made of that are hard to read."""

texts = (
    st.lists(st.sampled_from(PIECES), max_size=25)
    .map("".join)
    .map(lambda text: to_text(to_bytes(text)))
)


@examples(200)
@given(text=texts)
def test_any_text(oracle: Oracle, text: str) -> None:
    """For any text nginx and the reader see the same words on the same lines, or say the same no."""
    assert oracle.arguments(text) == arguments(text)


@given(text=texts)
def test_spans(text: str) -> None:
    """Each character of a text that can be read is in its directive, or in white space or a comment."""
    try:
        directives = parse(text, "x")
    except ConfigError:
        return
    gaps = gaps_of(text, directives, 0, len(text))
    assert re.fullmatch(r"(?:[ \t\r\n]|#[^\n]*(?:\n|\Z))*", "\n".join(gaps))


def gaps_of(text: str, directives: Sequence[Directive], start: int, end: int) -> list[str]:
    """What stands between directives, those inside of blocks too."""
    gaps = []
    for directive in directives:
        assert start <= directive.start < directive.end <= end
        gaps.append(text[start : directive.start])
        start = directive.end
        if directive.block is None:
            assert text[directive.end - 1] == ";"
            assert directive.opens == -1
        else:
            assert text[directive.opens - 1] == "{"
            assert text[directive.end - 1] == "}"
            gaps += gaps_of(text, directive.block, directive.opens, directive.end - 1)
    return [*gaps, text[start:end]]


REFUSED = [
    pytest.param('a "b"c;', 'unexpected "c"', 1, id="a letter after a quote"),
    pytest.param("a\n'b'\"c\";", 'unexpected """', 2, id="a quote after a quote"),
    pytest.param("a 'b'#c\n;", 'unexpected "#"', 1, id="a comment after a quote"),
    pytest.param("a 'b\n'};", 'unexpected "}"', 2, id="a brace after a quote"),
    pytest.param("a 'b'é;", 'unexpected "\udcc3"', 1, id="the first byte of a letter"),
    pytest.param("\n;", 'unexpected ";"', 2, id="a semicolon alone"),
    pytest.param("events {};", 'unexpected ";"', 1, id="a semicolon after a block"),
    pytest.param("\n{}", 'unexpected "{"', 2, id="a block without a name"),
    pytest.param("events {{}", 'unexpected "{"', 1, id="two braces"),
    pytest.param("events {}\n}", 'unexpected "}"', 2, id="a brace too much"),
    pytest.param("}", 'unexpected "}"', 1, id="a brace alone"),
    pytest.param("events { a\n} b; }", 'unexpected "}"', 2, id="no semicolon before a brace"),
    pytest.param("a\n}", 'unexpected "}"', 2, id="a brace for a semicolon"),
    pytest.param("events {\n", END_OF_BLOCK, 2, id="a block without end"),
    pytest.param("events { # }\n", END_OF_BLOCK, 2, id="the end of a block in a comment"),
    pytest.param("a b\n", END, 2, id="the end before the semicolon"),
    pytest.param("a b # c;\n\n", END, 3, id="the semicolon in a comment"),
    pytest.param("a 'b\n;\n", END, 3, id="a quote without end"),
    pytest.param("a 'b'", END, 1, id="the end after a quote"),
    pytest.param("a\\", END, 1, id="the end after a backslash in a word"),
    pytest.param("\\", END, 1, id="the end after a backslash"),
    pytest.param('a "\\"', END, 1, id="the end after an escaped quote"),
    pytest.param("events { a", END, 1, id="the end of a word in a block"),
    pytest.param("a ${b", END, 1, id="the end in a variable"),
]


@pytest.mark.parametrize(("text", "message", "line"), REFUSED)
def test_refused(oracle: Oracle, text: str, message: str, line: int) -> None:
    """What nginx refuses is refused in its words, with its line."""
    assert complaint(text, "nginx.conf") == f"{message} in nginx.conf:{line}"
    assert oracle.complaint(text) == f"{message} in nginx.conf:{line}"


LONG = [
    pytest.param("a {x};", id="bare"),
    pytest.param("a\n{x} b;", id="bare before a space"),
    pytest.param("a {x}", id="bare at the end"),
    pytest.param("a {x}\n", id="bare before the last line end"),
    pytest.param("a {x}é;", id="bare with two bytes at the end"),
    pytest.param("a {x} é;", id="two bytes after a space"),
    pytest.param('a "{x}";', id="quoted"),
    pytest.param("a '{x}' b;", id="quoted before a space"),
    pytest.param("a '{x}') b;", id="quoted before a parenthesis"),
    pytest.param("a '{x}\n'b;", id="quoted before a letter"),
    pytest.param('a "{x}\\"";', id="quoted with an escaped quote at the end"),
    pytest.param("a\n b '{x} b;\nc d", id="a quote without end"),
    pytest.param("a b;\n{x};", id="name"),
    pytest.param("a b;\n#{x}\nc d;", id="comment"),
    pytest.param("a b;\n#{x}", id="comment at the end"),
    pytest.param("a #{x}\nb;", id="comment in a directive"),
]


@pytest.mark.parametrize("form", LONG)
def test_too_long(oracle: Oracle, form: str) -> None:
    """What does not fit in nginx's buffer is refused from the same byte on."""
    verdicts = set()
    for length in (10, *range(4088, 4100), 9000):
        text = form.replace("{x}", "x" * length)
        theirs = oracle.arguments(text)
        verdicts.add(complaint(text))
        assert complaint(text) == (theirs if isinstance(theirs, str) else "")
    assert len(verdicts) > 1


filled = st.tuples(
    st.sampled_from(["{x}", "'{x}'", '"{x}"', "#{x}\n", "{w}", "b{w}c", "'{n}'", "\\{x}"]),
    st.sampled_from(["x", "é", "\\\\", "\\t", "$", "${", "}"]),
    st.one_of(st.integers(0, 20), st.integers(2030, 2060), st.integers(4060, 4100)),
).map(
    lambda drawn: (
        drawn[0]
        .replace("{x}", drawn[1] * (drawn[2] // len(drawn[1].encode())))
        .replace("{w}", " " * drawn[2])
        .replace("{n}", "\n" * drawn[2])
    )
)
"""Words, comments and gaps that are as long as nginx's buffer, or half of it, or a few bytes."""


@examples(30)
@given(parts=st.lists(filled, max_size=6), end=st.sampled_from(["", ";", " ;", "\n;", "\r"]))
def test_borders(oracle: Oracle, parts: list[str], end: str) -> None:
    """Wherever nginx has to read on, in whatever word or gap, nothing is read otherwise."""
    text = f"a {' '.join(parts)}{end}"
    expected = arguments(text)
    if not isinstance(expected, str):
        expected = [one for one in expected if not one.cut]
    assert oracle.arguments(text) == expected


def test_deep_nesting() -> None:
    """Nesting has no limit of ours."""
    (directive,) = parse("a{" * 50_000 + "}" * 50_000, "x")
    depth = 1
    while directive.block:
        (directive,) = directive.block
        depth += 1
    assert depth == 50_000


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('"' + '\\"' * 500_000, id="escapes in a quote without end"),
        pytest.param("#\n" * 500_000 + '"', id="comments before a mistake"),
        pytest.param("a" + "$" * 999_999, id="dollars"),
        pytest.param("a " + "'b' " * 250_000 + "'", id="quotes"),
    ],
)
def test_no_text_is_slow(text: str) -> None:
    """A megabyte that can't be read is refused in linear time; else this would never end."""
    assert complaint(text)


LUA = [
    pytest.param("content_by_lua_block { ngx.say('x') }", id="plain"),
    pytest.param("content_by_lua_block{}", id="no space before the brace"),
    pytest.param("set_by_lua_block $x { return 1 }", id="an argument"),
    pytest.param("server_rewrite_by_lua_block { a() }", id="a newer name"),
    pytest.param("content_by_lua_block { t = {a = {1, 2}, b = {}} }", id="nested braces"),
    pytest.param("content_by_lua_block { s = '}' .. \"}\" }", id="braces in strings"),
    pytest.param(r"content_by_lua_block { s = '\'}' .. '\\' .. " r'"\"{" }', id="escaped quotes"),
    pytest.param("content_by_lua_block { s = [[ } ]] }", id="a long string"),
    pytest.param("content_by_lua_block { s = [==[ }]]]=] ]==] }", id="a long string with level"),
    pytest.param("content_by_lua_block { -- } it's\n }", id="a comment"),
    pytest.param("content_by_lua_block { --[[ } \n }' ]] }", id="a long comment"),
    pytest.param("content_by_lua_block { --[=[ } ]] ' ]=] }", id="a long comment with level"),
    pytest.param("content_by_lua_block { --[ }\n }", id="a comment that is not long"),
    pytest.param("content_by_lua_block { x = t[t[1]] # ; }", id="marks of nginx"),
    pytest.param("content_by_lua_block { error = 'x\n } ", id="a string ends with its line"),
]


@pytest.mark.parametrize("text", LUA)
def test_lua(text: str) -> None:
    """Lua code is skipped by the rules of the Lua module, and what follows is read again."""
    block, after = parse(text + "after '}';", "x")
    assert text[block.start : block.end] == text.rstrip()
    assert (block.block, text[block.opens - 1]) == ((), "{")
    assert (after.name, after.args) == ("after", ("}",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "\na_by_lua_block {\n{ '}'\n",
            "unexpected end of file, expecting terminating characters for lua code block in x:3",
            id="no end",
        ),
        pytest.param(
            "a_by_lua_block {\n[=[ ]] }",
            'Lua code block missing the closing long bracket "]=]", '
            "the inlined Lua code may be too long in x:2",
            id="no end of a long bracket",
        ),
    ],
)
def test_refused_lua(text: str, message: str) -> None:
    """Lua code without end is refused in the Lua module's words."""
    assert complaint(text, "x") == message
