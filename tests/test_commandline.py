"""What argv means: nginx's own rules, and our words among its options."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nginx_acme.commandline import (
    COMMAND,
    DUMP,
    PASS,
    SIGNAL,
    SIGNALS,
    START,
    TEST,
    WORDS,
    CommandLine,
    parse,
)

SETTINGS = st.tuples(st.sampled_from("pecg"), st.text(max_size=8))
"""An option that may stand beside one of our words, with its value."""

OPTIONS = st.one_of(
    SETTINGS,
    st.tuples(st.just("s"), st.sampled_from(SIGNALS)),
    st.tuples(st.sampled_from("?hvVtTq"), st.just("")),
)


@st.composite
def spellings(draw: st.DrawFn, options: list[tuple[str, str]]) -> list[str]:
    """One of the ways to write these options: in one word or several, values glued or not."""
    argv = ["-"]
    for letter, value in options:
        if argv[-1][:1] != "-" or draw(st.booleans()):
            argv.append("-")
        argv[-1] += letter
        if letter not in "pecgs":
            continue
        if value and draw(st.booleans()):
            argv[-1] += value
        else:
            argv.append(value)
        argv.append("-")
    return argv


def meaning(line: CommandLine) -> tuple[object, ...]:
    """Everything that nginx is told."""
    return (
        *(line.action, line.conf, line.prefix, line.error_log, line.directives),
        *(line.signal, line.quiet, line.word, line.rest),
    )


@pytest.mark.parametrize(
    ("argv", "action"),
    [
        pytest.param([], START, id="nothing"),
        pytest.param(["-"], START, id="a lone dash is nothing"),
        pytest.param(["-q"], START, id="quiet"),
        pytest.param(["-t"], TEST, id="test"),
        pytest.param(["-T"], DUMP, id="dump"),
        pytest.param(["-tT"], DUMP, id="test and dump"),
        pytest.param(["-tq"], TEST, id="options in one word"),
        pytest.param(["-tqcfile"], TEST, id="options in one word, the last with its value"),
        pytest.param(["-tqc", "file"], TEST, id="options in one word, the value in the next"),
        pytest.param(["-Vt"], TEST, id="a test that shows the version, too"),
        pytest.param(["-ht"], TEST, id="a test that shows the help, too"),
        pytest.param(["-s", "reload"], SIGNAL, id="signal"),
        pytest.param(["-sstop"], SIGNAL, id="signal glued"),
        pytest.param(["-s", "stop", "-s", "quit"], SIGNAL, id="two signals"),
        pytest.param(["-t", "-s", "reload"], TEST, id="a test is never followed by the signal"),
        pytest.param(["-v", "-s", "reload"], PASS, id="nor is the version"),
        pytest.param(["-s", "restart"], PASS, id="unknown signal"),
        pytest.param(["-s", "stop", "-s", ""], PASS, id="empty signal"),
        pytest.param(["-h"], PASS, id="help"),
        pytest.param(["-?"], PASS, id="question mark"),
        pytest.param(["-v"], PASS, id="version"),
        pytest.param(["-qV"], PASS, id="version and modules"),
        pytest.param(["-x"], PASS, id="unknown option"),
        pytest.param(["-tx"], PASS, id="unknown option in a word"),
        pytest.param(["-t", "-c"], PASS, id="value missing"),
        pytest.param(["-ct", "-g"], PASS, id="value missing after a glued one"),
        pytest.param(["--"], PASS, id="two dashes"),
        pytest.param(["--help"], PASS, id="a long option"),
        pytest.param([""], PASS, id="an empty argument"),
        pytest.param(["reload"], PASS, id="a word that is not ours"),
        pytest.param(["Plan"], PASS, id="a word of ours in another case"),
        pytest.param(["plan"], COMMAND, id="a word of ours"),
        pytest.param(["-c", "plan"], START, id="a value that looks like a word of ours"),
        pytest.param(["-t", "plan"], PASS, id="a word beside an action of nginx"),
        pytest.param(["-s", "stop", "plan"], PASS, id="a word beside a signal"),
    ],
)
def test_action(argv: list[str], action: str) -> None:
    """What shall be done is decided as nginx decides it."""
    assert parse(argv).action == action


def test_values() -> None:
    """Values may be glued, separate or empty, begin with a dash, and the last one counts."""
    line = parse(["-cfirst", "-c", "-second", "-p", "", "-estderr", "-g", "daemon off;", "-q"])
    assert line.argv[0] == "-cfirst"
    assert (line.conf, line.prefix, line.error_log) == ("-second", "", "stderr")
    assert (line.directives, line.signal, line.quiet) == ("daemon off;", None, True)


def test_refused() -> None:
    """Of a command line that nginx refuses nothing is known but its words."""
    line = parse(["-c", "file", "--oops"])
    assert line.argv == ("-c", "file", "--oops")
    assert meaning(line) == (PASS, None, None, None, None, None, False, None, ())


@pytest.mark.parametrize(
    ("argv", "rest"),
    [
        pytest.param(["renew", "-cF", "-p", "P"], (), id="nginx's options after the word"),
        pytest.param(["-c", "F", "-pP", "renew"], (), id="before it"),
        pytest.param(["-cF", "renew", "--force", "a.example", "-p", "P", "--json"],
                     ("--force", "a.example", "--json"), id="ours are left, in order"),
        pytest.param(["-cF", "renew", "plan", "-q", "-", "", "-pP"],
                     ("plan", "-q", "-", ""), id="whatever else stands after the word is left"),
        pytest.param(["-cF", "-pP", "renew", "-g"], ("-g",), id="an option without its value, too"),
    ],
)  # fmt: skip
def test_words(argv: list[str], rest: tuple[str, ...]) -> None:
    """A word of ours takes nginx's options on both sides; the command gets what is left."""
    line = parse(argv)
    assert (line.action, line.word, line.rest) == (COMMAND, "renew", rest)
    assert (line.conf, line.prefix) == ("F", "P")


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        pytest.param([], ("-c", "GEN"), id="nothing"),
        pytest.param(["-c", "a", "-cb"], ("-c", "GEN"), id="-c is replaced"),
        pytest.param(["-g", "daemon off;", "-pP"],
                     ("-c", "GEN", "-g", "daemon off;", "-p", "P"), id="all else as given"),
        pytest.param(["-tqcfile"], ("-c", "GEN", "-t", "-q"), id="one word becomes several"),
        pytest.param(["-e", ""], ("-c", "GEN", "-e", ""), id="an empty value stays"),
        pytest.param(["plan", "--json", "-pP"], ("-c", "GEN", "-p", "P"), id="no word of ours"),
    ],
)  # fmt: skip
def test_for_nginx(argv: list[str], expected: tuple[str, ...]) -> None:
    """Nginx gets the user's options with our main file."""
    assert parse(argv).for_nginx("GEN") == expected


@given(st.lists(OPTIONS), st.text(min_size=1), st.dictionaries(st.text(), st.text()))
def test_for_start(options: list[tuple[str, str]], conf: str, environ: dict[str, str]) -> None:
    """It means the same, and the title that nginx makes of it names the main file to its end."""
    line = CommandLine((), options)
    arguments = line.for_start(conf, environ)
    again = parse(arguments)
    assert again.conf == conf
    assert (again.directives or "").rstrip(" ") == (line.directives or "").rstrip(" ")
    words = ("/sbin/nginx", *arguments, *(f"{name}={value}" for name, value in environ.items()))
    room = "".join(f"{word}\0" for word in words).encode("utf-8", "surrogatepass")
    title = " ".join(("nginx: master process /sbin/nginx", *arguments))
    shown = title.encode("utf-8", "surrogatepass")[: len(room) - 1]
    assert f"/sbin/nginx -c {conf}".encode("utf-8", "surrogatepass") in shown


def test_for_start_with_room() -> None:
    """Where there is room nothing is added."""
    line = parse(["-p", "/srv/www/", "-g", "daemon off;"])
    assert line.for_start("GEN", {}) == line.for_nginx("GEN")
    assert parse([]).for_start("GEN", {"PATH": "/usr/sbin:/usr/bin"}) == ("-c", "GEN")


def test_for_nginx_error_log() -> None:
    """The error log can be replaced as well."""
    arguments = parse(["-eold", "-q"]).for_nginx("GEN", error_log="/dev/null")
    assert arguments == ("-c", "GEN", "-e", "/dev/null", "-q")


def test_for_test() -> None:
    """A test has the settings of the command line and nothing else of it."""
    arguments = parse(["-vqs", "reload", "-pP", "-cC", "-gG"]).for_test("GEN", error_log="stderr")
    assert arguments == ("-t", "-c", "GEN", "-e", "stderr", "-p", "P", "-g", "G")


@given(st.data(), st.lists(OPTIONS))
def test_spellings(data: st.DataObject, options: list[tuple[str, str]]) -> None:
    """However options are written, they mean the same."""
    line = parse(data.draw(spellings(options)))
    assert meaning(line) == meaning(CommandLine((), options))


@given(st.data(), st.lists(OPTIONS), st.text(min_size=1))
def test_round_trip(data: st.DataObject, options: list[tuple[str, str]], conf: str) -> None:
    """What nginx is given means what the user asked for, but for the main file."""
    line = parse(data.draw(spellings(options)))
    again = parse(line.for_nginx(conf))
    assert again.conf == conf
    assert meaning(again) == meaning(CommandLine((), [*options, ("c", conf)]))


@given(st.lists(SETTINGS), st.lists(SETTINGS), st.sampled_from(WORDS))
def test_word_anywhere(
    before: list[tuple[str, str]], after: list[tuple[str, str]], word: str
) -> None:
    """Where the word stands among nginx's options makes no difference."""

    def written(options: list[tuple[str, str]]) -> list[str]:
        return [part for letter, value in options for part in (f"-{letter}", value)]

    line = parse([*written(before), word, *written(after)])
    assert meaning(line) == meaning(parse([word, *written(before + after)]))
    assert line.rest == ()


@given(st.lists(st.text()))
def test_anything(argv: list[str]) -> None:
    """No argv fails, and none is lost."""
    assert parse(argv).argv == tuple(argv)


ODD = st.one_of(
    st.text(alphabet="?hvVtTqpecgs-x ", max_size=4).map("-{}".format),
    st.sampled_from(["", "-", "stop", "reload", "nowhere", "/nowhere/x", "/dev/null", "stderr"]),
)


@settings(deadline=None, max_examples=80)
@given(st.lists(ODD, max_size=4))
def test_like_nginx(nginx: str, argv: list[str]) -> None:
    """What the real nginx refuses is passed to it, and nothing else."""
    argv = ["-t", "-e", "/dev/null", *argv, "-e", "/dev/null"]
    answer = subprocess.run(
        [nginx, *argv, "-c", "/nowhere/nginx.conf"], capture_output=True, check=False, text=True
    ).stderr
    refused = not answer.rstrip().endswith("configuration file /nowhere/nginx.conf test failed")
    assert (parse([*argv, "-c", "/nowhere/nginx.conf"]).action == PASS) is refused, answer
