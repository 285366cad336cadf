"""What is said to the operator, in nginx's own format.

    nginx-acme: [warn] message                          to whoever started us, on stderr
    2026/11/23 10:51:36 [warn] 123#0: message           a line of log: to stderr, and to the error log

As nginx does, a message goes to stderr and also, with date and pid, to the error log. The log
file is opened for every message: it is rotated by nginx (USR1), which doesn't tell us. That it
can't be opened is never a reason to fail.

Words of others (a CA's, a file name's) can't move the cursor or forge a line: what is not
printable is escaped. The logging module is not used: it costs more than the start
of the interpreter, and its handlers keep their files open.

Imported at every start; see errors.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

LEVELS = ("emerg", "alert", "crit", "error", "warn", "notice", "info", "debug")
"""nginx's levels, the gravest first (`ngx_log.h`)."""

_SPEAKERS = ("nginx: [", "angie: [")
"""How lines with a level begin that nginx writes to a stderr of its own."""
_NOT_FILES = ("syslog:", "memory:")


def level_of(line: str) -> tuple[str, str] | None:
    """Level and message of a line of nginx's such as `nginx: [emerg] …`; None where it has none."""
    for speaker in _SPEAKERS:
        if line.startswith(speaker):
            level, bracket, message = line.removeprefix(speaker).partition("] ")
            return (level, message) if bracket and level in LEVELS else None
    return None


class Log:
    """Where messages go. Nothing is raised when nobody can hear them.

    - `stream`: stderr; None where there is none. Whoever shows something else there puts another
      one in its place meanwhile;
    - `error_log`: see `add_file`;
    - `dated`: the stream gets lines of log, too; for what is said while nobody may be watching;
    - `level`: the least grave level that is told;
    - `now`: seconds since the epoch.
    """

    def __init__(
        self,
        stream: TextIO | None,
        *,
        error_log: str | None = None,
        dated: bool = False,
        level: str = "notice",
        now: Callable[[], float] = time.time,
    ) -> None:
        self.stream = stream
        self._always_dated = dated
        self._told = LEVELS[: LEVELS.index(level) + 1]
        self._now = now
        self.add_file(error_log)

    def add_file(self, error_log: str | None) -> None:
        """Write to this error log from now on, too, and to no other one.

        That is an absolute path, or `stderr`, which makes the stream the log; None, `syslog:` and
        `memory:` are no file.
        """
        is_file = error_log not in {None, "stderr"} and not error_log.startswith(_NOT_FILES)
        self._file = error_log if is_file else None
        self._dated = self._always_dated or error_log == "stderr"

    def notice(self, message: str) -> None:
        """Something went as it should."""
        self._tell("notice", message)

    def warn(self, message: str) -> None:
        """Something is odd; all goes on."""
        self._tell("warn", message)

    def error(self, message: str) -> None:
        """Something failed; the rest goes on."""
        self._tell("error", message)

    def emerg(self, message: str) -> None:
        """Nginx can't start, or can't be reloaded, because of this."""
        self._tell("emerg", message)

    def entry(self, message: str, error_log: str) -> None:
        """Write a notice to an error log, wherever that is, and nowhere else."""
        Log(self.stream if error_log == "stderr" else None, error_log=error_log).notice(message)

    def relay(self, *lines: str) -> None:
        """Pass on lines that nginx wrote to a stderr of its own, such as `nginx: [emerg] …`.

        The stream gets a line as it is; the error log gets its message, as nginx's own would.
        What has no level (`nginx: configuration file … test failed`) is not for the log.
        """
        for line in lines:
            self._relay(line)

    def _relay(self, line: str) -> None:
        logged = level_of(line)
        if logged is None:
            self._write(line)
            return
        level, message = logged
        if level not in self._told:
            return
        dated = self._log_line(level, message)
        self._write(dated if self._dated else line)
        self._append(dated)

    def _tell(self, level: str, message: str) -> None:
        if level not in self._told:
            return
        line = self._log_line(level, message)
        self._write(line if self._dated else f"nginx-acme: [{level}] {message}")
        self._append(line)

    def _log_line(self, level: str, message: str) -> str:
        date = time.strftime("%Y/%m/%d %H:%M:%S", time.localtime(self._now()))
        return f"{date} [{level}] {os.getpid()}#0: {message}"

    def _write(self, line: str) -> None:
        if self.stream is None:
            return
        try:
            self.stream.write(f"{printable(line)}\n")
            self.stream.flush()
        except OSError:
            self.stream = None

    def _append(self, line: str) -> None:
        if self._file is None:
            return
        try:
            log = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError:
            return
        try:
            if not self._is_stream(log):
                os.write(log, f"{printable(line)}\n".encode())
        except OSError:
            return
        finally:
            os.close(log)

    def _is_stream(self, log: int) -> bool:
        """Whether the log is where the stream goes already, as in nginx's official image."""
        try:
            return self.stream is not None and os.path.sameopenfile(self.stream.fileno(), log)
        except (OSError, ValueError):
            return False


def printable(text: str) -> str:
    r"""The text with Python's escapes (`\n`, `\x1b`, `\u202e`) for what can't be seen in a line.

    That is also what hides or turns round what follows, and what is no character at all: a byte
    of a file name that is no UTF-8, which Python keeps as a lone surrogate and we show as `\xfc`.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    if "\udc80" <= char <= "\udcff":
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode()
