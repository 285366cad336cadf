"""From an order to its certificate (RFC 8555 §7.4, §7.1.6): `match order.status`, and nothing else.

The CA's status decides what is done next, so an order can be taken up at any point, and nothing
is remembered here that the CA doesn't know. Progress is seen by asking for the order alone, since
its status follows from its authorizations: polling each authorization (as most clients do) costs
a request for each name and each poll. When to ask is said by `poll_delays` and by the CA.

How long it may take in all is the caller's to say, by cancelling, and a CA that takes its time is
left alone after `LONGEST_POLL`; whatever the end, every challenge that was presented is cleaned up.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from itertools import chain, repeat
from typing import TYPE_CHECKING, Protocol, TypeVar

from nginx_acme.acme.resources import AuthorizationStatus, ChallengeStatus, OrderStatus
from nginx_acme.errors import NO_TYPE, AcmeError, OrderFailed, Problem, UnexpectedAnswer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
    from datetime import datetime

    from nginx_acme.acme.client import Client
    from nginx_acme.acme.resources import Authorization, Challenge, Order

POLL_DELAYS = (0.05, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0)
"""Seconds before each poll where the CA doesn't say; the last one for all further polls."""

FETCHED_PAUSE = 0.02
"""Seconds from the last challenge's being fetched to a poll: the CA has to write it down."""

SHORTEST_PAUSE = 0.05
"""Seconds between two polls, also with ``Retry-After: 0``."""

LAG_DELAYS = (0.25, 0.5, 1.0, 2.0)
"""Seconds before a read is repeated: replicas of a CA's database don't know yet what it has made,
and load balancers say 503 while a server behind them restarts."""

LONGEST_LAG = 60.0
"""Seconds of Retry-After with such an answer that are waited here; what is longer is a refusal."""

LONGEST_POLL = 300.0
"""Seconds after which a CA that has not decided is left alone, and so it is where it says itself
that it will take longer: some need a person's consent. The order stays as it is."""

SETTLE_DELAYS = (0.5, 1.0, 2.0, 3.0, 5.0, 5.0, 5.0)
"""Seconds between looks at the authorizations of an order that has failed."""

_PENDING = frozenset({AuthorizationStatus.PENDING})
_USABLE = _PENDING | {AuthorizationStatus.VALID}
_FAILED = frozenset(AuthorizationStatus) - _USABLE
_UNAUTHORIZED = frozenset({OrderStatus.PENDING})
_UNISSUED = frozenset({OrderStatus.PENDING, OrderStatus.READY, OrderStatus.PROCESSING})

_NOT_FOUND = 404
_GONE = frozenset({_NOT_FOUND, 410})
_SERVER_ERROR = 500

_T = TypeVar("_T")


class NotOffered(AcmeError):
    """The CA offers no challenge of the wanted type for a name; no later answer will differ."""

    permanent = True


class Unfinished(AcmeError):
    """The CA needs longer than anybody should wait; the order may be taken up after `retry_after`.

    `status` is the order's: one that is `processing` has all that it needs from us.
    """

    def __init__(self, status: OrderStatus, retry_after: datetime | None) -> None:
        super().__init__(f"the CA is not done yet, its order is {status}")
        self.status = status
        self.retry_after = retry_after


class Gone(AcmeError):
    """The order is valid, and the CA has no certificate for it."""


class Solver(Protocol):
    """Makes challenges answerable; one type of challenge, any number of tokens at once."""

    @property
    def challenge_type(self) -> str:
        """As the CA calls it: ``http-01``."""

    async def present(self, token: str, key_authorization: str) -> None:
        """Make a challenge answerable.

        It MUST be answerable when this returns: the CA is told at once. It SHOULD return within
        a second.
        """

    async def clean_up(self, token: str) -> None:
        """Take back what `present` did.

        This is called exactly once for each `present`, whatever came in between; so it MUST bear
        a `present` that failed or was cancelled.
        """

    async def fetched(self, token: str) -> None:
        """Return when the CA has fetched the answer, at once where it has already.

        It MAY never return, where nobody can know; it is cancelled then.
        """


def poll_delays() -> Iterator[float]:
    """Seconds before each poll of an order, without end."""
    return chain(POLL_DELAYS, repeat(POLL_DELAYS[-1]))


async def complete(
    client: Client, order: Order, csr: bytes, solver: Solver, *, saved: Callable[[Order], None]
) -> bytes:
    """Take an order from where it stands to its certificate.

    Args:
        client: with an account; any number of orders at once
        order: as the CA told of it last
        csr: DER; made of the key that the certificate is for
        solver: proves control of the names
        saved: called with the order as it is given, and whenever its status or a URL changes

    Returns:
        the certificate with its issuers, PEM

    Raises:
        OrderFailed: the order is invalid; no authorization is undecided that could still be used
        NotOffered: the solver's type of challenge can't be had for a name
        Unfinished: the CA takes too long
        Gone: there is nothing to download, also after `LAG_DELAYS`
        Problem: the CA refused a request
        UnexpectedAnswer, Unreachable: as `Client` says; the order may be taken up again
    """
    run = _Run(client, solver, saved)
    try:
        return await run.to_certificate(order, csr)
    finally:
        await run.clean_up()


async def abandon(client: Client, order: Order, *, replaces: bool = False) -> None:
    """Make an order that nobody wants any more invalid, as far as it is open (§7.5.2).

    Valid authorizations stay, for the next order. What is gone already is no error.

    Args:
        client: with the account of the order.
        order: as the CA told of it last.
        replaces: it is to replace a certificate, which no other order may do as long as this one
            is open (RFC 9773 §5). So one that is ready is ended at the price of an authorization.
    """
    if order.status is OrderStatus.PENDING:
        await _all(_deactivate(client, url, _PENDING) for url in order.authorizations)
    if order.status is OrderStatus.READY and replaces:
        await _all(_deactivate(client, url, _USABLE) for url in order.authorizations[:1])


def problems(order: Order, authorizations: Iterable[Authorization]) -> Mapping[str, Problem]:
    """Why an order is invalid: name -> problem, for the names that it failed for.

    What the CA doesn't tie to a name counts for all names.
    """
    found = {each.name: _why(each) for each in authorizations if each.status in _FAILED}
    for problem in order.error.subproblems if order.error else ():
        if problem.identifier is not None:
            found.setdefault(problem.identifier, _unnamed(problem))
    if found:
        return found
    why = order.error or Problem(NO_TYPE, "the order is invalid, and the CA does not say why")
    return {identifier.value: why for identifier in order.identifiers}


class _Run:
    """One order under way: what is presented for it, and what the caller was told."""

    def __init__(self, client: Client, solver: Solver, saved: Callable[[Order], None]) -> None:
        self._client = client
        self._solver = solver
        self._saved = saved
        self._told: Order | None = None
        self._presented = AsyncExitStack()
        self._looked_at: frozenset[str] = frozenset()
        self._fetched: asyncio.Task[None] | None = None

    async def to_certificate(self, order: Order, csr: bytes) -> bytes:
        """The diagram of RFC 8555 §7.1.6."""
        self._tell(order)
        while True:
            match order.status:
                case OrderStatus.PENDING:
                    later = await self._authorize(order)
                    order = await self._poll_while(_UNAUTHORIZED, order, later)
                case OrderStatus.READY:
                    await self.clean_up()
                    order = self._tell(await self._client.finalize(order, csr))
                    order = await self._poll_while(_UNISSUED, order)
                case OrderStatus.PROCESSING:
                    order = await self._poll_while(_UNISSUED, order)
                case OrderStatus.VALID:
                    return await self._download(order)
                case OrderStatus.INVALID:
                    raise OrderFailed(problems(order, await self._settled(order)))

    async def clean_up(self) -> None:
        """Take back what is presented; a second call finds nothing to do."""
        if self._fetched is not None:
            self._fetched.cancel()
            self._fetched = None
        await self._presented.aclose()

    # --- the steps --------------------------------------------------------------------------

    async def _authorize(self, order: Order) -> datetime | None:
        """Prove control of every name that needs it; when the CA says to come back.

        All challenges are presented before the CA hears of the first.
        """
        found = await self._authorizations(order.authorizations)
        undecided = [each for each in found if each.status is AuthorizationStatus.PENDING]
        challenges = [self._challenge(authorization) for authorization in undecided]
        tokens = [challenge.token or "" for challenge in challenges]
        for token in tokens:
            self._presented.push_async_callback(self._solver.clean_up, token)
            await self._solver.present(token, self._client.key.key_authorization(token))
        self._looked_at = frozenset(authorization.url for authorization in undecided)
        answers = await _all(
            self._client.respond(challenge)
            for challenge in challenges
            if challenge.status is ChallengeStatus.PENDING
        )
        self._fetched = asyncio.create_task(self._all_fetched(tokens)) if tokens else None
        moments = [answer.retry_after for answer in answers if answer.retry_after is not None]
        return max(moments, default=None)

    async def _all_fetched(self, tokens: Iterable[str]) -> None:
        for token in tokens:
            await self._solver.fetched(token)

    def _challenge(self, authorization: Authorization) -> Challenge:
        for challenge in authorization.challenges:
            if challenge.type == self._solver.challenge_type and challenge.token is not None:
                return challenge
        offered = ", ".join(challenge.type for challenge in authorization.challenges) or "none"
        raise NotOffered(
            f"{authorization.name}: the CA offers no {self._solver.challenge_type} challenge,"
            f" only {offered}"
        )

    async def _poll_while(
        self, statuses: frozenset[OrderStatus], order: Order, later: datetime | None = None
    ) -> Order:
        """Ask how the order stands until it is in none of these statuses.

        They include earlier ones than the order's own: a replica may be behind what was answered.
        """
        delays = poll_delays()
        later = later or order.retry_after
        end = self._client.now() + timedelta(seconds=LONGEST_POLL)
        while order.status in statuses:
            if max(later or end, self._client.now()) > end:
                raise Unfinished(order.status, later)
            await self._pause(next(delays), later)
            order = self._tell(await self._read(self._client.order, order.url))
            later = order.retry_after
        return order

    async def _download(self, order: Order) -> bytes:
        if order.certificate is None:
            raise UnexpectedAnswer("the order is valid, and there is no certificate")
        try:
            return (await self._read(self._client.download, order.certificate)).pem
        except Problem as problem:
            if problem.status not in _GONE:
                raise
            raise Gone(f"the CA has no certificate for its order: {problem}") from problem

    async def _settled(self, order: Order) -> list[Authorization]:
        """The authorizations of a failed order, when those that the CA looks at are decided.

        Given up on at once, the names that are good would lose the authorizations that the next
        order, without the bad ones, gets for nothing.
        """
        found = {each.url: each for each in await self._authorizations(order.authorizations)}
        for delay in SETTLE_DELAYS:
            undecided = [url for url in self._looked_at if _is_pending(found.get(url))]
            if not undecided:
                break
            await asyncio.sleep(delay)
            found |= {each.url: each for each in await self._authorizations(undecided)}
        return list(found.values())

    # --- what they are made of --------------------------------------------------------------

    def _tell(self, order: Order) -> Order:
        """Let the caller save what is new; when to come back is nothing to be saved."""
        lasting = replace(order, error=None, retry_after=None)
        if lasting != self._told:
            self._told = lasting
            self._saved(order)
        return order

    async def _authorizations(self, urls: Iterable[str]) -> list[Authorization]:
        return await _all(self._read(self._client.authorization, url) for url in urls)

    async def _pause(self, delay: float, later: datetime | None) -> None:
        """Wait as long as the CA says, else as long as it makes sense; once, until it has fetched.

        Only once: a CA looks from several places, and the first look tells little of the last.
        """
        if later is not None:
            seconds = (later - self._client.now()).total_seconds()
            await asyncio.sleep(max(seconds, SHORTEST_PAUSE))
            return
        if self._fetched is None:
            await asyncio.sleep(delay)
            return
        await asyncio.wait([self._fetched], timeout=delay)
        if self._fetched.done():
            fetched, self._fetched = self._fetched, None
            fetched.result()
            await asyncio.sleep(FETCHED_PAUSE)

    async def _read(self, ask: Callable[[str], Awaitable[_T]], url: str) -> _T:
        """Ask, and again where the CA doesn't know yet or can't say right now."""
        for delay in LAG_DELAYS:
            try:
                return await ask(url)
            except Problem as problem:
                wait = self._lag(problem, delay)
                if wait is None:
                    raise
            await asyncio.sleep(wait)
        return await ask(url)

    def _lag(self, problem: Problem, delay: float) -> float | None:
        """Seconds after which a refused read may be repeated; None: it is refused for good."""
        if problem.status != _NOT_FOUND and problem.status < _SERVER_ERROR:
            return None
        if problem.retry_after is None:
            return delay
        wait = (problem.retry_after - self._client.now()).total_seconds()
        return max(wait, delay) if wait <= LONGEST_LAG else None


async def _deactivate(client: Client, url: str, statuses: frozenset[AuthorizationStatus]) -> None:
    """Deactivate an authorization that is in one of these statuses."""
    try:
        authorization = await client.authorization(url)
        if authorization.status in statuses:
            await client.deactivate_authorization(url)
    except Problem as problem:
        # malformed: decided since it was asked for
        if problem.status not in _GONE and problem.type != "malformed":
            raise


async def _all(asked: Iterable[Awaitable[_T]]) -> list[_T]:
    """Every answer; where one fails, its error, when the others are there, too.

    A TaskGroup would cancel the others, and with them connections and nonces, while the CA acts
    on the requests all the same.
    """
    answers: list[_T] = []
    for answer in await asyncio.gather(*asked, return_exceptions=True):
        if isinstance(answer, BaseException):
            raise answer
        answers.append(answer)
    return answers


def _is_pending(authorization: Authorization | None) -> bool:
    return authorization is not None and authorization.status is AuthorizationStatus.PENDING


def _why(authorization: Authorization) -> Problem:
    for challenge in authorization.challenges:
        if challenge.error is not None:
            return challenge.error
    return Problem(NO_TYPE, f"the authorization is {authorization.status}")


def _unnamed(problem: Problem) -> Problem:
    """A subproblem whose identifier is said already."""
    return Problem(problem.type, problem.detail, status=problem.status, instance=problem.instance)
