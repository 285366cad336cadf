"""Messages in nginx's format, which nobody's words can forge."""

from __future__ import annotations

import io
import os
import re
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_acme.log import Log, printable

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_795_431_096.7


def log_line(message: str) -> str:
    """The line of log that a message becomes at NOW."""
    date = time.strftime("%Y/%m/%d %H:%M:%S", time.localtime(NOW))
    level, _, words = message.partition("] ")
    return f"{date} {level}] {os.getpid()}#0: {words}\n"


class Closed(io.StringIO):
    """A stream that nobody reads any more."""

    def write(self, _: str, /) -> int:
        """Fail as a broken pipe does."""
        raise BrokenPipeError


def test_stream() -> None:
    """Whoever started us reads messages as nginx writes its own."""
    stream = io.StringIO()
    log = Log(stream)
    log.notice("a")
    log.warn("b")
    log.error("c")
    log.emerg("d")
    assert stream.getvalue() == (
        "nginx-acme: [notice] a\n"
        "nginx-acme: [warn] b\n"
        "nginx-acme: [error] c\n"
        "nginx-acme: [emerg] d\n"
    )


def test_dated() -> None:
    """Without a terminal, a message is a line of log; it looks like nginx's."""
    stream = io.StringIO()
    Log(stream, dated=True, now=lambda: NOW).notice("a")
    assert stream.getvalue() == log_line("[notice] a")
    assert re.fullmatch(r"2026/11/2\d \d\d:\d\d:36 \[notice\] \d+#0: a\n", stream.getvalue())


def test_error_log(tmp_path: Path) -> None:
    """The error log gets a line of log beside what stderr gets; it may be rotated between two."""
    stream = io.StringIO()
    path = tmp_path / "error.log"
    log = Log(stream, error_log=str(path), now=lambda: NOW)
    log.warn("a")
    path.rename(tmp_path / "error.log.1")
    log.warn("b")
    log.warn("c")
    assert (tmp_path / "error.log.1").read_text() == log_line("[warn] a")
    assert path.read_text() == log_line("[warn] b") + log_line("[warn] c")
    assert stream.getvalue().splitlines()[0] == "nginx-acme: [warn] a"


def test_error_log_is_stderr() -> None:
    """Where the error log is stderr, everything is told once, as a line of log."""
    stream = io.StringIO()
    Log(stream, error_log="stderr", now=lambda: NOW).warn("a")
    assert stream.getvalue() == log_line("[warn] a")


def test_error_log_known_later(tmp_path: Path) -> None:
    """The error log is known only when the configuration has been read."""
    stream = io.StringIO()
    log = Log(stream, now=lambda: NOW)
    log.warn("a")
    log.add_file("stderr")
    log.warn("b")
    log.add_file(str(tmp_path / "error.log"))
    log.warn("c")
    assert (
        stream.getvalue() == f"nginx-acme: [warn] a\n{log_line('[warn] b')}nginx-acme: [warn] c\n"
    )
    assert (tmp_path / "error.log").read_text() == log_line("[warn] c")


@pytest.mark.parametrize("error_log", ["/nowhere/error.log", "/", "/dev/full", "syslog:server=x", "memory:1m", None])  # fmt: skip
def test_no_error_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error_log: str) -> None:
    """A log that can't be written, or is no file, loses its copy and nothing else."""
    monkeypatch.chdir(tmp_path)
    stream = io.StringIO()
    Log(stream, error_log=error_log).warn("a")
    assert stream.getvalue() == "nginx-acme: [warn] a\n"
    assert list(tmp_path.iterdir()) == []


def test_no_stream(tmp_path: Path) -> None:
    """Where there is no stderr, or nobody reads it, the error log still gets all."""
    path = tmp_path / "error.log"
    for stream in (None, Closed()):
        log = Log(stream, error_log=str(path), now=lambda: NOW)
        log.warn("a")
        log.warn("b")
    assert path.read_text() == 2 * (log_line("[warn] a") + log_line("[warn] b"))


@pytest.mark.parametrize(
    ("level", "told"),
    [("info", "nwe"), ("notice", "nwe"), ("warn", "we"), ("error", "e"), ("alert", "")],
)
def test_level(tmp_path: Path, level: str, told: str) -> None:
    """What is less grave than the level is told nowhere."""
    stream = io.StringIO()
    path = tmp_path / "error.log"
    log = Log(stream, error_log=str(path), level=level)
    log.notice("n")
    log.warn("w")
    log.error("e")
    assert [line[-1] for line in stream.getvalue().splitlines()] == list(told)
    assert path.exists() is bool(told)


@pytest.mark.parametrize(
    ("line", "logged"),
    [
        pytest.param("nginx: [emerg] bad] thing in /etc/nginx/nginx.conf:3",
                     "[emerg] bad] thing in /etc/nginx/nginx.conf:3", id="a message"),
        pytest.param("nginx: [warn] odd", "[warn] odd", id="a warning"),
        pytest.param("angie: [emerg] bad", "[emerg] bad", id="Angie's"),
        pytest.param("nginx: configuration file /etc/nginx/nginx.conf test failed", None,
                     id="no level"),
        pytest.param("nginx: [odd] thing", None, id="no level of nginx's"),
        pytest.param("nginx: [emerg]", None, id="cut off"),
        pytest.param("ld.so: no such library", None, id="not nginx's"),
    ],
)  # fmt: skip
def test_relay(tmp_path: Path, line: str, logged: str | None) -> None:
    """A line of nginx's is shown as it is, and logged as nginx logs it."""
    stream = io.StringIO()
    path = tmp_path / "error.log"
    Log(stream, error_log=str(path), now=lambda: NOW).relay(line)
    assert stream.getvalue() == line + "\n"
    assert (path.read_text() if path.exists() else None) == (logged and log_line(logged))


def test_entry(tmp_path: Path) -> None:
    """What is for another log alone goes there, and to stderr only where that is it."""
    path, stream = tmp_path / "error.log", io.StringIO()
    log = Log(stream, error_log=str(path))
    log.entry("said", str(tmp_path / "startup.log"))
    log.entry("said", "stderr")
    assert not path.exists()
    for text in ((tmp_path / "startup.log").read_text(), stream.getvalue()):
        assert re.fullmatch(r"\S+ \S+ \[notice\] \d+#0: said\n", text)


def test_relay_where_stderr_is_the_log() -> None:
    """A line of nginx's becomes a line of log where stderr is one."""
    stream = io.StringIO()
    log = Log(stream, error_log="stderr", level="warn", now=lambda: NOW)
    log.relay("nginx: [emerg] bad")
    log.relay("nginx: [notice] fine")
    log.relay("nginx: configuration file x test failed")
    expected = log_line("[emerg] bad") + "nginx: configuration file x test failed\n"
    assert stream.getvalue() == expected


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("Zürich, 東京", "Zürich, 東京", id="letters of any script"),
        pytest.param("a\nnginx-acme: [emerg] b", r"a\nnginx-acme: [emerg] b", id="a line's end"),
        pytest.param("\x1b[2J\r\x7f\x9b", r"\x1b[2J\r\x7f\x9b", id="a terminal's controls"),
        pytest.param("\u202egpj.exe\u2028", r"\u202egpj.exe\u2028", id="a text's direction"),
        pytest.param("\U000e0041", r"\U000e0041", id="an invisible tag"),
        pytest.param("caf\udce9", r"caf\xe9", id="a byte that is no UTF-8"),
        pytest.param("\ud800", r"\ud800", id="a lone surrogate"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    """What could move the cursor, forge a line or hide is shown by its code."""
    assert printable(text) == shown


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_one_line(text: str) -> None:
    """A message is one line of what can be read, whoever wrote it."""
    stream = io.StringIO()
    Log(stream).error(text)
    line, end = stream.getvalue()[:-1], stream.getvalue()[-1]
    assert (line.isprintable(), end) == (True, "\n")


def test_error_log_leads_to_stderr(tmp_path: Path) -> None:
    """Where the error log leads to stderr, as in the official image, a message is told once."""
    path = tmp_path / "stderr"
    with path.open("w") as stream:
        Log(stream, error_log=str(path)).warn("odd")
    assert path.read_text() == "nginx-acme: [warn] odd\n"
