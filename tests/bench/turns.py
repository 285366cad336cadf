"""Things that are compared are done in turn, and told apart only by what they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def in_turn(rounds: int, **measured: Callable[[], T]) -> dict[str, list[T]]:
    """What each gave, round by round.

    Every second round goes backwards: who comes first may find the machine another than who comes
    last.
    """
    found: dict[str, list[T]] = {name: [] for name in measured}
    for number in range(rounds):
        for name in reversed(measured) if number % 2 else measured:
            found[name].append(measured[name]())
    return found
