"""How long a start waits for its certificates, by a clock that jumps."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from nginx_acme.issuing import GRACE, LAST_START, Punctual, in_time
from nginx_acme.orders.obtaining import TooLate
from nginx_acme.orders.ports import Outcome
from tests.acme.applicant import Answers
from tests.virtual_time import run, seconds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

WAIT = 15.0


def waited(work: Callable[[Punctual], Awaitable[None]]) -> tuple[bool, float]:
    """Whether the time was enough for some work, and how long it took."""

    async def main() -> tuple[bool, float]:
        punctual = Punctual(Answers(), WAIT)

        async def reconcile() -> Outcome:
            await work(punctual)
            return Outcome()

        return await in_time(reconcile(), punctual, WAIT), seconds()

    return run(main())


async def challenge(punctual: Punctual, begin: float, lasts: float) -> None:
    """A challenge that begins then and takes so long, and what comes after it."""
    await asyncio.sleep(begin)
    await punctual.present("token", "authorization")
    try:
        await asyncio.sleep(lasts)
    finally:
        await punctual.clean_up("token")
    await asyncio.sleep(60)


def test_enough() -> None:
    """What is done in time ends the wait."""
    assert waited(lambda _: asyncio.sleep(3)) == (True, 3)


def test_silent() -> None:
    """Nobody waits longer for a CA that hasn't looked at anything."""
    assert waited(lambda _: asyncio.sleep(100)) == (False, WAIT)


@pytest.mark.parametrize(
    ("begin", "lasts", "end"),
    [
        pytest.param(9, 3, WAIT, id="looked at before the end"),
        pytest.param(9, 12, 21, id="looked at when the time is over"),
        pytest.param(9, 100, WAIT + GRACE, id="never looked at"),
    ],
)
def test_grace(begin: float, lasts: float, end: float) -> None:
    """A challenge that has begun is waited for a little longer."""
    assert waited(lambda punctual: challenge(punctual, begin, lasts)) == (False, end)


def test_too_late() -> None:
    """In the last seconds no challenge begins, and what that was for stays undone."""

    async def work(punctual: Punctual) -> None:
        with pytest.raises(TooLate):
            await challenge(punctual, WAIT - LAST_START + 0.1, 0)

    assert waited(work) == (False, WAIT - LAST_START + 0.1)


def test_fails() -> None:
    """What goes wrong comes out."""

    async def work(_: Punctual) -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        waited(work)
