"""Work that blocks, beside an event loop.

What may live here: the one way to write to disk while challenges are answered.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


async def to_the_end(work: Callable[[], T]) -> T:
    """Do it in a thread. Whoever is cancelled meanwhile waits for it all the same.

    Nothing stops a thread, and the lock for what it writes must be held as long as it writes.
    """
    writing = asyncio.create_task(asyncio.to_thread(work))
    try:
        return await asyncio.shield(writing)
    except asyncio.CancelledError:
        await asyncio.gather(writing, return_exceptions=True)
        raise
