"""A machine, its agent and a CA, for as many years as a test has seconds.

Real is what decides: `reconcile` and everything that it calls, down to `acme.order`, in virtual
time. Simulated are the places where bytes would go:

    Clock      the true time, and the machine's, which may be wrong
    SimulatedCa  a CA with Let's Encrypt's limits, outages and advice, which counts what it is
               asked and writes down what should never have been asked
    _Line      in place of the `Client`: what a machine says to that CA, without HTTP and JWS
    Memory     in place of the `Store`: what is kept, without files
    Machine    in place of the agent: a run, a reload for what came, and sleep until the next
"""

from __future__ import annotations

import asyncio
import random
from bisect import bisect
from collections import Counter, defaultdict
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from cryptography import x509

from nginx_acme.acme.client import Chain
from nginx_acme.acme.jws import AccountKey
from nginx_acme.acme.presets import LETSENCRYPT, Bucket, Rates
from nginx_acme.acme.resources import (
    Account,
    AccountStatus,
    Authorization,
    AuthorizationStatus,
    Challenge,
    ChallengeStatus,
    Directory,
    Identifier,
    Order,
    OrderStatus,
    RenewalInfo,
)
from nginx_acme.certificate import new_key
from nginx_acme.errors import Problem, StateError, Unreachable
from nginx_acme.identifiers import Name
from nginx_acme.log import Log
from nginx_acme.orders.ports import Outcome, Ports
from nginx_acme.orders.reconcile import reconcile
from nginx_acme.plan import Certificate, Issuer
from nginx_acme.policy.limits import Limits
from nginx_acme.preflight import Findings
from nginx_acme.progress import Lines
from nginx_acme.store import Identity, Issued
from nginx_acme.store.notes import NO_ATTEMPT, Attempt
from tests import virtual_time
from tests.fake_ca import _Issuer, _pem, certificate_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Self

    from nginx_acme.acme.order import Solver
    from nginx_acme.bundle import Bundle
    from nginx_acme.policy.ari import Advice
    from nginx_acme.store import AccountFolder, PendingOrder

KEY = "ecdsa:256"
SECOND, MINUTE, HOUR, DAY = (timedelta(seconds=s) for s in (1, 60, 3600, 86400))
WEEK, YEAR = 7 * DAY, 365 * DAY
HOST = "https://ca.example"
PROFILE = "shortlived"
_ALL, _ACCOUNT = "everything", "orders"


class Clock:
    """What time it is, and what a machine takes it for.

    `wrong` are times and, from then on, how far the machine's clock is ahead.
    """

    def __init__(self, begin: datetime, wrong: Iterable[tuple[datetime, timedelta]] = ()) -> None:
        self._begin = begin
        self._wrong = sorted(wrong)
        self._changes = [moment for moment, _ in self._wrong]
        self._seconds = -1.0
        self._true = self._shown = begin

    def true(self) -> datetime:
        """The CA's."""
        self._look()
        return self._true

    def shown(self) -> datetime:
        """The machine's."""
        self._look()
        return self._shown

    def ahead(self) -> timedelta:
        """How far the machine's is ahead."""
        return self.shown() - self._true

    def _look(self) -> None:
        """It is looked at often, and seldom has any time passed."""
        seconds = virtual_time.seconds()
        if seconds != self._seconds:
            self._seconds, self._true = seconds, self._begin + timedelta(seconds=seconds)
            number = bisect(self._changes, self._true)
            self._shown = self._true + (self._wrong[number - 1][1] if number else timedelta(0))

    def next_change(self) -> datetime | None:
        """When somebody sets the machine's."""
        number = bisect(self._changes, self.true())
        return self._changes[number] if number < len(self._changes) else None


# --- the CA ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outage:
    """From when to when there is no answer, or this one."""

    start: datetime
    end: datetime
    answer: Problem | None = None

    def meet(self, now: datetime) -> None:
        """Raise what whoever asks gets."""
        if not self.start <= now < self.end:
            return
        if self.answer is None:
            raise Unreachable("ca.example: Connection refused")
        later = now + HOUR
        raise Problem(self.answer.type, self.answer.detail, status=503, retry_after=later)


@dataclass(slots=True)
class _Issued:
    """A certificate, and the window in which it should be replaced."""

    names: frozenset[str]
    window: tuple[datetime, datetime]


@dataclass(slots=True)
class _Order:
    number: int
    names: tuple[str, ...]
    profile: str | None
    replaces: str | None
    status: OrderStatus = OrderStatus.PENDING
    chain: bytes = b""


class SimulatedCa:
    """A CA as Let's Encrypt is, in one account's eyes (https://letsencrypt.org/docs/rate-limits/).

    `lifetime` says how long a certificate of today is valid. `wrong` is what should never have
    been asked, in words.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        lifetime: Callable[[datetime], timedelta] = lambda _: 90 * DAY,
        outages: Sequence[Outage] = (),
        window: timedelta = 3 * HOUR,
    ) -> None:
        self.clock = clock
        self.rates = Rates(Bucket(300, 36.0), Bucket(50, 12096.0))
        self.requests: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.dead: set[str] = set()
        self.issued: list[tuple[datetime, str]] = []
        """When a certificate was issued, and its first name."""
        self.orders: list[_Order] = []
        self._lifetime = lifetime
        self._outages = outages
        self._window = window
        self._issuer: _Issuer | None = None
        self._latest: dict[frozenset[str], list[tuple[datetime, str]]] = defaultdict(list)
        self._known: dict[str, _Issued] = {}
        self._full: dict[str, datetime] = {}
        self._failures: dict[str, list[datetime]] = defaultdict(list)
        self._closed: dict[str, datetime] = {}

    def call_back(self, names: Iterable[frozenset[str]]) -> None:
        """Want the certificates for these names to be renewed at once."""
        now = self.clock.true()
        for each in names:
            _, known_by = self._latest[each][-1]
            self._known[known_by].window = (now - DAY, now - HOUR)

    def arrive(self, what: str) -> None:
        """Somebody asks."""
        self.requests[what] += 1
        self._must_be_open(_ALL)
        for outage in self._outages:
            try:
                outage.meet(self.clock.true())
            except Problem as problem:
                self._close(_ALL, problem.retry_after)
                raise

    # Orders

    def order(self, names: tuple[str, ...], profile: str | None, replaces: str | None) -> _Order:
        """A new one, if that is not one too many."""
        now, whole = self.clock.true(), frozenset(names)
        times = [at for at, _ in self._latest[whole]]
        self._must_be_time(whole)
        for name in names:
            lately = [at for at in self._failures[name] if at > now - HOUR]
            if len(lately) >= 5:
                self._refuse(f'too many failed authorizations (5) for "{name}"', lately[-5] + HOUR)
        if replaces is None and len([at for at in times if at > now - WEEK]) >= 5:
            self._refuse("too many certificates (5) for this exact set of", times[-5] + WEEK)
        if not times or times[-1] < now - 120 * DAY:
            below = _registered(names[0])
            words = f'too many certificates (50) already issued for "{below}"'
            self._spend(below, self.rates.registered_name, words)
            words = "too many new orders (300) from this account"
            self._spend(_ACCOUNT, self.rates.account, words)
        made = _Order(len(self.orders), names, profile, replaces)
        self.orders.append(made)
        return made

    def _must_be_time(self, names: frozenset[str]) -> None:
        """By the machine's clock, for it has no other: in the window, or what is left is over."""
        shown = self.clock.shown()
        if self._latest[names]:
            known = self._known[self._latest[names][-1][1]]
            if shown < known.window[0]:
                self.wrong.append(f"{shown}: {min(names)} is ordered, from {known.window[0]} on")

    def _spend(self, key: str, bucket: Bucket | None, words: str) -> None:
        """GCRA, as in Boulder's ratelimits/gcra.go."""
        assert bucket is not None
        self._must_be_open(key)
        now, orders, every = self.clock.true(), bucket.orders, bucket.seconds * SECOND
        full = max(self._full.get(key, now), now) + every
        if full > now + orders * every:
            self._close(key, full - orders * every)
            self._refuse(words, full - orders * every)
        self._full[key] = full

    def _refuse(self, words: str, later: datetime) -> None:
        self.refused[words.partition(' "')[0]] += 1
        raise Problem("rateLimited", words, status=429, retry_after=later + SECOND)

    def _close(self, key: str, later: datetime | None) -> None:
        if later is not None:
            self._closed[key] = later

    def _must_be_open(self, key: str) -> None:
        """Nobody whose clock is right comes before the time that was said."""
        now = self.clock.true()
        if now < self._closed.get(key, now) and not self.clock.ahead():
            self.wrong.append(f"{now}: {key} is asked for before {self._closed[key]}")

    def look_at(self, order: _Order) -> None:
        """Validate its names."""
        bad = [name for name in order.names if name in self.dead]
        for name in bad:
            self._failures[name].append(self.clock.true())
        order.status = OrderStatus.INVALID if bad else OrderStatus.READY

    def issue(self, order: _Order, csr: bytes) -> None:
        """Sign, and know from then on."""
        now = self.clock.true()
        if self._issuer is None:
            self._issuer = _Issuer(now, 0)
        length = 160 * HOUR if order.profile == PROFILE else self._lifetime(now)
        key = x509.load_der_x509_csr(csr).public_key()
        leaf = self._issuer.issue(key, [("dns", name) for name in order.names], now, length)
        order.chain, order.status = _pem(leaf), OrderStatus.VALID
        middle = leaf.not_valid_before_utc + length * (1 / 2 if length < 10 * DAY else 2 / 3)
        window = (middle, middle + self._window)
        known_by, names = certificate_id(leaf), frozenset(order.names)
        self._known[known_by] = _Issued(names, window)
        self._latest[names].append((now, known_by))
        self.issued.append((now, order.names[0]))

    def advise(self, known_by: str) -> RenewalInfo:
        """RFC 9773 §4.2."""
        start, end = self._known[known_by].window
        return RenewalInfo(start, end, None, self.clock.true() + DAY)


def _registered(name: str) -> str:
    return ".".join(name.split(".")[-2:])


class _Line:
    """What a `Client` says, to a `SimulatedCa`."""

    directory_url = LETSENCRYPT

    def __init__(self, ca: SimulatedCa, account: AccountFolder) -> None:
        self._ca = ca
        self.account_url = account.url
        self.key = _ACCOUNT_KEY
        self.date: datetime | None = None
        self.now = ca.clock.shown
        self._is_known = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is open."""

    async def directory(self) -> Directory:
        if not self._is_known:
            self._ca.arrive("directory")
            self._is_known = True
        return Directory(
            f"{HOST}/newNonce",
            f"{HOST}/newAccount",
            f"{HOST}/newOrder",
            renewal_info=f"{HOST}/renewalInfo",
            profiles={PROFILE: "for those who renew often"},
        )

    async def new_account(self, contacts: Sequence[str] = (), **_: object) -> Account:
        self._ca.arrive("newAccount")
        self.account_url = f"{HOST}/account/1"
        return Account(self.account_url, AccountStatus.VALID, tuple(contacts))

    async def new_order(
        self,
        identifiers: Sequence[Identifier],
        *,
        profile: str | None = None,
        replaces: str | None = None,
    ) -> Order:
        self._ca.arrive("newOrder")
        names = tuple(each.value for each in identifiers)
        return self._shown(self._ca.order(names, profile, replaces))

    async def order(self, url: str) -> Order:
        self._ca.arrive("order")
        return self._shown(self._order(url))

    async def authorization(self, url: str) -> Authorization:
        self._ca.arrive("authorization")
        number, name = url.rsplit("/", 2)[1:]
        order = self._ca.orders[int(number)]
        dead = order.status is OrderStatus.INVALID and name in self._ca.dead
        status, error = AuthorizationStatus.PENDING, None
        if order.status is not OrderStatus.PENDING:
            status = AuthorizationStatus.INVALID if dead else AuthorizationStatus.VALID
            error = Problem("dns", f"NXDOMAIN looking up A for {name}") if dead else None
        told = ChallengeStatus.PENDING if error is None else ChallengeStatus.INVALID
        challenge = Challenge("http-01", url, told, f"token-of-{number}-and-{name}", error)
        return Authorization(url, Identifier("dns", name), status, (challenge,))

    async def respond(self, challenge: Challenge) -> Challenge:
        self._ca.arrive("challenge")
        order = self._order(challenge.url.rpartition("/")[0])
        await asyncio.sleep(1)
        if order.status is OrderStatus.PENDING:
            self._ca.look_at(order)
        return challenge

    async def finalize(self, order: Order, csr: bytes) -> Order:
        self._ca.arrive("finalize")
        found = self._order(order.url)
        self._ca.issue(found, csr)
        return self._shown(found)

    async def download(self, url: str) -> Chain:
        self._ca.arrive("certificate")
        return Chain(self._order(url).chain)

    async def deactivate_authorization(self, url: str) -> Authorization:
        self._ca.arrive("authorization")
        self._order(url.rpartition("/")[0]).status = OrderStatus.INVALID
        return await self.authorization(url)

    async def renewal_info(self, known_by: str) -> RenewalInfo:
        self._ca.arrive("renewalInfo")
        return self._ca.advise(known_by)

    def _order(self, url: str) -> _Order:
        return self._ca.orders[int(url.rpartition("/")[2])]

    def _shown(self, order: _Order) -> Order:
        url = f"{HOST}/order/{order.number}"
        return Order(
            url,
            order.status,
            tuple(Identifier("dns", name) for name in order.names),
            tuple(f"{HOST}/authorization/{order.number}/{name}" for name in order.names),
            url,
            certificate=url if order.status is OrderStatus.VALID else None,
            replaces=order.replaces,
        )


_ACCOUNT_KEY = AccountKey(new_key(KEY))


# --- what is kept ---------------------------------------------------------------------------


# ruff: noqa: D102 - these methods are those of the classes that they stand in for


class MemoryLimits:
    """`limits.json`; there are no files, so nothing can be wrong with them."""

    path = "limits.json"

    def __init__(self) -> None:
        self._kept = Limits()

    def load(self) -> Limits:
        return self._kept

    def save(self, limits: Limits) -> None:
        self._kept = limits


@dataclass
class MemoryAccount:
    """An account's folder."""

    limits: MemoryLimits = field(default_factory=MemoryLimits)
    url: str | None = None
    name: str = "letsencrypt_12345678"
    names: tuple[str, ...] = ("letsencrypt_12345678",)
    path: str = "accounts/letsencrypt_12345678"
    contacts: tuple[str, ...] = ()
    terms: str | None = None
    agreed: datetime | None = None
    told_terms: str | None = None
    wanted: tuple[str, ...] | None = None
    memory: Memory | None = None

    def following(self) -> None:
        """No other key is to come."""

    def save(self) -> MemoryAccount:
        assert self.memory is not None
        self.memory.account = self
        return self


class MemoryPending:
    """An order under way."""

    def __init__(self) -> None:
        self._key: bytes | None = None
        self._order: PendingOrder | None = None

    def key_pem(self) -> bytes | None:
        return self._key

    def save_key(self, key_pem: bytes) -> None:
        self._key = key_pem

    def order(self) -> PendingOrder | None:
        return self._order

    def save_order(self, order: PendingOrder) -> None:
        self._order = order

    def clear(self) -> None:
        self._key = self._order = None


class MemoryFolder:
    """A certificate's folder, for one key type."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.label = min(identity.names)
        self.pending = MemoryPending()
        self.history: list[Bundle] = []
        self._attempt = NO_ATTEMPT
        self._advice: Advice | None = None
        self._issued: Issued | None = None

    def own(self, key_type: str) -> Bundle | None:
        return self.history[-1] if self.history and key_type == KEY else None

    read = own

    def issued(self, key_type: str) -> Issued | None:
        return self._issued if key_type == KEY else None

    def attempt(self, _: str) -> Attempt:
        return self._attempt

    def record(self, _: str, attempt: Attempt) -> None:
        self._attempt = attempt

    def advice(self, _: str) -> Advice | None:
        return self._advice

    def note_advice(self, _: str, __: Bundle, advice: Advice) -> None:
        self._advice = advice

    def install(
        self, _: str, bundle: Bundle, url: str, account: str, *, attempt: Attempt = NO_ATTEMPT
    ) -> None:
        self.history.append(bundle)
        self._issued = Issued(url, account, bundle.facts.not_after)
        self._attempt, self._advice = attempt, None


class Memory:
    """A store."""

    root = "/nowhere"
    is_rehearsal = False

    def __init__(self) -> None:
        self.folders: dict[Identity, MemoryFolder] = {}
        self.account = MemoryAccount(memory=self)

    def create(self, identity: Identity, _: Sequence[str]) -> MemoryFolder:
        if identity not in self.folders:
            self.folders[identity] = MemoryFolder(identity)
        return self.folders[identity]

    def find_account(self, *_: object) -> MemoryAccount:
        return self.account

    def open_for_writing(self) -> None:
        """It is always."""

    def try_lock_certificate(self, _: MemoryFolder) -> nullcontext[None]:
        return nullcontext()

    def lock_accounts(self, _: str) -> nullcontext[None]:
        return nullcontext()


# --- the machine ----------------------------------------------------------------------------


def certificate(*names: str, profile: str | None = None, issuer: str = LETSENCRYPT) -> Certificate:
    """One to have, of Let's Encrypt."""
    asked = Issuer("letsencrypt", issuer, public=True, accept_terms=True)
    return Certificate(asked, tuple(map(Name, names)), profile, (KEY,), ())


class Machine:
    """nginx with its agent. `reloads` are the times of those, `runs` is how often it looked."""

    def __init__(self, ca: SimulatedCa, seed: int = 1) -> None:
        self.store = Memory()
        self.certificates: list[Certificate] = []
        self.said: list[str] = []
        self.reloads: list[datetime] = []
        self.runs = 0
        self._ca = ca
        self._clock = ca.clock
        self._dice = random.Random(seed)  # noqa: S311 - the same in every run

    def add(self, certificates: Iterable[Certificate]) -> None:
        """Add servers to the configuration."""
        self.certificates.extend(certificates)

    async def live(self, until: datetime, restarts: Iterable[datetime] = ()) -> None:
        """As the agent does: run, let nginx load what came, sleep until the next time."""
        left = sorted(restarts, reverse=True)
        while self._clock.true() < until:
            while left and left[-1] <= self._clock.true():
                left.pop()
            outcome = await self.run()
            disturbances = (self._clock.next_change(), left[-1] if left else None, until)
            disturbed = min(moment for moment in disturbances if moment is not None)
            now = self._clock.shown()
            following = outcome.next if outcome and outcome.next else now + DAY
            wait = min(max(following, now + 5 * SECOND), now + DAY) - now
            wait = min(wait, disturbed - self._clock.true())
            await asyncio.sleep(max(wait.total_seconds(), 0.001))

    async def run(self) -> Outcome | None:
        """One run; None: the clock isn't set."""
        self.runs += 1
        try:
            outcome = await reconcile(self.certificates, self._ports())
        except StateError:
            return None
        if outcome.installed:
            self.reloads.append(self._clock.true())
        return outcome

    def lapses(self, now: datetime) -> list[tuple[str, datetime, datetime]]:
        """Where a certificate had expired before the next one came: name, from, to."""
        found = []
        for folder in self.store.folders.values():
            for old, new in zip(folder.history, folder.history[1:], strict=False):
                came = new.facts.not_before + HOUR
                if came > old.facts.not_after:
                    found.append((folder.label, old.facts.not_after, came))
            last = folder.history[-1].facts.not_after
            if last < now:
                found.append((folder.label, last, now))
        return found

    def _ports(self) -> Ports:
        return Ports(
            store=cast("Any", self.store),
            now=self._clock.shown,
            dice=self._dice.random,
            log=_Told(self.said),
            progress=Lines(None, _nobody, self.said.append),
            connect=lambda _, account: cast("Any", _Line(self._ca, account)),
            solver=lambda _: _Solver(),
            preflight=_preflight,
            answer_for=_answer_for,
        )


class _Solver:
    """Whatever is presented, the CA doesn't look at it."""

    challenge_type = "http-01"

    async def present(self, token: str, key_authorization: str) -> None:
        """It is there."""

    async def clean_up(self, token: str) -> None:
        """It is gone."""

    async def fetched(self, token: str) -> None:
        """At once."""


class _Told(Log):
    """Messages in a list, but for those of what went well."""

    def __init__(self, said: list[str]) -> None:
        super().__init__(None)
        self._said = said

    def _tell(self, level: str, message: str) -> None:
        if level != "notice":
            self._said.append(message)


def _nobody(_: str) -> None:
    """What goes well is told to nobody."""


async def _preflight(_: Certificate, __: Solver) -> Findings:
    return Findings({}, {})


async def _answer_for(_: AccountFolder, __: AccountFolder) -> None:
    """Nobody answers."""
