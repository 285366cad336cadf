"""The stories of nginx's own command line: start, `-t` and `-T`, `-s`.

    start   read, plan, place what there is, `nginx -t`, wait for what is missing, become nginx
    test    the same up to `nginx -t`, in a private folder; nothing is written, nobody asked
    signal  `reload`: a new generation for the nginx that runs, proved; the others go to nginx

Nothing is switched and nobody is asked before nginx itself has accepted the new generation.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from dataclasses import replace
from typing import TYPE_CHECKING

from nginx_acme import disk, generation
from nginx_acme.challenges.http01 import Responder
from nginx_acme.directives import hint
from nginx_acme.errors import NginxAcmeError, ReloadFailed, StateError
from nginx_acme.launch import (
    Draft,
    Launch,
    Places,
    Understood,
    draft,
    free_addresses,
    generated_main,
    leave_renew,
    nowhere,
    switch,
    understand,
    utc_now,
    write,
)
from nginx_acme.process import become, check, found_environ
from nginx_acme.progress import progress_for
from nginx_acme.reload import find_master, listening, reload
from nginx_acme.standing import standings
from nginx_acme.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from nginx_acme.nginx.listen import Listen
    from nginx_acme.plan import Certificate
    from nginx_acme.reload import Master

RELOAD_WAIT = 30.0
"""Seconds for nginx to take up a reload that it accepted in a test."""


def start(launch: Launch) -> NoReturn:
    """Become nginx, with a certificate for every server that says `acme`.

    Raises:
        NginxAcmeError: a mistake in the configuration, or nginx refuses it.
    """
    understood = understand(launch)
    if understood is None:
        _become(launch, launch.command.argv)
    master = find_master(understood.pid_file)
    if master is not None and master.uses(generated_main(understood)):
        # A second start by accident: nginx says itself that its addresses are taken, and the
        # generation that runs stays as it is.
        _become(launch, launch.command.for_nginx(generated_main(understood)))
    _tell_warnings(understood)
    scratch = _open_state(understood)
    places = Places(understood.store, scratch, launch.log, utc_now())
    places.fill(understood.plan)
    if scratch is not None:
        drafted = draft(understood, places, free_addresses(understood))
        _become(launch, launch.command.for_nginx(drafted.generation.main))
    drafted = _issue(understood, places)
    with understood.store.lock_generation(understood.instance):
        switch(understood, drafted)
        generation.prune(understood.instance.path)
    _leave_renew(understood)
    _become(launch, launch.command.for_nginx(generated_main(understood)))


def _become(launch: Launch, argv: Sequence[str]) -> NoReturn:
    become(launch.nginx.path, argv, found_environ(), launch.signals)


def _tell_warnings(understood: Understood) -> None:
    log, root = understood.launch.log, understood.store.root
    for message, place in understood.plan.warnings:
        log.warn(f"{message} in {place}" if place else message)
    if disk.is_ephemeral(root):
        log.warn(
            f'the state directory "{root}" goes away with its {disk.file_system(root)}; put it on'
            f" a volume (-v nginx-acme:{root}), or every new container asks the CA again"
        )


def _open_state(understood: Understood) -> str | None:
    """Open the store for writing; where it can't be, a private folder in its place."""
    try:
        understood.store.open_for_writing()
        understood.instance.make()
    except StateError as error:
        understood.launch.log.error(f"{error}; no CA is asked until it can be written")
        return disk.private_folder(understood.launch.environ)
    return None


def _draft(understood: Understood, places: Places, added: tuple[Listen, ...]) -> Draft:
    with understood.store.lock_generation(understood.instance):
        return draft(understood, places, added)


# Before nginx runs ------------------------------------------------------------------------


def _issue(understood: Understood, places: Places) -> Draft:
    """Draft a generation, and get what is missing if a start should wait for it.

    The issuer `local` needs no network and no wait.
    """
    added, missing = free_addresses(understood), _missing(understood)
    responder = _responder(understood, missing) if missing else None
    try:
        drafted = _draft(understood, places, added)
        new_accounts = _reconcile(understood, missing, responder)
    finally:
        if responder is not None:
            responder.close()
    if new_accounts:
        places.fill(understood.plan)
        drafted = _draft(understood, places, added)
    return drafted


def _missing(understood: Understood) -> list[Certificate]:
    """Those that can't be served as they are and are to be asked for now."""
    found = standings(understood.plan.certificates, understood.store, utc_now())
    wanted = {one.certificate: None for one in found if one.to_ask and not one.usable}
    return list(wanted)


def _responder(understood: Understood, missing: Sequence[Certificate]) -> Responder | None:
    """The temporary server, listening, if this start waits for certificates.

    It does so only where nobody misses anything meanwhile, and only once in an hour: a start that
    waited and never finished was killed by something that will kill the next one, too.
    """
    plan, now = understood.plan, utc_now()
    if plan.serves_already or plan.settings.start_wait <= 0:
        return None
    if all(certificate.issuer.local for certificate in missing):
        return None
    if any(one.usable for one in standings(plan.certificates, understood.store, now)):
        return None
    if understood.instance.waited_recently(now):
        return None
    responder, refused = Responder.bind(x for x in plan.listens if not x.proxy_protocol)
    for address, error in refused:
        understood.launch.log.warn(f"no challenge can be answered on {address} now: {error}")
    if not responder.addresses:
        return None
    understood.instance.begin_wait(now)
    responder.start()
    return responder


def _reconcile(
    understood: Understood, missing: Sequence[Certificate], responder: Responder | None
) -> list[str]:
    """Ask for what is missing, as far as there is time; the names of issuers with new accounts."""
    now = [c for c in missing if responder is not None or c.issuer.local]
    if not now:
        return []
    # What speaks with a CA takes 0.15 s to import; the temporary server's process starts beside.
    from nginx_acme.issuing import Scene, before_nginx, through_nginx

    launch, seconds = understood.launch, understood.plan.settings.start_wait
    with progress_for(sys.stderr, launch.log.notice) as progress:
        scene = Scene(understood.store, launch.log, progress)
        if responder is None:
            return asyncio.run(through_nginx(now, scene, ())).new_accounts
        outcome = asyncio.run(before_nginx(now, scene, responder, seconds))
    understood.instance.end_wait()
    return outcome.new_accounts


def _leave_renew(understood: Understood) -> None:
    """Leave a process behind that gets through nginx what isn't there yet, and reloads."""
    found = standings(understood.plan.certificates, understood.store, utc_now())
    if any(not one.usable or one.to_ask for one in found):
        leave_renew(understood)


# -t and -T --------------------------------------------------------------------------------


def test(launch: Launch) -> int:
    """What `nginx -t` says of the generation that a start would make. Writes nothing of ours.

    Raises:
        NginxAcmeError: a mistake in the configuration.
    """
    understood = understand(launch)
    if understood is None:
        _become(launch, launch.command.argv)
    _tell_warnings(understood)
    with tempfile.TemporaryDirectory(prefix="nginx-acme-") as scratch:
        launch.signals.before_end(lambda: shutil.rmtree(scratch, ignore_errors=True))
        places = Places(understood.store, scratch, launch.log, utc_now())
        places.fill(understood.plan)
        written = write(understood, places, understood.plan.added).generation
        argv = launch.command.for_nginx(written.main, error_log=nowhere(launch.nginx))
        said = check(launch.nginx, argv, written.translate)
    sys.stdout.buffer.write(written.translate_dump(said.output))
    sys.stdout.flush()
    for line in said.lines:
        launch.log.relay(hint(line))
    return said.returncode


# -s -------------------------------------------------------------------------------------


def signal(launch: Launch) -> int:
    """`-s reload`; and `-s stop`, `quit` and `reopen`, which nginx sends itself.

    Raises:
        NginxAcmeError: a mistake in the configuration, nginx refuses it, or doesn't run with a
            generation of ours; everything stays as it was.
    """
    if launch.command.signal == "reload":
        return _reload(launch)
    understood = understand(launch)
    if understood is None or not os.path.exists(generated_main(understood)):
        _become(launch, launch.command.argv)
    _become(launch, launch.command.for_nginx(generated_main(understood)))


def _reload(launch: Launch) -> int:
    """A new generation for the nginx that runs, at the path that it was started with."""
    understood = understand(launch, always=True)
    master = find_master(understood.pid_file) if understood is not None else None
    ours = understood is not None and bool(understood.plan.ours)
    if understood is None or master is None or (not ours and _root_of(master) is None):
        if ours and master is None and understood is not None:
            raise NginxAcmeError(f'nginx is not running, "{understood.pid_file}" names no master')
        _become(launch, launch.command.argv)
    running = _as_started(understood, master)
    running.store.open_for_writing()
    _tell_warnings(running)
    places = Places(running.store, None, launch.log, utc_now())
    places.fill(running.plan)
    drafted = _draft(running, places, free_addresses(running, listening(master.pid)))
    _reconcile(running, _missing(running), None)
    before = generation.current(running.instance.path)
    with running.store.lock_generation(running.instance):
        switch(running, drafted)
        try:
            reload(master, RELOAD_WAIT, error_log=running.error_log)
        except ReloadFailed:
            if before is not None:
                generation.switch(running.instance.path, before)
            raise
        generation.prune(running.instance.path)
    _leave_renew(running)
    return 0


def _as_started(understood: Understood, master: Master) -> Understood:
    """The configuration with the state directory that the running nginx was started with.

    A changed `acme_state_path` is taken up by the next start; until then nginx reads its
    generation where it is.
    """
    if master.uses(generated_main(understood)):
        return understood
    root = _root_of(master)
    if root is None:
        raise NginxAcmeError('nginx must be restarted once to use "acme"')
    understood.launch.log.warn(
        f'nginx was started with the state in "{root}", "{understood.store.root}" is used after'
        " the next restart"
    )
    moved = replace(understood, store=Store(root))
    if not master.uses(generated_main(moved)):
        raise NginxAcmeError(
            f'nginx (pid {master.pid}) was started for another configuration: "{master.conf}"'
        )
    return moved


def _root_of(master: Master) -> str | None:
    """The state directory of a master that runs a generation of ours."""
    instance, generated, _ = (master.conf or "").rpartition("/generated/")
    root, instances, _ = instance.rpartition("/instances/")
    return root if generated and instances else None
