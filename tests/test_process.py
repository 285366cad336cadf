"""Running programs, and becoming one without a trace of Python."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from nginx_acme.errors import NginxMissing
from nginx_acme.process import Run, found_environ
from tests.programs import answers, python, signals_of
from tests.servers import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


def run(path: str, argv: Sequence[str]) -> tuple[int, bytes, bytes]:
    """What a program answers."""
    return Run(path, argv).result()


# --- beside us ------------------------------------------------------------------------------


def test_run_much() -> None:
    """However much comes on both pipes in whatever order, it all arrives."""
    script = "head -c 300000 /dev/zero >&2; head -c 400000 /dev/zero; head -c 200000 /dev/zero >&2"
    status, output, messages = run("/bin/sh", ["-c", script])
    assert (status, len(output), len(messages)) == (0, 400_000, 500_000)


def test_run_status() -> None:
    """The exit code is told, and the signal that ended a program."""
    assert run("/bin/sh", ["-c", "exit 3"])[0] == 3
    assert run("/bin/sh", ["-c", "kill -9 $$"])[0] == -9


def test_run_environ() -> None:
    """A program has the environment that we were started with."""
    with open("/proc/self/environ", "rb") as file:
        assert run("/bin/cat", ["/proc/self/environ"])[1] == file.read()


@pytest.mark.parametrize("name", ["nowhere", "folder", "not executable"])
def test_run_nothing(tmp_path: Path, name: str) -> None:
    """What can't be run is said to be missing, with the reason."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "not executable").touch(0o644)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(NginxMissing, match=rf'"{tmp_path}/{name}" can\'t be run \(\d+: '):
        run(f"{tmp_path}/{name}", [])
    assert os.listdir("/proc/self/fd") == before


def test_run_without_streams(nginx: str, tmp_path: Path) -> None:
    """A launcher without stdin, stdout and stderr can ask nginx all the same."""
    code = f"open('answer', 'w').write(nginx_of(Run({nginx!r}, ['-V'])).name)"
    script = f"exec {shlex.join(python(code, 'binary', 'process'))} <&- >&- 2>&-"
    subprocess.run(["/bin/sh", "-c", script], cwd=tmp_path, check=True)
    assert (tmp_path / "answer").read_text() == "nginx"


# --- in our place ---------------------------------------------------------------------------

CAT = "/bin/cat"
PROBE = ("/proc/self/status", "/proc/self/environ", "/proc/self/cmdline")


def become(argv: Sequence[str], before: str = "pass") -> list[str]:
    """Argv of a launcher that does something and then becomes another program."""
    code = "signals = end_on_signals(); become(argv[0], argv[1:], found_environ(), signals)"
    return python(f"{before}; argv = {list(argv)!r}; {code}", "process")


@pytest.mark.parametrize(
    "environ",
    [
        pytest.param({}, id="no environment"),
        pytest.param({"LC_CTYPE": "C", "B": "", "A": "x=y"}, id="a locale that Python changes"),
        pytest.param({"LANG": "C.UTF-8", "NGINX": "3;", "X": "\udce9"}, id="odd values"),
    ],
)
def test_no_trace(environ: dict[str, str]) -> None:
    """Signals, environment and arguments are those of a program that was started directly."""
    argv = (CAT, *PROBE)
    direct = answers(argv, env=environ)
    ours = answers(become(argv), env=environ)
    assert signals_of(ours) == signals_of(direct)
    assert (
        ours.partition(b"nonvoluntary")[2].partition(b"\n")[2]
        == (direct.partition(b"nonvoluntary")[2].partition(b"\n")[2])
    )


def test_trace_of_python() -> None:
    """Python alone would leave traces: what the test above looks at is worth looking at."""
    code = f"os.execv({CAT!r}, {(CAT, *PROBE)!r})"
    direct = answers((CAT, *PROBE), env={})
    plain = answers(python(code), env={})
    assert signals_of(plain) != signals_of(direct)
    assert b"LC_CTYPE" in plain


def test_signals_found_ignored() -> None:
    """What was ignored when we were started stays ignored."""
    ignore = ["/bin/sh", "-c", 'trap "" HUP INT USR2; exec "$@"', "sh"]
    direct = answers([*ignore, CAT, *PROBE])
    ours = answers([*ignore, *become([CAT, *PROBE])])
    assert signals_of(ours) == signals_of(direct)


def test_signals_found_blocked() -> None:
    """A signal that was blocked reaches nginx."""
    block = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])"
    assert b"SigBlk:\t0000000000000000" in answers(become([CAT, *PROBE], block))


def test_descriptors() -> None:
    """Files and sockets of ours are closed; those that we were started with stay open."""
    probe = ["/bin/ls", "/proc/self/fd"]
    opened = (
        "file = open('/dev/null'); loop = asyncio.new_event_loop(); Run('/bin/true', []).result()"
    )
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(open(os.devnull, "rb")).fileno() for _ in range(2)]
        direct = answers(probe, pass_fds=found)
        assert answers(become(probe, opened), pass_fds=found) == direct


def test_become_keeps_pid_and_output() -> None:
    """The pid stays, and what was written before is not lost."""
    launcher = become(["/bin/sh", "-c", "echo after $$"], "print('before', os.getpid())")
    before, after = answers(launcher, env={}).split(b"\n")[:2]
    assert before.replace(b"before", b"after") == after


def test_become_without_streams(tmp_path: Path) -> None:
    """Where there is no stdout and no stderr, there is nothing to lose."""
    launcher = shlex.join(become(["/bin/touch", f"{tmp_path}/done"]))
    subprocess.run(["/bin/sh", "-c", f"exec {launcher} >&- 2>&-"], check=True)
    assert (tmp_path / "done").exists()


def test_become_nothing(tmp_path: Path) -> None:
    """What can't be run is said to be missing."""
    launcher = become([f"{tmp_path}/nginx"])
    answer = subprocess.run(launcher, capture_output=True, text=True, check=False)
    assert answer.stderr.endswith(f'"{tmp_path}/nginx" can\'t be run (2: No such file or directory)\n')  # fmt: skip


def test_found_environ() -> None:
    """What was found is what the kernel says, whatever was changed since."""
    assert found_environ() == dict(entry.split("=", 1) for entry in raw_environ())


def raw_environ() -> list[str]:
    """The entries that the kernel knows."""
    with open("/proc/self/environ", "rb") as file:
        return os.fsdecode(file.read()).rstrip("\0").split("\0")


# --- signals --------------------------------------------------------------------------------

ENDING = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT]
WAITS = {
    "sleeping": "print('ready'); time.sleep(60)",
    "computing": "print('ready')\nwhile True: pass",
    "in asyncio": """
async def wait():
    print('ready')
    await asyncio.sleep(60)
asyncio.run(wait())""",
    "in a thread": """
asyncio.run(asyncio.to_thread(lambda: (print('ready'), time.sleep(60))))""",
    "waiting for nginx": """
Run('/bin/sh', ['-c', 'echo ready >/proc/$PPID/fd/1; while sleep 0.05; do echo; done']).result()""",
    "where exceptions are swallowed": """
while True:
    try:
        print('ready')
        time.sleep(60)
    except BaseException:
        pass""",
}


UNSEEN = f"signal.pthread_sigmask(signal.SIG_BLOCK, {[int(number) for number in ENDING]})\n"
"""Keeps these signals from the main thread, as a system call does that began in a bad moment."""


@contextlib.contextmanager
def waiting(code: str, prefix: Sequence[str] = ()) -> Iterator[subprocess.Popen[str]]:
    """A launcher that has ended its preparations and does this."""
    interpreter, *rest = python(f"signals = end_on_signals()\n{code}", "process")
    start = (interpreter, "-u", *rest)
    launcher = subprocess.Popen(
        [*prefix, *start], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with launcher:
        try:
            assert launcher.stdout is not None
            assert launcher.stdout.readline() == "ready\n", launcher.communicate()[1]
            yield launcher
        finally:
            launcher.kill()


@pytest.mark.parametrize("number", ENDING)
def test_end(number: signal.Signals) -> None:
    """TERM, INT and QUIT end us as they end nginx: at once, quietly, with exit code 0."""
    with waiting(WAITS["sleeping"]) as launcher:
        launcher.send_signal(number)
        assert launcher.communicate(timeout=PATIENCE) == ("", "")
        assert launcher.returncode == 0


@pytest.mark.parametrize("code", [pytest.param(code, id=name) for name, code in WAITS.items()])
def test_end_at_any_moment(code: str) -> None:
    """Whatever we are doing."""
    with waiting(code) as launcher:
        launcher.terminate()
        assert launcher.communicate(timeout=PATIENCE) == ("", "")
        assert launcher.returncode == 0


def test_end_though_main_thread_is_busy() -> None:
    """A signal that the main thread doesn't see ends us, too, a moment later."""
    farewell = "signals.before_end(lambda: os.write(1, b'bye'))\n"
    with waiting(farewell + UNSEEN + WAITS["sleeping"]) as launcher:
        launcher.terminate()
        assert launcher.communicate(timeout=PATIENCE) == ("bye", "")
        assert launcher.returncode == 0


def test_end_as_pid_1(tmp_path: Path) -> None:
    """In a container we are PID 1, for which the kernel knows no default action."""
    unshare = ["unshare", "--map-root-user", "--fork", "--pid", "--kill-child"]
    if subprocess.run([*unshare, "/bin/true"], check=False, cwd=tmp_path).returncode != 0:
        pytest.skip("no namespaces here")
    code = "assert os.getpid() == 1; " + WAITS["sleeping"]
    with waiting(code, unshare) as outer:
        with open(f"/proc/{outer.pid}/task/{outer.pid}/children", encoding="ascii") as file:
            os.kill(int(file.read()), signal.SIGQUIT)
        assert outer.wait(PATIENCE) == 0


def test_ignored() -> None:
    """HUP, USR1, USR2 and WINCH, which would make nginx do something, do nothing."""
    with waiting(WAITS["sleeping"]) as launcher:
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH):
            launcher.send_signal(number)
        launcher.terminate()
        assert launcher.wait(PATIENCE) == 0


def test_farewells() -> None:
    """What was opened last is closed first; what goes wrong there stays unsaid."""
    code = """
signals.before_end(lambda: os.write(1, b'first'))
signals.before_end(lambda: os.write(1, b'second '))
signals.before_end(lambda: os.write(1, b'third '))
print('ready')
time.sleep(60)"""
    with waiting(code) as launcher:
        launcher.terminate()
        assert launcher.communicate(timeout=PATIENCE) == ("third second first", "")
        assert launcher.returncode == 0
    with waiting("signals.before_end(lambda: 1 / 0)\n" + WAITS["sleeping"]) as launcher:
        launcher.terminate()
        assert launcher.communicate(timeout=PATIENCE) == ("", "")
        assert launcher.returncode == 0


@pytest.mark.parametrize("unseen", [False, True])
def test_farewell_that_hangs(*, unseen: bool) -> None:
    """A farewell that takes too long doesn't keep us, whoever calls it."""
    farewell = "signals.before_end(lambda: time.sleep(60))\n"
    with waiting(farewell + (UNSEEN if unseen else "") + WAITS["sleeping"]) as launcher:
        launcher.terminate()
        assert launcher.wait(PATIENCE) == 0


def test_second_signal() -> None:
    """A farewell that takes long is not waited for when we are told to end again."""
    code = "signals.before_end(lambda: (os.write(1, b'bye\\n'), time.sleep(60)))\n"
    with waiting(code + WAITS["sleeping"]) as launcher:
        launcher.send_signal(signal.SIGQUIT)
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == "bye\n"
        launcher.terminate()
        assert launcher.wait(PATIENCE) == 0
