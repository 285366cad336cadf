"""What a run of reconciling needs of the world, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from nginx_acme.acme.client import Client
    from nginx_acme.acme.order import Solver
    from nginx_acme.log import Log
    from nginx_acme.orders.issuance import Wanted
    from nginx_acme.plan import Certificate, Issuer
    from nginx_acme.preflight import Findings
    from nginx_acme.progress import Progress
    from nginx_acme.store import AccountFolder, Store


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
