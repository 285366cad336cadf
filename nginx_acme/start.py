"""The story of a start: what is missing is got, and then we are nginx. And of `-t`, its rehearsal.

    start   read, plan, place what there is, `nginx -t`, wait for what is missing, become nginx
    test    the same up to `nginx -t`, in a private folder; nothing is written, nobody asked

Nothing is switched and nobody is asked before nginx itself has accepted the new generation.
Neither a CA nor the state directory ever keeps nginx from starting: what can't be had or kept is
said, and nginx starts with what there is.
"""

from __future__ import annotations

import errno
import shutil
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from nginx_acme import disk, generation
from nginx_acme.challenges.http01 import Responder
from nginx_acme.directives import hint
from nginx_acme.draft import draft, free_addresses, leave_renew, nowhere, switch, write
from nginx_acme.errors import NginxAcmeError, StateError
from nginx_acme.launch import SHELTER, understand, utc_now
from nginx_acme.loaded import on_disk
from nginx_acme.places import answers, borrow, keep
from nginx_acme.process import check
from nginx_acme.reload import find_master
from nginx_acme.standing import missing, standings, unfinished
from nginx_acme.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from nginx_acme.generation import Generation
    from nginx_acme.launch import Home, Launch, Understood
    from nginx_acme.nginx.listen import Listen
    from nginx_acme.plan import Certificate

OTHER_START = 15.0
"""Seconds that another start may take beside its wait for certificates."""
OTHER_NGINX = 2.0
"""Seconds for its nginx to write the pid file."""
_LOOK = 0.05


def start(launch: Launch) -> NoReturn:
    """Become nginx, with a certificate for every server that says `acme`.

    Raises:
        NginxAcmeError: a mistake in the configuration, or nginx refuses it.
    """
    understood = understand(launch)
    if understood is None:
        launch.become_nginx(launch.command.argv)
    launch.log.add_file(understood.error_log)
    home = understood.home
    if not _runs(understood):
        understood.tell_warnings()
        home = _prepared(understood)
    launch.become_nginx(launch.command.for_nginx(home.generated_main))


def _runs(understood: Understood) -> bool:
    """Whether this nginx runs already: a second start by accident.

    nginx says itself that its addresses are taken, and the generation that runs stays as it is.
    """
    master = find_master(understood.pid_file)
    return master is not None and master.uses(understood.home.generated_main)


def _prepared(understood: Understood) -> Home:
    """Make everything ready for nginx; where its generation is."""
    try:
        return _prepared_in_store(understood)
    except StateError as error:
        understood.launch.log.error(f"{error}; no CA is asked until it can be written")
        return _prepared_in_shelter(understood)


def _prepared_in_shelter(understood: Understood) -> Home:
    """With nothing written to the state directory.

    Certificates are served as they are; generation and stand-ins are in a private folder, and
    what would be kept for later isn't.
    """
    shelter = Store(f"{disk.private_folder(understood.launch.environ)}/{SHELTER}")
    shelter.open_for_writing()
    sheltered = understood.at(runtime=shelter)
    places = borrow(sheltered.plan, sheltered.home.store, sheltered.home.stand_ins, utc_now())
    drafted = draft(sheltered, places, free_addresses(sheltered))
    _switch(sheltered, drafted)
    return sheltered.home


def _prepared_in_store(understood: Understood) -> Home:
    home, plan = understood.home, understood.plan
    _warn_if_ephemeral(understood)
    home.store.open_for_writing()
    if _is_made_elsewhere(understood):
        return home
    places = keep(plan, home.store, utc_now())
    added = free_addresses(understood)
    wanted = missing(plan.certificates, home.store, utc_now())
    responder = _responder(understood, wanted, added)
    with responder or nullcontext():
        drafted = draft(understood, places, added)
        _get(understood, wanted, responder)
    answered = answers(plan.issuers, home.store, utc_now())
    if answered != places.answers:  # a CA has forgotten its account
        drafted = draft(understood, replace(places, answers=answered), added)
    if _runs(understood):
        return home
    _switch(understood, drafted)
    home.instance.note_loaded(on_disk(plan.certificates, home.store, utc_now()))
    if unfinished(plan.certificates, home.store, utc_now()):
        leave_renew(home, understood.error_log)
    return home


def _is_made_elsewhere(understood: Understood) -> bool:
    """Whether another start of the same nginx is under way, and has become it.

    That one is waited for, as long as it may wait itself. What this one would find while the
    other's temporary server and `nginx -t` hold the addresses would make no good generation. The
    lock is nobody's to release: exec does.
    """
    instance, seconds = understood.home.instance, understood.plan.settings.start_wait
    if disk.try_lock(instance.start_lock) is not None:
        return False
    try:
        disk.lock(instance.start_lock, wait=seconds + OTHER_START)
    except StateError as busy:
        understood.launch.log.warn(f"{busy}, which starts nginx, too; it is not waited for")
    end = time.monotonic() + OTHER_NGINX
    while not _runs(understood) and time.monotonic() < end:
        time.sleep(_LOOK)
    return _runs(understood)


def _switch(understood: Understood, drafted: Generation) -> None:
    home = understood.home
    with home.runtime.lock_generation(home.instance):
        switch(understood, drafted)
        generation.prune(home.instance.path)


def _warn_if_ephemeral(understood: Understood) -> None:
    root = understood.home.store.root
    if disk.is_ephemeral(root):
        understood.launch.log.warn(
            f'the state directory "{root}" goes away with its {disk.file_system(root)}; put it on'
            f" a volume (-v nginx-acme:{root}), or every new container asks the CA again"
        )


# What is missing -------------------------------------------------------------------------


def _responder(
    understood: Understood, wanted: Sequence[Certificate], added: tuple[Listen, ...]
) -> Responder | None:
    """The temporary server, listening, if this start waits for certificates.

    It waits only where nobody misses anything meanwhile, where nobody else holds the addresses,
    and only once in an hour: a start that waited in vain, or was killed, would do so again.
    """
    plan, now = understood.plan, utc_now()
    if plan.serves_already or plan.settings.start_wait <= 0:
        return None
    if all(certificate.issuer.local for certificate in wanted):
        return None
    if any(one.serves for one in standings(plan.certificates, understood.home.store, now)):
        return None
    if understood.home.instance.waited_recently(now):
        return None
    left_out = set(plan.added) - set(added)
    return _listening(
        understood, [x for x in plan.listens if not x.proxy_protocol and x not in left_out]
    )


def _listening(understood: Understood, listens: Sequence[Listen]) -> Responder | None:
    """The temporary server on these addresses; None where it is no use."""
    log = understood.launch.log
    responder, refused = Responder.bind(listens)
    for address, error in refused:
        log.warn(f"no challenge can be answered on {address} now: {error.strerror}")
    busy = any(error.errno == errno.EADDRINUSE for _, error in refused)
    if responder.addresses and not busy:
        try:
            responder.start()
        except NginxAcmeError as error:
            log.warn(str(error))
        else:
            return responder
    responder.close()
    return None


def _get(
    understood: Understood, wanted: Sequence[Certificate], responder: Responder | None
) -> None:
    """Get what is missing, as far as there is time and a way; the issuer `local` needs neither."""
    now = [certificate for certificate in wanted if responder or certificate.issuer.local]
    if not now:
        return
    # What speaks with a CA takes 0.15 s to import; the temporary server's process starts beside.
    from nginx_acme.issuing import Scene, before_nginx, issue_locally

    launch, instance = understood.launch, understood.home.instance
    scene = Scene(understood.home.store, launch.log, launch.signals)
    try:
        if responder is None:
            issue_locally(now, scene)
            return
        instance.begin_wait(utc_now())
        if before_nginx(now, scene, responder, understood.plan.settings.start_wait):
            instance.end_wait()
    except StateError as error:
        launch.log.error(str(error))


# -t and -T --------------------------------------------------------------------------------


def test(launch: Launch) -> int:
    """What `nginx -t` says of the generation that a start would make. Writes nothing of ours.

    Raises:
        NginxAcmeError: a mistake in the configuration.
    """
    understood = understand(launch)
    if understood is None:
        launch.become_nginx(launch.command.argv)
    understood.tell_warnings()
    with tempfile.TemporaryDirectory(prefix="nginx-acme-") as scratch:
        launch.signals.before_end(lambda: shutil.rmtree(scratch, ignore_errors=True))
        rehearsed = understood.at(runtime=Store(scratch))
        home = rehearsed.home
        places = borrow(rehearsed.plan, home.store, home.stand_ins, utc_now())
        written = write(rehearsed, places, rehearsed.plan.added)
        argv = launch.command.for_nginx(written.main, error_log=nowhere(launch.nginx))
        said = check(launch.nginx, argv, written.translate)
    sys.stdout.buffer.write(written.translate_dump(said.output))
    sys.stdout.flush()
    for line in said.lines:
        launch.log.relay(hint(line))
    return said.returncode
