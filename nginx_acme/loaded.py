"""Which certificates nginx has read, so that one that it hasn't is never forgotten.

Whoever installs a certificate may be killed before nginx is told; and who waits for another's
work finds nothing left to do, while its own nginx serves what was there before. So what is on
disk is noted when nginx is about to read it, and compared by the next `renew`.

Times were no way to know it: a worker that crashed is younger than what it serves, and a clock
that was set makes a file older than the process that never saw it. A reload that somebody else
asked for is not noted, and costs one more.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, NamedTuple

from nginx_acme.launch import utc_now
from nginx_acme.manifest import Served, keep_served, state_of
from nginx_acme.reload import RELOAD_WAIT, Opens, reload, settled_workers, was_reloaded
from nginx_acme.standing import of_folder
from nginx_acme.store import Identity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from nginx_acme.launch import Home
    from nginx_acme.master import Master
    from nginx_acme.plan import Certificate
    from nginx_acme.standing import Standing
    from nginx_acme.store import CertificateFolder, Instance, Store
    from nginx_acme.work import Work


class OnDisk(NamedTuple):
    """What nginx would read now: serial numbers by label and key type, and the files."""

    serials: Mapping[str, Mapping[str, str]]
    served: Served


def on_disk(certificates: Iterable[Certificate], store: Store, now: datetime) -> OnDisk:
    """What nginx would read of these."""
    found: list[Standing] = []
    states: dict[str, str] = {}
    until = math.inf
    for certificate in certificates:
        folder = store.find(Identity(*certificate.identity))
        for path in _read_of(folder, certificate.key_types) if folder else ():
            states[path] = state_of(path)  # before it is read, so that what changes then is seen
        for one in of_folder(certificate, folder, now):
            found.append(one)
            good = one.bundle if one.usable else None
            until = min(until, good.facts.not_after.timestamp() if good else 0)
    return OnDisk(_serials(found), Served(states, int(until) if states else 0))


def _serials(found: Iterable[Standing]) -> dict[str, dict[str, str]]:
    serials: dict[str, dict[str, str]] = {}
    for one in found:
        if one.shown is not None:
            serials.setdefault(one.label, {})[one.key_type] = f"{one.shown.facts.serial:x}"
    return serials


def _read_of(folder: CertificateFolder, key_types: Iterable[str]) -> Iterator[str]:
    """What says which certificate is to be served: those there are, and those that are revoked."""
    yield folder.revocations.noted_at
    yield from map(folder.bundle_path, key_types)


def note_loaded(home: Home, read: OnDisk) -> None:
    """Note what nginx has read, or reads when it starts in a moment."""
    home.instance.note_loaded(read.serials)
    keep_served(home.instance.path, read.served)


def reload_and_note(home: Home, master: Master, work: Work) -> None:
    """Reload the nginx of a generation that leaves this to do, and note what it has read then.

    Its workers are noted as those of a reload of ours, unless somebody else's came between this
    one and the last that was known of, or just after it: then the agent has to look at the user's
    files, and is told so, since it may be about to watch the main file of a new generation.

    Raises:
        ReloadFailed: nginx goes on with what it had.
    """
    instance, noted = home.instance, home.instance.workers()
    seen, opens = on_disk(work.certificates, home.store, utc_now()), Opens(home.generated_main)
    try:
        others = bool(noted) and was_reloaded(
            master.pid, noted, os.path.realpath(instance.generations)
        )
        reload(master, RELOAD_WAIT, error_log=work.error_log)
        marks, times = settled_workers(master.pid), opens.count()
    finally:
        opens.close()
    note_loaded(home, seen)
    if not others and times in {0, 1, None}:
        instance.note_workers(marks)
    else:
        instance.wake_agent(look=True)


def behind(instance: Instance, found: Iterable[Standing]) -> list[str]:
    """The labels of certificates that nginx has read in another state; none where none is known."""
    loaded = instance.loaded()
    return [
        label
        for label, serials in _serials(found).items()
        if label in loaded and loaded[label] != serials
    ]
