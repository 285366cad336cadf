"""What is on the screen, and what is left there."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import pytest

from nginx_acme.log import Log
from nginx_acme.progress.display import ROWS, Display
from tests.servers import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_TOKEN = re.compile(r"\x1b\[(\??[0-9;]*)([A-Za-z])|(.)", re.DOTALL)


class Screen:
    """A terminal without an end, as far as it is used here; anything else is an error."""

    def __init__(self, output: str) -> None:
        self.cursor = True
        self._lines = [""]
        self._row = self._column = 0
        for argument, command, character in _TOKEN.findall(output):
            if command:
                self._obey(argument, command)
            else:
                self._put(character)

    @property
    def lines(self) -> list[str]:
        """What can be read, without empty lines at the end."""
        text = "\n".join(line.rstrip() for line in self._lines).rstrip("\n")
        return text.split("\n") if text else []

    def _obey(self, argument: str, command: str) -> None:
        match argument, command:
            case "?25", "l" | "h":
                self.cursor = command == "h"
            case _, "m":
                pass
            case "2", "K":
                self._lines[self._row] = ""
            case _, "A":
                self._row = max(0, self._row - int(argument or "1"))
            case _:
                raise NotImplementedError(f"{argument}{command}")

    def _put(self, character: str) -> None:
        if character == "\r":
            self._column = 0
        elif character == "\n":
            self._row, self._column = self._row + 1, 0
            if self._row == len(self._lines):
                self._lines.append("")
        elif character.isprintable():
            line = self._lines[self._row].ljust(self._column)
            self._lines[self._row] = line[: self._column] + character + line[self._column + 1 :]
            self._column += 1
        else:
            raise NotImplementedError(repr(character))


class Shown:
    """A display on a file that is looked at, with a log that writes above it."""

    def __init__(
        self,
        file: TextIO,
        now: Callable[[], float] = time.monotonic,
        *,
        columns: int = 72,
        lines: int = 24,
    ) -> None:
        self._file = file
        self.display = Display(
            file, self._notice, self._notice, lambda _: os.terminal_size((columns, lines)), now
        )

    def _notice(self, message: str) -> None:
        Log(self.display.stream).notice(message)

    @property
    def screen(self) -> Screen:
        """What can be seen now."""
        return Screen(Path(self._file.name).read_bytes().decode())

    def wait_for(self, *words: str) -> list[str]:
        """Wait until all of these are on the screen."""
        return wait_for(lambda: self._if_there(words), what=f"{words} on the screen")

    def _if_there(self, words: tuple[str, ...]) -> list[str]:
        lines = self.screen.lines
        text = "\n".join(lines)
        return lines if all(word in text for word in words) else []


@pytest.fixture
def file(tmp_path: Path) -> Iterator[TextIO]:
    """What stands for the terminal."""
    with (tmp_path / "terminal").open("w", encoding="utf-8", errors="backslashreplace") as file:
        yield file


def test_a_line_for_each(file: TextIO) -> None:
    """Each certificate under way has a line with its name, how long it takes, and its step."""
    seconds = [0.0]
    shown = Shown(file, lambda: seconds[0])
    with shown.display as display:
        display.started("a.example", "there is no certificate yet")
        seconds[0] = 3.0
        display.started("b.example", "it expires soon")
        display.step("b.example", "ordered")
        lines = shown.wait_for("a.example", "ordered")
        assert [re.sub(" +", " ", line[1:]).strip() for line in lines] == [
            "a.example 3 s there is no certificate yet",
            "b.example 0 s ordered",
        ]
        assert not shown.screen.cursor
    assert shown.screen.lines == []
    assert shown.screen.cursor


def test_what_is_over_stays(file: TextIO) -> None:
    """Messages about what is over stay above the lines, and are all that is left in the end."""
    shown = Shown(file)
    with shown.display as display:
        for name in ("a.example", "b.example", "c.example"):
            display.started(name, "ordered")
        shown.wait_for("a.example", "b.example", "c.example")
        display.done("a.example", "issued")
        display.failed("b.example", "no such name")
        lines = shown.wait_for("1 under way, 1 done, 1 failed")
        assert lines[:2] == [
            "nginx-acme: [notice] a.example: issued",
            "nginx-acme: [notice] b.example: no such name",
        ]
        assert "c.example" in lines[2]
        display.done("c.example", "issued")
    assert shown.screen.lines == [
        "nginx-acme: [notice] a.example: issued",
        "nginx-acme: [notice] b.example: no such name",
        "nginx-acme: [notice] c.example: issued",
    ]


def test_others_write_above(file: TextIO) -> None:
    """What others write to its stream is whole, and above the lines."""
    shown = Shown(file)
    log = Log(shown.display.stream)
    with shown.display as display:
        display.started("a.example", "ordered")
        shown.wait_for("a.example")
        log.warn("x" * 200)
        display.started("b.example", "ordered")
        lines = shown.wait_for("b.example")
        assert lines[0] == f"nginx-acme: [warn] {'x' * 200}"
        assert len(lines) == 3


def test_thousand(file: TextIO) -> None:
    """However many are under way, the screen shows some of them and how many there are."""
    shown = Shown(file)
    with shown.display as display:
        for number in range(1000):
            display.started(f"{number}.example", "ordered")
        lines = shown.wait_for("1000 under way")
        assert len(lines) == ROWS + 1
        for number in range(990):
            display.done(f"{number}.example", "issued")
        assert len(shown.wait_for("10 under way, 990 done")) == 990 + 10 + 1
    assert len(shown.screen.lines) == 990


def test_small_terminal(file: TextIO) -> None:
    """A terminal of a few lines and columns is not written over its edge."""
    shown = Shown(file, columns=30, lines=6)
    with shown.display as display:
        for number in range(50):
            display.started(f"{'very-long-' * 5}{number}.example", "x" * 200)
        lines = shown.wait_for("under way")
        assert len(lines) == 3
        assert max(map(len, lines)) <= 30


def test_terminal_without_a_size(file: TextIO) -> None:
    """One that says that it has no columns and lines is written to like any other."""
    shown = Shown(file, columns=0, lines=0)
    with shown.display as display:
        display.started("a.example", "ordered")
        assert len(shown.wait_for("a.example", "ordered")) == 1


@pytest.mark.parametrize(
    "words",
    [
        pytest.param("\x1b[2J\x1b[H\x1b]0;title\x07", id="escape sequences"),
        pytest.param("one\ntwo\rthree\ttab", id="lines"),
        pytest.param("[bold red]x[/nonsense]", id="markup"),
        pytest.param("a \u202e b \udcff", id="what is no character"),
    ],
)
def test_words_of_others(file: TextIO, words: str) -> None:
    """Nothing in a name or a message of the CA moves the cursor or breaks the display."""
    shown = Shown(file)
    with shown.display as display:
        display.started(f"a {words}", words)
        display.started("b.example", "ordered")
        lines = shown.wait_for("b.example")
        assert len(lines) == 2
        if "bold" in words:
            assert "[bold red]x[/nonsense]" in lines[0]


def test_events_without_a_beginning(file: TextIO) -> None:
    """Events that come late or twice are told all the same."""
    shown = Shown(file)
    display = shown.display
    display.done("a.example", "before")
    with display:
        display.step("b.example", "ordered")
        shown.wait_for("b.example")
        display.done("c.example", "never began")
    display.done("b.example", "after")
    display.close()
    assert [line.rpartition("] ")[2] for line in shown.screen.lines] == [
        "a.example: before",
        "c.example: never began",
        "b.example: after",
    ]
    assert shown.screen.cursor


def test_closed_by_an_error(file: TextIO) -> None:
    """An error leaves nothing of the display behind."""
    shown = Shown(file)
    with contextlib.suppress(KeyError), shown.display as display:
        display.started("a.example", "ordered")
        shown.wait_for("a.example")
        raise KeyError
    assert shown.screen.lines == []
    assert shown.screen.cursor


def test_terminal_gone() -> None:
    """A terminal that goes away takes nothing with it."""
    told: list[str] = []
    master, slave = os.openpty()
    with os.fdopen(slave, "w") as terminal, Display(terminal, told.append, told.append) as display:
        display.started("a.example", "ordered")
        os.read(master, 1)
        os.close(master)
        display.done("a.example", "issued")
    assert told == ["a.example: issued"]


SCRIPT = """
import signal, sys
from nginx_acme.log import Log
from nginx_acme.process import end_on_signals
from nginx_acme.progress import progress_for
signals = end_on_signals()
log = Log(sys.stderr)
with progress_for(sys.stderr, lambda message: log.notice(message)) as progress:
    signals.before_end(progress.close)
    log = Log(progress.stream)
    progress.started("a.example", "ordered")
    for number in range(100_000_000):
        progress.step("a.example", f"step {number}")
        if number % 1000 == 0:
            log.notice(f"message {number}")
"""


def test_ctrl_c() -> None:
    """Ctrl-C at any moment leaves messages on a real terminal, and a cursor."""
    master, slave = os.openpty()
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stderr=slave, stdin=slave)
    os.close(slave)
    output = b""
    with process, os.fdopen(master, "rb", buffering=0) as terminal:
        while b"message 3000" not in output:
            output += terminal.read(65536)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # a terminal without programs is no end of file
            while select.select([terminal], [], [], 20)[0] and (more := terminal.read(65536)):
                output += more
    assert process.returncode == 0
    screen = Screen(output.decode())
    assert screen.cursor
    *messages, last = screen.lines
    assert all(re.fullmatch(r"nginx-acme: \[notice\] message \d+", line) for line in messages)
    assert re.fullmatch(r"nginx-acme: \[notice\] message \d+|.  a\.example +\d+ s +step \d+", last)
