"""What an account may still ask for: its limits, asked and changed while a run lasts.

What may live here: the rules of `limits` with the clock, the dice and the disk. Everything is on
disk before it is acted on: an order before it is made, a refusal before anybody else asks. Two
instances may have the same account, so each change is made to what is on disk by then, under the
lock of accounts.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from nginx_acme.acme.presets import rates
from nginx_acme.errors import AcmeError, NginxAcmeError
from nginx_acme.key_types import KEY_TYPES
from nginx_acme.policy.limits import Ask, Limits, scopes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime

    from nginx_acme.orders.ports import Ports
    from nginx_acme.policy.limits import Stop
    from nginx_acme.store import AccountFolder, CertificateFolder


class NotAsked(AcmeError):
    """What the CA said of others, or of this one before, holds for it now; nobody was asked."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(f"not asked for: {stop.because}")
        self.stop = stop
        self.retry_after = stop.until


class NotYet(NginxAcmeError):
    """The account may not make another order now; its turn comes."""


class Allowance:
    """What the account of one issuer may still ask for; `account` is the one that is used by now."""

    def __init__(
        self, ports: Ports, directory_url: str, account: Callable[[], AccountFolder]
    ) -> None:
        self._ports = ports
        self._directory_url = directory_url
        self._rates = rates(directory_url)
        self._account = account
        self._known: tuple[str, Limits] | None = None
        self._places: list[Ask] = []
        self._is_told = False

    def ask(self, folder: CertificateFolder, names: Iterable[str], *, forced: bool = False) -> Ask:
        """Who it is that wants to order: a certificate of these names for a folder."""
        wanted, registered = frozenset(names), self._account().url is not None
        free = self._is_ordered(folder) or self._is_renewal(folder, wanted)
        return Ask(wanted, free, registered, forced)

    def _is_ordered(self, folder: CertificateFolder) -> bool:
        """Whether there is an order already, which only has to be finished."""
        left = folder.pending.order()
        return left is not None and left.order_url is not None

    def _is_renewal(self, folder: CertificateFolder, names: frozenset[str]) -> bool:
        """Whether there is a certificate for these very names, of this CA and still valid."""
        return self._rates is not None and any(
            own.facts.names == names
            and issued.directory_url == self._directory_url
            and self._ports.now() < own.facts.not_after
            for key_type in KEY_TYPES
            if (own := folder.own(key_type)) and (issued := folder.issued(key_type))
        )

    @contextmanager
    def place(self, ask: Ask) -> Iterator[None]:
        """Have the next order that the account may make kept for `ask`, as far as it needs one.

        Raises:
            NotAsked: nobody may ask for it before some time.
            NotYet: all orders that the account may make now are kept for others.
        """
        self._must_be_free(self._limits(), ask, self._places)
        self._places.append(ask)
        try:
            yield
        finally:
            if ask in self._places:
                self._places.remove(ask)

    def must_be_free(self, ask: Ask) -> None:
        """Raise NotAsked or NotYet where it can't be ordered any more; it has its place."""
        self._must_be_free(self._limits(), ask)

    def must_be_open(self) -> None:
        """Raise NotAsked where the CA can't be asked anything; limits of orders don't matter."""
        stop = self._limits().outage(self._ports.now())
        if stop is not None:
            raise NotAsked(stop)

    def _must_be_free(self, limits: Limits, ask: Ask, before: Iterable[Ask] = ()) -> None:
        now = self._ports.now()
        stop = limits.stop(ask, now)
        if stop is not None:
            raise NotAsked(stop)
        for other in before:
            limits = limits.ordered(other, self._rates, now)
        if limits.turn(ask, self._rates, now) > now:
            raise NotYet("it waits for its turn")

    def ordering(self, place: Ask, ask: Ask) -> None:
        """Remember an order that is about to be made in a place; raises as `must_be_free`.

        `ask` is `place` as it is by now: an order of before may have turned out to be of no use.
        """

        def ordered(limits: Limits) -> Limits:
            self._must_be_free(limits, ask)
            return limits.ordered(ask, self._rates, self._ports.now())

        self._change(ordered)
        if place in self._places:
            self._places.remove(place)

    def refused(self, error: AcmeError, ask: Ask) -> Stop | None:
        """Remember whom an error stops; None: only the certificate that was asked for."""
        if not scopes(error, ask):
            return None
        now, dice = self._ports.now(), self._ports.dice()
        limits = self._change(lambda known: known.refused(error, ask, self._rates, now, dice))
        return max((limits.stops[scope] for scope in scopes(error, ask)), key=lambda it: it.until)

    def failing(self, names: Iterable[str]) -> None:
        """Remember names that the CA looked at and wasn't content with."""
        self._change(lambda known: known.failing(names, self._ports.now()))

    def came(self, ask: Ask) -> None:
        """Remember that it was issued, where that changes anything."""
        now = self._ports.now()
        if self._limits().succeeded(ask, now) != self._limits():
            self._change(lambda known: known.succeeded(ask, now))

    def of_queue(self, asks: Sequence[Ask]) -> list[datetime]:
        """When each of a queue is to be asked."""
        return self._limits().turns(asks, self._rates, self._ports.now())

    def _limits(self) -> Limits:
        """As they were read or changed last; a new account has its own."""
        account = self._account()
        if self._known is None or self._known[0] != account.path:
            self._known = account.path, self._believed(account.limits.load(), account)
        return self._known[1]

    def _change(self, change: Callable[[Limits], Limits]) -> Limits:
        account = self._account()
        with self._ports.store.lock_accounts(self._directory_url):
            there = account.limits.load()
            limits = change(self._believed(there, account))
            if limits != there:
                account.limits.save(limits)
        self._known = account.path, limits
        return limits

    def _believed(self, found: Limits | None, account: AccountFolder) -> Limits:
        """What can be true of what was found; what can't is told once."""
        limits, all_of_it = (found or Limits()).believable(self._rates, self._ports.now())
        if not self._is_told and (found is None or not all_of_it):
            self._is_told = True
            what = "is damaged" if found is None else "has times that can't be right"
            self._ports.log.warn(f'"{account.limits.path}" {what}, that is forgotten')
        return limits
