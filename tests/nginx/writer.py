"""Configurations in all the ways that a language without a formatter allows.

For property tests: what is said is chosen by the test, how it is written is drawn here.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

GAPS = (" ", "  ", "\t", "\n", "\r\n", "\r", " # } {;\n", "\n#'\"\r;\n", " #\xe9\udcff\\\n")
"""What may stand between two words."""

ENDS = (";", " ;", "\n;", "\r\n\t;", " # x\n;")

PIECES = (
    *"a \n\r\t;{}#\"'\\$()\0\udce9",
    *("include x;", "{ }", ";;", "#{\n", '""', "''", "a b;", "} }", "x" * 5000),
)
"""What a slip of the hand leaves in a file."""

_BARE = re.compile(r"""[^\s;{}"'#\\$][^\s;{"'\\$]*""")
_TIMES = int(os.environ.get("EXAMPLES", "1"))


def examples(count: int) -> settings:
    """So many examples, or EXAMPLES (in the environment) times as many."""
    slow = [HealthCheck.too_slow]  # says how busy the machine is
    return settings(max_examples=count * _TIMES, suppress_health_check=slow)


class Writer:
    """Draws how a thing is written."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def pick(self, choices: Sequence[str]) -> str:
        """One of them."""
        return self._draw(st.sampled_from(choices))

    def number(self, least: int, most: int) -> int:
        """One of these, both included."""
        return self._draw(st.integers(least, most))

    def word(self, word: str) -> str:
        """A word with quotes or without."""
        written = [f'"{_escaped(word, chr(34))}"', f"'{_escaped(word, chr(39))}'"]
        return self.pick([*written, *[word] * 2] if _BARE.fullmatch(word) else written)

    def words(self, *words: str) -> str:
        """Words with something between."""
        return "".join(self.word(word) + self.pick(GAPS) for word in words[:-1]) + self.word(
            words[-1]
        )

    def directive(self, *words: str) -> str:
        """A directive."""
        return self.words(*words) + self.pick(ENDS)

    def block(self, *words: str, inside: Iterable[str]) -> str:
        """A block of pieces, in their order."""
        return f"{self.words(*words)}{self.pick(GAPS)}{{{self.file(inside)}}}"

    def file(self, pieces: Iterable[str]) -> str:
        """The pieces in their order, the last perhaps at the very end."""
        text = "".join(self.pick(GAPS) + piece for piece in pieces)
        return text + self.pick(["", *GAPS])

    def slip(self, files: Mapping[str, str]) -> dict[str, str]:
        """The files with something more, less or else in one of them."""
        name = self.pick(list(files))
        text = files[name]
        start = self.number(0, len(text))
        end = min(len(text), start + self.number(0, 2) * self.number(0, 10))
        return {**files, name: text[:start] + self.pick(["", *PIECES]) + text[end:]}


def _escaped(word: str, quote: str) -> str:
    return word.replace("\\", "\\\\").replace(quote, f"\\{quote}")
