"""The health check of the image, by a shell alone, with an nginx-acme that writes down its calls."""

from __future__ import annotations

import os
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.servers import ROOT

if TYPE_CHECKING:
    from pathlib import Path

LOOK = ["renew -c /x y.conf", "status --check -c /x y.conf"]
HOUR = 3600  # seconds


class Check:
    """The script in a folder that has everything it touches: `log` is the container's."""

    def __init__(self, folder: Path) -> None:
        self.looked = folder / "run" / "looked"
        self.log = folder / "log"
        self._folder = folder
        self._calls = folder / "calls"
        self.looked.parent.mkdir()
        self.log.touch()
        (folder / "instances").mkdir()
        program = folder / "nginx-acme"
        program.write_text(
            f'#!/bin/sh\necho "$@" >>{self._calls}\necho "said of $1"\n[ "$1" = renew ]\n'
        )
        program.chmod(0o755)

    def run(self) -> str:
        """Run it, which succeeds; what it writes itself."""
        text = (ROOT / "conf" / "healthcheck.sh").read_text()
        for user in ("/run", "/tmp"):  # noqa: S108 - the names in the script
            text = text.replace(f"{user}/nginx-acme.looked", str(self.looked))
        script = self._folder / "script"
        script.write_text(text.replace("/proc/1/fd/2", str(self.log)))
        ended = subprocess.run(
            ("sh", str(script), "-c", "/x y.conf"),
            env={
                "PATH": f"{self._folder}:{os.environ['PATH']}",
                "NGINX_ACME_STATE_PATH": str(self._folder),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def calls(self) -> list[str]:
        """The calls of nginx-acme since they were asked for last."""
        found = self._calls.read_text().splitlines() if self._calls.exists() else []
        self._calls.unlink(missing_ok=True)
        return found


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """One that was never run."""
    return Check(tmp_path)


def age(path: Path) -> None:
    """Make it older than an hour."""
    moment = path.stat().st_mtime - HOUR - 60
    os.utime(path, (moment, moment))


def test_once_an_hour(check: Check) -> None:
    """It looks an hour after it was run first, and then once an hour; the log has what isn't well."""
    check.run()
    assert check.calls() == []
    for _ in range(2):
        age(check.looked)
        assert check.run() == ""
        assert check.calls() == LOOK
        check.run()
        assert check.calls() == []
    assert check.log.read_text() == "said of renew\nsaid of status\n" * 2


def test_without_the_log(check: Check) -> None:
    """Where the container's log can't be opened it renews all the same, and says it where it can."""
    check.log.unlink()
    with socket.socket(socket.AF_UNIX) as log:
        log.bind(str(check.log))
        check.run()
        age(check.looked)
        assert check.run() == "said of renew\nsaid of status\n"
    assert check.calls() == LOOK


def test_nothing_can_be_noted(check: Check) -> None:
    """Where it can't note when it looked it looks each time."""
    check.looked.parent.rmdir()
    for _ in range(2):
        check.run()
        assert check.calls() == LOOK


def test_without_acme(check: Check, tmp_path: Path) -> None:
    """It does nothing where nothing is ours."""
    (tmp_path / "instances").rmdir()
    check.looked.parent.rmdir()
    check.run()
    assert check.calls() == []
