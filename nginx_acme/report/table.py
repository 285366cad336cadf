"""The table of ``status``, for people at a terminal.

In the order of the configuration, with plain letters, since a terminal may know no others. What
needs somebody is marked in the first column, and in colours where those are wanted. In a terminal
(`width`) the names give way to the rest; for a pipe nothing is cut.
"""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

from nginx_acme.report import span
from nginx_acme.report.verdict import (
    ACT,
    OWN,
    WATCH,
    WELL,
    coming,
    gravest,
    headline,
    is_stale,
    trouble,
    verdict,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from nginx_acme.report import Overview, Row

LEAST_NAME, LEAST_ISSUER = 14, 8
"""Letters of them that are shown in any case."""
MOST_LINES = 3
"""Of the names of one certificate in a terminal."""

_MARKS = {WELL: " ", WATCH: "*", ACT: "!"}
_COLORS = {WELL: "32", WATCH: "33", ACT: "31"}
_BOLD, _DIM = "1", "2"
_GAP = "  "
_CUT = "..."
_STATE = -3
"""The place of the column that is coloured."""


def to_text(overview: Overview, *, width: int | None = None, colored: bool = False) -> str:
    """All of it; `width` is that of the terminal, None where it is none."""
    return "".join(f"{line}\n" for line in _Table(overview, width, colored=colored).lines())


class _Table:
    def __init__(self, overview: Overview, width: int | None, *, colored: bool) -> None:
        self._overview = overview
        self._width = width
        self._colored = colored

    def lines(self) -> Iterator[str]:
        overview, level = self._overview, gravest(self._overview)
        yield self._in(f"{_BOLD};{_COLORS[level]}", headline(overview))
        yield self._in(_DIM, _around(overview))
        if is_stale(overview):
            said = "Nobody looks after them any more; that is done by: nginx-acme renew"
            yield self._in(_COLORS[WATCH], said)
        if overview.silent:
            yield from self._wrapped(overview.silent, "")
        if not overview.rows:
            return
        yield ""
        table = self._cells()
        widths = self._widths(table)
        yield self._in(_DIM, _line(" ", table[0], widths, lambda _, text: text))
        for row, cells in zip(overview.rows, table[1:], strict=True):
            yield from self._of(row, cells, widths)
        if level == ACT:
            yield ""
            yield "What is in the way is shown by: nginx-acme doctor"
            if not overview.silent:
                yield "One is asked for at once by: nginx-acme renew --force NAME"

    def _of(self, row: Row, cells: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
        level, wrong = verdict(row), trouble(row)
        color = _COLORS[level]

        def colored(column: int, text: str) -> str:
            return self._in(color, text) if column == len(cells) + _STATE else text

        yield _line(self._in(color, _MARKS[level]), cells, widths, colored)
        if len(row.names) > 1:
            names = list(self._wrapped(", ".join(row.names[1:]), "    "))
            if self._width and len(names) > MOST_LINES:
                names = [*names[: MOST_LINES - 1], f"    {_CUT} {len(row.names)} names in all"]
            yield from (self._in(_DIM, line) for line in names)
        if wrong:
            after = coming(row, self._overview.now)
            said = f"{wrong}; {after}" if after else wrong
            yield from (self._in(color, line) for line in self._wrapped(said, "    "))

    def _cells(self) -> list[tuple[str, ...]]:
        """The head and the rows; key types only where they differ."""
        now, rows = self._overview.now, self._overview.rows
        columns = {
            "CERTIFICATE": [row.names[0] for row in rows],
            "ISSUER": [row.issuer for row in rows],
            "KEY": [row.key_type for row in rows],
            "STATE": [row.state for row in rows],
            "EXPIRES": [_end(row, now) for row in rows],
            "NEXT": [_next(row, now) for row in rows],
        }
        if len(set(columns["KEY"])) == 1:
            del columns["KEY"]
        return list(zip(*([head, *cells] for head, cells in columns.items()), strict=True))

    def _widths(self, table: Sequence[Sequence[str]]) -> list[int]:
        """What each column takes; in a terminal names give way to the rest, then issuers do."""
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        if self._width is not None:
            for column, least in enumerate((LEAST_NAME, LEAST_ISSUER)):
                over = sum(widths) + len(_GAP) * len(widths) - self._width
                widths[column] = min(widths[column], max(least, widths[column] - max(over, 0)))
        return widths

    def _wrapped(self, text: str, indent: str) -> Iterator[str]:
        if self._width is None:
            yield indent + text
        else:
            yield from wrap(
                text,
                self._width,
                initial_indent=indent,
                subsequent_indent=indent,
                break_on_hyphens=False,
            )

    def _in(self, codes: str, text: str) -> str:
        """With SGR codes (ECMA-48), where colours are wanted."""
        return f"\x1b[{codes}m{text}\x1b[0m" if self._colored else text


def _line(
    mark: str,
    cells: Sequence[str],
    widths: Sequence[int],
    colored: Callable[[int, str], str],
) -> str:
    """Cells in their columns; too long ones lose their end."""
    columns = [
        (text if len(text) <= width else text[: width - len(_CUT)] + _CUT).ljust(width)
        for text, width in zip(cells, widths, strict=True)
    ]
    columns[-1] = columns[-1].rstrip()
    shown = [colored(number, text) for number, text in enumerate(columns)]
    return f"{mark} {_GAP.join(shown)}".rstrip()


def _around(overview: Overview) -> str:
    """Whether nginx runs, who looks after its certificates, and when that was done last."""
    nginx, agent, look = overview.nginx_pid, overview.agent_pid, overview.last_look
    return ", ".join(
        (
            f"nginx runs (pid {nginx})" if nginx else "nginx does not run",
            *([f"the agent too (pid {agent})" if agent else "no agent beside it"] if nginx else ()),
            f"last look {span(overview.now - look)} ago" if look else "nobody has looked yet",
        )
    )


def _end(row: Row, now: datetime) -> str:
    """Its own end: that of a stand-in is of no interest."""
    if row.not_after is None or row.state not in OWN:
        return "-"
    return f"{row.not_after:%Y-%m-%d} ({span(row.not_after - now)})"


def _next(row: Row, now: datetime) -> str:
    moment = row.next_attempt or row.renewal
    if moment is None:
        return "-"
    return "now" if moment <= now else f"in {span(moment - now)}"
