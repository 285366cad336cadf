"""What is shown while certificates are on their way.

    Lines              a message for each event: for logs, and for whoever reads them
    display.Display    for a terminal: a line for each certificate under way, below the messages
                       about what is over

Only events come in here; what they mean, and what is remembered of them, is told elsewhere.

The display is imported for a terminal only: a start in a container has no use for rich.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self, TextIO


class Progress(Protocol):
    """Told by name of a certificate what happens to it."""

    @property
    def stream(self) -> TextIO | None:
        """Where others must write while this is shown, so that both can be read."""

    def started(self, name: str, text: str) -> None:
        """Work on it begins; `text` says why."""

    def step(self, name: str, text: str) -> None:
        """It has come as far as `text` says."""

    def done(self, name: str, text: str) -> None:
        """It is over, and well."""

    def failed(self, name: str, text: str) -> None:
        """It is over, and why."""

    def close(self) -> None:
        """Show no more; what was shown is gone and the cursor is there.

        May be called at any moment, in the handler of a signal, too, and more than once. What
        comes afterwards is still told.
        """

    def __enter__(self) -> Self:
        """Show it."""

    def __exit__(self, *_: object) -> None:
        """Close it."""


def progress_for(
    stream: TextIO | None,
    notice: Callable[[str], None],
    failure: Callable[[str], None] | None = None,
) -> Progress:
    """What suits whoever reads `stream`.

    Args:
        stream: stderr; None where there is none.
        notice: tells a message of what went as it should.
        failure: the same for what did not.
    """
    failure = failure or notice
    if stream is None or not stream.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return Lines(stream, notice, failure)
    from nginx_acme.progress.display import Display  # noqa: PLC0415 - it imports rich

    return Display(stream, notice, failure)


class Lines:
    """A message for each event."""

    def __init__(
        self,
        stream: TextIO | None,
        notice: Callable[[str], None],
        failure: Callable[[str], None],
    ) -> None:
        self.stream = stream
        self._notice = notice
        self._failure = failure

    def started(self, name: str, text: str) -> None:
        """Tell it."""
        self._notice(f"{name}: {text}")

    def step(self, name: str, text: str) -> None:
        """Tell it."""
        self._notice(f"{name}: {text}")

    def done(self, name: str, text: str) -> None:
        """Tell it."""
        self._notice(f"{name}: {text}")

    def failed(self, name: str, text: str) -> None:
        """Tell it."""
        self._failure(f"{name}: {text}")

    def close(self) -> None:
        """Nothing is shown."""

    def __enter__(self) -> Self:
        """Nothing is shown."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is shown."""
