"""What a configuration says: read, and what it asks for.

What may live here: the way from the user's files to a plan. Nothing here asks a CA or touches a
running nginx. Nothing is written but what spares whoever reads it next the work (`keep_files`), and
the folder of a shelter (`sheltered`).
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nginx_acme import directives, volumes
from nginx_acme.binary import error_log_path, pid_path
from nginx_acme.errors import ConfigError, StateError
from nginx_acme.free_address import why_not_free
from nginx_acme.judgement import judge
from nginx_acme.kept import Files
from nginx_acme.launch import SHELTER, home_at
from nginx_acme.master import master_of
from nginx_acme.nginx.files import glob_files
from nginx_acme.nginx.source import Unreadable, read_source
from nginx_acme.plan import Facts, concerns_us, make_plan
from nginx_acme.plan.settings import refused_in_state_path
from nginx_acme.state_path import state_path, state_path_hints
from nginx_acme.store import Store
from nginx_acme.store.own import without_own

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

    from nginx_acme.errors import NginxAcmeError
    from nginx_acme.generation import Generation
    from nginx_acme.judgement import Judgement
    from nginx_acme.launch import Home, Launch
    from nginx_acme.nginx.listen import Address, Listen
    from nginx_acme.nginx.source import Source
    from nginx_acme.nginx.syntax import Directive
    from nginx_acme.plan import Plan
    from nginx_acme.seen import Seen

_SHORT_HASH = 8
_OUR_WORD = directives.OUR_WORD.encode()


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

    def edited(self) -> bool:
        """Whether the user's files are not what they were when they were read, or may not be."""
        return self.seen.sources.edited()

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

    def runs(self) -> bool:
        """Whether this nginx runs already, so that a start would be a second one by accident.

        nginx says itself that its addresses are taken, and the generation that runs stays as it is.
        """
        return master_of(self.pid_file, self.home.generated_main) is not None

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
    reader = _Reader(launch)
    try:
        source = reader.source()
    except Unreadable as mistake:
        if not (reader.ours and concerns_us(mistake.source)):
            return None
        raise _refusal(launch, mistake) from mistake
    except ConfigError:
        if reader.ours:
            raise
        return None
    if not always and not (reader.ours and concerns_us(source)):
        return None
    return _understood(launch, source, reader)


def understand_running(launch: Launch, instance: str) -> Understood:
    """The same of a configuration that is ours whatever it says: nginx runs what it was before.

    Args:
        launch: what we were started with.
        instance: the folder of its instance.

    Raises:
        ConfigError, NginxRejected: as `understand`.
    """
    reader = _Reader(launch, instance)
    try:
        source = reader.source()
    except Unreadable as mistake:
        raise _refusal(launch, mistake) from mistake
    return _understood(launch, source, reader)


class _Reader:
    """Reads the user's files once, and knows whether a word of them may be ours."""

    def __init__(self, launch: Launch, instance: str | None = None) -> None:
        self.ours = False
        self.files = files_of(launch, instance)
        self._main = launch.main

    def source(self) -> Source:
        return read_source(self._main, self._read, self._find)

    def _read(self, path: str) -> bytes:
        content = self.files.read(path)
        self.ours = self.ours or _OUR_WORD in content
        return content

    def _find(self, pattern: str) -> Sequence[str]:
        return without_own(glob_files(pattern, self.files.seen.note))


def _understood(launch: Launch, source: Source, reader: _Reader) -> Understood:
    nginx, host = launch.nginx, os.uname().nodename.lower()
    facts = Facts(nginx.version, host, privileged=os.geteuid() == 0, lacks=nginx.lacks)
    plan = make_plan(source, facts)
    root = state_path(launch.environ, source.folder, plan.settings.state_path)
    if plan.ours:
        _refuse_as_state(root, default=root == f"{source.folder}/acme")
    return Understood(home_at(launch, Store(root)), source, plan, reader.files)


def _refusal(launch: Launch, mistake: Unreadable) -> NginxAcmeError:
    from nginx_acme.refusal import refusal

    def test(written: Generation) -> Judgement:
        argv = launch.command.for_test(written.main, error_log=launch.nowhere)
        return judge(launch.nginx, argv, written.translate)

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
    """The addresses to add that nginx can listen on; why others are left out is said.

    `nginx -t` doesn't notice a busy one.

    Args:
        understood: the configuration.
        held: addresses that our own running nginx listens on; they are free for it.
    """
    free: list[Listen] = []
    for listen in understood.plan.added:
        host, port = listen.address
        busy = listen.address not in held and why_not_free(host, port, ipv6only=listen.ipv6only)
        if not busy:
            free.append(listen)
            continue
        understood.launch.log.warn(
            f"{listen.address} is left out, {busy}; whoever listens there must forward"
            " /.well-known/acme-challenge/ to nginx"
        )
    return tuple(free)
