"""One issuer in one run, and one certificate from it: key, order, challenges, download.

What may live here: the order of the steps, and what is on disk between them. A key is on disk
before its order is made, an order's URL before its challenges are answered, and neither goes
away before the certificate is safe; so a kill at any moment costs at most the one order whose
answer never reached the disk.

When it is time for a certificate is decided in `reconcile`, what a failure means in `obtaining`.
What is said on the wire is `acme`'s business.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from nginx_acme.acme.order import Gone, abandon, complete
from nginx_acme.acme.resources import Identifier, OrderStatus, certificate_id
from nginx_acme.certificate import csr, fingerprint, key_type_of, make_bundle, new_key
from nginx_acme.errors import BadBundle, OrderFailed, Problem, UnexpectedAnswer
from nginx_acme.orders.registration import Registration
from nginx_acme.store import NO_ATTEMPT, PendingOrder
from nginx_acme.threads import to_the_end

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AsyncExitStack
    from datetime import datetime

    from nginx_acme.acme.client import Client
    from nginx_acme.acme.order import Solver
    from nginx_acme.acme.resources import Order, RenewalInfo
    from nginx_acme.bundle import Bundle, Facts
    from nginx_acme.identifiers import Name
    from nginx_acme.log import Log
    from nginx_acme.plan import Issuer
    from nginx_acme.progress import Progress
    from nginx_acme.store import AccountFolder, CertificateFolder

_STEPS = {
    OrderStatus.PENDING: "is ordered",
    OrderStatus.READY: "control of its names is proved",
    OrderStatus.PROCESSING: "is being issued",
}
_SERVER_ERROR = 500
_NOT_ABOUT_REPLACES = frozenset(
    {
        "accountDoesNotExist",
        "badNonce",
        "externalAccountRequired",
        "invalidProfile",
        "rateLimited",
        "rejectedIdentifier",
        "unsupportedIdentifier",
        "userActionRequired",
    }
)
"""Refusals of an order for what it would be refused for without `replaces`, too."""

CLOCKS_APART = timedelta(hours=1)
"""From the CA's clock; less than that spoils nothing."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One certificate to get: a folder of the store, and what is asked for it.

    `names` may be fewer than the folder's; that it has those in `optional` is not expected.
    `replaces` is the one that it takes the place of (RFC 9773 §5).
    """

    folder: CertificateFolder
    key_type: str
    names: tuple[Name, ...]
    profile: str | None
    optional: frozenset[str] = frozenset()
    replaces: str | None = None

    @property
    def values(self) -> tuple[str, ...]:
        """The identifiers' texts."""
        return tuple(name.value for name in self.names)

    def is_whole(self, bundle: Bundle) -> bool:
        """Whether a certificate has every name that the folder's should have."""
        return all(map(bundle.facts.covers, self.folder.identity.names - self.optional))


@dataclass(slots=True)
class Session:
    """An issuer as this run speaks with it: one client, one account, any number of orders.

    `connect` asks the CA for its directory, `open` for an account as well where there is none;
    once however many certificates wait for it, and what it fails with they all fail with.
    """

    issuer: Issuer
    account: AccountFolder
    client: Client
    now: Callable[[], datetime]
    log: Log
    progress: Progress
    _connecting: asyncio.Task[None] | None = None
    _opening: asyncio.Task[None] | None = None

    async def connect(self, stack: AsyncExitStack) -> None:
        """Get ready to ask what needs no account; the connections stay open until `stack` ends."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect(stack))
        await asyncio.shield(self._connecting)

    async def open(self, stack: AsyncExitStack) -> None:
        """Get ready to order; as `connect`."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open(stack))
        await asyncio.shield(self._opening)

    async def _connect(self, stack: AsyncExitStack) -> None:
        await stack.enter_async_context(self.client)
        stack.push_async_callback(self._end)
        await self.client.directory()
        self._compare_clocks()

    async def _open(self, stack: AsyncExitStack) -> None:
        await self.connect(stack)
        registration = Registration(self.client, self.issuer, self.now, self.log)
        self.account = await registration.current(self.account)

    async def _end(self) -> None:
        """Those who waited for these may have been cancelled; they were not."""
        for task in (self._opening, self._connecting):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def _compare_clocks(self) -> None:
        """Say so where a clock is wrong: "expired" and "not before" mean little by that one."""
        there, here = self.client.date, self.now()
        if there is not None and abs(there - here) > CLOCKS_APART:
            self.log.warn(
                f"the clock says {here:%Y-%m-%d %H:%M:%S} UTC, that of {self.issuer.name}"
                f" {there:%Y-%m-%d %H:%M:%S} UTC"
            )

    async def renewal_info(self, facts: Facts) -> RenewalInfo | None:
        """When a certificate of this CA should be renewed; None where it gives no such advice."""
        known_by = _certificate_id(facts)
        return None if known_by is None else await self.client.renewal_info(known_by)

    async def obtain(self, wanted: Wanted, solver: Solver, ordering: Callable[[], None]) -> Bundle:
        """One certificate, from where its order stands to the disk.

        An order for fewer names, which an earlier run left, is finished as it is.

        Args:
            wanted: what to get.
            solver: proves control of the names.
            ordering: called before each order is made; what it raises, this raises.

        Raises:
            OrderFailed: the order is invalid, and forgotten.
            AcmeError: as `acme.order.complete`; the order may be taken up again.
        """
        pending = wanted.folder.pending
        if _is_spent(wanted.folder):
            pending.clear()
        left = await self._taken_up(wanted)
        if left is None:
            await self._make_key(wanted)
        wanted, order = left or await self._order(wanted, ordering)
        key_pem = pending.key_pem()
        if key_pem is None:
            raise UnexpectedAnswer("the key of the order is gone")
        try:
            chain = await complete(
                self.client,
                order,
                csr(key_pem, wanted.values),
                solver,
                saved=lambda order: self._told(wanted, order),
            )
            bundle = make_bundle(key_pem, chain, wanted.values)
        except OrderFailed:
            pending.clear()
            raise
        except Gone:
            # A replica may be behind the order that was just made; the next run asks once more.
            if left is not None:
                pending.clear()
            raise
        except BadBundle as stranger:
            # The CA may give one order to two who ask for the same; this one was not ours.
            pending.clear()
            raise UnexpectedAnswer(
                f"not the certificate that was ordered: {stranger}"
            ) from stranger
        self._must_be_alive(wanted, bundle)
        await to_the_end(lambda: self._keep(wanted, bundle))
        return bundle

    def _must_be_alive(self, wanted: Wanted, bundle: Bundle) -> None:
        """Raise UnexpectedAnswer for a certificate that is expired already.

        Its order stays: with the clock put right it may be as good as any. Put in place it would
        be due at once, and the next one, too, and so on to the CA's limits. By the CA's clock, too,
        it is over for good: whoever ordered it was stopped, and came back too late.
        """
        end, there = bundle.facts.not_after, self.client.date
        if end > self.now():
            return
        words = f"the certificate that was issued expired on {end:%Y-%m-%d %H:%M:%S} UTC"
        if there is not None and end <= there:
            wanted.folder.pending.clear()
            raise UnexpectedAnswer(f"{words}; its order is given up")
        clock = f"; the CA's clock says {there:%Y-%m-%d %H:%M:%S} UTC" if there else ""
        raise UnexpectedAnswer(f"{words}, is the clock right?{clock}")

    def _keep(self, wanted: Wanted, bundle: Bundle) -> None:
        folder, key_type = wanted.folder, wanted.key_type
        attempt = NO_ATTEMPT if wanted.is_whole(bundle) else folder.attempt(key_type)
        whose = self.issuer.directory_url, self.account.name
        folder.install(key_type, bundle, *whose, attempt=attempt)
        folder.pending.clear()

    async def _make_key(self, wanted: Wanted) -> None:
        """A fresh key, on disk before its order is made; one that was never used is taken up."""
        pending = wanted.folder.pending
        there = pending.key_pem()
        if there is not None and _is_type(there, wanted.key_type):
            return
        await to_the_end(lambda: pending.save_key(new_key(wanted.key_type)))

    async def _order(self, wanted: Wanted, ordering: Callable[[], None]) -> tuple[Wanted, Order]:
        """A new order. What speaks against replacing a certificate is no reason not to have one."""
        profile = await self._profile(wanted)
        wanted = replace(wanted, replaces=await self._replaced(wanted))
        try:
            return wanted, await self._new_order(wanted, profile, ordering)
        except Problem as refused:
            if wanted.replaces is None or not _may_be_about_replaces(refused):
                raise
        wanted = replace(wanted, replaces=None)
        return wanted, await self._new_order(wanted, profile, ordering)

    async def _new_order(
        self, wanted: Wanted, profile: str | None, ordering: Callable[[], None]
    ) -> Order:
        ordering()
        self._note(wanted, None)
        identifiers = [Identifier("ip" if n.is_ip else "dns", n.value) for n in wanted.names]
        order = await self.client.new_order(identifiers, profile=profile, replaces=wanted.replaces)
        self._note(wanted, order)
        return order

    async def _replaced(self, wanted: Wanted) -> str | None:
        """What the order is to replace: only what this account got from this CA can be."""
        own, issued = wanted.folder.own(wanted.key_type), wanted.folder.issued(wanted.key_type)
        if own is None or issued is None:
            return None
        if issued.directory_url != self.issuer.directory_url:
            return None
        if issued.account not in self.account.names:
            return None
        directory = await self.client.directory()
        return _certificate_id(own.facts) if directory.renewal_info is not None else None

    async def _profile(self, wanted: Wanted) -> str | None:
        """The profile, as far as the CA has it.

        Raises:
            Problem: invalidProfile; it is required, and the CA's directory doesn't have it.
        """
        profile = wanted.profile
        profiles = (await self.client.directory()).profiles
        if profile is None or profile in profiles:
            return profile
        there = f"there are {', '.join(profiles)}" if profiles else "there is none"
        words = f'{self.issuer.name} has no profile "{profile}", {there}'
        if self.issuer.profile_required:
            raise Problem("invalidProfile", words)
        self.log.warn(f"{words}; it is left out")
        return None

    def _told(self, wanted: Wanted, order: Order) -> None:
        """The order has come further."""
        self._note(wanted, order)
        words = _STEPS.get(order.status)
        if words is not None:
            self.progress.step(wanted.folder.label, words)

    def _note(self, wanted: Wanted, order: Order | None) -> None:
        """How far the order is; without one it is about to be made."""
        wanted.folder.pending.save_order(
            PendingOrder(
                directory_url=self.issuer.directory_url,
                names=frozenset(wanted.values),
                key_type=wanted.key_type,
                profile=wanted.profile,
                account_url=self.client.account_url,
                order_url=order.url if order else None,
                finalize_url=order.finalize if order else None,
                replaces=wanted.replaces,
                expires=order.expires if order else None,
            )
        )

    async def _taken_up(self, wanted: Wanted) -> tuple[Wanted, Order] | None:
        """The order that an earlier run left, if it can still become this certificate."""
        left = wanted.folder.pending.order()
        if left is None or left.order_url is None:
            return None
        if (left.directory_url, left.account_url) != self._applicant:
            wanted.folder.pending.clear()
            return None
        order = await self._ask_for(left.order_url)
        if order is not None and self._fits(left, wanted):
            names = tuple(name for name in wanted.names if name.value in left.names)
            return replace(wanted, names=names, replaces=left.replaces), order
        if order is not None:
            await self._give_up(order, replaces=left.replaces is not None)
        wanted.folder.pending.clear()
        return None

    async def _give_up(self, order: Order, *, replaces: bool) -> None:
        """A courtesy: some CAs know no deactivation (RFC 8555 §7.5.2) and let it expire."""
        try:
            await abandon(self.client, order, replaces=replaces)
        except (Problem, UnexpectedAnswer) as refused:
            self.log.notice(f"{self.issuer.name} keeps an order that nobody wants: {refused}")

    @property
    def _applicant(self) -> tuple[str, str | None]:
        """Whose orders we may ask for."""
        return self.issuer.directory_url, self.client.account_url

    def _fits(self, left: PendingOrder, wanted: Wanted) -> bool:
        """One for fewer names was made when it was time for that, unless that is over."""
        names = frozenset(wanted.values)
        fits = left.names == names or (left.names < names and not self.issuer.all_names)
        return fits and (left.key_type, left.profile) == (wanted.key_type, wanted.profile)

    async def _ask_for(self, url: str) -> Order | None:
        """An order of earlier; None where the CA has no use for it any more."""
        try:
            order = await self.client.order(url)
        except Problem as problem:
            if problem.status in {403, 404, 410}:
                return None
            raise
        over = order.expires is not None and order.expires <= self.now()
        usable = order.status is not OrderStatus.INVALID and (
            not over or order.status is OrderStatus.VALID
        )
        return order if usable else None


def _certificate_id(facts: Facts) -> str | None:
    """What its CA knows a certificate by; None where it doesn't say which key signed it."""
    key_id = facts.authority_key_id
    return None if key_id is None else certificate_id(key_id, facts.serial)


def _may_be_about_replaces(refused: Problem) -> bool:
    """Whether an order might be taken without `replaces`, of which CAs say no in many ways.

    "alreadyReplaced" (RFC 9773 §7.4) is one of them; a restored backup gets "unauthorized".
    """
    return refused.type not in _NOT_ABOUT_REPLACES and refused.status < _SERVER_ERROR


def _is_spent(folder: CertificateFolder) -> bool:
    """Whether the key of an earlier order is of no use any more.

    It is damaged, or the certificate that was made with it is in place: whoever got it was killed
    before the order could be forgotten. Taken up, that order would give the same one again.
    """
    key_pem = folder.pending.key_pem()
    if key_pem is None:
        return False
    try:
        own = folder.own(key_type_of(key_pem))
    except BadBundle:
        return True
    return own is not None and fingerprint(own.pem) == fingerprint(key_pem)


def _is_type(key_pem: bytes, key_type: str) -> bool:
    try:
        return key_type_of(key_pem) == key_type
    except BadBundle:
        return False
