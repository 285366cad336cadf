"""From argv to a tested generation: what a start, a test, a reload and our commands share.

    Launch        who was started, and how
    Understood    the user's configuration and what follows from it
    Places        where the files of a generation are: in the store, or in a private folder
    Draft         a generation that `nginx -t` accepted, not yet in use

Each step takes the one before; none of them asks a CA or touches a running nginx.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nginx_acme import disk, generation
from nginx_acme.acme.jws import AccountKey
from nginx_acme.certificate import file_name, new_key, temporary
from nginx_acme.directives import hint
from nginx_acme.errors import BadBundle, ConfigError, NginxRejected
from nginx_acme.generate import Answer, Layout, generate
from nginx_acme.nginx.files import glob_files, read_bytes
from nginx_acme.nginx.source import read_source
from nginx_acme.plan import Facts, concerns_us, make_plan
from nginx_acme.process import (
    bindable,
    check,
    conf_path,
    error_log_path,
    pid_path,
    prefix_path,
    spawn_detached,
)
from nginx_acme.store import Identity, Store
from nginx_acme.work import from_json, to_json, work_of

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from nginx_acme.certificate import Bundle
    from nginx_acme.commandline import CommandLine
    from nginx_acme.generation import Generation
    from nginx_acme.log import Log
    from nginx_acme.nginx.listen import Address, Listen
    from nginx_acme.nginx.source import Source
    from nginx_acme.plan import Certificate, Issuer, Plan
    from nginx_acme.process import Check, Nginx, Signals
    from nginx_acme.store import AccountFolder, CertificateFolder, Instance
    from nginx_acme.work import Work

STATE_PATH_VARIABLE = "NGINX_ACME_STATE_PATH"
"""Set by a container image, whose main file isn't ours to write a directive into."""


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


@dataclass(frozen=True, slots=True)
class Understood:
    """The user's configuration, and what it asks for."""

    launch: Launch
    source: Source
    plan: Plan
    store: Store

    @property
    def instance(self) -> Instance:
        """This nginx with this main file on this host."""
        return self.store.instance(self.source.main, self.launch.prefix, os.uname().nodename)

    @property
    def pid_file(self) -> str:
        """Where the running nginx, if there is one, says who it is."""
        said = _main_argument(self.source, "pid")
        return pid_path(self.launch.nginx, self.launch.command, said)

    @property
    def error_log(self) -> str:
        """Where nginx logs."""
        said = _main_argument(self.source, "error_log")
        return error_log_path(self.launch.nginx, self.launch.command, said)


def understand(launch: Launch, *, always: bool = False) -> Understood | None:
    """Read the configuration; None where no word of it is ours, and nginx judges it alone.

    Args:
        launch: what we were started with.
        always: None only for a configuration that is none of ours and can't be read either.

    Raises:
        ConfigError: a mistake in it, with file and line.
    """
    ours = False

    def read(path: str) -> bytes:
        nonlocal ours
        content = read_bytes(path)
        ours = ours or b"acme" in content
        return content

    try:
        source = read_source(launch.main, read, glob_files)
    except ConfigError:
        if ours:
            raise
        return None
    if not always and not (ours and concerns_us(source)):
        return None
    facts = Facts(launch.nginx.version, os.uname().nodename.lower(), os.geteuid() == 0)
    plan = make_plan(source, facts)
    return Understood(launch, source, plan, Store(_state_path(launch, source, plan)))


def _state_path(launch: Launch, source: Source, plan: Plan) -> str:
    """As the configuration says, else as the environment says, else beside the main file."""
    said = plan.settings.state_path or launch.environ.get(STATE_PATH_VARIABLE)
    return said or f"{source.folder}/acme"


def _main_argument(source: Source, name: str) -> str | None:
    """The first argument of a directive of the main context."""
    for directive in source.expand(source.files[source.main].directives):
        if directive.name == name and directive.args:
            return directive.args[0]
    return None


# Places ----------------------------------------------------------------------------------


@dataclass(slots=True)
class Places:
    """Where nginx finds each certificate, and the accounts whose challenges it answers.

    In the store where that can be written. Else, and for a mere test, what the store lacks is put
    into `scratch`, a private folder.
    """

    store: Store
    scratch: str | None
    log: Log
    now: datetime
    paths: dict[tuple[Identity | None, str], str] = field(default_factory=dict)
    accounts: dict[str, AccountFolder] = field(default_factory=dict)
    """By directory URL."""
    _key: dict[str, bytes] = field(default_factory=dict)

    def fill(self, plan: Plan) -> None:
        """Give every path of the plan a file, and every CA of the plan an account's key."""
        for certificate in plan.certificates:
            for key_type in certificate.key_types:
                self._fill_one(certificate, key_type)
        for managed in plan.managed:
            if managed.identity is None:
                for key_type in managed.key_types:
                    self._fill_nameless(key_type)
        for issuer in plan.issuers:
            if not issuer.local and (account := self._account(issuer)) is not None:
                self.accounts[issuer.directory_url] = account

    def folder(self, certificate: Certificate) -> CertificateFolder | None:
        """The certificate's folder in the store, made where the store can be written."""
        identity = Identity(*certificate.identity)
        if self.scratch is None:
            return self.store.create(identity, [name.value for name in certificate.names])
        return self.store.find(identity)

    def layout(self, added: tuple[Listen, ...]) -> Layout:
        """What the generated text needs to know of all this."""
        answers = tuple(
            Answer(
                account.name,
                AccountKey(account.key_pem).thumbprint,
                self.store.challenges(account.name),
            )
            for account in self.accounts.values()
        )
        return Layout(
            lambda identity, key_type: self.paths[_key(identity, key_type)], answers, added
        )

    def _fill_one(self, certificate: Certificate, key_type: str) -> None:
        identity = Identity(*certificate.identity)
        folder = self.folder(certificate)
        at = _key(identity, key_type)
        there = folder.own(key_type) if folder is not None else None
        if folder is not None and there is not None:
            self.paths[at] = folder.bundle_path(key_type)
            if there.facts.not_after > self.now or self.scratch is not None:
                return
        bundle = self.store.nearest(identity, key_type, self.now) or self._temporary(
            identity.names, key_type
        )
        if folder is not None and self.scratch is None:
            folder.place_nearest(key_type, bundle)
            self.paths[at] = folder.bundle_path(key_type)
        elif there is None:
            self.paths[at] = self._write_scratch(f"{len(self.paths)}-{file_name(key_type)}", bundle)

    def _fill_nameless(self, key_type: str) -> None:
        """Servers that no certificate can name still need one for nginx to start."""
        folder = self.scratch or f"{self.store.root}/certificates/_nameless"
        path = f"{folder}/{file_name(key_type)}"
        if not os.path.exists(path):
            disk.make_folder(folder, 0o700)
            disk.replace(path, self._temporary((), key_type).pem, mode=0o600, durable=False)
        self.paths[_key(None, key_type)] = path

    def _temporary(self, names: frozenset[str] | tuple[()], key_type: str) -> Bundle:
        """One key for all temporary certificates of a type: it protects nothing."""
        if key_type not in self._key:
            self._key[key_type] = new_key(key_type)
        return temporary(names, key_type, self.now, key_pem=self._key[key_type])

    def _write_scratch(self, name: str, bundle: Bundle) -> str:
        path = f"{self.scratch}/{name}"
        disk.replace(path, bundle.pem, mode=0o600, durable=False)
        return path

    def _account(self, issuer: Issuer) -> AccountFolder | None:
        """The account's key is there before the CA hears of it: nginx answers with it."""
        if issuer.account_key.startswith("/"):
            return self._account_of_file(issuer)
        known = self.store.find_account(issuer.directory_url)
        if known is not None or self.scratch is not None:
            return known
        with self.store.lock_accounts(issuer.directory_url):
            known = self.store.find_account(issuer.directory_url)
            return known or self.store.create_account(
                issuer.name, issuer.directory_url, new_key(issuer.account_key), self.now
            )

    def _account_of_file(self, issuer: Issuer) -> AccountFolder | None:
        pem = disk.read(issuer.account_key)
        if pem is None:
            raise ConfigError(
                f'the account key "{issuer.account_key}" of issuer "{issuer.name}" is missing'
            )
        if self.scratch is not None:
            return self.store.find_account(issuer.directory_url)
        try:
            return self.store.create_account(issuer.name, issuer.directory_url, pem, self.now)
        except BadBundle as error:
            raise ConfigError(f'"{issuer.account_key}" is no account key: {error}') from error


def _key(
    identity: tuple[str, frozenset[str], str | None] | None, key_type: str
) -> tuple[Identity | None, str]:
    return (None if identity is None else Identity(*identity)), key_type


# Draft -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Draft:
    """A generation on disk that is not in use yet; `added` are the addresses that it adds."""

    generation: Generation
    added: tuple[Listen, ...]


def write(understood: Understood, places: Places, added: tuple[Listen, ...]) -> Draft:
    """Write a new generation; nobody has judged it yet."""
    files = generate(understood.source, understood.plan, places.layout(added))
    written = generation.write(
        places.scratch or understood.instance.path,
        understood.source.main,
        files,
        exclude=understood.store.root,
    )
    return Draft(written, added)


def draft(understood: Understood, places: Places, added: tuple[Listen, ...]) -> Draft:
    """Write a new generation and let nginx judge it.

    Raises:
        NginxRejected: nginx refuses it; its words, with the user's file and line.
    """
    drafted = write(understood, places, added)
    said = test(understood.launch, drafted.generation)
    if not said.ok:
        drafted.generation.discard()
        raise NginxRejected(tuple(map(hint, said.lines)))
    return drafted


def test(launch: Launch, written: Generation) -> Check:
    """`nginx -t` on a generation, with the settings of this start, in the user's paths."""
    argv = launch.command.for_test(written.main, error_log=nowhere(launch.nginx))
    return check(launch.nginx, argv, written.translate)


def nowhere(nginx: Nginx) -> str | None:
    """An error log for tests, where nginx has an option for it: we write the user's path there."""
    return "/dev/null" if nginx.takes_error_log else None


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


# The current generation ------------------------------------------------------------------


def generated_main(understood: Understood) -> str:
    """The main file that nginx is started with; it never changes its name."""
    return f"{understood.instance.generated}/{os.path.basename(understood.source.main)}"


def switch(understood: Understood, drafted: Draft) -> None:
    """Make a draft the generation that nginx reads, and keep the one before it."""
    launch = understood.launch
    work = work_of(
        understood.plan,
        nginx=launch.nginx.path,
        options=launch.command.settings(understood.source.main),
        pid_file=understood.pid_file,
        error_log=understood.error_log,
    )
    disk.replace(drafted.generation.work, to_json(work), mode=0o600, durable=False)
    generation.switch(understood.instance.path, drafted.generation)


def current_work(understood: Understood) -> Work | None:
    """What the generation that nginx runs leaves to do; None without one."""
    current = generation.current(understood.instance.path)
    text = disk.read(current.work) if current is not None else None
    return None if current is None or text is None else from_json(text, current.work)


def test_current(understood: Understood) -> Check | None:
    """`nginx -t` on the generation that nginx runs; None without one."""
    current = generation.current(understood.instance.path)
    return None if current is None else test(understood.launch, current)


def leave_renew(understood: Understood) -> None:
    """Leave a process behind that gets what is missing through the running nginx, and reloads."""
    launch = understood.launch
    options = launch.command.settings(understood.source.main, prefix=launch.prefix)
    environ = {name: launch.environ[name] for name in _FOR_RENEW if name in launch.environ}
    spawn_detached(
        [sys.executable, "-I", "-c", _RUN, *sys.path, "--", *options, "renew", "--finish"],
        environ,
        stderr=True,
    )


_RUN = (
    "import sys; end = sys.argv.index('--'); sys.path[:] = sys.argv[1:end];"
    " sys.argv[1:end + 1] = []; from nginx_acme.__main__ import run; run()"
)
"""Not ``-m``: isolated (-I), it would not find what is installed for one user alone."""

_FOR_RENEW = (
    STATE_PATH_VARIABLE,
    "NGINX_ACME_NGINX",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTPS_PROXY",
    "https_proxy",
    "NO_PROXY",
    "no_proxy",
)
"""What a detached process gets of our environment: how it reaches the CA and finds the state."""
