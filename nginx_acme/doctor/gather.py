"""The facts of this host, its nginx and its store, for the judgements beside this module.

Nothing is written but a probe file in the state directory, which is removed at once; nobody
outside of this host is asked.
"""

from __future__ import annotations

import grp
import ipaddress
import os
import pwd
import shutil
import stat
import subprocess
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from nginx_acme import disk, locks, volumes
from nginx_acme.account import find_account
from nginx_acme.acme.presets import caa_identities
from nginx_acme.challenges.http01 import CHALLENGE_TYPE, uncovered
from nginx_acme.doctor.caa import Asker
from nginx_acme.doctor.certificates import Kept, Sighting
from nginx_acme.doctor.host import Folder, Port, State, User
from nginx_acme.doctor.nginx import Care, Program, Running, unit_of
from nginx_acme.errors import ConfigError, NginxAcmeError, StateError
from nginx_acme.free_address import why_not_free
from nginx_acme.launch import is_shelter
from nginx_acme.master import workers
from nginx_acme.running import as_started, current_work, started_at
from nginx_acme.sight import look
from nginx_acme.sockets import holder, listening
from nginx_acme.standing import standings
from nginx_acme.store import Identity

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from nginx_acme.binary import Nginx
    from nginx_acme.doctor.case import Case
    from nginx_acme.nginx.listen import Listen
    from nginx_acme.plan import Certificate, Issuer
    from nginx_acme.store import AccountFolder
    from nginx_acme.understanding import Understood

_SYSTEMD_SECONDS = 5
_TIMER = "nginx-acme-renew.timer"
_SECRET = ("accounts", "certificates", "local", "locks")
_ACL = "system.posix_acl_access"
_BUILT_IN_USER = "nobody"
"""Whom nginx's workers are without `--user` at its build (NGX_USER)."""


# nginx -----------------------------------------------------------------------------------


def program(nginx: Nginx) -> Program:
    """The binary, and what it was built with."""
    return Program(nginx.path, nginx.name, nginx.version, nginx.lacks)


def running(case: Case) -> Running:
    """What the pid file names, compared with the configuration."""
    master, home = case.master, case.home
    found = started_at(master) if master is not None else None
    sheltered = found is not None and is_shelter(found[0])
    unwritable = sheltered and (case.work is None or case.work.issue)
    return Running(
        pid=master.pid if master is not None else None,
        begun=case.work is not None,
        ours=sheltered or (master is not None and as_started(home, master) is not None),
        conf=master.conf if master is not None else None,
        sheltered=unwritable,
        unknown=tuple(unknown(case)),
    )


def unknown(case: Case) -> Iterator[str]:
    """Names that the configuration has and the generation that runs hasn't."""
    known = {name for one in (case.work.certificates if case.work else ()) for name in one.names}
    for certificate in case.certificates:
        yield from (name.value for name in certificate.names if name not in known)


def care(case: Case) -> Care:
    """Who renews what the running nginx shows."""
    work, master = case.work, case.master
    unit = unit_of(_text(f"/proc/{master.pid}/cgroup")) if master is not None else None
    return Care(
        wanted=work is None or work.agent,
        alive=locks.held_by(case.home.instance.agent_lock) is not None,
        timer=_systemd("is-active", _TIMER) == "active",
        unit=unit,
        memory=_systemd("show", "--property=OOMPolicy", "--value", unit) if unit else None,
    )


def _text(path: str) -> str:
    """Of a file of the kernel's; nothing where it has none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _systemd(*argv: str) -> str | None:
    """What systemctl says; None where there is no systemd, or it doesn't say."""
    program = shutil.which("systemctl")
    if program is None or not os.path.isdir("/run/systemd/system"):
        return None
    try:
        done = subprocess.run(
            [program, *argv], capture_output=True, text=True, timeout=_SYSTEMD_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


# The host --------------------------------------------------------------------------------


def ports(case: Case) -> list[Port] | None:
    """The addresses where nginx is to listen; None where a master runs that we may not look at."""
    held = listening(case.master.pid) if case.master is not None else frozenset()
    if case.master is not None and not held:
        return None
    understood = case.understood
    wanted = [*case.listens]
    if understood is not None:
        wanted += [x for one in understood.plan.shown for x in one.listens if not x.quic]
    added = {x.address for x in understood.plan.added} if understood is not None else set()
    nginx = {case.master.pid, *workers(case.master.pid)} if case.master is not None else set()
    return [
        Port(listen.address, listen.address in added, held=True, refused=None, holder=None)
        if listen.address in held
        else _port(listen, nginx, added=listen.address in added)
        for listen in uncovered(x for x in wanted if _is_address(x.address.host))
    ]


def _port(listen: Listen, nginx: set[int], *, added: bool) -> Port:
    """One that our nginx, if it runs, doesn't have by this very address."""
    host, port = listen.address
    refused = why_not_free(host, port, ipv6only=listen.ipv6only)
    there = holder(listen.address) if refused is not None else None
    if there is not None and there[0] in nginx:  # a reload changes one address for the other
        return Port(listen.address, added, held=True, refused=None, holder=None)
    words = f"{there[1]} (pid {there[0]})" if there is not None else None
    return Port(listen.address, added, held=False, refused=refused, holder=words)


def _is_address(host: str) -> bool:
    """Not a name, which only nginx looks up, nor a socket in the file system."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def latest(case: Case) -> datetime | None:
    """The latest moment of which the store knows that something was done."""
    store = case.home.store
    found = [one.attempt.at for one in standings(case.certificates, store, case.now)]
    for issuer in issuers(case):
        with suppress(ConfigError):  # of a key that is none, which is told elsewhere
            known = account(case, issuer)
            found += [known.made, known.agreed] if known is not None else []
    return max(filter(None, found), default=None)


# The state directory ---------------------------------------------------------------------


def state(case: Case) -> State:
    """The state directory that the next start uses."""
    store = case.understood.home.store if case.understood is not None else case.home.store
    there = _nearest(store.root)
    exists = os.path.isdir(store.root)
    mine, newer = os.geteuid() in {0, os.stat(there).st_uid}, exists and store.newer
    free = os.statvfs(there)
    return State(
        root=store.root,
        exists=exists,
        mine=mine,
        newer=newer,
        unwritable=_unwritable(store.root, there) if mine and not newer else None,
        file_system=volumes.file_system(store.root),
        ephemeral=volumes.is_ephemeral(store.root),
        free_bytes=free.f_bavail * free.f_frsize,
        free_files=free.f_favail if free.f_files else None,
        way=list(_folders(f"{store.root}/public/challenges")),
        secret=[_folder(path) for name in _SECRET if os.path.isdir(path := f"{store.root}/{name}")],
        workers=_workers(case.launch.nginx, case.understood),
    )


def source(case: Case) -> tuple[str, int]:
    """The state directory that another node writes, and how many certificates are there."""
    store = case.understood.home.store if case.understood is not None else case.home.state
    return store.root, len(store.folders())


def _unwritable(root: str, there: str) -> str | None:
    """Why certificates can't be kept, or the folder can't be made."""
    certificates = f"{root}/certificates"
    try:
        disk.probe_writable(certificates if os.path.isdir(certificates) else there)
    except StateError as error:
        return str(error)
    return f'"{root}" is no folder' if os.path.lexists(root) and not os.path.isdir(root) else None


def _nearest(path: str) -> str:
    """The folder itself, or the nearest one above it that is there."""
    while not os.path.isdir(path):
        path = os.path.dirname(path) or "/"
    return path


def _folders(path: str) -> Iterator[Folder]:
    """The folders that lead to this one and it, as far as they are there, from the root."""
    real = os.path.realpath(path)
    parts = real.strip("/").split("/")
    for i in range(len(parts) + 1):
        folder = "/" + "/".join(parts[:i])
        if os.path.isdir(folder):
            yield _folder(folder)


def _folder(path: str) -> Folder:
    status = os.stat(path)
    mode = stat.S_IMODE(status.st_mode)
    return Folder(path, mode, status.st_uid, status.st_gid, acl=_has_acl(path))


def _has_acl(path: str) -> bool:
    try:
        return _ACL in os.listxattr(path)
    except OSError:
        return False


def _workers(nginx: Nginx, understood: Understood | None) -> User | None:
    """Who nginx's workers are; None where that isn't known, or nobody whom this host knows."""
    if os.geteuid() != 0:
        return User(f"user {os.geteuid()}", os.geteuid(), {os.getegid(), *os.getgroups()})
    if understood is None:
        return None
    said = understood.arguments("user")
    name = said[0] if said else nginx.option("user") or _BUILT_IN_USER
    try:
        user = pwd.getpwnam(name)
        group = said[1] if len(said) > 1 else None if said else nginx.option("group")
        gid = grp.getgrnam(group).gr_gid if group else user.pw_gid
    except KeyError:
        return None
    return User(name, user.pw_uid, frozenset(os.getgrouplist(name, gid)))


# The store -------------------------------------------------------------------------------


def kept(case: Case) -> list[Kept]:
    """Every key type of every certificate that is wanted."""
    found = standings(case.certificates, case.home.store, case.now)
    return [Kept(one, one.folder.damage(one.key_type) if one.folder else None) for one in found]


def sightings(case: Case) -> list[Sighting]:
    """What handshakes with the running nginx show of each certificate that is good to be served."""
    if case.ours is None or case.work is None:
        return []
    found = standings(case.work.certificates, case.home.store, case.now)
    good = [one for one in found if one.usable]
    return list(map(Sighting, good, look(case.work, good)))


def orphans(case: Case) -> list[str]:
    """The labels of certificates that no generation of any instance shows, nor the configuration."""
    store = case.home.store
    wanted = {Identity(*one.identity) for one in case.certificates}
    for name in disk.names_in(f"{store.root}/instances"):
        wanted |= _shown_by(case, name)
    return [folder.label for folder in store.folders() if folder.identity not in wanted]


def _shown_by(case: Case, instance: str) -> set[Identity]:
    work = current_work(replace(case.home, name=instance))
    return {Identity(*one.identity) for one in work.certificates} if work is not None else set()


def issuers(case: Case) -> tuple[Issuer, ...]:
    """Those that are asked, each once."""
    asked = (one.issuer for one in case.certificates)
    return tuple(dict.fromkeys(issuer for issuer in asked if not issuer.local))


def challenges(case: Case, issuer: Issuer) -> str | None:
    """The folder where the running nginx looks for this issuer's challenges; None before it has one."""
    found = account(case, issuer)
    folder = case.home.store.challenges(found.name) if found is not None else ""
    return folder if os.path.isdir(folder) else None


def asker(case: Case, certificate: Certificate) -> Asker:
    """Who asks for this certificate, as far as this user may know."""
    issuer, url, proved = certificate.issuer, None, False
    with suppress(NginxAcmeError):
        found = account(case, issuer)
        url = found.url if found is not None else None
        known = standings([certificate], case.home.store, case.now)
        proved = any(one.bundle is not None for one in known)
    identities = caa_identities(issuer.directory_url)
    return Asker(issuer.name, identities, url, CHALLENGE_TYPE, proved=proved)


def account(case: Case, issuer: Issuer) -> AccountFolder | None:
    """The issuer's account, as far as the store has one."""
    return find_account(case.home.store, issuer)
