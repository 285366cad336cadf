"""What wakes the agent, with real files, clocks and processes."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from nginx_acme.agent.alarms import DUE, LOOK, SURELY, Alarms
from nginx_acme.agent.process import _Turn
from tests.servers import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FAR = 3600.0
"""Seconds; nothing is due in a test."""


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    """An instance's folder with two generations, the first of them the current one."""
    for number in ("1", "2"):
        (tmp_path / "generations" / number).mkdir(parents=True)
        (tmp_path / "generations" / number / "nginx.conf").touch()
    (tmp_path / "generated").symlink_to("generations/1")
    return tmp_path


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """Something that stands for nginx: it ends with its stdin."""
    with subprocess.Popen(("cat",), stdin=subprocess.PIPE) as child:
        yield child


@pytest.fixture
def alarms(instance: Path, process: subprocess.Popen[bytes]) -> Alarms:
    """All of them."""
    return Alarms(process.pid, str(instance / "generated" / "nginx.conf"), str(instance))


def switch(instance: Path, number: str) -> None:
    """Make another generation the current one, as `disk.point` does."""
    (instance / "new").symlink_to(f"generations/{number}")
    (instance / "new").rename(instance / "generated")


def test_read(alarms: Alarms, instance: Path) -> None:
    """Whoever opens the main file that nginx was started with is noticed, once for all."""
    main = instance / "generated" / "nginx.conf"
    main.read_bytes()
    main.read_bytes()
    assert alarms.wait(time.time() + FAR, {}) == {LOOK}
    assert alarms.wait(time.time() - 1, {}) == {DUE}


def test_switch(alarms: Alarms, instance: Path) -> None:
    """After a switch it is who opens the new file that is noticed, no longer who opens the old."""
    switch(instance, "2")
    (
        instance / "generations" / "2" / "nginx.conf"
    ).read_bytes()  # it may be read before it is watched
    assert alarms.wait(time.time() + FAR, {}) == {LOOK}
    assert alarms.wait(time.time() - 1, {}) == {DUE}
    (instance / "generations" / "2" / "nginx.conf").read_bytes()
    assert alarms.wait(time.time() + FAR, {}) == {LOOK}
    (instance / "generations" / "1" / "nginx.conf").read_bytes()
    assert alarms.wait(time.time() - 1, {}) == {DUE}


def test_wake(alarms: Alarms, instance: Path) -> None:
    """Another process of ours wakes it; what else is written there doesn't."""
    (instance / "new").touch()
    (instance / "new").rename(instance / "loaded.json")
    assert alarms.wait(time.time() - 1, {}) == {DUE}
    (instance / "new").touch()
    (instance / "new").rename(instance / "wake")
    assert alarms.wait(time.time() + FAR, {}) == {DUE}
    (instance / "new").touch()
    (instance / "new").rename(instance / "look")
    assert alarms.wait(time.time() + FAR, {}) == {SURELY, DUE}


def test_moment(alarms: Alarms) -> None:
    """It sleeps until the moment, by the wall clock."""
    moment = float(int(time.time()) + 1)
    assert alarms.wait(moment, {}) == {DUE}
    assert time.time() >= moment


def test_end(alarms: Alarms, process: subprocess.Popen[bytes]) -> None:
    """The end of nginx is noticed, and the one that follows it is looked at then."""
    before = alarms.ended
    process.kill()
    process.wait()
    assert alarms.wait(time.time() + FAR, {}) == set()
    assert (before, alarms.ended) == (False, True)
    assert not alarms.follow(process.pid)
    assert alarms.follow(os.getpid())
    assert (before, alarms.ended) == (False, False)


def test_turn(alarms: Alarms) -> None:
    """While a turn goes on nothing is due; its end is noticed, and what it said."""
    turn = _Turn(["/bin/sh", "-c", 'echo "{\\"next\\": 1}"; exit 3'], "due")
    while not turn.is_over():
        assert alarms.wait(None, {turn.descriptor: turn.end}) == set()
    assert turn.said() == {"next": 1}
    assert turn.words == "ended with exit code 3"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        pytest.param("echo no JSON", "ended with exit code 0", id="says something else"),
        pytest.param("echo '[1]'", "ended with exit code 0", id="says another kind"),
        pytest.param("kill -9 $$", "was ended by signal 9", id="is killed"),
    ],
)
def test_turn_says_nothing(script: str, words: str) -> None:
    """A turn that didn't get so far as to say anything is known by its end."""
    turn = _Turn(["/bin/sh", "-c", script], "due")
    wait_for(turn.is_over)
    assert turn.said() is None
    assert turn.words == words


def test_turn_hangs(alarms: Alarms) -> None:
    """One that takes longer than it may is ended."""
    turn = _Turn(["/bin/cat", "/dev/zero"], "-")
    turn.end = time.monotonic() - 1
    alarms.wait(None, {turn.descriptor: turn.end})
    wait_for(turn.is_over)
    assert turn.words == "was ended by signal 9"


def test_no_turn() -> None:
    """A program that is gone is an error that can be told."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        _Turn(["/nowhere"], "due")
    assert len(os.listdir("/proc/self/fd")) == before


def test_old_python(
    instance: Path, process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Python or Linux has no pidfd, the end of nginx is found by looking."""
    monkeypatch.delattr(os, "pidfd_open")
    main = instance / "generated" / "nginx.conf"
    alarms = Alarms(process.pid, str(main), str(instance))
    main.read_bytes()
    assert alarms.wait(time.time() + FAR, {}) == {LOOK}
    process.kill()
    process.wait()
    assert alarms.wait(time.time() - 1, {}) == {DUE}
    assert alarms.ended


def test_no_watches(instance: Path, process: subprocess.Popen[bytes]) -> None:
    """Where nothing can be watched the agent knows it, and looks when the clock wakes it."""
    alarms = Alarms(process.pid, str(instance / "generated" / "nginx.conf"), "/nowhere")
    assert alarms.deaf is not None
    assert alarms.wait(time.time() - 1, {}) == {DUE, LOOK}
