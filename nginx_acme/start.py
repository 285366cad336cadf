"""The story of a start: read, plan, see what is missing, prepare it, become nginx.

Neither a CA nor the state directory ever keeps nginx from starting: what can't be had or kept is
said, and nginx starts with what there is.

Light, up to the temporary server: nothing takes a first start longer, so it is on its way before
anything is imported that isn't needed to know whether it is wanted.
"""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING

from nginx_acme import locks
from nginx_acme.errors import NginxAcmeError, StateError
from nginx_acme.launch import utc_now
from nginx_acme.process import found_environ
from nginx_acme.standing import can_serve, missing
from nginx_acme.understanding import free_addresses, understand

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from typing import NoReturn

    from nginx_acme.challenges.http01 import Responder
    from nginx_acme.launch import Home, Launch
    from nginx_acme.nginx.listen import Listen
    from nginx_acme.plan import Certificate
    from nginx_acme.understanding import Understood

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
    if not understood.plan.settings.issue:
        understood = understood.sheltered()
    if not understood.runs():
        understood.tell_warnings()
        understood = _prepared(understood)
    main = understood.home.generated_main
    launch.become_nginx(launch.command.for_start(main, found_environ()))


def _prepared(understood: Understood) -> Understood:
    """Make everything ready for nginx; the same with its generation where that is."""
    if understood.asks:
        try:
            _prepare_in_store(understood)
            return understood
        except StateError as error:
            understood.launch.log.error(f"{error}; no CA is asked until it can be written")
            understood = understood.sheltered()
    from nginx_acme.prepare import in_shelter

    in_shelter(understood)
    return understood


def _prepare_in_store(understood: Understood) -> None:
    home, plan = understood.home, understood.plan
    if warning := understood.ephemeral:
        understood.launch.log.warn(warning)
    home.store.open_for_writing()
    if _is_made_elsewhere(understood):
        return
    added = free_addresses(understood)
    wanted = missing(plan.certificates, home.store, utc_now())
    responder = _responder(understood, wanted, added)
    # Takes 0.2 s to import; the temporary server's process starts beside.
    from nginx_acme.prepare import in_store

    in_store(understood, wanted, added, responder)


def _is_made_elsewhere(understood: Understood) -> bool:
    """Whether another start of the same nginx is under way, and has become it.

    That one is waited for, as long as it may wait itself. What this one would find while the
    other's temporary server and `nginx -t` hold the addresses would make no good generation. The
    lock is nobody's to release: exec does.
    """
    path, log = understood.home.instance.start_lock, understood.launch.log
    if locks.try_lock(path) is not None:
        return False
    log.notice(f"{locks.holder(path)} starts nginx, too; it is waited for")
    try:
        locks.lock(path, wait=understood.plan.settings.start_wait + OTHER_START)
    except StateError as busy:
        log.warn(f"{busy}, which starts nginx, too; it is not waited for any longer")
    end = time.monotonic() + OTHER_NGINX
    while not understood.runs() and time.monotonic() < end:
        time.sleep(_LOOK)
    return understood.runs()


# What is missing -------------------------------------------------------------------------


def _responder(
    understood: Understood, wanted: Sequence[Certificate], added: tuple[Listen, ...]
) -> Responder | None:
    """The temporary server, listening, if this start waits for certificates.

    It waits only where nobody misses anything meanwhile, where nobody else holds the addresses,
    and only once in an hour: a start that waited in vain, or was killed, would do so again, also
    in a container that is made anew each time.
    """
    plan, now = understood.plan, utc_now()
    if plan.serves_already or plan.settings.start_wait <= 0:
        return None
    if all(certificate.issuer.local for certificate in wanted):
        return None
    if can_serve(plan.certificates, understood.home.store, now):
        return None
    if _waited_recently(understood.home, now):
        return None
    left_out = set(plan.added) - set(added)
    return _listening(
        understood, [x for x in plan.listens if not x.proxy_protocol and x not in left_out]
    )


def _waited_recently(home: Home, now: datetime) -> bool:
    """Whether this nginx did so: here, or as a container of another name that is gone.

    One that is only slow on another host has the lock of its start.
    """
    return any(
        each.waited_recently(now, home.family)
        and (each.name == home.name or not each.is_starting())
        for each in home.store.instances()
    )


def _listening(understood: Understood, listens: Sequence[Listen]) -> Responder | None:
    """The temporary server on these addresses; None where it is no use."""
    # Needs asyncio, 30 ms that only a start which waits has to spend.
    from nginx_acme.challenges.http01 import Responder

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
