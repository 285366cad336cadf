"""One program of the operator's, run for a limited time."""

from __future__ import annotations

import errno
import os
import signal
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nginx_acme.hooks.program import LONGEST_LINE, MOST_LINES, Ran, Runner
from tests.launcher import eventually

if TYPE_CHECKING:
    from collections.abc import Callable


def script(folder: Path, text: str) -> Path:
    """A program of the operator's, in shell."""
    path = folder / "hook"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def run(
    program: Path,
    *,
    limit: float = 60,
    facts: bytes = b"{}",
    farewells: list[Callable[[], object]] | None = None,
) -> Ran:
    """How a program went."""
    before_end = ([] if farewells is None else farewells).append
    return Runner(before_end, limit=limit, grace=0.5).run(str(program), facts, {"MORE": "more"})


def is_gone(pid_file: Path) -> bool:
    """Whether the process that wrote its pid there has ended."""
    return not Path(f"/proc/{pid_file.read_text().strip()}").exists()


def test_program(tmp_path: Path) -> None:
    """It gets the facts, a fixed environment and `/`; what it writes and how it ends is known."""
    program = script(tmp_path, "cat; pwd; env; echo oops >&2; exit 3")
    ran = run(program, facts=b'{"a": 1}\n')
    assert (ran.returncode, ran.late) == (3, False)
    assert ran.lines[:2] == ['{"a": 1}', "/"]
    assert ran.lines[-1] == "oops"
    names = {line.partition("=")[0] for line in ran.lines if "=" in line}
    assert names - {"PWD", "OLDPWD", "SHLVL", "_", "TZ"} == {"PATH", "LANG", "MORE"}


def test_signals_are_as_usual(tmp_path: Path) -> None:
    """What we ignore ourselves is not ignored by what a hook starts, and stays ignored here."""
    found = {number: signal.signal(number, signal.SIG_IGN) for number in (1, signal.SIGUSR1)}
    try:
        (line,) = run(script(tmp_path, "grep SigIgn /proc/self/status")).lines
        ours = (1, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)
        assert not any(int(line.split()[1], 16) >> (number - 1) & 1 for number in ours)
        assert signal.getsignal(1) is signal.SIG_IGN
    finally:
        for number, action in found.items():
            signal.signal(number, action)


def test_facts_that_nobody_reads(tmp_path: Path) -> None:
    """However many there are, a program may leave them, or read some of them."""
    facts = b"x" * 5_000_000
    assert run(script(tmp_path, "exit 0"), facts=facts).returncode == 0
    assert run(script(tmp_path, "head -c 10"), facts=facts).lines == ["x" * 10]


@pytest.mark.parametrize("how", ["no function", "no system call"])
def test_no_file_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """It gets all of them from a Python or a kernel, too, that has no such file; none is left."""

    def refused(_name: str) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    if how == "no function":
        monkeypatch.delattr(os, "memfd_create")
    else:
        monkeypatch.setattr(os, "memfd_create", refused)
    program = script(tmp_path, "readlink /proc/self/fd/0; wc -c")
    where, length = run(program, facts=b"x" * 100_000).lines
    assert where.endswith(" (deleted)")
    assert length == "100000"


def test_megabytes(tmp_path: Path) -> None:
    """Of what it writes the first lines are told; nothing is waited for or kept in memory."""
    program = script(
        tmp_path, "yes 'a long story' | head -c 10000000; yes | tr -d '\\n' | head -c 9"
    )
    ran = run(program)
    assert ran.returncode == 0
    assert ran.lines == ["a long story"] * MOST_LINES + ["(10000009 bytes in all)"]
    ran = run(script(tmp_path, "yes | tr -d '\\n' | head -c 1000000"))
    assert ran.lines == ["y" * LONGEST_LINE, "(1000000 bytes in all)"]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("echo $$ >&3; echo before; exec sleep 100", id="hangs"),
        pytest.param(
            "echo $$ >&3; echo before; trap '' TERM; while :; do sleep 1; done", id="deaf"
        ),
        pytest.param("sleep 100 & echo $! >&3; echo before; wait", id="waits for another"),
        pytest.param("echo $$ >&3; echo before; exec >&- 2>&-; exec sleep 100", id="silent"),
        pytest.param("echo $$ >&3; echo before; exec yes after", id="writes all the time"),
    ],
)
def test_time_limit(tmp_path: Path, text: str) -> None:
    """When its time is over it is ended, with all that it started, and what it wrote is known."""
    pid = tmp_path / "pid"
    ran = run(script(tmp_path, f"exec 3>{pid}; {text}"), limit=0.5)
    assert ran.late
    assert ran.returncode < 0
    assert ran.lines[0] == "before"
    eventually(partial(is_gone, pid))


def test_background(tmp_path: Path) -> None:
    """What it leaves running in the background is not waited for, and goes on."""
    pid = tmp_path / "pid"
    ran = run(script(tmp_path, f"sleep 100 & echo $! > {pid}; echo started"))
    assert (ran.returncode, ran.late, ran.lines) == (0, False, ["started"])
    assert not is_gone(pid)
    os.kill(int(pid.read_text()), signal.SIGKILL)


def test_killed(tmp_path: Path) -> None:
    """One that a signal ends is no success."""
    assert run(script(tmp_path, "kill -9 $$")).returncode == -9


@pytest.mark.parametrize("kind", ["missing", "no program", "a folder"])
def test_not_a_program(tmp_path: Path, kind: str) -> None:
    """What can't be run is an OSError and nothing worse."""
    path = tmp_path / "hook"
    if kind == "a folder":
        path.mkdir()
    if kind == "no program":
        path.write_text("#!/bin/sh\n")
    with pytest.raises(OSError, match=r"Permission denied|No such file"):
        run(path)


def test_signal_that_ends_us(tmp_path: Path) -> None:
    """The program that runs is ended with us; when none does, nobody is."""
    farewells: list[Callable[[], object]] = []
    pid = tmp_path / "pid"

    over = threading.Event()

    def end() -> None:
        eventually(lambda: pid.exists() and pid.read_text())
        while not over.wait(0.01):
            farewells[0]()

    ending = threading.Thread(target=end)
    ending.start()
    ran = run(script(tmp_path, f"echo $$ > {pid}; exec sleep 100"), farewells=farewells)
    over.set()
    ending.join()
    assert (ran.returncode, ran.late) == (-signal.SIGTERM, False)
    farewells[0]()
