"""`make demo`: what a newcomer runs first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.servers import PATIENCE, ROOT, Program, environment, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

DEMO = (sys.executable, "-u", "-m", "tests.demo")


def descendants(pid: int) -> Iterator[int]:
    """Every process below another one."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    for child in map(int, children.split()):
        yield child
        yield from descendants(child)


def once(**environ: str) -> subprocess.CompletedProcess[str]:
    """The demo as `make demo ONCE=1` runs it."""
    return subprocess.run(
        DEMO,
        cwd=ROOT,
        env=environment(ONCE="1", **environ),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@pytest.mark.usefixtures("nginx", "pebble")
def test_once() -> None:
    """It shows a verified answer with who issued the certificate, and leaves no folder."""
    ended = once()
    assert ended.returncode == 0, ended.stderr
    assert "200 Hello from nginx" in ended.stdout
    assert "Issued by  Pebble Intermediate CA" in ended.stdout
    assert not any(os.path.exists(word) for word in ended.stdout.split() if "-demo-" in word)


@pytest.mark.usefixtures("nginx")
def test_without_pebble(tmp_path: Path) -> None:
    """Without pebble it says so, and the answer is verified with the root of `local`."""
    ended = once(PATH=str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    assert "pebble is not installed" in ended.stdout
    assert "200 Hello from nginx" in ended.stdout


@pytest.mark.usefixtures("nginx", "pebble")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(tmp_path: Path, number: signal.Signals) -> None:
    """It stays up until Ctrl-C, and leaves nothing running."""
    demo = Program(DEMO, tmp_path / "output", cwd=ROOT)
    demo.start(lambda: "stays up until Ctrl-C" in demo.output(), 60)
    below = list(descendants(demo.pid))
    assert len(below) >= 4  # pebble, its DNS, nginx and a worker
    demo.stop(number)
    assert demo.returncode == 0
    wait_for(
        lambda: not any(os.path.exists(f"/proc/{pid}") for pid in below), PATIENCE, "their end"
    )
