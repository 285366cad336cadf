"""What an nginx that asks no CA takes from the state directory of a node that does.

    take         certificates that are new there, and what is noted of them
    accounts     those whose challenges are answered
    placed       both for a start or a reload, which goes on without
    next_look    when to look again

Its own store is a private folder, and the state directory is read and never written: it may be
mounted read-only, or be a copy that the next `rsync --delete` tidies up. nginx reads what was taken.
To let it read that folder itself was the obvious way: while a mount is away, or a file half copied,
it would refuse every reload for the sake of a certificate that it has in memory.

Nothing is watched, since network file systems tell nobody what others change.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from nginx_acme.errors import StateError
from nginx_acme.orders.issuance import Wanted
from nginx_acme.places import keep, known_accounts
from nginx_acme.standing import due_of, standings
from nginx_acme.store import NO_ATTEMPT, Attempt, Identity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from nginx_acme.launch import Home
    from nginx_acme.log import Log
    from nginx_acme.places import Known, Places
    from nginx_acme.plan import Certificate, Issuer
    from nginx_acme.store import CertificateFolder, Store
    from nginx_acme.understanding import Understood

LOOK = timedelta(minutes=10)
"""Between two looks at the state directory."""
FIRST_LOOKS = timedelta(seconds=10)
"""The same while something is missing, at first."""
OVERDUE = 1 / 4
"""The part of the time from a renewal's moment to the end of life, after which it is amiss."""


def take(
    certificates: Iterable[Certificate], source: Store, store: Store, log: Log, now: datetime
) -> list[Wanted]:
    """Take over what is new.

    A certificate that is damaged or expired there takes the place of none that can be served.

    Args:
        certificates: that are wanted.
        source: where they come from.
        store: where they are taken to; open for writing.
        log: gets a word on what is amiss there, once.
        now: the wall clock.

    Returns:
        What was installed.

    Raises:
        StateError: the source can't be read, or has lost what it had; the store keeps what it has.
    """
    wanted = tuple(certificates)
    if not source.folders():
        if not any(one.bundle for one in standings(wanted, store, now)):
            return []
        raise StateError(
            f'"{source.root}" has no certificates any more, is it mounted? nginx goes on with those'
            " that were taken from it",
            source.root,
        )
    return [taken for one in wanted for taken in _take(one, source, store, log, now)]


def placed(understood: Understood, now: datetime) -> Places:
    """Where nginx finds each certificate, taken where it is another node that gets them.

    What is in the way of that is said, and nginx gets what there is. That the state directory
    can't be read is no news where it couldn't be written.
    """
    home, plan, log = understood.home, understood.plan, understood.launch.log
    if home.source is None:
        return keep(plan, home.store, now)
    try:
        take(plan.certificates, home.source, home.store, log, now)
        if plan.certificates and not plan.settings.issue and not home.source.folders():
            log.warn(f'"{home.source.root}" has no certificates, they are taken when they come')
    except StateError as error:
        if not plan.settings.issue:
            log.error(str(error))
    known = accounts(home, home.source, plan.issuers)
    return keep(plan, home.store, now, source=home.source, known=known)


def accounts(home: Home, source: Store, issuers: Iterable[Issuer]) -> Known:
    """The accounts of the other node, as they are there or were when that could be read last.

    What is known of them is enough to answer for them; their keys are not taken.
    """
    before = home.instance.accounts()
    known = {**before, **known_accounts(issuers, source)}
    if known != before:
        home.instance.make()
        home.instance.note_accounts(known)
    return known


def next_look(since: datetime, now: datetime, *, missing: bool) -> datetime:
    """When to look again: soon while something is missing that is wanted since then."""
    return now + (min(max((now - since) / 4, FIRST_LOOKS), LOOK) if missing else LOOK)


def _take(
    certificate: Certificate, source: Store, store: Store, log: Log, now: datetime
) -> Iterator[Wanted]:
    identity = Identity(*certificate.identity)
    offered = source.find(identity)
    folder = store.create(identity, [name.value for name in certificate.names])
    held = store.try_lock_certificate(folder)
    if held is None:  # another process takes it
        return
    with held:
        for key_type in certificate.key_types:
            if offered is not None and _install(offered, folder, key_type, now):
                yield Wanted(folder, key_type, certificate.names, certificate.profile)
            attempt = _amiss(certificate, offered, folder, key_type, root=source.root, now=now)
            before = folder.attempt(key_type)
            if replace(attempt, at=None) == replace(before, at=None):
                continue
            folder.record(key_type, attempt)
            if attempt.problem:
                log.warn(f"{folder.label}: {attempt.problem}")


def _install(
    offered: CertificateFolder, folder: CertificateFolder, key_type: str, now: datetime
) -> bool:
    """Whether there is a better one than ours, which is ours from now on."""
    bundle, own = offered.own(key_type), folder.own(key_type)
    if bundle is None:
        return False
    advice = offered.advice(key_type)
    is_new = own is None or bundle.pem != own.pem
    is_worse = bundle.facts.not_after <= now and own is not None and own.facts.not_after > now
    if is_new and (is_worse or folder.was_refused(key_type, bundle)):
        return False
    if is_new:
        issued = offered.issued(key_type)
        directory_url = issued.directory_url if issued else folder.identity.directory_url
        folder.install(key_type, bundle, directory_url, issued.account if issued else None)
    if advice is not None and advice != folder.advice(key_type):
        folder.note_advice(key_type, bundle, advice)
    return is_new


def _amiss(
    certificate: Certificate,
    offered: CertificateFolder | None,
    folder: CertificateFolder,
    key_type: str,
    *,
    root: str,
    now: datetime,
) -> Attempt:
    """What is wrong with a certificate: as the node that asks for it says, or as it looks here."""
    if offered is not None:
        told, damage = offered.attempt(key_type), offered.damage(key_type)
        if told.problem:
            return told
        if damage:
            problem = f'"{offered.bundle_path(key_type)}" is damaged and not taken: {damage}'
            return Attempt(problem=problem, at=now)
    own = folder.own(key_type)
    if own is None and offered is None:
        problem = f'"{root}" has none of this issuer for these names'
        return Attempt(problem=problem, at=now)
    due = due_of(certificate, own, folder.advice(key_type))
    if own is None or due is None:
        return NO_ATTEMPT
    if now < due.moment + (own.facts.not_after - due.moment) * OVERDUE:
        return NO_ATTEMPT
    problem = f'it was to be renewed on {due.moment:%Y-%m-%d}, and "{root}" has no newer one'
    return Attempt(problem=problem, at=now)
