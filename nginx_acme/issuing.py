"""The two ways to certificates: before nginx runs, and through the nginx that runs.

    before_nginx     a start's wait, with the temporary server on nginx's own addresses
    through_nginx    `renew`, with files that the generated configuration looks for

Apart from `start`, because this is what pulls in the libraries that speak with a CA: they are
imported while the temporary server's process starts beside us.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nginx_acme import preflight
from nginx_acme.challenges.http01 import Armed
from nginx_acme.launch import utc_now
from nginx_acme.reconcile import Outcome, Ports, TooLate, reconcile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from nginx_acme.acme.order import Solver
    from nginx_acme.challenges.http01 import Responder
    from nginx_acme.log import Log
    from nginx_acme.nginx.listen import Listen
    from nginx_acme.plan import Certificate
    from nginx_acme.progress import Progress
    from nginx_acme.store import AccountFolder, Store

LAST_START = 5.0
"""Seconds before the end in which no challenge is begun: the CA may need them."""
GRACE = 10.0
"""Seconds that challenges which have begun are waited for after the end."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Where things are kept, and who is told."""

    store: Store
    log: Log
    progress: Progress


class Punctual:
    """A Solver that begins nothing when it is late, and knows what it has begun."""

    def __init__(self, solver: Solver, last_start: float) -> None:
        self._solver = solver
        self._last_start = last_start
        self._begun: set[str] = set()
        self.idle = asyncio.Event()
        self.idle.set()

    @property
    def challenge_type(self) -> str:
        """That of the solver."""
        return self._solver.challenge_type

    async def present(self, token: str, key_authorization: str) -> None:
        """Present in time, or raise TooLate."""
        if asyncio.get_running_loop().time() > self._last_start:
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


async def before_nginx(
    certificates: Iterable[Certificate],
    scene: Scene,
    responder: Responder,
    seconds: float,
) -> Outcome:
    """Get certificates for at most so many seconds; what isn't there then stays for `renew`.

    A challenge that the CA may be looking at is waited for a little longer: closed under its
    eyes it would count as failed.
    """
    end = asyncio.get_running_loop().time() + seconds
    punctual = Punctual(responder, end - min(LAST_START, seconds / 2))
    ports = _ports(scene, lambda _: punctual, ())
    running = asyncio.create_task(reconcile(certificates, ports))
    await asyncio.wait({running}, timeout=seconds)
    if not running.done():
        idle = asyncio.create_task(punctual.idle.wait())
        await asyncio.wait({running, idle}, timeout=GRACE, return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
    if not running.done():
        running.cancel()
        await asyncio.wait({running})
        return Outcome()
    return running.result()


async def through_nginx(
    certificates: Iterable[Certificate],
    scene: Scene,
    listens: Sequence[Listen],
    force: frozenset[str] = frozenset(),
) -> Outcome:
    """Get what is due while nginx answers the challenges on `listens`."""

    def armed(account: AccountFolder) -> Solver:
        return Armed(scene.store.make_challenges(account.name))

    with scene.store.lock_challenges():
        return await reconcile(certificates, _ports(scene, armed, listens), force=force)


def _ports(
    scene: Scene, solver: Callable[[AccountFolder], Solver], listens: Sequence[Listen]
) -> Ports:
    async def look(certificate: Certificate, solver: Solver) -> Mapping[str, str]:
        return await preflight.look(
            certificate.names, solver, listens, public=certificate.issuer.public
        )

    return Ports(scene.store, utc_now, random.random, scene.log, scene.progress, solver, look)
