"""What was measured, as values, and the tables made of them.

Pure. What is compared ran in turn, since other work on a machine changes by the minute. So a
ratio is that of two neighbours, and what is shown is the median of such ratios: the ratio of two
medians compares moments that have nothing to do with each other. How far the middle half of all
values reaches is shown beside it.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Row = Mapping[str, "Figure | int | str"]
    """By column; words of a column's name are joined by ``_``."""

MISSED = "✗"
"""Beside a median that misses its target."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing measured many times; `most` and `least` are the target of its median.

    `spread`: whether how far the values reach is shown, too.
    """

    values: tuple[float, ...]
    digits: int = 2
    most: float | None = None
    least: float | None = None
    spread: bool = False

    @property
    def median(self) -> float:
        """What is shown of it."""
        return statistics.median(self.values)

    @property
    def middle(self) -> tuple[float, float]:
        """The first and the third quartile."""
        if len(self.values) == 1:
            return self.values[0], self.values[0]
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return low, high

    @property
    def missed(self) -> bool:
        """Whether the median is beyond the target."""
        too_much = self.most is not None and self.median > self.most
        return too_much or (self.least is not None and self.median < self.least)

    def __str__(self) -> str:
        """As a table shows it, with its target."""
        text = f"{self.median:.{self.digits}f}"
        if self.spread:
            text += " ({:.{d}f}-{:.{d}f})".format(*self.middle, d=self.digits)
        if self.most is not None:
            text += f" > {self.most:g} {MISSED}" if self.missed else f" ≤ {self.most:g}"
        if self.least is not None:
            text += f" < {self.least:g} {MISSED}" if self.missed else f" ≥ {self.least:g}"
        return text


def figure(values: Iterable[float], digits: int = 2) -> Figure:
    """Something that is no ratio."""
    return Figure(tuple(values), digits)


def ratio(over: Iterable[float], under: Iterable[float], **more: Any) -> Figure:
    """The ratios of neighbours; `more` are arguments of Figure."""
    values = (a / b for a, b in zip(over, under, strict=True))
    return Figure(tuple(values), spread=True, **more)


def on_top(
    ours: Iterable[float], theirs: Iterable[float], unit: Iterable[float], **more: Any
) -> Figure:
    """What the one takes more than the other, as multiples of a third; neighbours all three."""
    return ratio((a - b for a, b in zip(ours, theirs, strict=True)), unit, **more)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows with the same columns, of one part."""

    part: str
    title: str
    rows: Sequence[Row]


def to_text(table: Table) -> str:
    """For people."""
    header = [name.replace("_", " ") for name in table.rows[0]]
    cells = [header, *(list(map(str, row.values())) for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(map(str.rjust, line, widths)) for line in cells)
    return "\n".join((table.title, *lines))


def to_json(table: Table) -> dict[str, Any]:
    """For programs: every single value beside its median and its target."""
    rows = [{name: _for_json(cell) for name, cell in row.items()} for row in table.rows]
    return {"part": table.part, "title": table.title, "rows": rows}


def _for_json(cell: Figure | int | str) -> object:
    if not isinstance(cell, Figure):
        return cell
    low, high = cell.middle
    found: dict[str, object] = {"median": cell.median, "middle": [low, high]}
    if cell.most is not None or cell.least is not None:
        found |= {"most": cell.most, "least": cell.least, "missed": cell.missed}
    return found | {"values": list(cell.values)}
