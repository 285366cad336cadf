"""The ways to certificates: before nginx runs, through the nginx that runs, and with no CA at all.

    before_nginx     with the temporary server on nginx's own addresses
    through_nginx    with files that the generated configuration looks for
    issue_locally    from the issuer `local` alone

Apart from `start`, because this is what pulls in the libraries that speak with a CA: they are
imported while the temporary server's process starts beside us.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from nginx_acme import preflight
from nginx_acme.account import key_of
from nginx_acme.acme.client import Client
from nginx_acme.acme.gate import DEADLINE
from nginx_acme.challenges.http01 import Armed
from nginx_acme.launch import utc_now
from nginx_acme.orders.obtaining import TooLate
from nginx_acme.orders.ports import Outcome, Ports
from nginx_acme.orders.reconcile import reconcile
from nginx_acme.progress import progress_for

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence

    from nginx_acme.acme.jws import AccountKey
    from nginx_acme.acme.order import Solver
    from nginx_acme.challenges.http01 import Responder
    from nginx_acme.log import Log
    from nginx_acme.nginx.listen import Listen
    from nginx_acme.plan import Certificate, Issuer
    from nginx_acme.preflight import Findings
    from nginx_acme.process import Signals
    from nginx_acme.progress import Progress
    from nginx_acme.store import AccountFolder, Identity, Store

    AnswerFor = Callable[[AccountFolder, AccountFolder], None]
    """Let nginx answer for the second account in place of the first, which the CA forgot."""
    Look = Callable[[Outcome], bool]
    """Told every second of what has come so far; False ends it. In a thread, so it may wait."""

LAST_START = 5.0
"""Seconds before the end in which no challenge is begun: the CA may need them."""
GRACE = 10.0
"""Seconds that challenges which have begun are waited for after the end."""
PATIENCE = 2 / 3
"""Of a start's wait, for one answer: a CA that doesn't answer at all has failed before the end."""
_LOOK = 1.0
"""Seconds between two looks at what has come so far."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Where things are kept, who is told, and what ends us."""

    store: Store
    log: Log
    signals: Signals


class Punctual:
    """A Solver that begins nothing in the last of so many seconds, and knows what it has begun."""

    def __init__(self, solver: Solver, seconds: float) -> None:
        self._solver = solver
        now = asyncio.get_running_loop().time()
        self._last_start = now + seconds - min(LAST_START, seconds / 2)
        self._begun: set[str] = set()
        self.late = False
        self.idle = asyncio.Event()
        self.idle.set()

    @property
    def challenge_type(self) -> str:
        """That of the solver."""
        return self._solver.challenge_type

    async def present(self, token: str, key_authorization: str) -> None:
        """Present in time, or raise TooLate."""
        if asyncio.get_running_loop().time() > self._last_start:
            self.late = True
            raise TooLate
        self._begun.add(token)
        self.idle.clear()
        await self._solver.present(token, key_authorization)

    async def clean_up(self, token: str) -> None:
        """Also of what was too late."""
        await self._solver.clean_up(token)
        self._begun.discard(token)
        if not self._begun:
            self.idle.set()

    async def fetched(self, token: str) -> None:
        """As the solver knows it."""
        await self._solver.fetched(token)


def before_nginx(
    certificates: Iterable[Certificate], scene: Scene, responder: Responder, seconds: float
) -> bool:
    """Get certificates for at most so many seconds; whether that was time enough.

    What isn't there then stays for `renew`. A challenge that the CA may be looking at is waited
    for a little longer: closed under its eyes it would count as failed.

    Raises:
        StateError: as `reconcile`.
    """

    async def run(progress: Progress) -> bool:
        punctual = Punctual(responder, seconds)
        ports = _ports(scene, progress, lambda _: punctual, deadline=PATIENCE * seconds)
        return await in_time(reconcile(certificates, ports), punctual, seconds)

    with _progress(scene) as progress, scene.store.lock_challenges():
        return asyncio.run(run(progress))


async def in_time(work: Coroutine[Any, Any, Outcome], punctual: Punctual, seconds: float) -> bool:
    """Let the work go on for so long, and as long as challenges that have begun need, at most."""
    running = asyncio.create_task(work)
    await asyncio.wait({running}, timeout=seconds)
    if not running.done():
        idle = asyncio.create_task(punctual.idle.wait())
        await asyncio.wait({running, idle}, timeout=GRACE, return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
    if not running.done():
        await _end(running)
        return False
    running.result()
    return not punctual.late


def with_responder(
    certificates: Iterable[Certificate],
    scene: Scene,
    responder: Responder,
    force: frozenset[Identity],
) -> Outcome:
    """The same without an end: nginx doesn't run, and nobody waits for it."""
    with _progress(scene) as progress, scene.store.lock_challenges():
        ports = _ports(scene, progress, lambda _: responder)
        return asyncio.run(reconcile(certificates, ports, force=force))


def issue_locally(certificates: Iterable[Certificate], scene: Scene) -> None:
    """Get certificates of the issuer `local`, from nobody and at once.

    Raises:
        StateError: as `reconcile`.
    """
    with _progress(scene) as progress:
        asyncio.run(reconcile(certificates, _ports(scene, progress, _armed(scene))))


def through_nginx(
    certificates: Iterable[Certificate],
    scene: Scene,
    listens: Sequence[Listen],
    *,
    answer_for: AnswerFor,
    look: Look,
    force: frozenset[Identity] = frozenset(),
) -> Outcome | None:
    """Get what is due while nginx answers the challenges on `listens`; None: `look` ended it.

    Raises:
        StateError: as `reconcile`.
    """

    async def answer(old: AccountFolder, new: AccountFolder) -> None:
        await asyncio.to_thread(answer_for, old, new)

    with _progress(scene) as progress, scene.store.lock_challenges():
        ports = _ports(scene, progress, _armed(scene), listens=listens, answer_for=answer)
        outcome = Outcome()
        work = reconcile(certificates, ports, force=force, outcome=outcome)
        return asyncio.run(_watched(work, outcome, look))


async def _watched(
    work: Coroutine[Any, Any, Outcome], outcome: Outcome, look: Look
) -> Outcome | None:
    """The work's result; None where `look` ended it before it was done."""
    running = asyncio.create_task(work)
    while not running.done():
        await asyncio.wait({running}, timeout=_LOOK)
        if not running.done() and not await asyncio.to_thread(look, outcome):
            await _end(running)
            return None
    return running.result()


async def _end(running: asyncio.Task[Outcome]) -> None:
    """Cancel it; what it fails with at that moment is nobody's business any more."""
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def client_for(
    issuer: Issuer, key: AccountKey, account_url: str | None = None, *, deadline: float = DEADLINE
) -> Client:
    """A conversation with an issuer, not opened yet; in the name of whoever has this key."""
    return Client(
        issuer.directory_url,
        key,
        now=utc_now,
        account_url=account_url,
        trusted_certificate=issuer.trusted_certificate,
        verify=issuer.verify,
        deadline=deadline,
    )


# What they have in common ----------------------------------------------------------------


@contextmanager
def _progress(scene: Scene) -> Iterator[Progress]:
    """What happens is shown, and a signal finds the terminal as it was."""
    log, stream = scene.log, scene.log.stream
    with progress_for(stream, log.notice, log.error) as progress:
        scene.signals.before_end(progress.close)
        log.stream = progress.stream
        try:
            yield progress
        finally:
            log.stream = stream


def _armed(scene: Scene) -> Callable[[AccountFolder], Solver]:
    """What arms challenges for a running nginx."""
    return lambda account: Armed(scene.store.make_challenges(account.name))


async def _answered_already(old: AccountFolder, new: AccountFolder) -> None:
    """Nobody has to be told: the temporary server answers for any account."""


def _ports(
    scene: Scene,
    progress: Progress,
    solver: Callable[[AccountFolder], Solver],
    *,
    listens: Sequence[Listen] = (),
    answer_for: Callable[[AccountFolder, AccountFolder], Awaitable[None]] = _answered_already,
    deadline: float = DEADLINE,
) -> Ports:
    def connect(issuer: Issuer, account: AccountFolder) -> Client:
        longest = min(deadline, DEADLINE)
        return client_for(issuer, key_of(account), account.url, deadline=longest)

    async def look(certificate: Certificate, solver: Solver) -> Findings:
        issuer = certificate.issuer
        return await preflight.look(
            certificate.names,
            solver,
            listens,
            public=issuer.public,
            witness=urlsplit(issuer.directory_url).hostname if issuer.public else None,
            optional=certificate.optional,
        )

    return Ports(
        store=scene.store,
        now=utc_now,
        dice=random.random,
        log=scene.log,
        progress=progress,
        connect=connect,
        solver=solver,
        preflight=look,
        answer_for=answer_for,
    )
