"""`nginx -t` and `-T`: what comes back of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nginx_acme.binary import nginx_of
from nginx_acme.judgement import judge
from nginx_acme.process import Run

if TYPE_CHECKING:
    from pathlib import Path


def test_refused(nginx: str, tmp_path: Path) -> None:
    """What nginx says of a configuration comes with the user's paths in it, line by line."""
    conf = tmp_path / "generated.conf"
    conf.write_text("events {}\noops;\n")
    argv = ["-t", "-p", str(tmp_path), "-e", "/dev/null", "-c", str(conf)]
    answer = judge(
        nginx_of(Run(nginx, ["-V"])), argv, lambda line: line.replace(str(conf), "/my/nginx.conf")
    )
    assert (answer.ok, answer.returncode, answer.output) == (False, 1, b"")
    assert answer.lines == (
        'nginx: [emerg] unknown directive "oops" in /my/nginx.conf:2',
        "nginx: configuration file /my/nginx.conf test failed",
    )
    assert answer.messages == answer.lines[:1]


def test_accepted(nginx: str, tmp_path: Path) -> None:
    """What it says of the whole is for who asks for a test: a start says nothing of it."""
    conf = tmp_path / "nginx.conf"
    conf.write_text("events {}\n")
    argv = ["-t", "-p", str(tmp_path), "-e", "/dev/null", "-g", "pid my.pid;", "-c", str(conf)]
    answer = judge(nginx_of(Run(nginx, ["-V"])), argv, str)
    assert (answer.ok, len(answer.lines), answer.messages) == (True, 2, ())


def test_dump(nginx: str, tmp_path: Path) -> None:
    """-T gives the configuration byte for byte, beside what nginx says."""
    conf = tmp_path / "nginx.conf"
    conf.write_bytes(b"events {} # caf\xe9\n")
    argv = ["-Tq", "-p", str(tmp_path), "-e", "/dev/null", "-g", "pid my.pid;", "-c", str(conf)]
    answer = judge(nginx_of(Run(nginx, ["-V"])), argv, str)
    assert (answer.ok, answer.lines) == (True, ())
    assert answer.output.endswith(b"nginx.conf:\nevents {} # caf\xe9\n\n")
