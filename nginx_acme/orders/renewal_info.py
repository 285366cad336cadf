"""Asking CAs when they want their certificates to be renewed (RFC 9773), as a part of a run.

What may live here: which CA is asked about which certificate, and what is noted and told of the
answer. When it is time to ask, and what an answer means, is `ari`'s; nothing that goes wrong here
keeps a certificate from being renewed.

Only the CA that issued a certificate is asked, so a note of that is needed: the issuer's key alone
says little of who answers for it at which URL.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from nginx_acme.errors import AcmeError, NginxAcmeError, Problem
from nginx_acme.orders.allowance import NotAsked
from nginx_acme.policy import ari, limits
from nginx_acme.policy.limits import Ask, Kind
from nginx_acme.standing import advised, life_of, of_folder

if TYPE_CHECKING:
    from contextlib import AsyncExitStack
    from datetime import datetime

    from nginx_acme.bundle import Bundle
    from nginx_acme.orders.ports import Ports
    from nginx_acme.orders.sessions import Sessions
    from nginx_acme.plan import Certificate, Issuer
    from nginx_acme.policy import Life
    from nginx_acme.policy.ari import Advice
    from nginx_acme.store import CertificateFolder

AT_ONCE = 8
"""Questions to one CA at the same time: so many wait in vain where it doesn't answer."""
_QUESTION = Ask(frozenset())
"""It is for no order, so what a CA says to it is about no name."""


class Advisers:
    """The CAs of one run, as those who are asked for advice."""

    def __init__(self, ports: Ports, sessions: Sessions, stack: AsyncExitStack) -> None:
        self._ports = ports
        self._sessions = sessions
        self._stack = stack
        self._slots: dict[Issuer, asyncio.Semaphore] = {}
        self._silent: dict[Issuer, AcmeError] = {}
        self._complained: set[Issuer] = set()

    async def ask(self, certificate: Certificate, folder: CertificateFolder) -> None:
        """Ask about every key type of a certificate for which it is time.

        Raises:
            StateError: what was answered can't be noted.
        """
        for one in of_folder(certificate, folder, self._ports.now()):
            bundle, before = advised(one), one.advice
            life = life_of(bundle)
            if bundle is None or life is None:
                continue
            now = self._ports.now()
            if before is not None and not ari.is_credible(before, life, now):
                self._ports.log.warn(
                    f"{folder.label}: what is noted of its renewal can't be true, was the clock"
                    " wrong? It is dropped"
                )
                before = None
            if ari.is_to_be_asked(before, life, now):
                advice = await self._answer(certificate.issuer, bundle, life, before)
                if advice is not None:
                    self._note(certificate, folder, one.key_type, bundle, advice)

    async def _answer(
        self, issuer: Issuer, bundle: Bundle, life: Life, before: Advice | None
    ) -> Advice | None:
        """What the CA says, or that it says nothing; None where it can't even be asked."""
        ports = self._ports
        try:
            session = self._sessions.find(issuer)
            if session is None:
                return None
            async with self._slots.setdefault(issuer, asyncio.Semaphore(AT_ONCE)):
                if issuer in self._silent:
                    raise self._silent[issuer]
                self._sessions.allowance(issuer).must_be_open()
                await session.connect(self._stack)
                info = await session.renewal_info(bundle.facts)
        except NotAsked as held_back:
            return ari.put_off(before, ports.now(), held_back.stop.until)
        except AcmeError as error:
            if _is_for_all(error):
                self._silent.setdefault(issuer, error)
            return ari.unheard(before, str(error), ports.now(), error.retry_after)
        except NginxAcmeError:  # of the account's key; whoever orders will say so
            return None
        if info is None:
            return ari.not_given(ports.now())
        return ari.heard(info, before, life, ports.now(), ports.dice())

    def _note(
        self,
        certificate: Certificate,
        folder: CertificateFolder,
        key_type: str,
        bundle: Bundle,
        advice: Advice,
    ) -> None:
        """Note and tell it. Where somebody else is at work on the certificate it isn't needed."""
        held = self._ports.store.try_lock_certificate(folder)
        if held is None:
            return
        with held:
            before = folder.advice(key_type)
            folder.note_advice(key_type, bundle, advice)
        self._tell(certificate.issuer, folder.label, before, advice)

    def _tell(self, issuer: Issuer, label: str, before: Advice | None, advice: Advice) -> None:
        """What the operator should hear of: trouble that begins, a window that moves or is over."""
        log = self._ports.log
        if advice.problem is not None:
            is_new = before is None or before.problem is None
            if is_new and issuer not in self._complained:
                self._complained.add(issuer)
                log.notice(
                    f"{label}: {issuer.name} gives no advice about its renewal: {advice.problem}"
                )
        elif _is_news(before, advice, self._ports.now()):
            window = f"from {advice.start:%Y-%m-%d %H:%M} to {advice.end:%Y-%m-%d %H:%M} UTC"
            see = f", see {advice.explanation}" if advice.explanation else ""
            log.notice(f"{label}: {issuer.name} wants it to be renewed {window}{see}")


def _is_for_all(error: AcmeError) -> bool:
    """Whether an error has nothing to do with this certificate."""
    too_many = isinstance(error, Problem) and error.type == "rateLimited"
    return too_many or any(scope.kind is Kind.CA for scope in limits.scopes(error, _QUESTION))


def _is_news(before: Advice | None, advice: Advice, now: datetime) -> bool:
    if advice.start is None or advice.end is None:
        return False
    moved = before is not None and before.start not in {None, advice.start}
    explained = advice.explanation not in {None, before.explanation if before else None}
    return moved or explained or advice.end <= now
