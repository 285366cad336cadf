"""A message for each event, and who gets a display instead."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from typing import TYPE_CHECKING, TextIO

import pytest

from nginx_acme.progress import Lines, progress_for
from nginx_acme.progress.display import Display

if TYPE_CHECKING:
    from collections.abc import Iterator


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """It is."""
        return True


@pytest.fixture
def terminal() -> Iterator[TextIO]:
    """A real one."""
    master, slave = os.openpty()
    with os.fdopen(slave, "w") as stream:
        yield stream
    os.close(master)


def nobody(_: str) -> None:
    """Hear nothing."""


def test_lines() -> None:
    """Without a terminal each event is a message."""
    notices: list[str] = []
    failures: list[str] = []
    with progress_for(io.StringIO(), notices.append, failures.append) as progress:
        progress.started("a.example", "there is no certificate yet")
        progress.step("a.example", "ordered")
        progress.done("a.example", "issued")
        progress.failed("b.example", "no such name")
        progress.close()
    assert notices == [
        "a.example: there is no certificate yet",
        "a.example: ordered",
        "a.example: issued",
    ]
    assert failures == ["b.example: no such name"]


def test_failure_is_told_somehow() -> None:
    """Who has one way to tell something is told failures by it, too."""
    told: list[str] = []
    progress_for(None, told.append).failed("a", "b")
    assert told == ["a: b"]


def test_stream() -> None:
    """Without a display others may write where they always do."""
    stream = io.StringIO()
    assert progress_for(stream, nobody).stream is stream
    assert progress_for(None, nobody).stream is None


@pytest.mark.parametrize(
    ("term", "kind"),
    [("xterm-256color", Display), ("linux", Display), ("dumb", Lines), (None, Lines)],
)
def test_terminal(
    terminal: TextIO, monkeypatch: pytest.MonkeyPatch, term: str | None, kind: type
) -> None:
    """A terminal gets a display, if it is one that can move its cursor."""
    if term is None:
        monkeypatch.delenv("TERM", raising=False)
    else:
        monkeypatch.setenv("TERM", term)
    assert isinstance(progress_for(terminal, nobody), kind)
    assert isinstance(progress_for(io.StringIO(), nobody), Lines)


def test_light() -> None:
    """Without a terminal nothing of rich is imported."""
    script = (
        "import sys; from nginx_acme.progress import progress_for;"
        "progress_for(sys.stderr, print).done('a', 'b');"
        "print([name for name in sys.modules if name.startswith('rich')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "a: b\n[]\n"
