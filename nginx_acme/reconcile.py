"""What the plan wants against what the store has: decide, issue what is due, record how it went.

One verb for a first start, a renewal and a retry. Certificates go on side by side, at most
`AT_ONCE` orders for each issuer; the key types of one certificate go one after the other, since
a CA gives the open order to everybody who asks for the same names (Boulder's GetOrderForNames),
and the second key type finds the authorizations of the first.

The clock and the dice are arguments; nothing here sleeps.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nginx_acme import policy
from nginx_acme.acme.presets import LOCAL
from nginx_acme.certificate import make_bundle, new_key
from nginx_acme.errors import (
    AcmeError,
    BadBundle,
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

    from nginx_acme.acme.order import Solver
    from nginx_acme.certificate import Bundle
    from nginx_acme.log import Log
    from nginx_acme.plan import Certificate, Issuer
    from nginx_acme.progress import Progress
    from nginx_acme.store import AccountFolder, CertificateFolder, Store

AT_ONCE = 20
"""Orders of one account that are open at the same time."""


class TooLate(NginxAcmeError):
    """The time for new challenges is over; the order stays for the next run."""


@dataclass(frozen=True, slots=True)
class Ports:
    """What reconciling needs of the world.

    `solver` answers an account's challenges. `preflight` says of names why they can't be ordered
    now (`6-orders`); it asks no CA.
    """

    store: Store
    now: Callable[[], datetime]
    dice: Callable[[], float]
    log: Log
    progress: Progress
    solver: Callable[[AccountFolder], Solver]
    preflight: Callable[[Certificate, Solver], Awaitable[Mapping[str, str]]]

    def with_solver(self, solver: Callable[[AccountFolder], Solver]) -> Ports:
        """The same world with another way to answer challenges."""
        return replace(self, solver=solver)


@dataclass(slots=True)
class Outcome:
    """How a run went.

    `missing` are labels of certificates that are still to come, `next` is when to look again
    (None: there is nothing to look at), `new_accounts` those that nginx doesn't answer for yet.
    """

    installed: list[Wanted] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    new_accounts: list[str] = field(default_factory=list)
    next: datetime | None = None

    def look_at(self, moment: datetime) -> None:
        """Look again then, or sooner."""
        self.next = moment if self.next is None else min(self.next, moment)


async def reconcile(
    certificates: Iterable[Certificate], ports: Ports, *, force: frozenset[str] = frozenset()
) -> Outcome:
    """Bring the store up to what is wanted, as far as it is time for it.

    Args:
        certificates: of the plan.
        ports: the world.
        force: names whose certificates are asked for now, whatever the time and the failures.

    Raises:
        StateError: there is no store to write to, or no clock; nobody is asked then.
    """
    return await _Run(ports, force).all(certificates)


class _Run:
    """One run: the sessions with the issuers, and what came of it."""

    def __init__(self, ports: Ports, force: frozenset[str]) -> None:
        self._ports = ports
        self._force = force
        self._outcome = Outcome()
        self._sessions: dict[Issuer, Session] = {}
        self._slots: dict[Issuer, asyncio.Semaphore] = {}
        self._refused: dict[Issuer, Problem] = {}
        self._local_names: list[str] = []
        self._stack = AsyncExitStack()

    async def all(self, certificates: Iterable[Certificate]) -> Outcome:
        now = self._ports.now()
        if not policy.clock_is_set(now):
            raise StateError(
                f"the clock says {now:%Y-%m-%d}; no CA is asked until it is set",
                self._ports.store.root,
            )
        wanted = tuple(certificates)
        self._local_names = [n.value for c in wanted if c.issuer.local for n in c.names]
        try:
            async with self._stack, asyncio.TaskGroup() as tasks:
                for certificate in wanted:
                    tasks.create_task(self._one(certificate))
        except* StateError as broken:
            # What one of them can't write, none can: the first says it for all.
            raise broken.exceptions[0] from None
        return self._outcome

    async def _one(self, certificate: Certificate) -> None:
        """A certificate with all its key types, under its lock."""
        folder = self._ports.store.find(Identity(*certificate.identity))
        if folder is None:
            raise StateError(f"no folder for {certificate.names[0].value}", self._ports.store.root)
        if self._due(certificate, folder):
            slots = self._slots.setdefault(certificate.issuer, asyncio.Semaphore(AT_ONCE))
            async with slots:
                await self._locked(certificate, folder)
        self._look_again(certificate, folder)

    async def _locked(self, certificate: Certificate, folder: CertificateFolder) -> None:
        try:
            held = await asyncio.to_thread(self._ports.store.lock_certificate, folder)
        except StateError as busy:
            self._ports.log.notice(f"{folder.label}: {busy}")
            return
        with held:
            # Whoever had the lock may have done the work meanwhile: it is looked at again.
            for key_type, because in self._due(certificate, folder).items():
                if not await self._renew(certificate, folder, key_type, because):
                    break

    def _due(self, certificate: Certificate, folder: CertificateFolder) -> dict[str, str]:
        """The key types that are to be asked for now, and why."""
        if self._force & {name.value for name in certificate.names}:
            return dict.fromkeys(certificate.key_types, "it was asked for")
        now = self._ports.now()
        found = of_folder(certificate, folder, now)
        return {one.key_type: one.to_ask for one in found if one.to_ask is not None}

    async def _renew(
        self, certificate: Certificate, folder: CertificateFolder, key_type: str, because: str
    ) -> bool:
        """Get one certificate; whether it came. What went wrong is on disk and in the log."""
        self._ports.progress.started(folder.label, because)
        wanted = Wanted(folder, key_type, certificate.names, certificate.profile)
        try:
            if certificate.issuer.local:
                bundle = await asyncio.to_thread(self._issue_locally, wanted)
            else:
                bundle = await self._ask(certificate, wanted)
        except TooLate:
            self._ports.progress.done(folder.label, "goes on through nginx")
            return False
        except (AcmeError, BadBundle) as error:
            self._failed(certificate, wanted, error)
            return False
        self._outcome.installed.append(wanted)
        facts = bundle.facts
        self._ports.progress.done(
            folder.label,
            f"issued by {facts.issuer}, valid until {facts.not_after:%Y-%m-%d %H:%M} UTC",
        )
        return True

    def _issue_locally(self, wanted: Wanted) -> Bundle:
        now, store = self._ports.now(), self._ports.store
        authority = LocalAuthority.open(store.local, self._local_names, now)
        key_pem = new_key(wanted.key_type)
        bundle = make_bundle(key_pem, authority.issue(key_pem, wanted.values, now), wanted.values)
        wanted.folder.install(wanted.key_type, bundle, LOCAL)
        return bundle

    async def _ask(self, certificate: Certificate, wanted: Wanted) -> Bundle:
        session = self._session(certificate.issuer)
        solver = self._ports.solver(session.account)
        blocked = await self._ports.preflight(certificate, solver)
        dead = {n: why for n, why in blocked.items() if n not in certificate.optional}
        if dead:
            raise OrderFailed({n: Problem("preflight", why) for n, why in dead.items()})
        if blocked:
            self._ports.log.notice(
                f"{wanted.folder.label}: ordered without {', '.join(blocked)}, which has no address"
            )
            wanted = replace(wanted, names=tuple(n for n in wanted.names if n.value not in blocked))
        if certificate.issuer in self._refused:
            raise self._refused[certificate.issuer]
        await session.open(self._stack)
        return await session.obtain(wanted, solver)

    def _session(self, issuer: Issuer) -> Session:
        if issuer not in self._sessions:
            account = self._ports.store.find_account(issuer.directory_url)
            if account is None:
                raise StateError(f'no account for "{issuer.name}"', self._ports.store.root)
            self._sessions[issuer] = Session(issuer, account, self._ports.now, self._ports.log)
        return self._sessions[issuer]

    # How it went -------------------------------------------------------------------------

    def _failed(self, certificate: Certificate, wanted: Wanted, error: NginxAcmeError) -> None:
        """Record a failure and when to try again, before anything else is asked."""
        now, before = self._ports.now(), wanted.folder.attempt(wanted.key_type)
        self._scope(certificate, error)
        failures = before.failures + 1
        moment = policy.retry_time(
            failures,
            now,
            life=life_of(wanted.folder.own(wanted.key_type)),
            permanent=isinstance(error, AcmeError) and error.permanent,
            retry_after=error.retry_after if isinstance(error, AcmeError) else None,
            dice=self._ports.dice(),
        )
        wanted.folder.record(wanted.key_type, Attempt(failures, moment, str(error), now))
        self._outcome.failed.append(wanted.folder.label)
        self._ports.progress.failed(
            wanted.folder.label, f"{error}; next attempt {moment:%Y-%m-%d %H:%M:%S} UTC"
        )

    def _scope(self, certificate: Certificate, error: NginxAcmeError) -> None:
        """What a refusal means for the others of its account.

        A rate limit that names none of our names is the account's: nobody else asks this issuer
        in this run. An account that the CA doesn't know is made anew, with a fresh key (§11.1).
        """
        if not isinstance(error, Problem):
            return
        if error.type == "rateLimited" and error.retry_after is not None:
            if not any(name.value in error.detail for name in certificate.names):
                self._refused.setdefault(certificate.issuer, error)
        elif error.type == "accountDoesNotExist":
            self._refused.setdefault(certificate.issuer, error)
            self._new_account(certificate.issuer)

    def _new_account(self, issuer: Issuer) -> None:
        now, account = self._ports.now(), self._session(issuer).account
        if issuer.name in self._outcome.new_accounts or issuer.account_key.startswith("/"):
            return
        if account.made is not None and now - account.made < policy.DAILY:
            return
        account.forget(now)
        key_pem = new_key(issuer.account_key)
        self._ports.store.create_account(issuer.name, issuer.directory_url, key_pem, now)
        self._outcome.new_accounts.append(issuer.name)
        self._ports.log.error(
            f"{issuer.name} does not know account {account.url} any more; a new one is made, the"
            f" key of the old one is kept beside it"
        )

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
