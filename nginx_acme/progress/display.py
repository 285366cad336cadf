r"""What a terminal shows while certificates are on their way.

    nginx-acme: [notice] a.example: issued by R11, valid until 2026-12-01 10:00 UTC
    nginx-acme: [notice] b.example: issued by R11, valid until 2026-12-01 10:00 UTC
    \  c.example  1 s  finalized
    \  d.example  1 s  ordered
       17 under way, 2 done

What is over is told as it is without a terminal, and so it stays on the screen. The lines below
are taken away while anything is written above them, and drawn anew a moment later. All is ASCII,
as far as names and messages are: the locale of who starts nginx is often C.

rich lays out the lines. Its Live was tried for drawing them: it draws all of them twice for each
message, five seconds for a thousand certificates, and it can't be ended in the handler of a
signal, which finds it in the middle of its own buffers. Here the terminal is written to by one
system call at a time.

The only module that imports rich.
"""

from __future__ import annotations

import io
import os
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, cast

from rich.console import Console
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from nginx_acme.log import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from typing import Self, TextIO

ROWS = 12
"""Certificates that are shown at the same time; of more there is only the number."""

_PAUSE = 0.12  # seconds between two drawings
_ROOM = 4  # lines of the terminal that stay free
_NAME_WIDTH = 40
_USUAL = os.terminal_size((80, 24))

_CLEAR = "\r\x1b[2K"
_UP = "\x1b[1A\x1b[2K"
_HIDE_CURSOR = "\x1b[?25l"
_SHOW_CURSOR = "\x1b[?25h"


class _Row:
    """A certificate under way, and since when."""

    __slots__ = ("since", "text")

    def __init__(self, text: str, since: float) -> None:
        self.text = text
        self.since = since


class Display:
    """A `Progress` for a terminal; `size` and `now` are the terminal's and the clock's."""

    def __init__(
        self,
        stream: TextIO,
        notice: Callable[[str], None],
        failure: Callable[[str], None],
        size: Callable[[int], os.terminal_size] = os.get_terminal_size,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stream = cast("TextIO", _Above(stream, self._hidden))
        self._terminal = stream.fileno()
        self._encoding = stream.encoding
        self._notice = notice
        self._failure = failure
        self._size = size
        self._now = now
        self._rows: dict[str, _Row] = {}
        self._done = 0
        self._failed = 0
        self._layout = Console(file=io.StringIO(), color_system=None)
        self._spinner = Spinner("line")
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._height = 0  # lines that are on the screen now
        self._erasing = False

    def started(self, name: str, text: str) -> None:
        """Show a line for it."""
        self._rows[name] = _Row(text, self._now())

    def step(self, name: str, text: str) -> None:
        """Show it in its line."""
        self._rows.setdefault(name, _Row(text, self._now())).text = text

    def done(self, name: str, text: str) -> None:
        """Tell it in place of its line."""
        self._rows.pop(name, None)
        self._done += 1
        with self._hidden():
            self._notice(f"{name}: {text}")

    def failed(self, name: str, text: str) -> None:
        """Tell it in place of its line."""
        self._rows.pop(name, None)
        self._failed += 1
        with self._hidden():
            self._failure(f"{name}: {text}")

    def close(self) -> None:
        """Take the lines away."""
        self._over.set()
        with self._lock:
            if self._erasing:  # in the handler of a signal that came just then
                self._write(f"\r\n{_SHOW_CURSOR}")
            else:
                self._erase()

    def __enter__(self) -> Self:
        """Draw the lines, again and again."""
        self._over.clear()
        threading.Thread(target=self._keep_drawing, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the lines away."""
        self.close()

    @contextmanager
    def _hidden(self) -> Iterator[None]:
        """Something else is written now."""
        with self._lock:
            self._erase()
            yield

    def _keep_drawing(self) -> None:
        """In a thread of its own."""
        while not self._over.wait(_PAUSE):
            with self._lock:
                self._draw()

    def _draw(self) -> None:
        if self._over.is_set():
            return
        lines = self._lines()
        cursor = _HIDE_CURSOR if lines else _SHOW_CURSOR
        self._write(self._clearing() + cursor + "\r\n".join(lines))
        self._height = len(lines)

    def _erase(self) -> None:
        if self._height:
            self._erasing = True
            self._write(self._clearing() + _SHOW_CURSOR)
            self._height = 0
            self._erasing = False

    def _clearing(self) -> str:
        """The cursor is at the end of the last line."""
        return _CLEAR + _UP * (self._height - 1) if self._height else ""

    def _write(self, text: str) -> None:
        with suppress(OSError):  # the terminal is gone
            os.write(self._terminal, text.encode(self._encoding, "backslashreplace"))

    def _lines(self) -> list[str]:
        width, height = self._terminal_size()
        rows = list(self._rows.items())
        shown = max(1, min(ROWS, height - _ROOM))
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, overflow="crop", max_width=_NAME_WIDTH)
        table.add_column(no_wrap=True, justify="right")
        table.add_column(no_wrap=True, overflow="crop")
        for name, row in rows[:shown]:
            elapsed = f"{self._now() - row.since:.0f} s"
            table.add_row(self._spinner, _text(name), elapsed, _text(row.text))
        if len(rows) > shown or self._done or self._failed:
            table.add_row("", self._counts(len(rows)))
        with self._layout.capture() as captured:
            self._layout.print(table, width=width - 1, height=None)
        return [line.rstrip() for line in captured.get().splitlines()]

    def _terminal_size(self) -> os.terminal_size:
        """The usual one where the terminal doesn't know it, as on a serial line."""
        try:
            columns, lines = self._size(self._terminal)
        except OSError:
            return _USUAL
        return os.terminal_size((columns or _USUAL.columns, lines or _USUAL.lines))

    def _counts(self, under_way: int) -> str:
        failed = f", {self._failed} failed" if self._failed else ""
        return f"{under_way} under way, {self._done} done{failed}"


def _text(words: str) -> Text:
    """Words of others: no markup, nothing that moves the cursor."""
    return Text(printable(words))


class _Above(io.TextIOBase):
    """Writes to a stream while the lines on it are taken away."""

    def __init__(self, stream: TextIO, hidden: Callable[[], AbstractContextManager[None]]) -> None:
        self._stream = stream
        self._hidden = hidden

    def write(self, text: str) -> int:
        """Write all of it, at once."""
        with self._hidden():
            written = self._stream.write(text)
            self._stream.flush()
        return written

    def isatty(self) -> bool:
        """As the stream."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """As the stream."""
        return self._stream.fileno()
