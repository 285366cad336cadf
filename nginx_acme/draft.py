"""A generation from its first word to being the one that nginx reads, and what it leaves to do.

    write, draft     it is on disk; nginx has accepted it (a Proposal: while we go on)
    switch           nginx reads it at the next start or reload
    leave_renew      a process that does what it leaves to do

A draft is not in use. So whatever goes wrong with one, nginx goes on with what it has.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from nginx_acme import disk, generation
from nginx_acme.directives import hint
from nginx_acme.errors import NginxRejected
from nginx_acme.generate import generate
from nginx_acme.process import Run, checked, spawn_detached
from nginx_acme.work import to_json, work_of

if TYPE_CHECKING:
    from nginx_acme.commandline import CommandLine
    from nginx_acme.generation import Generation
    from nginx_acme.launch import Home, Launch, Understood
    from nginx_acme.nginx.listen import Listen
    from nginx_acme.places import Places
    from nginx_acme.process import Check, Nginx
    from nginx_acme.work import Work


def write(understood: Understood, places: Places, added: tuple[Listen, ...]) -> Generation:
    """Write a new generation; nobody has judged it yet."""
    home = understood.home
    return generation.write(
        home.instance.path,
        home.main,
        generate(understood.source, understood.plan, places.layout(added, home.instance.public)),
        exclude=home.store.root,
    )


def draft(understood: Understood, places: Places, added: tuple[Listen, ...]) -> Generation:
    """Write a new generation and let nginx judge it.

    Raises:
        NginxRejected: nginx refuses it; its words, with the user's file and line.
    """
    return Proposal(understood, write(understood, places, added)).accepted()


class Proposal:
    """A draft that nginx looks at while we go on."""

    def __init__(self, understood: Understood, written: Generation) -> None:
        self._written = written
        self._testing = _begin_test(understood.launch, understood.launch.command, written)
        self._said: Check | None = None

    def accepted(self) -> Generation:
        """Wait for what nginx says of it; the same every time.

        Raises:
            NginxRejected: nginx refuses it; its words, with the user's file and line.
        """
        if self._said is None:
            self._said = checked(self._testing, self._written.translate)
        if not self._said.ok:
            self._written.discard()
            raise NginxRejected(tuple(map(hint, self._said.lines)))
        return self._written


def nowhere(nginx: Nginx) -> str | None:
    """An error log for tests, where nginx has an option for it: we write the user's path there."""
    return "/dev/null" if nginx.takes_error_log else None


def switch(understood: Understood, drafted: Generation) -> None:
    """Make a draft the generation that nginx reads, and keep the one before it."""
    launch = understood.launch
    work = work_of(
        understood.plan,
        options=launch.command.settings(understood.home.main, prefix=launch.prefix),
        pid_file=understood.pid_file,
        error_log=understood.error_log,
    )
    use(understood.home, drafted, work)


def use(home: Home, drafted: Generation, work: Work) -> None:
    """The same, with what it leaves to do."""
    disk.replace(drafted.work, to_json(work), mode=0o600, durable=False)
    generation.switch(home.instance.path, drafted)


def test(launch: Launch, command: CommandLine, written: Generation) -> Check:
    """`nginx -t` on a generation; what it says has the user's paths."""
    return checked(_begin_test(launch, command, written), written.translate)


def _begin_test(launch: Launch, command: CommandLine, written: Generation) -> Run:
    argv = command.for_test(written.main, error_log=nowhere(launch.nginx))
    return Run(launch.nginx.path, argv)


# What is left to do ----------------------------------------------------------------------


def leave_renew(home: Home, error_log: str, *, beside_nginx: bool = False) -> None:
    """Leave a process behind that gets what is missing through the running nginx, and reloads.

    That it can't be started is never a reason for nginx not to be.

    Args:
        home: of the nginx.
        error_log: where that logs.
        beside_nginx: it runs already; if there is such a process, too, that one sees what is new.
    """
    if beside_nginx and _is_held(home.instance.agent_lock):
        return
    launch, root = home.launch, home.store.root
    options = launch.command.settings(home.main, prefix=launch.prefix)
    program = [sys.executable, "-I", "-c", _RUN, *sys.path, "--"]
    environ = {name: launch.environ[name] for name in _FOR_RENEW if name in launch.environ}
    environ["NGINX_ACME_NGINX"] = launch.nginx.path
    try:
        spawn_detached(
            [*program, *options, "renew", "--finish", root, "--starter", str(os.getpid())],
            environ,
            stderr=logs_to_stderr(error_log),
        )
    except OSError as error:
        launch.log.error(f"nobody gets what is missing until the next start or renew: {error}")


def _is_held(path: str) -> bool:
    held = disk.try_lock(path)
    if held is None:
        return True
    held.release()
    return False


def logs_to_stderr(error_log: str | None) -> bool:
    """Whether nginx logs to our stderr, by that name or by a link as in the official image."""
    if error_log is None or error_log == "stderr":
        return error_log is not None
    try:
        return os.path.samestat(os.stat(error_log), os.fstat(2))
    except OSError:
        return False


_RUN = (
    "import sys; end = sys.argv.index('--'); sys.path[:] = sys.argv[1:end];"
    " sys.argv[1:end + 1] = []; from nginx_acme.__main__ import run; run()"
)
"""Not ``-m``: isolated (-I), it would not find what is installed for one user alone."""

_FOR_RENEW = (
    "NGINX_ACME_DEBUG",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
)
"""What a detached process gets of our environment: how it reaches the CA."""
