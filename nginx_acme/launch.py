"""Who was started, and for whom: what all of our stories share.

    Launch    what we were started with
    Home      an nginx with its main file, and where its things are kept

Nothing here writes, but into a private folder that is gone afterwards.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nginx_acme import disk, volumes
from nginx_acme.binary import conf_path, prefix_path, startup_log_path
from nginx_acme.errors import ConfigError
from nginx_acme.labels import family_name, instance_name
from nginx_acme.nginx.files import read_bytes
from nginx_acme.nginx.source import failure
from nginx_acme.process import become, found_environ
from nginx_acme.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import NoReturn

    from nginx_acme.binary import Nginx
    from nginx_acme.commandline import CommandLine
    from nginx_acme.log import Log
    from nginx_acme.process import Signals
    from nginx_acme.store import Instance

SHELTER = "unsaved"
"""How folders are called that take the place of a state directory that can't or mustn't be written."""


def is_shelter(root: str) -> bool:
    """Whether a folder takes the place of a state directory."""
    return os.path.basename(root).startswith(f"{SHELTER}-")


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Launch:
    """What we were started with."""

    command: CommandLine
    nginx: Nginx
    environ: Mapping[str, str]
    signals: Signals
    log: Log

    @property
    def main(self) -> str:
        """The absolute path of the user's main file."""
        return conf_path(self.nginx, self.command)

    @property
    def prefix(self) -> str:
        """The prefix of nginx, absolute."""
        return prefix_path(self.nginx, self.command)

    @property
    def nowhere(self) -> str | None:
        """An error log for tests, where nginx has an option for it: we write the user's path there.

        None where nginx can't open the one that it begins with, which is for it to say.
        """
        log = startup_log_path(self.nginx, self.command)
        return "/dev/null" if self.nginx.takes_error_log and _can_be_opened(log) else None

    def demand_main(self) -> None:
        """ConfigError, in nginx's words, where the user's main file can't be read."""
        try:
            read_bytes(self.main)
        except OSError as error:
            raise ConfigError(failure(self.main, error)) from error

    @contextmanager
    def scratch(self) -> Iterator[str]:
        """A private folder that is gone afterwards, also when a signal ends us.

        Raises:
            StateError: it can't be made.
        """
        parent = self.environ.get("TMPDIR") or volumes.temporary_folder()
        folder = disk.new_folder(parent, 0o700)
        self.signals.before_end(lambda: shutil.rmtree(folder, ignore_errors=True))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def become_nginx(self, argv: Sequence[str]) -> NoReturn:
        """Be nginx with these arguments, as whoever started us expects it."""
        become(self.nginx.path, argv, found_environ(), self.signals)


def _can_be_opened(log: str) -> bool:
    if not log.startswith("/"):  # stderr, or what is no file
        return True
    place = log if os.path.lexists(log) else os.path.dirname(log)
    return os.access(place, os.W_OK)


@dataclass(frozen=True, slots=True)
class Home:
    """Where the things of one nginx are kept.

    `store` has keys and certificates. `runtime` has the generations, those of this nginx under
    `name`: that is the store, too, but where one is only made to be tried. `source` is the state
    directory where that can't or mustn't be written: then `store` is a private folder, and takes
    what is new there.
    """

    launch: Launch
    main: str
    store: Store
    runtime: Store
    name: str
    source: Store | None = None

    @property
    def instance(self) -> Instance:
        """The generations, and what else there is of this nginx."""
        return self.runtime.instance_named(self.name)

    @property
    def family(self) -> str:
        """What it has in common with the same nginx on other hosts."""
        return family_name(self.main, self.launch.prefix)

    @property
    def generated_main(self) -> str:
        """The main file that nginx is started with; it never changes its name."""
        return f"{self.instance.generated}/{os.path.basename(self.main)}"

    @property
    def stand_ins(self) -> str:
        """The folder of what nginx is given where the store lacks it and mustn't be written."""
        return f"{self.instance.path}/certificates"

    @property
    def state(self) -> Store:
        """The state directory that the operator knows."""
        return self.source or self.store

    @property
    def sheltered(self) -> bool:
        """Whether it lives from a private folder; no CA is asked from there."""
        return is_shelter(self.runtime.root)

    def sheltered_at(self, root: str) -> Home:
        """The same, living from the private folder `root`."""
        shelter = Store(root)
        return replace(self, store=shelter, runtime=shelter, source=self.state)


def home_at(launch: Launch, store: Store) -> Home:
    """Where a start on this host keeps things, with this state directory."""
    name = instance_name(launch.main, launch.prefix, os.uname().nodename)
    return Home(launch, launch.main, store, store, name)
