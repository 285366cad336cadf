"""One certificate in one run: asked from its issuer, and what is remembered of how that went.

One name that fails takes the order down, and with it the certificate of all the others, who have
done nothing. So they are ordered without it where `policy.may_leave_out` says so: the others'
authorizations are good by then, and the second order costs no challenge. What came of it is used
like any other, and known as lacking: the whole set is asked for again by the ordinary backoff.

A failure is on disk before anything else is asked, also before the order without the names that
failed: whoever is killed in between, and started again, has to wait like everybody.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from nginx_acme import policy
from nginx_acme.acme.order import Unfinished
from nginx_acme.acme.presets import LOCAL
from nginx_acme.acme.resources import OrderStatus
from nginx_acme.certificate import make_bundle, new_key
from nginx_acme.errors import AcmeError, NginxAcmeError, OrderFailed, Problem, StateError
from nginx_acme.local import LocalAuthority
from nginx_acme.orders.allowance import NotAsked, NotYet
from nginx_acme.orders.issuance import Wanted
from nginx_acme.orders.trying import Try
from nginx_acme.policy import Life, Renew, ari
from nginx_acme.policy.limits import Kind, scopes
from nginx_acme.standing import due_of, left_out_of, life_of
from nginx_acme.store import Attempt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager, AsyncExitStack
    from datetime import datetime

    from nginx_acme.acme.order import Solver
    from nginx_acme.bundle import Bundle
    from nginx_acme.orders.allowance import Allowance
    from nginx_acme.orders.issuance import Session
    from nginx_acme.orders.ports import Outcome, Ports
    from nginx_acme.orders.sessions import Sessions
    from nginx_acme.plan import Certificate
    from nginx_acme.policy.limits import Ask, Stop
    from nginx_acme.preflight import Findings
    from nginx_acme.store import CertificateFolder

STILL_ISSUING = timedelta(minutes=10)
"""Between two looks at an order that is processing, where the CA doesn't say."""
ABOUT_THE_KEY = frozenset({"badCSR", "badPublicKey"})
"""Refusals that say nothing of the other key types."""
BLOCKED = "preflight"
"""The type of a problem that no CA was asked for."""


class TooLate(NginxAcmeError):
    """The time for new challenges is over; the order stays for the next run."""


class Obtaining:
    """Gets certificates in a run, one key type at a time, under the certificate's lock.

    `local_names` are those of all certificates of the issuer `local`, which its root may sign.
    """

    def __init__(
        self,
        ports: Ports,
        sessions: Sessions,
        stack: AsyncExitStack,
        outcome: Outcome,
        local_names: Sequence[str],
    ) -> None:
        self._ports = ports
        self._sessions = sessions
        self._stack = stack
        self._outcome = outcome
        self._local_names = local_names
        self._doubts: dict[str, Mapping[str, str]] = {}
        self._dead: dict[str, Mapping[str, Problem]] = {}
        self._held_back: Counter[Stop] = Counter()

    async def get(
        self,
        certificate: Certificate,
        folder: CertificateFolder,
        key_type: str,
        because: str,
        *,
        forced: bool,
    ) -> bool:
        """Get one certificate; whether the next key type can be asked for.

        What went wrong is on disk and in the log.

        Raises:
            NotYet: it is not its turn.
        """
        names, profile, optional = certificate.names, certificate.profile, certificate.optional
        wanted = Wanted(folder, key_type, names, profile, optional)
        one = Try(certificate, wanted, folder.attempt(key_type), forced)
        progress = self._ports.progress
        try:
            with self._place(one):
                bundle = await self._shown(one, because)
        except TooLate:
            progress.done(folder.label, "goes on through nginx")
            return False
        except NotAsked as error:
            self._hold_back(one, error)
            return False
        except (NotYet, StateError):
            raise
        except NginxAcmeError as error:
            self._failed(one, error)
            return isinstance(error, Problem) and error.type in ABOUT_THE_KEY
        self._outcome.installed.append(one.wanted)
        self._note(one, bundle)
        return True

    async def bring_forward(
        self, certificate: Certificate, folder: CertificateFolder, key_types: Iterable[str]
    ) -> None:
        """Let what waits for names that the preflight held back be asked for now, if one is good."""
        session = self._sessions.find(certificate.issuer)
        if session is None:
            return
        findings = await self._ports.preflight(certificate, self._ports.solver(session.account))
        for key_type in key_types:
            attempt = folder.attempt(key_type)
            still = tuple(name for name in attempt.blocked if name in findings.blocked)
            if still != attempt.blocked:
                now, good = self._ports.now(), sorted(set(attempt.blocked) - set(still))
                folder.record(key_type, replace(attempt, next=now, at=now, blocked=still))
                words = f"nothing speaks against {', '.join(good)} any more"
                self._ports.log.notice(f"{folder.label}: {words}")

    async def _shown(self, one: Try, because: str) -> Bundle:
        progress, label = self._ports.progress, one.folder.label
        progress.started(label, because)
        try:
            return await self._obtain(one)
        except (NotAsked, NotYet) as later:
            progress.done(label, str(later))
            raise

    def tell_of_stops(self) -> None:
        """Tell who was not asked for, once for all who wait for the same."""
        for stop, number in self._held_back.items():
            who = "1 certificate is" if number == 1 else f"{number} certificates are"
            until = f"{stop.until:%Y-%m-%d %H:%M:%S} UTC"
            self._ports.log.warn(f"{who} not asked for until {until}: {stop.because}")

    def _note(self, one: Try, bundle: Bundle) -> None:
        """What is to be known of a certificate that came, besides itself."""
        folder, key_type, now = one.folder, one.wanted.key_type, self._ports.now()
        if not one.certificate.issuer.local:
            folder.note_advice(key_type, bundle, ari.first(now))
        lacks = left_out_of(one.certificate, bundle)
        if not lacks:
            self._let_rest(one, bundle)
        facts, without = bundle.facts, f", without {', '.join(lacks)}" if lacks else ""
        self._ports.progress.done(
            folder.label,
            f"issued by {facts.issuer}, valid until {facts.not_after:%Y-%m-%d %H:%M} UTC{without}",
        )

    def _let_rest(self, one: Try, bundle: Bundle) -> None:
        """One that is due when it comes is not asked for again at once, and the next one later."""
        now, life = self._ports.now(), Life(bundle.facts.not_before, bundle.facts.not_after)
        due = due_of(one.certificate, bundle, None)
        if isinstance(policy.decide(life, due, None, now), Renew):
            in_vain = one.before.in_vain + 1
            moment = policy.rest_time(in_vain, now, life)
            one.folder.record(one.wanted.key_type, Attempt(next=moment, at=now, in_vain=in_vain))

    # Whom to ask, and for what -----------------------------------------------------------

    async def _obtain(self, one: Try) -> Bundle:
        issuer = one.certificate.issuer
        if issuer.local:
            return await asyncio.to_thread(self._issue_locally, one.wanted)
        session = self._sessions.get(issuer)
        try:
            return await self._ask(one, session)
        except Problem as problem:
            if problem.type != "accountDoesNotExist":
                raise
            session = await self._sessions.with_new_account(session, problem)
        return await self._ask(one, session)

    def _issue_locally(self, wanted: Wanted) -> Bundle:
        now, store = self._ports.now(), self._ports.store
        authority = LocalAuthority.open(store.local, self._local_names, now)
        key_pem = new_key(wanted.key_type)
        bundle = make_bundle(key_pem, authority.issue(key_pem, wanted.values, now), wanted.values)
        wanted.folder.install(wanted.key_type, bundle, LOCAL)
        return bundle

    async def _ask(self, one: Try, session: Session) -> Bundle:
        solver = self._ports.solver(session.account)
        findings = await self._ports.preflight(one.certificate, solver)
        self._doubts[one.folder.label] = findings.warnings
        one = self._without_known_dead(one, findings)
        await session.open(self._stack)
        solver = self._ports.solver(session.account)  # whose key may be another by now
        try:
            return await self._order(one, session, solver)
        except (OrderFailed, Problem) as failed:
            rest = self._without(failed, one)
        return await self._order(rest, session, solver)

    async def _order(self, one: Try, session: Session, solver: Solver) -> Bundle:
        allowance, ask = self._allowance(one), self._ask_of(one)
        allowance.must_be_free(ask)
        try:
            bundle = await session.obtain(
                one.wanted, solver, lambda: allowance.ordering(ask, self._ask_of(one))
            )
        except OrderFailed as failed:
            allowance.failing(failed.problems)
            raise
        allowance.came(ask)
        return bundle

    def _allowance(self, one: Try) -> Allowance:
        return self._sessions.allowance(one.certificate.issuer)

    def _ask_of(self, one: Try) -> Ask:
        return self._allowance(one).ask(one.folder, one.wanted.values, forced=one.forced)

    def _place(self, one: Try) -> AbstractContextManager[None]:
        if one.certificate.issuer.local:
            return nullcontext()
        return self._allowance(one).place(self._ask_of(one))

    def _without_known_dead(self, one: Try, findings: Findings) -> Try:
        """Without what the preflight blocks, and what this run's order for another key failed for.

        Raises:
            OrderFailed: as `_without`.
        """
        blocked = {name: Problem(BLOCKED, why) for name, why in findings.blocked.items()}
        dead = {**blocked, **self._dead.get(one.folder.label, {})}
        return self._without(OrderFailed(dead), one) if dead else one

    def _without(self, error: OrderFailed | Problem, one: Try) -> Try:
        """What is asked for without dead names, where it is time to go on without them.

        Raises:
            AcmeError: `error`; it isn't, or nothing would be left.
        """
        asked = one.wanted.values
        dead = {**policy.dead_names(error, asked), **self._limited_names(error, one)}
        rest, now = one.without(dead), self._ports.now()
        lost = [name for name in dead if name not in one.certificate.optional]
        if rest.wanted.names in {(), one.wanted.names} or (lost and not one.may_become(rest, now)):
            raise error
        label, words = one.folder.label, f"goes on without {', '.join(dead)}: "
        words += "; ".join(map(str, dead.values()))
        dead = self._dead[label] = {**self._dead.get(label, {}), **dead}
        if lost:
            self._remember(one, OrderFailed(dead), refusal=error)
            self._ports.log.warn(f"{label}: {words}")
        else:
            self._ports.log.notice(f"{label}: {words}")
        return rest

    def _limited_names(self, error: OrderFailed | Problem, one: Try) -> Mapping[str, Problem]:
        """The names that are as good as dead: limited themselves, since they failed so often."""
        if not isinstance(error, Problem):
            return {}
        found = scopes(error, self._ask_of(one))
        return {scope.name: error for scope in found if scope.kind is Kind.NAME}

    # How it went -------------------------------------------------------------------------

    def _failed(self, one: Try, error: NginxAcmeError) -> None:
        """Remember a failure, and tell it."""
        label, attempt = one.folder.label, self._remember(one, error)
        words = str(attempt.problem)
        if not self._ports.store.is_rehearsal:
            words += f"; next attempt {attempt.next:%Y-%m-%d %H:%M:%S} UTC"
        if _is_issuing(error):
            self._ports.progress.done(label, words)
            return
        self._outcome.failed.append(label)
        self._ports.progress.failed(label, words)

    def _hold_back(self, one: Try, error: NotAsked) -> None:
        """Nobody was asked, which is worth a message only to who wants it now."""
        if one.forced:
            self._failed(one, error)
            return
        self._remember(one, error)
        self._held_back[error.stop] += 1

    def _remember(
        self, one: Try, error: NginxAcmeError, *, refusal: AcmeError | None = None
    ) -> Attempt:
        """Record a failure and when to try again, before anything else is asked.

        `refusal` is what the CA said, where that may stop others and `error` is what came of it.
        """
        stop = self._stopped_by(one, refusal or error)
        now, key_type = self._ports.now(), one.wanted.key_type
        words = "; ".join((str(error), *self._doubts_about(one.folder.label, error)))
        failures = one.before.failures + _counts(error)
        moment = stop.until if stop else self._next_time(one, error, failures)
        attempt = Attempt(failures, moment, words, now, _blocked(error), one.before.in_vain)
        one.folder.record(key_type, attempt)
        return attempt

    def _stopped_by(self, one: Try, error: NginxAcmeError) -> Stop | None:
        """What stops this one and others with it."""
        if isinstance(error, NotAsked):
            return error.stop
        if one.certificate.issuer.local or not isinstance(error, AcmeError):
            return None
        return self._allowance(one).refused(error, self._ask_of(one))

    def _next_time(self, one: Try, error: NginxAcmeError, failures: int) -> datetime:
        now = self._ports.now()
        later = error.retry_after if isinstance(error, AcmeError) else None
        if _is_issuing(error):
            later = later or now + STILL_ISSUING
        return policy.retry_time(
            failures,
            now,
            life=life_of(one.own),
            permanent=isinstance(error, AcmeError) and error.permanent,
            retry_after=later,
            dice=self._ports.dice(),
            due=one.due,
        )

    def _doubts_about(self, label: str, error: NginxAcmeError) -> tuple[str, ...]:
        """What the preflight found about names that the CA found wanting, too."""
        failed = error.problems if isinstance(error, OrderFailed) else {}
        doubts = self._doubts.get(label, {})
        return tuple(doubts[name] for name in failed if name in doubts)


def _counts(error: NginxAcmeError) -> bool:
    """Whether this is a failure of the certificate, after which it is asked for more rarely.

    To wait as long as the CA says is none.
    """
    if isinstance(error, NotAsked):
        return not error.stop.said
    return not _is_issuing(error)


def _is_issuing(error: NginxAcmeError) -> bool:
    """Whether all is well and the CA only takes its time, as one where people sign."""
    return isinstance(error, Unfinished) and error.status is OrderStatus.PROCESSING


def _blocked(error: NginxAcmeError) -> tuple[str, ...]:
    """The names that the preflight holds back."""
    problems = error.problems if isinstance(error, OrderFailed) else {}
    return tuple(name for name, problem in problems.items() if problem.type == BLOCKED)
