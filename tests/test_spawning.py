"""An agent is nobody's child, and has nothing of who started it."""

from __future__ import annotations

import os
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from nginx_acme.spawning import DETACHED_PATH, spawn_detached
from tests.launcher import eventually
from tests.programs import answers, python, signals_of

if TYPE_CHECKING:
    from pathlib import Path

DETACHED = """
ls /proc/self/fd >"$OUT/fds"
streams=$(readlink /proc/$$/fd/0 /proc/$$/fd/1)
echo "$streams" >"$OUT/streams"
cat /proc/$$/environ >"$OUT/environ"
cat /proc/self/status >"$OUT/status"
{ readlink /proc/$$/cwd; cat /proc/$$/stat; } >"$OUT/process"
echo "$1" >&2
mv "$OUT/process" "$OUT/done"
"""


def detach(out: Path, *, stderr_of: str = "None") -> tuple[int, int, str]:
    """Have a launcher start the script above: their pids and what was on the launcher's stderr."""
    argv = ["/bin/sh", "-c", DETACHED, "sh", "heard"]
    code = f"""
signals = end_on_signals()
inherited = os.dup2(os.pipe()[0], 77, inheritable=True)
print(os.getpid(), spawn_detached({argv!r}, {{'OUT': {str(out)!r}}}, stderr_of={stderr_of}))"""
    launcher = subprocess.run(
        python(code, "process", "spawning"),
        capture_output=True,
        text=True,
        check=True,
        env={"TZ": "Asia/Tokyo", "HOME": "/root", "LC_ALL": "C"},
    )
    eventually((out / "done").exists, "the end of the script")
    ours, detached = map(int, launcher.stdout.split())
    return ours, detached, launcher.stderr


def test_detached(tmp_path: Path) -> None:
    """A detached program is nobody's child and has nothing of ours, not even our descriptors."""
    ours, detached, heard = detach(tmp_path)
    cwd, stat = (tmp_path / "done").read_text().splitlines()
    pid, _, _, parent, _, session = stat.split()[:6]
    assert cwd == "/"
    assert int(pid) == detached
    assert int(parent) != ours
    assert int(session) not in {ours, detached, os.getsid(0)}
    assert heard == ""
    assert (tmp_path / "fds").read_text().split() == ["0", "1", "2", "3"]
    assert (tmp_path / "streams").read_text().split() == ["/dev/null", "/dev/null"]


def test_detached_environment(tmp_path: Path) -> None:
    """Its environment and signals don't depend on who started nginx."""
    detach(tmp_path)
    environ = (tmp_path / "environ").read_bytes().rstrip(b"\0").decode().split("\0")
    assert sorted(environ) == [
        *("LANG=C", f"OUT={tmp_path}", f"PATH={DETACHED_PATH}", "TZ=Asia/Tokyo"),
    ]
    assert signals_of((tmp_path / "status").read_bytes()) == (
        signals_of(answers(["/bin/cat", "/proc/self/status"]))
    )


def test_detached_stderr(tmp_path: Path) -> None:
    """Stderr stays if it is asked for: where nginx logs there, the agent does, too."""
    assert detach(tmp_path, stderr_of="os.getpid()")[2] == "heard\n"


def test_detached_stderr_of_another(tmp_path: Path) -> None:
    """From nginx's own, whoever starts it: it must neither hold a terminal nor lose its voice."""
    with subprocess.Popen(("cat",), stdin=subprocess.PIPE, stderr=subprocess.PIPE) as nginx:
        assert nginx.stderr is not None
        assert detach(tmp_path, stderr_of=str(nginx.pid))[2] == ""
        assert nginx.stderr.readline() == b"heard\n"


def test_detached_stderr_that_is_a_socket(tmp_path: Path) -> None:
    """Ours, where it can't be opened, as below systemd."""
    ours, theirs = socket.socketpair()
    cat = subprocess.Popen(("cat",), stdin=subprocess.PIPE, stderr=theirs.fileno())
    with ours, theirs, cat as nginx:
        assert detach(tmp_path, stderr_of=str(nginx.pid))[2] == "heard\n"


def test_detached_nothing() -> None:
    """A program that can't be run is told to the caller, who still is the only one of its kind."""
    with pytest.raises(FileNotFoundError, match="/nowhere/agent"):
        spawn_detached(["/nowhere/agent"], {})
