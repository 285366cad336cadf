"""One issuer in one run, and one certificate from it: key, order, challenges, download.

What may live here: the order of the steps, and what is on disk between them. A key is on disk
before its order is made, an order's URL before its challenges are answered, and neither goes
away before the certificate is safe; so a kill at any moment costs at most the one order whose
answer never reached the disk.

When it is time for a certificate, and what a failure means for the next attempt, is decided in
`reconcile`. What is said on the wire is `acme`'s business.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from nginx_acme.acme.order import abandon, complete
from nginx_acme.acme.resources import Identifier, OrderStatus
from nginx_acme.certificate import csr, fingerprint, key_type_of, make_bundle, new_key
from nginx_acme.errors import AcmeError, BadBundle, OrderFailed, Problem, UnexpectedAnswer
from nginx_acme.store import PendingOrder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AsyncExitStack
    from datetime import datetime

    from nginx_acme.acme.client import Client
    from nginx_acme.acme.order import Solver
    from nginx_acme.acme.resources import Directory, Order
    from nginx_acme.certificate import Bundle
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
_NO_CONTACT = frozenset({"invalidContact", "unsupportedContact"})


CLOCKS_APART = timedelta(hours=1)
"""From the CA's clock; less than that spoils nothing."""

T = TypeVar("T")


class TermsNotAccepted(AcmeError):
    """The CA has terms of service, and the configuration doesn't say that they are accepted."""

    permanent = True


@dataclass(frozen=True, slots=True)
class Wanted:
    """One certificate to get: a folder of the store, and what is asked for it."""

    folder: CertificateFolder
    key_type: str
    names: tuple[Name, ...]
    profile: str | None

    @property
    def values(self) -> tuple[str, ...]:
        """The identifiers' texts."""
        return tuple(name.value for name in self.names)


@dataclass(slots=True)
class Session:
    """An issuer as this run speaks with it: one client, one account, any number of orders.

    `open` asks the CA for its directory, and for an account where there is none; it does so once
    however many certificates wait for it, and what it fails with they all fail with.
    """

    issuer: Issuer
    account: AccountFolder
    client: Client
    now: Callable[[], datetime]
    log: Log
    progress: Progress
    _opening: asyncio.Task[None] | None = None

    async def open(self, stack: AsyncExitStack) -> None:
        """Get ready to order; the connections stay open until `stack` ends."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open(stack))
        await asyncio.shield(self._opening)

    async def _open(self, stack: AsyncExitStack) -> None:
        await stack.enter_async_context(self.client)
        stack.push_async_callback(self._end_opening)
        directory = await self.client.directory()
        self._compare_clocks()
        if self.account.url is None:
            await self._register(directory)

    async def _end_opening(self) -> None:
        """Those who waited for it may have been cancelled; it was not."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)

    def _compare_clocks(self) -> None:
        """Say so where a clock is wrong: "expired" and "not before" mean little by that one."""
        there, here = self.client.date, self.now()
        if there is not None and abs(there - here) > CLOCKS_APART:
            self.log.warn(
                f"the clock says {here:%Y-%m-%d %H:%M:%S} UTC, that of {self.issuer.name}"
                f" {there:%Y-%m-%d %H:%M:%S} UTC"
            )

    async def _register(self, directory: Directory) -> None:
        """Make the account, or find the one of this key (RFC 8555 §7.3, §7.3.1)."""
        terms = directory.terms_of_service
        if directory.external_account_required:
            raise Problem(
                "externalAccountRequired",
                f"{self.issuer.name} makes accounts only for customers that it knows already"
                " (external account binding), which is not supported yet",
            )
        if terms is not None and not self.issuer.accept_terms:
            raise TermsNotAccepted(
                f'issuer "{self.issuer.name}" asks to agree to {terms}; if you do, add'
                ' "accept_terms_of_service;" to its block'
            )
        contacts: Sequence[str] = self.issuer.contacts
        try:
            account = await self.client.new_account(contacts, terms_agreed=terms is not None)
        except Problem as problem:
            if problem.type not in _NO_CONTACT or not contacts:
                raise
            self.log.warn(f"{self.issuer.name} takes no such contact, it is left out: {problem}")
            contacts = ()
            account = await self.client.new_account((), terms_agreed=terms is not None)
        if terms is not None:
            self.log.notice(f"{self.issuer.name}: by registering you agree to {terms}")
        agreed, kept = self.now() if terms is not None else None, tuple(contacts)
        self.account = await _to_the_end(
            lambda: self.account.save(url=account.url, contacts=kept, terms=terms, agreed=agreed)
        )

    async def obtain(self, wanted: Wanted, solver: Solver) -> Bundle:
        """One certificate, from where its order stands to the disk.

        Raises:
            OrderFailed: the order is invalid, and forgotten.
            AcmeError: as `acme.order.complete`; the order may be taken up again.
        """
        pending = wanted.folder.pending
        if _is_spent(wanted.folder):
            pending.clear()
        order = await self._taken_up(wanted)
        if order is None:
            await self._make_key(wanted)
            order = await self._order(wanted)
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
        except BadBundle as stranger:
            # The CA may give one order to two who ask for the same; this one was not ours.
            pending.clear()
            raise UnexpectedAnswer(
                f"not the certificate that was ordered: {stranger}"
            ) from stranger
        self._must_be_alive(bundle)
        await _to_the_end(lambda: self._keep(wanted, bundle))
        return bundle

    def _must_be_alive(self, bundle: Bundle) -> None:
        """Raise UnexpectedAnswer for a certificate that is expired already.

        Its order stays: with the clock put right it may be as good as any. Put in place it would
        be due at once, and the next one, too, and so on to the CA's limits.
        """
        end, there = bundle.facts.not_after, self.client.date
        if end <= self.now():
            clock = f"; the CA's clock says {there:%Y-%m-%d %H:%M:%S} UTC" if there else ""
            raise UnexpectedAnswer(
                f"the certificate that was issued expired on {end:%Y-%m-%d %H:%M:%S} UTC,"
                f" is the clock right?{clock}"
            )

    def _keep(self, wanted: Wanted, bundle: Bundle) -> None:
        wanted.folder.install(wanted.key_type, bundle, self.issuer.directory_url, self.account.name)
        wanted.folder.pending.clear()

    async def _make_key(self, wanted: Wanted) -> None:
        """A fresh key, on disk before its order is made; one that was never used is taken up."""
        pending = wanted.folder.pending
        there = pending.key_pem()
        if there is not None and _is_type(there, wanted.key_type):
            return
        await _to_the_end(lambda: pending.save_key(new_key(wanted.key_type)))

    async def _order(self, wanted: Wanted) -> Order:
        self._note(wanted, None)
        identifiers = [Identifier("ip" if n.is_ip else "dns", n.value) for n in wanted.names]
        order = await self.client.new_order(identifiers, profile=await self._profile(wanted))
        self._note(wanted, order)
        return order

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
                expires=order.expires if order else None,
            )
        )

    async def _taken_up(self, wanted: Wanted) -> Order | None:
        """The order that an earlier run left, if it can still become this certificate."""
        left = wanted.folder.pending.order()
        if left is None or left.order_url is None:
            return None
        if (left.directory_url, left.account_url) != self._applicant:
            wanted.folder.pending.clear()
            return None
        order = await self._ask_for(left.order_url)
        if order is not None and self._fits(left, wanted):
            return order
        if order is not None:
            await self._give_up(order)
        wanted.folder.pending.clear()
        return None

    async def _give_up(self, order: Order) -> None:
        """A courtesy: some CAs know no deactivation (RFC 8555 §7.5.2) and let it expire."""
        try:
            await abandon(self.client, order)
        except (Problem, UnexpectedAnswer) as refused:
            self.log.notice(f"{self.issuer.name} keeps an order that nobody wants: {refused}")

    @property
    def _applicant(self) -> tuple[str, str | None]:
        """Whose orders we may ask for."""
        return self.issuer.directory_url, self.client.account_url

    def _fits(self, left: PendingOrder, wanted: Wanted) -> bool:
        same = (frozenset(wanted.values), wanted.key_type, wanted.profile)
        return (left.names, left.key_type, left.profile) == same

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


async def _to_the_end(work: Callable[[], T]) -> T:
    """Do it in a thread. Whoever is cancelled meanwhile waits for it all the same.

    Nothing stops a thread, and the lock for what it writes must be held as long as it writes.
    """
    writing = asyncio.create_task(asyncio.to_thread(work))
    try:
        return await asyncio.shield(writing)
    except asyncio.CancelledError:
        await asyncio.gather(writing, return_exceptions=True)
        raise


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
