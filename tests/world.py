"""A state directory and a fake CA, by clocks that stand still: what a run of reconciling lives in."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from nginx_acme.account import make_account
from nginx_acme.acme.client import Client
from nginx_acme.acme.jws import AccountKey
from nginx_acme.identifiers import Name
from nginx_acme.log import Log
from nginx_acme.orders.ports import Outcome, Ports
from nginx_acme.orders.reconcile import reconcile
from nginx_acme.plan import Certificate, Issuer
from nginx_acme.preflight import Findings
from nginx_acme.progress import Lines
from nginx_acme.store import Identity, Store
from tests import virtual_time
from tests.acme.applicant import Answers
from tests.fake_ca import FakeCa

if TYPE_CHECKING:
    from pathlib import Path

    from nginx_acme.acme.order import Solver
    from nginx_acme.store import AccountFolder, Attempt, CertificateFolder

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
KEY = "ecdsa:256"


@dataclass
class World:
    """A state directory, a CA, and clocks that stand still."""

    root: Path
    clock: datetime = NOW
    behind: timedelta = timedelta(0)
    """How far the CA's clock is behind ours."""
    said: list[str] = field(default_factory=list)
    blocked: dict[str, str] = field(default_factory=dict)
    """What the preflight says."""
    dice: float = 0.5

    def __post_init__(self) -> None:
        """Let the CA look at what is answered."""
        self.solver = Answers()
        self.ca = FakeCa(fetch=self.solver.fetch, now=lambda: self.clock - self.behind)
        self.issuer = Issuer("fake", self.ca.directory_url, public=False, accept_terms=True)
        self.answered: list[tuple[str, str]] = []

    def certificate(
        self, *names: str, keys: tuple[str, ...] = (KEY,), profile: str | None = None
    ) -> Certificate:
        """One to have."""
        return Certificate(self.issuer, tuple(map(Name, names)), profile, keys, ())

    def run(self, *wanted: Certificate, force: bool = False, seconds: float = 60) -> Outcome:
        """A run of its own, as of a new process."""
        return virtual_time.run(self._run(wanted, seconds, force=force))

    async def _run(
        self, wanted: tuple[Certificate, ...], seconds: float, *, force: bool
    ) -> Outcome:
        store = Store(str(self.root))
        store.open_for_writing()
        make_account(store, self.issuer, self.clock)
        for certificate in wanted:
            store.create(Identity(*certificate.identity), [n.value for n in certificate.names])
        async with asyncio.timeout(seconds):
            forced = {Identity(*c.identity) for c in wanted} if force else frozenset()
            return await reconcile(wanted, self._ports(store), force=frozenset(forced))

    def _ports(self, store: Store) -> Ports:
        async def preflight(certificate: Certificate, _: Solver) -> Findings:
            names = {name.value for name in certificate.names}
            return Findings({n: self.blocked[n] for n in names & self.blocked.keys()}, {})

        async def answer_for(old: AccountFolder, new: AccountFolder) -> None:
            self.answered.append((old.name, new.name))

        return Ports(
            store=store,
            now=lambda: self.clock,
            dice=lambda: self.dice,
            log=_Told(self.said),
            progress=Lines(None, self.said.append, self.said.append),
            connect=self._connect,
            solver=lambda _: self.solver,
            preflight=preflight,
            answer_for=answer_for,
        )

    def _connect(self, issuer: Issuer, account: AccountFolder) -> Client:
        return Client(
            issuer.directory_url,
            AccountKey(account.key_pem),
            now=lambda: self.clock,
            account_url=account.url,
            transport=self.ca,
        )

    def folder(self, certificate: Certificate) -> CertificateFolder:
        """Its folder, as a new process finds it."""
        found = Store(str(self.root)).find(Identity(*certificate.identity))
        assert found is not None
        return found

    def attempt(self, certificate: Certificate, key_type: str = KEY) -> Attempt:
        """What is remembered."""
        return self.folder(certificate).attempt(key_type)

    def has(self, certificate: Certificate, key_type: str = KEY) -> bool:
        """Whether it was got."""
        return self.folder(certificate).own(key_type) is not None

    def heard(self, words: str) -> bool:
        """Whether somebody was told."""
        return any(words in line for line in self.said)


class _Told(Log):
    """Messages in a list."""

    def __init__(self, said: list[str]) -> None:
        super().__init__(None)
        self._said = said

    def _tell(self, level: str, message: str) -> None:
        self._said.append(f"[{level}] {message}")
