"""What the plan wants against what the store has: decide, issue what is due, record how it went.

One verb for a first start, a renewal and a retry. What is due gets into the queue of its issuer, in
the order that `limits.rank` says; up to `AT_ONCE` are served side by side. The key types of one
certificate take their turns one after the other, since a CA gives the open order to everybody who
asks for the same names (Boulder's GetOrderForNames), and the second finds the authorizations of
the first.

The clock and the dice are arguments.
"""

from __future__ import annotations

import asyncio
import heapq
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nginx_acme import policy
from nginx_acme.errors import StateError
from nginx_acme.orders.allowance import NotYet
from nginx_acme.orders.foresight import look_ahead
from nginx_acme.orders.obtaining import Obtaining
from nginx_acme.orders.ports import Outcome
from nginx_acme.orders.renewal_info import Advisers
from nginx_acme.orders.sessions import Sessions
from nginx_acme.policy import Keep, Wait
from nginx_acme.policy.limits import AT_ONCE, rank
from nginx_acme.standing import life_of, of_folder
from nginx_acme.store import Identity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from nginx_acme.locks import Lock
    from nginx_acme.orders.ports import Ports
    from nginx_acme.plan import Certificate, Issuer
    from nginx_acme.standing import Standing
    from nginx_acme.store import CertificateFolder

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


@dataclass(frozen=True, slots=True)
class _Entry:
    """A certificate in the queue; `left` are the key types to ask for, the next one first."""

    certificate: Certificate
    folder: CertificateFolder
    left: tuple[str, ...]


@dataclass(slots=True)
class _Queue:
    """Those who want something of one issuer; `aside` are those whose turn comes in a later run."""

    waiting: list[tuple[tuple[int, float], int, _Entry]] = field(default_factory=list)
    aside: list[_Entry] = field(default_factory=list)
    renews: bool = False
    """Whether it was a certificate's time to give way to another one."""
    _arrivals: int = 0

    def put(self, place: tuple[int, float], entry: _Entry) -> None:
        """Let it take its place; of equals, who comes first is first."""
        heapq.heappush(self.waiting, (place, self._arrivals, entry))
        self._arrivals += 1

    def next(self) -> _Entry:
        """Whose turn it is."""
        return heapq.heappop(self.waiting)[-1]


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
        self._queues: dict[Issuer, _Queue] = {}
        self._broken: set[Certificate] = set()
        self._is_renewing = False
        self._stack = AsyncExitStack()
        self._sessions = Sessions(ports)
        names = [n.value for c in certificates if c.issuer.local for n in c.names]
        self._obtaining = Obtaining(ports, self._sessions, self._stack, outcome, names)
        self._advisers = Advisers(ports, self._sessions, self._stack)

    async def all(self) -> Outcome:
        try:
            async with self._stack:
                async with asyncio.TaskGroup() as tasks:
                    for certificate in self._certificates:
                        tasks.create_task(self._consult(certificate))
                self._line_up_all()
                async with asyncio.TaskGroup() as tasks:
                    for queue in self._queues.values():
                        for _ in queue.waiting[:AT_ONCE]:
                            tasks.create_task(self._serve(queue))
            for issuer, queue in self._queues.items():
                self._put_off(issuer, queue.aside)
            self._obtaining.tell_of_stops()
            for certificate in self._certificates:
                if certificate not in self._broken:
                    with self._kept_apart(certificate):
                        self._look_again(certificate)
        except* StateError as broken:
            # What one of them can't write, none can: the first says it for all.
            raise broken.exceptions[0] from None
        return self._outcome

    @contextmanager
    def _kept_apart(self, certificate: Certificate) -> Iterator[None]:
        """What can't be read or written for one alone is no reason to stop the others."""
        try:
            yield
        except StateError as error:
            # Raises where nothing can be kept for any.
            self._ports.store.open_for_writing()
            self._broken.add(certificate)
            label = certificate.names[0].value
            self._ports.progress.failed(label, str(error))
            self._outcome.failed.append(label)
            self._outcome.missing.append(label)
            self._outcome.look_at(self._ports.now() + policy.HOURLY)

    # The queue ---------------------------------------------------------------------------

    async def _consult(self, certificate: Certificate) -> None:
        """Hear its CA and the preflight, where they may say that it is to be asked for now."""
        with self._kept_apart(certificate):
            folder = self._folder(certificate)
            if folder.identity not in self._force:
                await self._advisers.ask(certificate, folder)
                await self._bring_forward(certificate, folder)

    async def _bring_forward(self, certificate: Certificate, folder: CertificateFolder) -> None:
        """Let what waits because of what the preflight said be asked for now, if it is good."""
        held = await self._lock(folder) if self._held_back(certificate, folder) else None
        if held is not None:
            with held:
                held_back = self._held_back(certificate, folder)
                await self._obtaining.bring_forward(certificate, folder, held_back)

    def _line_up_all(self) -> None:
        """Let those queue who are to be asked for; where one is renewed, others come along."""
        left = [each for each in self._certificates if not self._lines_up(each)]
        self._is_renewing = any(queue.renews for queue in self._queues.values())
        if self._is_renewing:
            for certificate in left:
                self._lines_up(certificate)

    def _lines_up(self, certificate: Certificate) -> bool:
        """Whether there is anything to ask for; it is in the queue then."""
        due: dict[str, str] = {}
        if certificate not in self._broken:
            with self._kept_apart(certificate):
                folder = self._folder(certificate)
                due = self._due(certificate, folder)
                if due:
                    queue = self._queues.setdefault(certificate.issuer, _Queue())
                    self._put(queue, _Entry(certificate, folder, tuple(due)))
        return bool(due)

    def _folder(self, certificate: Certificate) -> CertificateFolder:
        """Its own, made again where somebody has removed it."""
        names = [name.value for name in certificate.names]
        return self._ports.store.create(Identity(*certificate.identity), names)

    def _put(self, queue: _Queue, entry: _Entry) -> None:
        found = {
            one.key_type: one
            for one in of_folder(entry.certificate, entry.folder, self._ports.now())
        }
        one = found.pop(entry.left[0])
        queue.renews |= one.usable and one.to_ask is not None
        second = any(other.usable for other in found.values())
        queue.put(rank(life_of(one.bundle), one.attempt.failures, second=second), entry)

    async def _serve(self, queue: _Queue) -> None:
        while queue.waiting:
            entry = queue.next()
            with self._kept_apart(entry.certificate):
                await self._take_turn(queue, entry)

    async def _take_turn(self, queue: _Queue, entry: _Entry) -> None:
        """The next key type of a certificate, under its lock; the others queue anew."""
        held = await self._lock(entry.folder)
        if held is None:
            self._ports.log.notice(f"{entry.folder.label}: another process is at work on it")
            return
        with held:
            # Whoever had the lock may have done the work meanwhile: it is looked at again.
            due = self._due(entry.certificate, entry.folder)
            key_type, *others = entry.left
            if key_type in due:
                self._warn_of_wrong_time(entry.folder, key_type)
                try:
                    if not await self._get(entry, due[key_type]):
                        self._wait_alike(entry.folder, key_type, others)
                        return
                except NotYet:
                    queue.aside.append(entry)
                    return
        if others:
            self._put(queue, replace(entry, left=tuple(others)))

    async def _get(self, entry: _Entry, because: str) -> bool:
        return await self._obtaining.get(
            entry.certificate,
            entry.folder,
            entry.left[0],
            because,
            forced=entry.folder.identity in self._force,
        )

    def _put_off(self, issuer: Issuer, entries: Sequence[_Entry]) -> None:
        """Note of everybody in a queue when the turn comes; the account takes no more orders now."""
        if not entries:
            return
        allowance = self._sessions.allowance(issuer)
        moments = allowance.of_queue(
            [
                allowance.ask(one.folder, (name.value for name in one.certificate.names))
                for one in entries
            ]
        )
        for entry, moment in zip(entries, moments, strict=True):
            with self._kept_apart(entry.certificate):
                self._note_turn(entry, moment)
            if entry.folder.identity in self._force:
                label = entry.folder.label
                words = f"it waits for its turn; next attempt {moment:%Y-%m-%d %H:%M:%S} UTC"
                self._outcome.failed.append(label)
                self._ports.progress.failed(label, words)
        number = "1 certificate waits" if len(entries) == 1 else f"{len(entries)} certificates wait"
        self._ports.log.notice(
            f"{issuer.name} takes no more orders now: {number} for a turn,"
            f" until {max(moments):%Y-%m-%d %H:%M} UTC at the latest"
        )

    def _note_turn(self, entry: _Entry, moment: datetime) -> None:
        """Under its lock, and by what is there by then: another process may have got it."""
        held = self._ports.store.try_lock_certificate(entry.folder)
        if held is None:
            return
        with held:
            due = self._due(entry.certificate, entry.folder)
            for key_type in filter(due.__contains__, entry.left):
                attempt = entry.folder.attempt(key_type)
                waiting = replace(attempt, next=moment, at=self._ports.now())
                entry.folder.record(key_type, waiting)

    def _warn_of_wrong_time(self, folder: CertificateFolder, key_type: str) -> None:
        """Say which next attempt is not waited for, since a wrong clock or hand has set it."""
        noted = folder.attempt(key_type)
        wrong = policy.believed(noted.next, noted.at, self._ports.now()) is None
        if noted.next is not None and wrong:
            self._ports.log.warn(
                f"{folder.label}: its next attempt is noted for {noted.next:%Y-%m-%d}, which can't be"
                " right; it is made now"
            )

    def _wait_alike(self, folder: CertificateFolder, refused: str, others: Iterable[str]) -> None:
        """What a key type was refused for keeps the next ones from asking, and as long as it."""
        first = folder.attempt(refused)
        if first.next is None or first.next <= self._ports.now():
            return
        for key_type in others:
            own = folder.attempt(key_type)
            waiting = replace(first, failures=own.failures, in_vain=own.in_vain)
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
        found = of_folder(certificate, folder, self._ports.now())
        return {one.key_type: why for one in found if (why := self._why(one)) is not None}

    def _why(self, one: Standing) -> str | None:
        """Why a key type is to be asked for now; None: it isn't."""
        if one.to_ask is not None or not self._is_renewing:
            return one.to_ask
        if not isinstance(one.decision, Keep) or one.due is None:
            return None
        start = one.advice.start if one.advice else None
        soon = policy.comes_along(one.due, start, self._ports.now())
        return "others are renewed, and it is to be soon" if soon else None

    def _held_back(self, certificate: Certificate, folder: CertificateFolder) -> tuple[str, ...]:
        """The key types that wait because of what the preflight said."""
        if not any(folder.attempt(key_type).blocked for key_type in certificate.key_types):
            return ()
        found = of_folder(certificate, folder, self._ports.now())
        return tuple(
            one.key_type for one in found if isinstance(one.decision, Wait) and one.attempt.blocked
        )

    def _look_again(self, certificate: Certificate) -> None:
        folder, now = self._folder(certificate), self._ports.now()
        look_ahead(of_folder(certificate, folder, now), self._outcome, now)
