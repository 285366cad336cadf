"""What the plan wants against what the store has: decide, issue what is due, record how it went.

One verb for a first start, a renewal and a retry. Certificates go on side by side, at most
`AT_ONCE` orders for each issuer; the key types of one certificate go one after the other, since
a CA gives the open order to everybody who asks for the same names (Boulder's GetOrderForNames),
and the second key type finds the authorizations of the first.

The clock and the dice are arguments.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from nginx_acme import policy
from nginx_acme.errors import StateError
from nginx_acme.obtaining import Obtaining
from nginx_acme.policy import Keep, Renew, Wait
from nginx_acme.ports import Outcome
from nginx_acme.renewal_info import Advisers
from nginx_acme.sessions import Sessions
from nginx_acme.standing import of_folder
from nginx_acme.store import Identity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nginx_acme.disk import Lock
    from nginx_acme.plan import Certificate, Issuer
    from nginx_acme.ports import Ports
    from nginx_acme.store import CertificateFolder

AT_ONCE = 20
"""Orders of one account that are open at the same time."""
LOCK_WAIT = 10.0
"""Seconds for another process to finish with a certificate."""
_POLL = 0.1


async def reconcile(
    certificates: Iterable[Certificate],
    ports: Ports,
    *,
    force: frozenset[Identity] = frozenset(),
    outcome: Outcome | None = None,
) -> Outcome:
    """Bring the store up to what is wanted, as far as it is time for it.

    Args:
        certificates: of the plan.
        ports: the world.
        force: certificates that are asked for now, whatever the time and the failures.
        outcome: what is returned, for who wants to see it grow.

    Raises:
        StateError: there is no store to write to, or no clock; nobody is asked then.
    """
    wanted, now = tuple(certificates), ports.now()
    if not policy.clock_is_set(now):
        raise StateError(
            f"the clock says {now:%Y-%m-%d}; no CA is asked until it is set", ports.store.root
        )
    return await _Run(ports, force, wanted, outcome or Outcome()).all()


class _Run:
    """One run: which certificates are asked for, and in whose turn."""

    def __init__(
        self,
        ports: Ports,
        force: frozenset[Identity],
        certificates: tuple[Certificate, ...],
        outcome: Outcome,
    ) -> None:
        self._ports = ports
        self._force = force
        self._certificates = certificates
        self._outcome = outcome
        self._slots: dict[Issuer, asyncio.Semaphore] = {}
        self._stack = AsyncExitStack()
        sessions = Sessions(ports)
        names = [n.value for c in certificates if c.issuer.local for n in c.names]
        self._obtaining = Obtaining(ports, sessions, self._stack, outcome, names)
        self._advisers = Advisers(ports, sessions, self._stack)

    async def all(self) -> Outcome:
        try:
            async with self._stack, asyncio.TaskGroup() as tasks:
                for certificate in self._certificates:
                    tasks.create_task(self._one(certificate))
        except* StateError as broken:
            # What one of them can't write, none can: the first says it for all.
            raise broken.exceptions[0] from None
        return self._outcome

    async def _one(self, certificate: Certificate) -> None:
        """A certificate; what can't be written for it alone is no reason to stop the others."""
        try:
            await self._looked_after(certificate)
        except StateError as error:
            # Raises where nothing can be kept for any.
            self._ports.store.open_for_writing()
            label = certificate.names[0].value
            self._ports.progress.failed(label, str(error))
            self._outcome.failed.append(label)
            self._outcome.missing.append(label)
            self._outcome.look_at(self._ports.now() + policy.HOURLY)

    async def _looked_after(self, certificate: Certificate) -> None:
        """All its key types, under its lock."""
        folder = self._ports.store.find(Identity(*certificate.identity))
        if folder is None:
            raise StateError(f"no folder for {certificate.names[0].value}", self._ports.store.root)
        if folder.identity not in self._force:
            await self._advisers.ask(certificate, folder)
        if self._due(certificate, folder) or self._held_back(certificate, folder):
            slots = self._slots.setdefault(certificate.issuer, asyncio.Semaphore(AT_ONCE))
            async with slots:
                await self._locked(certificate, folder)
        self._look_again(certificate, folder)

    async def _locked(self, certificate: Certificate, folder: CertificateFolder) -> None:
        held = await self._lock(folder)
        if held is None:
            self._ports.log.notice(f"{folder.label}: another process is at work on it")
            return
        with held:
            # Whoever had the lock may have done the work meanwhile: it is looked at again.
            held_back = self._held_back(certificate, folder)
            if held_back:
                await self._obtaining.bring_forward(certificate, folder, held_back)
            due = self._due(certificate, folder)
            waiting = list(due)
            while waiting:
                key_type = waiting.pop(0)
                if not await self._obtaining.get(certificate, folder, key_type, due[key_type]):
                    self._wait_alike(folder, key_type, waiting)
                    break

    def _wait_alike(self, folder: CertificateFolder, refused: str, others: Iterable[str]) -> None:
        """What a key type was refused for keeps the next ones from asking, and as long as it."""
        first = folder.attempt(refused)
        if first.next is None or first.next <= self._ports.now():
            return
        for key_type in others:
            own = folder.attempt(key_type)
            waiting = replace(own, next=first.next, problem=first.problem, blocked=first.blocked)
            folder.record(key_type, waiting)

    async def _lock(self, folder: CertificateFolder) -> Lock | None:
        """The certificate's lock; None where somebody else keeps it."""
        loop = asyncio.get_running_loop()
        end = loop.time() + LOCK_WAIT
        while True:
            held = self._ports.store.try_lock_certificate(folder)
            if held is not None or loop.time() > end:
                return held
            await asyncio.sleep(_POLL)

    def _due(self, certificate: Certificate, folder: CertificateFolder) -> dict[str, str]:
        """The key types that are to be asked for now, and why."""
        if folder.identity in self._force:
            return dict.fromkeys(certificate.key_types, "it was asked for")
        now = self._ports.now()
        found = of_folder(certificate, folder, now)
        return {one.key_type: one.to_ask for one in found if one.to_ask is not None}

    def _held_back(self, certificate: Certificate, folder: CertificateFolder) -> tuple[str, ...]:
        """The key types that wait because of what the preflight said."""
        found = of_folder(certificate, folder, self._ports.now())
        return tuple(
            one.key_type for one in found if isinstance(one.decision, Wait) and one.attempt.blocked
        )

    def _look_again(self, certificate: Certificate, folder: CertificateFolder) -> None:
        now = self._ports.now()
        for one in of_folder(certificate, folder, now):
            match one.decision:
                case Keep(until):
                    self._outcome.look_at(until)
                case Wait(until):
                    # The preflight may find it good long before.
                    again = min(until, now + policy.HOURLY) if one.attempt.blocked else until
                    self._outcome.look_at(again)
                case Renew():
                    self._outcome.look_at(now)
            asking = self._advisers.next_look(certificate, folder, one.key_type)
            if asking is not None:
                self._outcome.look_at(asking)
            if not one.usable:
                self._outcome.missing.append(folder.label)
