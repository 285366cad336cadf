"""``nginx-acme revoke NAME [--reason REASON]``: another certificate, then the end of the old one.

What is done, and in which order, is in `revocation`. Where it goes wrong the same command goes on.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from nginx_acme.acme.client import REASONS
from nginx_acme.commands import parser_for
from nginx_acme.directives import nearest
from nginx_acme.errors import NginxAcmeError
from nginx_acme.identifiers import NotCertifiable, name_of
from nginx_acme.key_types import KEY_TYPES
from nginx_acme.launch import utc_now
from nginx_acme.revocation import AT_ONCE, Revocation
from nginx_acme.running import needed_home, needed_work, why_silent
from nginx_acme.store import Identity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nginx_acme.launch import Home, Launch
    from nginx_acme.plan import Certificate
    from nginx_acme.store import CertificateFolder, Store
    from nginx_acme.work import Work


def run(launch: Launch) -> int:
    """Do it; the exit code is 0 where the certificate is revoked and another one is served."""
    parser = parser_for(
        "revoke",
        "Replace a certificate, let nginx serve the new one, and have the old one revoked."
        f" With --reason {AT_ONCE} it is revoked first.",
    )
    parser.add_argument(
        "name", metavar="NAME", help="one of its names, its label, or the path of its folder"
    )
    parser.add_argument("--reason", metavar="REASON", help=f"one of {', '.join(REASONS)}")
    given = parser.parse_args(launch.command.rest)
    if given.reason is not None and given.reason not in REASONS:
        near = nearest(given.reason, REASONS) or f", there are {', '.join(REASONS)}"
        raise NginxAcmeError(f'unknown reason "{given.reason}"{near}')
    home = needed_home(launch)
    work = needed_work(home)
    launch.log.add_file(work.error_log)
    if (why := why_silent(home, work)) is not None:
        raise NginxAcmeError(why)
    home.store.open_for_writing()
    folder, certificate = _meant(home.store, work, given.name)
    if certificate is not None:
        _tell_of_others(home, work, given.name)
    return 0 if Revocation(home, work, folder, certificate).run(given.reason) else 1


# Which one -------------------------------------------------------------------------------


def _meant(store: Store, work: Work, name: str) -> tuple[CertificateFolder, Certificate | None]:
    """The certificate that is called so, and what the generation says of it.

    One that nginx uses before one that nothing uses: those of earlier names stay in the store.

    Raises:
        NginxAcmeError: none is, or several are.
    """
    wanted = {Identity(*one.identity): one for one in work.certificates}
    folders = store.folders()
    if "/" in name:
        path = os.path.realpath(name)
        found = [folder for folder in folders if os.path.realpath(folder.path) == path]
    else:
        called = [folder for folder in folders if _is_called(folder, name)]
        used = [folder for folder in called if folder.identity in wanted]
        found = used or called
        found = [folder for folder in found if folder.label == name] or found
    if not found:
        raise NginxAcmeError(f"no certificate has the name or label {name}{_near(folders, name)}")
    if len(found) > 1:
        labels = ", ".join(folder.label for folder in found)
        raise NginxAcmeError(f"several certificates have the name {name}, say which: {labels}")
    return found[0], wanted.get(found[0].identity)


def _tell_of_others(home: Home, work: Work, name: str) -> None:
    """Say which certificates have the name, too, and are good, but used by nothing any more."""
    wanted, now = {Identity(*one.identity) for one in work.certificates}, utc_now()
    for folder in home.store.folders():
        bundles = (folder.own(key_type) for key_type in KEY_TYPES)
        is_good = any(bundle and bundle.facts.not_after > now for bundle in bundles)
        if is_good and folder.identity not in wanted and _is_called(folder, name):
            home.launch.log.notice(
                f'an earlier certificate has the name {name}, too: revoke it by "{folder.path}"'
            )


def _is_called(folder: CertificateFolder, name: str) -> bool:
    return name == folder.label or _canonical(name) in folder.identity.names


def _canonical(name: str) -> str:
    """A name as certificates have it."""
    try:
        return name_of(name).value
    except NotCertifiable:
        return name


def _near(folders: Iterable[CertificateFolder], name: str) -> str:
    known = {known for folder in folders for known in (folder.label, *folder.identity.names)}
    return nearest(name, sorted(known))
