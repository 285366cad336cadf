"""The end of a certificate: another one in its place, then the CA's word that it is revoked.

    usually          get a new one with a new key, let nginx serve it, have the old one revoked
    keyCompromise    have it revoked at once, then get a new one

What is to be revoked is on disk before anything is done about it. So whoever is killed, or finds
the CA gone, does the same again, and it goes on where it was.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from nginx_acme.account import find_account, key_of
from nginx_acme.acme.client import REASONS
from nginx_acme.acme.jws import AccountKey
from nginx_acme.acme.presets import BUILT_IN, LOCAL
from nginx_acme.certificate import leaf_der
from nginx_acme.errors import NginxAcmeError, NginxRejected, Problem
from nginx_acme.issuing import client_for
from nginx_acme.key_types import KEY_TYPES
from nginx_acme.launch import utc_now
from nginx_acme.orders.registration import Registration
from nginx_acme.places import stand_in
from nginx_acme.plan import Issuer
from nginx_acme.rounds import go_round

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nginx_acme.acme.client import Client
    from nginx_acme.bundle import Bundle
    from nginx_acme.launch import Home
    from nginx_acme.plan import Certificate
    from nginx_acme.store import CertificateFolder
    from nginx_acme.work import Work

AT_ONCE = "keyCompromise"
"""The reason for which nobody waits for another certificate."""
_NOT_OURS = frozenset({"unauthorized", "accountDoesNotExist"})
"""Refusals of an account that is not the one which the certificate was issued to."""


class Revocation:
    """Of one certificate, with all its key types.

    Args:
        home: of the nginx; its store is open for writing.
        work: what its generation leaves to do.
        folder: of the certificate.
        certificate: what the generation says of it; None where nothing uses it.
    """

    def __init__(
        self, home: Home, work: Work, folder: CertificateFolder, certificate: Certificate | None
    ) -> None:
        self._home = home
        self._work = work
        self._log = home.launch.log
        self._folder = folder
        self._certificate = certificate

    def run(self, reason: str | None) -> bool:
        """Do what is still to be done.

        Args:
            reason: one of `REASONS`; None: that of an earlier run, or none.

        Returns:
            Whether the certificate is revoked, and nginx has another one; what went wrong is said.

        Raises:
            NginxAcmeError: there is nothing that could be revoked.
        """
        if self._folder.identity.directory_url == LOCAL:
            return self._replace_local()
        revoking = self._begin(reason)
        reason = reason or self._folder.revocations.reason() or next(iter(REASONS))
        if reason == AT_ONCE:
            revoked = self._have_revoked(revoking, reason)
            return self._replaced(revoking) and revoked
        if not self._replaced(revoking):
            if revoking:
                self._log.error(f"{self._folder.label}: nothing is revoked, run it again")
            return False
        return self._have_revoked(revoking, reason)

    def _begin(self, reason: str | None) -> Sequence[Bundle]:
        """What is to be revoked: what an earlier run has left, or what is there now.

        Both, where that is another one by now, and the reason another one, too: whoever says why
        means what is in service. Where the same is said again it is to go on, but for a key that
        is known to others: better one certificate too many than that one.

        Nothing, where what is there is revoked and has no replacement yet.

        Raises:
            NginxAcmeError: there is nothing that could be revoked.
        """
        folder, now = self._folder, utc_now()
        with self._home.store.lock_certificate(folder):
            left = [one for one in folder.revocations.under_way() if one.facts.not_after > now]
            own = [bundle for key in KEY_TYPES if (bundle := folder.own(key)) is not None]
            good = [one for one in own if one.facts.not_after > now]
            since = [one for one in good if one not in left]
            if left and (not since or reason in {None, folder.revocations.reason()} - {AT_ONCE}):
                stays = "; what has come since stays" if since else ""
                self._log.notice(f"{folder.label}: goes on with what was begun before{stays}")
                return left
            if since:
                folder.begin_revocation([*since, *left], reason or next(iter(REASONS)))
            elif own:
                raise NginxAcmeError(f"{folder.label} has expired, there is nothing to revoke")
            elif not any(map(self._is_revoked, KEY_TYPES)):
                raise NginxAcmeError(f"{folder.label} has no certificate yet")
            return [*since, *left]

    def _is_revoked(self, key_type: str) -> bool:
        """Whether what nginx is given is."""
        bundle = self._folder.read(key_type)
        return bundle is not None and bundle in self._folder.revocations

    def _replace_local(self) -> bool:
        ends = [bundle.facts.not_after for key in KEY_TYPES if (bundle := self._folder.own(key))]
        if ends:
            self._log.notice(
                f'{self._folder.label}: the issuer "local" has no revocation, the certificate is'
                f" good until {max(ends):%Y-%m-%d} for whoever has its key"
            )
        return self._replaced(())

    # The new one

    def _replaced(self, revoking: Sequence[Bundle]) -> bool:
        """Whether nginx has another certificate; what went wrong is said."""
        certificate, folder = self._certificate, self._folder
        if certificate is None:
            self._log.notice(f"{folder.label}: nothing uses it, it is not replaced")
            return True
        missing = not all(self._has_other(key, revoking) for key in certificate.key_types)
        force = frozenset({folder.identity}) if missing or not revoking else frozenset()
        try:
            outcome = go_round(self._home, self._log, force)
        except NginxRejected as rejected:
            self._log.relay(*rejected.lines)
            return False
        except NginxAcmeError as error:
            self._log.error(str(error))
            return False
        self._folder = folder = self._home.store.find(folder.identity) or folder
        if outcome is None or folder.label in outcome.failed:
            return False
        return all(self._has_other(key, revoking) for key in certificate.key_types)

    def _has_other(self, key_type: str, revoking: Sequence[Bundle]) -> bool:
        """Whether there is a certificate of this key type that is not to be revoked."""
        own = self._folder.own(key_type)
        return own is not None and own not in revoking

    # The end of the old one

    def _have_revoked(self, revoking: Sequence[Bundle], reason: str) -> bool:
        """Whether the CA has revoked them; what went wrong is said."""
        store = self._home.store
        try:
            with store.lock_challenges(), store.lock_certificate(self._folder):
                asyncio.run(self._ask(revoking, reason))
        except NginxAcmeError as error:
            self._log.error(f"{self._folder.label}: the old certificate is not revoked: {error}")
            return False
        self._replace_stand_ins()
        return True

    async def _ask(self, revoking: Sequence[Bundle], reason: str) -> None:
        issuer = self._issuer()
        account = find_account(self._home.store, issuer)
        for bundle in revoking:
            if account is None or account.url is None:
                await self._ask_by_its_own_key(issuer, bundle, reason)
            else:
                async with client_for(issuer, key_of(account), account.url) as client:
                    registration = Registration(client, issuer, utc_now, self._log)
                    account = await registration.with_settled_key(account)
                    if not await _is_revoked_by(client, bundle, reason):
                        await self._ask_by_its_own_key(issuer, bundle, reason)
            self._folder.revocations.finish(bundle, reason, utc_now())
            self._log.notice(
                f"{self._folder.label}: the {bundle.facts.key_type} certificate"
                f" {bundle.facts.serial:x} is revoked ({reason})"
            )

    async def _ask_by_its_own_key(self, issuer: Issuer, bundle: Bundle, reason: str) -> None:
        """For which some CAs note keyCompromise, whatever they are told."""
        async with client_for(issuer, AccountKey(bundle.pem)) as client:
            if not await _is_revoked_by(client, bundle, reason):
                raise NginxAcmeError(f"{issuer.name} takes neither its account nor its own key")

    def _issuer(self) -> Issuer:
        """Who has issued it.

        Raises:
            NginxAcmeError: nobody of the configuration.
        """
        directory_url = self._folder.identity.directory_url
        built_in = (Issuer(name, it.directory_url, it.public) for name, it in BUILT_IN.items())
        issuers = [*(one.issuer for one in self._work.certificates), *built_in]
        for issuer in issuers:
            if issuer.directory_url == directory_url:
                return issuer
        where = f'"{directory_url}"' if directory_url else "its CA, which is not known any more,"
        raise NginxAcmeError(f"no issuer of the configuration is at {where}")

    def _replace_stand_ins(self) -> None:
        """Give another certificate to those in whose place the revoked one was put."""
        store, revoked, found = self._home.store, self._folder.revocations, False
        for folder in store.folders():
            for key_type in KEY_TYPES:
                shown = folder.read(key_type)
                if folder.path != self._folder.path and shown is not None and shown in revoked:
                    stand_in(store, folder, key_type, utc_now())
                    found = True
        if found:
            go_round(self._home, self._log)


async def _is_revoked_by(client: Client, bundle: Bundle, reason: str) -> bool:
    """Have it revoked; False where the CA says that it is not ours to be revoked.

    Raises:
        AcmeError: anything else was said, or nothing.
    """
    try:
        await client.revoke(leaf_der(bundle), reason)
    except Problem as problem:
        if problem.type in _NOT_OURS:
            return False
        if problem.type != "alreadyRevoked":
            raise
    return True
