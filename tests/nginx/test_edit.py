"""Changing a text: exactly what is meant changes, and nginx reads what was written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nginx_acme.nginx.edit import Replacement, apply, argument_spans, blank, quote
from nginx_acme.nginx.syntax import parse, unquote
from tests.nginx.oracle import Argument, ascii_lower

if TYPE_CHECKING:
    from tests.nginx.oracle import Oracle

arguments = st.text(
    st.sampled_from("ab \t\r\n;{}#\"'\\$)(é\0\udce9") | st.characters(exclude_categories=["Cs"]),
    max_size=20,
)
"""Any argument, often with what must be quoted, or with a byte that is no UTF-8."""

EDITS = [
    pytest.param([], "abc\ndef", id="nothing"),
    pytest.param([(1, 2, "X")], "aXc\ndef", id="one"),
    pytest.param([(4, 7, ""), (0, 1, "XY")], "XYbc\n", id="in any order"),
    pytest.param([(2, 2, "X"), (2, 2, "Y")], "abXYc\ndef", id="insertions keep their order"),
    pytest.param([(1, 2, "X"), (1, 1, "Y"), (2, 2, "Z")], "aYXZc\ndef", id="insertions around"),
    pytest.param([(0, 0, "X"), (7, 7, "Y")], "Xabc\ndefY", id="at the ends"),
    pytest.param([(0, 7, "X\nY")], "X\nY", id="all"),
]


@pytest.mark.parametrize(("replacements", "result"), EDITS)
def test_apply(replacements: list[tuple[int, int, str]], result: str) -> None:
    """Each replacement is in its place, and everything else as it was."""
    assert apply("abc\ndef", (Replacement(*r) for r in replacements)) == result


@pytest.mark.parametrize(
    "replacements",
    [
        pytest.param([(0, 2, "X"), (1, 3, "Y")], id="overlap"),
        pytest.param([(0, 2, "X"), (1, 1, "Y")], id="insertion inside"),
        pytest.param([(0, 1, "X"), (0, 1, "X")], id="the same twice"),
        pytest.param([(2, 1, "X")], id="backwards"),
        pytest.param([(-1, 1, "X")], id="before the beginning"),
        pytest.param([(6, 8, "X")], id="behind the end"),
        pytest.param([(0, 1, "\n")], id="a line more"),
        pytest.param([(3, 4, "")], id="a line less"),
        pytest.param([(3, 4, ""), (5, 5, "\n")], id="a line moved"),
    ],
)
def test_apply_refuses(replacements: list[tuple[int, int, str]]) -> None:
    """What contradicts itself or would move a line is no edit."""
    with pytest.raises(ValueError, match="replacement of"):
        apply("abc\ndef", (Replacement(*r) for r in replacements))


@given(text=st.text(), data=st.data())
def test_blank(text: str, data: st.DataObject) -> None:
    """What is blanked is white space, every line keeps its length, and the rest is untouched."""
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    result = apply(text, [blank(text, start, end)])
    assert result[:start] + result[end:] == text[:start] + text[end:]
    assert set(result[start:end]) <= set(" \t\r\n")
    assert [len(line) for line in result.split("\n")] == [len(line) for line in text.split("\n")]


@given(words=st.lists(arguments, min_size=1))
def test_quote(words: list[str]) -> None:
    """A quoted argument is read as it was, whatever follows it."""
    head = " ".join(map(quote, words))
    for text in (f"{head};", f"{head} ;", f"{head}{{}}"):
        (directive,) = parse(text, "x")
        assert [directive.name, *directive.args] == words
    assert "\n" not in head


QUOTED = [
    pytest.param("/etc/nginx/x.pem", "/etc/nginx/x.pem", id="a path"),
    pytest.param("~^(www\\.)?x", '"~^(www\\\\.)?x"', id="a backslash"),
    pytest.param("$host", "$host", id="a variable"),
    pytest.param("${host}", '"${host}"', id="a variable in braces"),
    pytest.param("^/x$", '"^/x$"', id="a dollar at the end"),
    pytest.param("", '""', id="nothing"),
    pytest.param("a b", '"a b"', id="a space"),
    pytest.param("a'b", '"a\'b"', id="a quote"),
    pytest.param('a"b', '"a\\"b"', id="a double quote"),
    pytest.param("a\nb\tc\r", '"a\\nb\\tc\\r"', id="controls"),
    pytest.param("#fff", '"#fff"', id="a hash"),
    pytest.param("a\xa0b", "a\xa0b", id="a no-break space"),
]


@pytest.mark.parametrize(("argument", "written"), QUOTED)
def test_quote_by_example(argument: str, written: str) -> None:
    """Quotes are there where they are needed, and one look tells why."""
    assert quote(argument) == written


@settings(max_examples=50, deadline=None)
@given(words=st.lists(arguments, min_size=1))
def test_nginx_reads_what_is_quoted(oracle: Oracle, words: list[str]) -> None:
    """The real nginx reads a quoted argument as it was; it tells them in lower case."""
    read = oracle.arguments("".join(f"type {quote(word)};" for word in words))
    assert read == [Argument("type", ascii_lower(word), 1) for word in words]


SPANS = [
    pytest.param("a;", ["a"], id="a name"),
    pytest.param(" a  bc\n'd e' \"f\" ;", ["a", "bc", "'d e'", '"f"'], id="quotes"),
    pytest.param("a # b;\n c{x y;}", ["a", "c"], id="a comment and a block"),
    pytest.param("'a' ${b} c}d\\;;", ["'a'", "${b}", "c}d\\;"], id="odd words"),
    pytest.param('a "b")c;', ["a", '"b"', ")c"], id="a parenthesis after a quote"),
    pytest.param("'' '';", ["''", "''"], id="empty words"),
]


@pytest.mark.parametrize(("text", "words"), SPANS)
def test_argument_spans(text: str, words: list[str]) -> None:
    """A directive's words are found where they stand, with their quotes."""
    (directive,) = parse(text, "x")
    spans = argument_spans(text, directive)
    assert [text[start:end] for start, end in spans] == words
    assert tuple(unquote(word) for word in words) == (directive.name, *directive.args)
