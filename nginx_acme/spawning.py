"""How an agent gets into the world: as nobody's child, with facts that it can't find out itself.

Imported at every start, so nothing but the interpreter is needed here; see `process`.
"""

from __future__ import annotations

import fcntl
import os
import sys

from nginx_acme.process import ENDING, default_signals
from nginx_acme.state_path import STATE_PATH_VARIABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

    from nginx_acme.binary import Nginx
    from nginx_acme.log import Log
else:
    import _signal as signal  # see `process`

DETACHED_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""PATH of a detached process: not that of whoever happened to start nginx."""

_STDERR = 2

_RUN = (
    "import sys; end = sys.argv.index('--'); sys.path[:] = sys.argv[1:end];"
    " sys.argv[1:end + 1] = []; from nginx_acme.__main__ import run; run()"
)
"""Not ``-m``: isolated (-I), it would not find what is installed for one user alone."""

_KEPT = (
    "NGINX_ACME_DEBUG",
    STATE_PATH_VARIABLE,
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
)
"""What the agent gets of our environment: where the state is, and how a CA is reached."""


def spawn(
    facts: str,
    nginx: Nginx,
    environ: Mapping[str, str],
    log: Log,
    *,
    error_log: str,
    starter: int,
    hung_up: bool,
) -> int | None:
    """Start an agent and return its pid; None where it can't be, which is told.

    Args:
        facts: what is the same at each start: a JSON object, as `agent.process` has them.
        nginx: the binary.
        environ: ours.
        log: gets a word where it can't be started.
        error_log: of nginx.
        starter: the process that is nginx, or becomes it.
        hung_up: somebody has told that one to read its configuration already.
    """
    kept = {name: environ[name] for name in _KEPT if name in environ}
    stderr = logs_to_stderr(error_log)
    moving = {
        "starter": str(starter),
        "with_nginx": _json(starter == os.getpid()),
        "hung_up": _json(hung_up),
        "stderr": _json(stderr),
    }
    said = ", ".join(f'"{name}": {value}' for name, value in moving.items())
    try:
        return spawn_detached(
            [*program(), "agent", f"{facts[:-1]}, {said}}}"],
            {**kept, "NGINX_ACME_NGINX": nginx.path},
            stderr_of=starter if stderr else None,
        )
    except OSError as error:
        log.error(f"the agent can't be started, nobody renews until it is: {error}")
        return None


def program() -> list[str]:
    """The command that is this program, whatever its name is and wherever it is installed."""
    return [sys.executable, "-I", "-c", _RUN, *sys.path, "--"]


def logs_to_stderr(error_log: str) -> bool:
    """Whether nginx logs to our stderr, by that name or by a link as in the official image."""
    if error_log == "stderr":
        return True
    try:
        return os.path.samestat(os.stat(error_log), os.fstat(_STDERR))
    except OSError:
        return False


def _json(value: bool) -> str:  # noqa: FBT001 - what it is for
    return "true" if value else "false"


# --- as nobody's child ----------------------------------------------------------------------


def spawn_detached(
    argv: Sequence[str], more: Mapping[str, str], *, stderr_of: int | None = None
) -> int:
    """Start a program that is nobody's child, in its own session, and return its pid.

    Forked twice, since nginx, which we become, complains about children that it doesn't know.
    It gets a fixed environment (PATH, LANG, our TZ) and `more`, `/` as its folder, and no
    descriptors but /dev/null as stdin, stdout and stderr, or as stderr that of a process.
    `argv[0]` is a path. Raises the OSError of its execve.
    """
    timezone = {"TZ": os.environ["TZ"]} if "TZ" in os.environ else {}
    environ = {"PATH": DETACHED_PATH, "LANG": "C", **timezone, **more}
    stderr = None if stderr_of is None else _stderr_of(stderr_of)
    answer, answer_of_child = os.pipe()
    child = os.fork()
    if child == 0:
        _detach(argv, environ, answer_of_child, stderr)
    os.close(answer_of_child)
    os.waitpid(child, 0)
    if stderr not in {None, _STDERR}:
        os.close(stderr)
    with open(answer, "rb") as pipe:
        pid, _, failure = pipe.read().partition(b" ")
    if failure:
        raise OSError(int(failure), os.strerror(int(failure)), argv[0])
    return int(pid)


def _stderr_of(process: int) -> int:
    """The stderr of a process; ours where that can't be opened, such as a socket of journald's.

    Without waiting: nobody may be reading it.
    """
    if process == os.getpid():
        return _STDERR
    flags = os.O_WRONLY | os.O_APPEND | os.O_NOCTTY | os.O_NONBLOCK
    try:
        stderr = os.open(f"/proc/{process}/fd/{_STDERR}", flags)
    except OSError:
        return _STDERR
    os.set_blocking(stderr, True)
    return stderr


def _detach(
    argv: Sequence[str], environ: Mapping[str, str], answer: int, stderr: int | None
) -> NoReturn:
    """In the forked child: fork again and become the program.

    The answer is the pid and, if exec fails, the error's number; exec closes the pipe.
    """
    try:
        signal.set_wakeup_fd(-1)
        default_signals(*ENDING)
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        answer = fcntl.fcntl(answer, fcntl.F_DUPFD_CLOEXEC, 3)
        if stderr not in {None, _STDERR}:
            stderr = fcntl.fcntl(stderr, fcntl.F_DUPFD_CLOEXEC, 3)
        os.write(answer, b"%d" % os.getpid())
        os.chdir("/")
        _close_all_but(answer, stderr)
        os.execve(argv[0], list(argv), environ)  # noqa: S606 - a list needs no shell
    except OSError as error:
        os.write(answer, b" %d" % (error.errno or 0))
    finally:
        os._exit(127)


def _close_all_but(kept: int, stderr: int | None) -> None:
    """Point the standard streams to /dev/null and stderr; close all else that we were given."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream, goes_to in enumerate((null, null, null if stderr is None else stderr)):
        os.dup2(goes_to, stream)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > _STDERR and int(name) != kept:
            try:
                os.close(int(name))
            except OSError:  # the descriptor that listed them
                continue
