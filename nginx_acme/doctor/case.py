"""What is examined: a configuration as it is now, what runs of it, and where its things are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nginx_acme.binary import pid_path
from nginx_acme.errors import ConfigError, StateError
from nginx_acme.master import find_master
from nginx_acme.nginx.files import read_bytes
from nginx_acme.running import as_started, current_work, find_home
from nginx_acme.understanding import understand

if TYPE_CHECKING:
    from datetime import datetime

    from nginx_acme.launch import Home, Launch
    from nginx_acme.master import Master
    from nginx_acme.nginx.listen import Listen
    from nginx_acme.plan import Certificate
    from nginx_acme.understanding import Understood
    from nginx_acme.work import Work


@dataclass(frozen=True, slots=True)
class Case:
    """An nginx with its configuration.

    `understood` is None where that has a `mistake`; `work` is of the generation that is current,
    None where there is none yet, or it is `unread` for this reason. `master` runs, be it ours or
    not.
    """

    home: Home
    understood: Understood | None
    mistake: str | None
    work: Work | None
    unread: StateError | None
    master: Master | None
    now: datetime

    @property
    def launch(self) -> Launch:
        """What we were started with."""
        return self.home.launch

    @property
    def ours(self) -> Master | None:
        """The master, if it runs a generation of this configuration."""
        if self.master is None or as_started(self.home, self.master) is None:
            return None
        return self.master

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """Those that are wanted: by the configuration, else by the generation."""
        if self.understood is not None:
            return self.understood.plan.certificates
        return self.work.certificates if self.work is not None else ()

    @property
    def issue(self) -> bool:
        """Whether this node asks CAs at all."""
        if self.understood is not None:
            return self.understood.plan.settings.issue
        return self.work is None or self.work.issue

    @property
    def listens(self) -> tuple[Listen, ...]:
        """Where challenges are to be answered, from the same source."""
        if self.understood is not None:
            return self.understood.plan.listens
        return self.work.answering if self.work is not None else ()


def open_case(launch: Launch, now: datetime) -> Case | None:
    """Read what there is; None for a configuration that is none of ours."""
    understood, mistake = None, None
    try:
        understood = understand(launch)
    except ConfigError as error:
        mistake = str(error)
    if understood is None and mistake is None:
        mistake = _why_unreadable(launch.main)
        if mistake is None:
            return None
    home, work, unread = find_home(launch), None, None
    try:
        work = current_work(home)
    except StateError as error:
        unread = error
    if understood is not None:
        pid_file = understood.pid_file
    else:
        pid_file = work.pid_file if work else pid_path(launch.nginx, launch.command, None)
    return Case(home, understood, mistake, work, unread, find_master(pid_file), now)


def _why_unreadable(path: str) -> str | None:
    """Of a file that nginx itself would complain about."""
    try:
        read_bytes(path)
    except OSError as error:
        return f"can't be read: {error.strerror}"
    return None
