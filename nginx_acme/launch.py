"""From argv to an understood configuration: what a start, a test, a reload and our commands share.

    Launch        who was started, and how
    Home          an nginx with its main file, and where its things are kept
    Understood    the user's configuration and what follows from it

Nothing here asks a CA, touches a running nginx or writes, but into a private folder that is gone
afterwards.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nginx_acme import directives, disk, volumes
from nginx_acme.binary import conf_path, error_log_path, pid_path, prefix_path, startup_log_path
from nginx_acme.binding import bindable
from nginx_acme.errors import ConfigError, StateError
from nginx_acme.judgement import check
from nginx_acme.kept import Files
from nginx_acme.labels import family_name, instance_name
from nginx_acme.master import find_master
from nginx_acme.nginx.files import glob_files
from nginx_acme.nginx.source import Unreadable, read_source
from nginx_acme.plan import Facts, concerns_us, make_plan
from nginx_acme.plan.settings import refused_in_state_path
from nginx_acme.process import become, found_environ
from nginx_acme.state_path import state_path, state_path_hints
from nginx_acme.store import Store
from nginx_acme.store.own import without_own

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence
    from typing import NoReturn

    from nginx_acme.binary import Nginx
    from nginx_acme.commandline import CommandLine
    from nginx_acme.errors import NginxAcmeError
    from nginx_acme.generation import Generation
    from nginx_acme.judgement import Check
    from nginx_acme.log import Log
    from nginx_acme.nginx.listen import Address, Listen
    from nginx_acme.nginx.source import Source
    from nginx_acme.nginx.syntax import Directive
    from nginx_acme.plan import Plan
    from nginx_acme.process import Signals
    from nginx_acme.seen import Seen
    from nginx_acme.store import Instance

SHELTER = "unsaved"
"""How folders are called that take the place of a state directory that can't or mustn't be written."""
_SHORT_HASH = 8
_WORD = directives.WORD.encode()


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
    `name`: that is the store, too, but for rehearsals. `source` is the state directory where that
    can't or mustn't be written: then `store` is a private folder, and takes what is new there.
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


@dataclass(frozen=True, slots=True)
class Understood:
    """The user's configuration, and what it asks for."""

    home: Home
    source: Source
    plan: Plan
    files: Files
    """What has read it."""

    @property
    def launch(self) -> Launch:
        """What we were started with."""
        return self.home.launch

    @property
    def seen(self) -> Seen:
        """The files and folders that were read for it."""
        return self.files.seen

    @property
    def pid_file(self) -> str:
        """Where the running nginx, if there is one, says who it is."""
        said = next(iter(self.arguments("pid")), None)
        return pid_path(self.launch.nginx, self.launch.command, said)

    @property
    def error_log(self) -> str:
        """Where nginx logs."""
        said = next(iter(self.arguments("error_log")), None)
        return error_log_path(self.launch.nginx, self.launch.command, said)

    def arguments(self, name: str) -> tuple[str, ...]:
        """Those of the first directive of this name in the main context; none without one."""
        return next((one.args for one in self.main_context(name) if one.args), ())

    def main_context(self, name: str) -> Iterator[Directive]:
        """The directives of this name in the main context."""
        for directive in self.source.expand(self.source.files[self.source.main].directives):
            if directive.name == name:
                yield directive

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd in it."""
        said = self.plan.warnings
        return tuple(f"{message} in {place}" if place else message for message, place in said)

    @property
    def ephemeral(self) -> str | None:
        """A warning, where the state directory is no place to keep anything; None where it is."""
        root = self.home.store.root
        if not volumes.is_ephemeral(root):
            return None
        return (
            f'the state directory "{root}" goes away with its {volumes.file_system(root)}; put it on'
            f" a volume (-v nginx-acme:{root}), or every new container asks the CA again"
        )

    def tell_warnings(self) -> None:
        """Say what is odd in it."""
        for warning in self.warnings:
            self.launch.log.warn(warning)

    @property
    def asks(self) -> bool:
        """Whether this nginx asks CAs, and the issuer `local`."""
        return self.plan.settings.issue and not self.home.sheltered

    def keep_files(self) -> None:
        """Spare whoever reads it next the opening of what has not changed."""
        self.files.keep(self.home.instance.path, self.source.texts)

    def at(self, runtime: Store) -> Understood:
        """The same with its generations elsewhere."""
        return replace(self, home=replace(self.home, runtime=runtime))

    def sheltered(self) -> Understood:
        """The same, living from a private folder that is made; one for each state directory.

        Raises:
            StateError: no such folder can be written.
        """
        digest = hashlib.sha256(os.fsencode(self.home.state.root)).hexdigest()[:_SHORT_HASH]
        root = f"{volumes.private_folder(self.launch.environ)}/{SHELTER}-{digest}"
        return replace(self, home=self.home.sheltered_at(root))


def understand(launch: Launch, *, always: bool = False) -> Understood | None:
    """Read the configuration; None where no word of it is ours, and nginx judges it alone.

    Args:
        launch: what we were started with.
        always: None only for a configuration that is none of ours and can't be read either.

    Raises:
        ConfigError: a mistake in it, with file and line.
        NginxRejected: one that nginx finds first where it can't be read; its words.
    """
    reading = _Reading(launch)
    try:
        source = reading.source()
    except Unreadable as mistake:
        if not (reading.ours and concerns_us(mistake.source)):
            return None
        raise _refusal(launch, mistake) from mistake
    except ConfigError:
        if reading.ours:
            raise
        return None
    if not always and not (reading.ours and concerns_us(source)):
        return None
    return _understood(launch, source, reading)


def understand_running(launch: Launch, instance: str) -> Understood:
    """The same of a configuration that is ours whatever it says: nginx runs what it was before.

    Args:
        launch: what we were started with.
        instance: the folder of its instance.

    Raises:
        ConfigError, NginxRejected: as `understand`.
    """
    reading = _Reading(launch, instance)
    try:
        source = reading.source()
    except Unreadable as mistake:
        raise _refusal(launch, mistake) from mistake
    return _understood(launch, source, reading)


class _Reading:
    """Reads the user's files once, and knows whether a word of them may be ours."""

    def __init__(self, launch: Launch, instance: str | None = None) -> None:
        self.ours = False
        self.files = files_of(launch, instance)
        self._main = launch.main

    def source(self) -> Source:
        return read_source(self._main, self._read, self._find)

    def _read(self, path: str) -> bytes:
        content = self.files.read(path)
        self.ours = self.ours or _WORD in content
        return content

    def _find(self, pattern: str) -> Sequence[str]:
        return without_own(glob_files(pattern, self.files.seen.note))


def _understood(launch: Launch, source: Source, reading: _Reading) -> Understood:
    nginx, host = launch.nginx, os.uname().nodename.lower()
    facts = Facts(nginx.version, host, privileged=os.geteuid() == 0, lacks=nginx.lacks)
    plan = make_plan(source, facts)
    root = state_path(launch.environ, source.folder, plan.settings.state_path)
    if plan.ours:
        _refuse_as_state(root, default=root == f"{source.folder}/acme")
    return Understood(home_at(launch, Store(root)), source, plan, reading.files)


def _refusal(launch: Launch, mistake: Unreadable) -> NginxAcmeError:
    from nginx_acme.refusal import refusal  # noqa: PLC0415 - only where something is wrong

    def test(written: Generation) -> Check:
        argv = launch.command.for_test(written.main, error_log=launch.nowhere)
        return check(launch.nginx, argv, written.translate)

    state = state_path(launch.environ, mistake.source.folder, None)
    try:
        with launch.scratch() as scratch:
            return refusal(mistake, scratch, state, test)
    except StateError:
        return mistake


def files_of(launch: Launch, kept: str | None = None) -> Files:
    """What reads the user's files, and knows those that are kept.

    Args:
        launch: what we were started with.
        kept: the folder of its instance, where it is known. Else it is looked for where it usually
            is, and where a file says that the state directory is.
    """
    folder = os.path.dirname(launch.main)

    def instance(root: str) -> str:
        return home_at(launch, Store(root)).instance.path

    files = Files(lambda text: map(instance, state_path_hints(text, folder)))
    files.load(kept or instance(state_path(launch.environ, folder, None)))
    return files


def home_at(launch: Launch, store: Store) -> Home:
    """Where a start on this host keeps things, with this state directory."""
    name = instance_name(launch.main, launch.prefix, os.uname().nodename)
    return Home(launch, launch.main, store, store, name)


def _refuse_as_state(root: str, *, default: bool) -> None:
    """Refuse a state directory whose name nginx would misread, or that is somebody else's.

    Only the default one can be that by accident: a folder of the user's may have its name, and
    what is in the state directory is not mirrored.
    """
    if refused := refused_in_state_path(root):
        raise ConfigError(
            f'the state directory "{root}" can\'t have "{refused}" in its name, name another folder'
            ' with "acme_state_path"'
        )
    if not default:
        return
    try:
        names = {name for name in os.listdir(root) if name[0] != "." and name != "lost+found"}
    except OSError:
        return
    if names and not names & {"layout", "certificates", "locks"}:
        raise ConfigError(
            f'"{root}" is no state directory of nginx-acme, name another folder with'
            ' "acme_state_path"'
        )


def free_addresses(understood: Understood, held: Container[Address] = ()) -> tuple[Listen, ...]:
    """The addresses to add that nginx can listen on; `nginx -t` doesn't notice a busy one.

    Args:
        understood: the configuration.
        held: addresses that our own running nginx listens on; they are free for it.
    """
    free: list[Listen] = []
    for listen in understood.plan.added:
        host, port = listen.address
        busy = listen.address not in held and bindable(host, port, ipv6only=listen.ipv6only)
        if not busy:
            free.append(listen)
            continue
        understood.launch.log.warn(
            f"{listen.address} is left out, {busy}; whoever listens there must forward"
            " /.well-known/acme-challenge/ to nginx"
        )
    return tuple(free)


def runs(understood: Understood) -> bool:
    """Whether this nginx runs already: a second start by accident.

    nginx says itself that its addresses are taken, and the generation that runs stays as it is.
    """
    master = find_master(understood.pid_file)
    return master is not None and master.uses(understood.home.generated_main)
