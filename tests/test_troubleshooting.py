"""The messages of the README's Troubleshooting are ones that somebody meets."""

from __future__ import annotations

import re
from functools import cache

import pytest

from tests.servers import ROOT

OTHERS = {
    'unknown directive "acme"',  # nginx
    "unauthorized",  # a CA, from here on
    "Invalid response from http://…",
    "connection",
    "Timeout during connect",
    "caa",
    "CAA record … prevents issuance",
    "rateLimited",
}
"""Words that are not ours."""

PLACEHOLDER = re.compile(r"…|\b[A-Z]{3,}\b|\bN\b|\d+|\boverlay\b")


def messages() -> list[str]:
    """What stands in backticks in the first column."""
    (section,) = re.findall(
        r"^## Troubleshooting\n(.*?)^## ",
        (ROOT / "README.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
    cells = re.findall(r"^\| (.*?) \|", section, re.MULTILINE)
    return [message for cell in cells for message in re.findall(r"`([^`]+)`", cell)]


@cache
def source() -> str:
    """Our program, with texts that go over several lines in one piece."""
    text = "\n".join(path.read_text() for path in sorted((ROOT / "nginx_acme").rglob("*.py")))
    return re.sub(r"""["']\n\s*f?["']""", "", text).replace('\\"', '"').replace("\\'", "'")


@pytest.mark.parametrize("message", [one for one in messages() if one not in OTHERS])
def test_message(message: str) -> None:
    """Each message is one that the program has, apart from what it fills in."""
    pieces = [piece.strip(" ;") for piece in PLACEHOLDER.split(message)]
    said = [piece for piece in pieces if len(piece) > 2]
    assert said
    assert [piece for piece in said if piece not in source()] == []


def test_words_of_others() -> None:
    """What is said to be others' words is in the table."""
    assert set(messages()) >= OTHERS
