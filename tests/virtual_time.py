"""A clock that jumps: what waits for an hour is over at once, and exactly an hour has passed.

For coroutines that wait by asyncio alone and reach nobody (a `FakeCa` is nobody). With real
connections under way the clock would jump past every timeout. What is to be done in a thread is
done at once, and takes no time.
"""

from __future__ import annotations

import asyncio
import selectors
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Executor

T = TypeVar("T")

START = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)
"""What time it is when `run` begins."""


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine as asyncio.run does, in no time."""
    with asyncio.Runner(loop_factory=_JumpingLoop) as runner:
        return runner.run(main)


def now() -> datetime:
    """The time inside of `run`; outside it has not begun."""
    try:
        return START + timedelta(seconds=seconds())
    except RuntimeError:
        return START


def seconds() -> float:
    """Seconds since `run` began."""
    return asyncio.get_running_loop().time()


class _JumpingSelector(selectors.DefaultSelector):
    passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Nobody sends anything, so the wait is over when it begins."""
        if timeout is None:
            raise RuntimeError("everything waits, and nothing will ever happen")
        self.passed += max(timeout, 0)
        return super().select(0)


class _JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _JumpingSelector()
        super().__init__(self._clock)
        self._clock_resolution = 1e-6  # what a float still tells apart after ten years

    def time(self) -> float:
        """Seconds since the loop began, as far as anybody waited."""
        return self._clock.passed

    def run_in_executor(  # type: ignore[override] # there is no way to write *args: *Ts here
        self, _: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Done before this returns."""
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - whoever waits for it gets it
            done.set_exception(error)
        return done
