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
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from nginx_acme import policy
from nginx_acme.account import find_account, replace_account
from nginx_acme.acme.order import Unfinished
from nginx_acme.acme.presets import LOCAL
from nginx_acme.acme.resources import OrderStatus
from nginx_acme.certificate import make_bundle, new_key
from nginx_acme.errors import (
    AcmeError,
    NginxAcmeError,
    OrderFailed,
    Problem,
    StateError,
)
from nginx_acme.issuance import Session, Wanted
from nginx_acme.local import LocalAuthority
from nginx_acme.policy import Keep, Renew, Wait
from nginx_acme.standing import life_of, of_folder
from nginx_acme.store import Attempt, Identity

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from datetime import datetime

    from nginx_acme.acme.client import Client
    from nginx_acme.acme.order import Solver
    from nginx_acme.certificate import Bundle
    from nginx_acme.disk import Lock
    from nginx_acme.log import Log
    from nginx_acme.plan import Certificate, Issuer
    from nginx_acme.preflight import Findings
    from nginx_acme.progress import Progress
    from nginx_acme.store import AccountFolder, CertificateFolder, Store

AT_ONCE = 20
"""Orders of one account that are open at the same time."""
LOCK_WAIT = 10.0
"""Seconds for another process to finish with a certificate."""
_POLL = 0.1


STILL_ISSUING = timedelta(minutes=10)
"""Between two looks at an order that is processing, where the CA doesn't say."""
ABOUT_THE_KEY = frozenset({"badCSR", "badPublicKey"})
"""Refusals that say nothing of the other key types."""


class TooLate(NginxAcmeError):
    """The time for new challenges is over; the order stays for the next run."""


class NotAsked(AcmeError):
    """What the CA said to another certificate of this run holds for this one, too."""

    def __init__(self, refusal: Problem) -> None:
        super().__init__(f"not asked for: {refusal}")
        self.permanent = refusal.permanent
        self.retry_after = refusal.retry_after


@dataclass(frozen=True, slots=True)
class Ports:
    """What reconciling needs of the world.

    - `connect`: a client for an account of an issuer, not opened yet;
    - `solver`: answers an account's challenges;
    - `preflight`: what speaks against ordering a certificate now; it asks no CA;
    - `answer_for`: lets nginx answer for the second account in place of the first.
    """

    store: Store
    now: Callable[[], datetime]
    dice: Callable[[], float]
    log: Log
    progress: Progress
    connect: Callable[[Issuer, AccountFolder], Client]
    solver: Callable[[AccountFolder], Solver]
    preflight: Callable[[Certificate, Solver], Awaitable[Findings]]
    answer_for: Callable[[AccountFolder, AccountFolder], Awaitable[None]]


@dataclass(slots=True)
class Outcome:
    """How a run went.

    `failed` and `missing` are labels; `missing` are certificates that are still to come, `next`
    is when to look again (None: there is nothing to look at).
    """

    installed: list[Wanted] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    next: datetime | None = None

    def look_at(self, moment: datetime) -> None:
        """Look again then, or sooner."""
        self.next = moment if self.next is None else min(self.next, moment)


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
    """One run: the sessions with the issuers, and what came of it."""

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
        self._sessions: dict[Issuer, Session] = {}
        self._slots: dict[Issuer, asyncio.Semaphore] = {}
        self._refused: dict[Issuer, Problem] = {}
        self._doubts: dict[str, Mapping[str, str]] = {}
        self._replacing = asyncio.Lock()
        self._replaced: set[Issuer] = set()
        self._stack = AsyncExitStack()

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
        if self._due(certificate, folder):
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
            due = self._due(certificate, folder)
            waiting = list(due)
            while waiting:
                key_type = waiting.pop(0)
                if not await self._renew(certificate, folder, key_type, due[key_type]):
                    self._wait_alike(folder, key_type, waiting)
                    break

    def _wait_alike(self, folder: CertificateFolder, refused: str, others: Iterable[str]) -> None:
        """What a key type was refused for keeps the next ones from asking, and as long as it."""
        first = folder.attempt(refused)
        if first.next is None or first.next <= self._ports.now():
            return
        for key_type in others:
            own = folder.attempt(key_type)
            folder.record(key_type, replace(own, next=first.next, problem=first.problem))

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

    async def _renew(
        self, certificate: Certificate, folder: CertificateFolder, key_type: str, because: str
    ) -> bool:
        """Get one certificate; whether the next key type can be asked for.

        What went wrong is on disk and in the log.
        """
        progress = self._ports.progress
        progress.started(folder.label, because)
        wanted = Wanted(folder, key_type, certificate.names, certificate.profile)
        try:
            bundle = await self._obtain(certificate, wanted)
        except TooLate:
            progress.done(folder.label, "goes on through nginx")
            return False
        except StateError:
            raise
        except NginxAcmeError as error:
            self._failed(certificate, wanted, error)
            return isinstance(error, Problem) and error.type in ABOUT_THE_KEY
        self._outcome.installed.append(wanted)
        facts = bundle.facts
        self._let_rest(wanted, bundle)
        progress.done(
            folder.label,
            f"issued by {facts.issuer}, valid until {facts.not_after:%Y-%m-%d %H:%M} UTC",
        )
        return True

    def _let_rest(self, wanted: Wanted, bundle: Bundle) -> None:
        """One that is due when it comes is not asked for again at once."""
        now, life = self._ports.now(), life_of(bundle)
        if isinstance(policy.decide(life, None, now), Renew):
            moment = policy.retry_time(
                1, now, life=life, permanent=False, retry_after=None, dice=self._ports.dice()
            )
            wanted.folder.record(wanted.key_type, Attempt(0, moment, None, now))

    # Whom to ask -------------------------------------------------------------------------

    async def _obtain(self, certificate: Certificate, wanted: Wanted) -> Bundle:
        if certificate.issuer.local:
            return await asyncio.to_thread(self._issue_locally, wanted)
        session = self._session(certificate.issuer)
        try:
            return await self._ask(certificate, wanted, session)
        except Problem as problem:
            if problem.type != "accountDoesNotExist":
                raise
            session = await self._with_new_account(session, problem)
        return await self._ask(certificate, wanted, session)

    def _issue_locally(self, wanted: Wanted) -> Bundle:
        now, store = self._ports.now(), self._ports.store
        names = [n.value for c in self._certificates if c.issuer.local for n in c.names]
        authority = LocalAuthority.open(store.local, names, now)
        key_pem = new_key(wanted.key_type)
        bundle = make_bundle(key_pem, authority.issue(key_pem, wanted.values, now), wanted.values)
        wanted.folder.install(wanted.key_type, bundle, LOCAL)
        return bundle

    async def _ask(self, certificate: Certificate, wanted: Wanted, session: Session) -> Bundle:
        solver = self._ports.solver(session.account)
        self._must_not_be_refused(certificate.issuer)
        findings = await self._ports.preflight(certificate, solver)
        self._doubts[wanted.folder.label] = findings.warnings
        wanted = self._without(findings.blocked, certificate, wanted)
        await session.open(self._stack)
        self._must_not_be_refused(certificate.issuer)
        try:
            return await session.obtain(wanted, solver)
        except OrderFailed as failed:
            if not failed.problems.keys() <= certificate.optional:
                raise
            wanted = self._without(failed.problems, certificate, wanted)
        return await session.obtain(wanted, solver)

    def _must_not_be_refused(self, issuer: Issuer) -> None:
        """Raise NotAsked where the issuer has said no to all of this run."""
        if issuer in self._refused:
            raise NotAsked(self._refused[issuer])

    def _without(
        self, dead: Mapping[str, Problem | str], certificate: Certificate, wanted: Wanted
    ) -> Wanted:
        """What is wanted without dead names that we added ourselves; no other one is left out.

        Raises:
            OrderFailed: another name is dead.
        """
        problems = {n: _problem(why) for n, why in dead.items() if n not in certificate.optional}
        if problems:
            raise OrderFailed(problems)
        if not dead:
            return wanted
        words = "; ".join(str(why) for why in dead.values())
        self._ports.log.notice(f"{wanted.folder.label}: goes on without {', '.join(dead)}: {words}")
        return replace(wanted, names=tuple(n for n in wanted.names if n.value not in dead))

    def _session(self, issuer: Issuer) -> Session:
        if issuer not in self._sessions:
            account = find_account(self._ports.store, issuer)
            if account is None:
                raise StateError(
                    f'the account at "{issuer.name}" is lost, reload nginx to get another one',
                    self._ports.store.root,
                )
            self._sessions[issuer] = self._new_session(issuer, account)
        return self._sessions[issuer]

    def _new_session(self, issuer: Issuer, account: AccountFolder) -> Session:
        ports = self._ports
        client = ports.connect(issuer, account)
        return Session(issuer, account, client, ports.now, ports.log, ports.progress)

    async def _with_new_account(self, session: Session, problem: Problem) -> Session:
        """A session with a new account, where the CA doesn't know that of `session` any more.

        Raises:
            Problem: what the CA said, if there has been a new one already.
        """
        async with self._replacing:
            issuer = session.issuer
            if self._sessions[issuer] is not session:
                return self._sessions[issuer]
            store, now = self._ports.store, self._ports.now()
            account = None
            if issuer not in self._replaced:
                account = await asyncio.to_thread(
                    replace_account, store, issuer, session.account, now
                )
            if account is None:
                self._refused.setdefault(issuer, problem)
                raise problem
            self._replaced.add(issuer)
            self._ports.log.error(
                f"{issuer.name} does not know the account {session.account.url} any more; a new"
                " one is made"
            )
            await self._ports.answer_for(session.account, account)
            self._sessions[issuer] = self._new_session(issuer, account)
            return self._sessions[issuer]

    # How it went -------------------------------------------------------------------------

    def _failed(self, certificate: Certificate, wanted: Wanted, error: NginxAcmeError) -> None:
        """Record a failure and when to try again, before anything else is asked."""
        self._scope(certificate, error)
        label, now = wanted.folder.label, self._ports.now()
        words = "; ".join((str(error), *self._doubts_about(label, error)))
        failures = wanted.folder.attempt(wanted.key_type).failures + _counts(error)
        later = error.retry_after if isinstance(error, AcmeError) else None
        if _is_issuing(error):
            later = later or now + STILL_ISSUING
        moment = policy.retry_time(
            failures,
            now,
            life=life_of(wanted.folder.own(wanted.key_type)),
            permanent=isinstance(error, AcmeError) and error.permanent,
            retry_after=later,
            dice=self._ports.dice(),
        )
        wanted.folder.record(wanted.key_type, Attempt(failures, moment, words, now))
        words += f"; next attempt {moment:%Y-%m-%d %H:%M:%S} UTC"
        if _is_issuing(error):
            self._ports.progress.done(label, words)
            return
        self._outcome.failed.append(label)
        self._ports.progress.failed(label, words)

    def _doubts_about(self, label: str, error: NginxAcmeError) -> tuple[str, ...]:
        """What the preflight found, where the CA has looked, too."""
        looked = isinstance(error, OrderFailed)
        return tuple(self._doubts.get(label, {}).values()) if looked else ()

    def _scope(self, certificate: Certificate, error: NginxAcmeError) -> None:
        """A refusal of all ends the asking: nobody else asks this issuer in this run."""
        names = (name.value for name in certificate.names)
        if isinstance(error, Problem) and policy.stops_all(error, names):
            self._refused.setdefault(certificate.issuer, error)

    def _look_again(self, certificate: Certificate, folder: CertificateFolder) -> None:
        now = self._ports.now()
        for one in of_folder(certificate, folder, now):
            match one.decision:
                case Keep(until) | Wait(until):
                    self._outcome.look_at(until)
                case Renew():
                    self._outcome.look_at(now)
            if not one.usable:
                self._outcome.missing.append(folder.label)


def _counts(error: NginxAcmeError) -> bool:
    """Whether this is a failure of the certificate, after which it is asked for more rarely."""
    return not _is_issuing(error) and not isinstance(error, NotAsked)


def _is_issuing(error: NginxAcmeError) -> bool:
    """Whether all is well and the CA only takes its time, as one where people sign."""
    return isinstance(error, Unfinished) and error.status is OrderStatus.PROCESSING


def _problem(why: Problem | str) -> Problem:
    return why if isinstance(why, Problem) else Problem("preflight", why)
