"""What the arguments mean, by nginx's rules: argv in, one value out.

What may live here: the reading of argv and the writing of nginx's argv from it, nothing that
looks at a file. nginx's own reading (`ngx_get_options`) is followed letter by letter, since
argparse and getopt read other languages: they know `--`, abbreviations and options that may not
follow a value. What nginx refuses is not judged here at all: it is passed to nginx, which says it
in its own words and with its own exit code.

Imported at every start, so its data are a plain class with slots: importing dataclasses alone
costs more than half of what an interpreter needs to start.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

START = "start"
"""nginx shall run."""
TEST = "test"
"""`-t`: is the configuration right?"""
DUMP = "dump"
"""`-T`: the same, and show it."""
SIGNAL = "signal"
"""`-s`: tell the running nginx something."""
COMMAND = "command"
"""One of our own words."""
PASS = "pass"  # noqa: S105 - not a password
"""nginx answers by itself: `-h`, `-v`, `-V`, and every mistake."""

WORDS = ("plan", "status", "renew", "doctor", "revoke", "account", "agent")
"""Our commands; nginx refuses every argument without a dash."""

SIGNALS = ("stop", "quit", "reopen", "reload")
"""What `-s` may be followed by."""

_FLAGS = frozenset("?hvVtTq")
_WITH_VALUE = frozenset("pecgs")
_TITLE = len("nginx: master process ")
"""By so much the title is longer than what it is made of."""
_SETTINGS = frozenset("pecg")
"""Which nginx is meant: what stands beside one of our words, too."""


class CommandLine:
    """What was asked for. Of an option that was given twice the last one counts, as in nginx."""

    __slots__ = (
        "_options",
        "action",
        "argv",
        "conf",
        "directives",
        "error_log",
        "prefix",
        "quiet",
        "rest",
        "signal",
        "word",
    )

    def __init__(
        self,
        argv: Sequence[str],
        options: Sequence[tuple[str, str]] | None,
        word: str | None = None,
        rest: Sequence[str] = (),
    ) -> None:
        """`options` are letters with their values, in order; None where nginx refuses `argv`."""
        given = dict(options or ())
        self.argv = tuple(argv)
        self.conf = given.get("c")
        self.prefix = given.get("p")
        self.error_log = given.get("e")
        self.directives = given.get("g")
        self.signal = given.get("s")
        self.quiet = "q" in given
        self.word = word
        self.rest = tuple(rest)
        self.action = PASS if options is None else _action(frozenset(given), word)
        self._options = tuple(options or ())

    def for_nginx(self, conf: str, *, error_log: str | None = None) -> tuple[str, ...]:
        """Arguments for nginx that mean the same with another main file (and error log).

        `-c` comes first: nginx shows its arguments as the master's title, whose end is lost
        where arguments and environment are shorter than the title (`ngx_setproctitle`).
        """
        replaced = {"c": conf} if error_log is None else {"c": conf, "e": error_log}
        kept = (option for option in self._options if option[0] not in replaced)
        return (*_written(replaced.items()), *_written(kept))

    def for_start(self, conf: str, environ: Mapping[str, str]) -> tuple[str, ...]:
        """The same for the nginx that stays: its title shall have the main file to the end.

        Where neither options nor environment make room for that, -g does, with spaces.
        """
        _, _, *rest = self.for_nginx(conf)
        room = (*rest, *(f"{name}={value}" for name, value in environ.items()))
        missing = _TITLE - sum(len(text) + 1 for text in room)
        if missing <= 0:
            return self.for_nginx(conf)
        kept = [option for option in self._options if option[0] != "g"]
        padded = f"{self.directives or ''}{' ' * missing}"
        return CommandLine((), [*kept, ("g", padded)]).for_nginx(conf)

    def for_test(
        self, conf: str, *, error_log: str | None = None, directives: str | None = None
    ) -> tuple[str, ...]:
        """Arguments for `nginx -t` with the settings of this command line and another main file.

        Without `-s`, beside which nginx tests less: no file is opened and no socket bound.
        """
        return ("-t", *self.settings(conf, error_log=error_log, directives=directives))

    def settings(
        self,
        conf: str,
        *,
        error_log: str | None = None,
        prefix: str | None = None,
        directives: str | None = None,
    ) -> tuple[str, ...]:
        """Only what says which nginx is meant (`-p -c -e -g`), with another main file.

        What isn't None stands in place of what was given.
        """
        given = [option for option in self._options if option[0] in _SETTINGS]
        for letter, value in (("p", prefix), ("g", directives)):
            if value is not None:
                given = [(letter, value), *(option for option in given if option[0] != letter)]
        return CommandLine((), given).for_nginx(conf, error_log=error_log)


def parse(argv: Sequence[str]) -> CommandLine:
    """What `argv`, without the program's name, asks for. Never fails: see PASS.

    A word of ours may stand before, between or after the options `-p -e -c -g`. Every other
    argument after the word, also one of these without its value, is left to the command as `rest`.
    """
    options: list[tuple[str, str]] = []
    rest: list[str] = []
    word = None
    arguments = iter(argv)
    for argument in arguments:
        if word is None and argument in WORDS:
            word = argument
            continue
        ours = word is not None and not _is_setting(argument)
        read = None if ours else _read(argument, arguments)
        if read is not None:
            options += read
        elif word is not None:
            rest.append(argument)
        else:
            return CommandLine(argv, None)
    return CommandLine(argv, options, word, rest)


def _is_setting(argument: str) -> bool:
    return argument[:1] == "-" and argument[1:2] in _SETTINGS


def _read(argument: str, following: Iterator[str]) -> list[tuple[str, str]] | None:
    """The options in one argument and, if it needs it, the next one; None where nginx refuses."""
    if not argument.startswith("-"):
        return None
    options: list[tuple[str, str]] = []
    for place, letter in enumerate(argument[1:], start=2):
        if letter in _WITH_VALUE:
            value = argument[place:] or next(following, None)
            if value is None or (letter == "s" and value not in SIGNALS):
                return None
            return [*options, (letter, value)]
        if letter not in _FLAGS:
            return None
        options.append((letter, ""))
    return options


def _action(letters: frozenset[str], word: str | None) -> str:
    """The order is nginx's: a test also shows the version, and is never followed by a signal."""
    if word is not None:
        return COMMAND if letters <= _SETTINGS else PASS
    if "T" in letters:
        return DUMP
    if "t" in letters:
        return TEST
    if letters & frozenset("?hvV"):
        return PASS
    return SIGNAL if "s" in letters else START


def _written(options: Iterable[tuple[str, str]]) -> Iterator[str]:
    for letter, value in options:
        yield f"-{letter}"
        if letter in _WITH_VALUE:
            yield value
