"""The files and folders that a configuration is read from, each looked at once while that is done.

What is seen of a file is its state (`manifest`). Of one that is read it is the state of what was
opened, before it was read: what changes while it is read looks changed to the next one, never the
other way round, whatever its path leads to meanwhile. So it serves both who asks later whether
anything has changed and who keeps what was read (`kept`). A state is not trusted

- of a file that changed just before: it may change again within the same tick of the clock that its
  times come from, and look the same. ctime says so; mtime can be set to anything;
- of one whose ctime is its mtime in whole seconds: it comes from an image, and what is in the next
  one may have the same;
- on a network file system, where we may be shown the times of a minute ago: nginx opens the file
  and gets what is there now.
"""

from __future__ import annotations

import stat
import time
from typing import TYPE_CHECKING

from nginx_acme import volumes
from nginx_acme.manifest import ABSENT, Sources, state_by, state_of_folder
from nginx_acme.nginx.files import read_with_status, status_of

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable

_SECOND = 1_000_000_000
_FINE_TICK = 20_000_000  # nanoseconds; the kernel's tick, twice
_COARSE_TICK = 2 * _SECOND  # FAT's, the coarsest there is


def is_settled(status: os.stat_result, now: int) -> bool:
    """Whether another content would have another state, `now` being just before the look, in ns."""
    fine = status.st_ctime_ns % _SECOND
    if not fine and status.st_ctime_ns == status.st_mtime_ns:
        return False
    return status.st_ctime_ns <= now - (_FINE_TICK if fine else _COARSE_TICK)


class Seen:
    """Reads files, looks at files and folders, and knows what they were then.

    Args:
        read: the content of a file, and its status before that.
        look: the status of a file or folder.
        is_local: whether nobody but this kernel writes to the file system that a path is on.
        now: nanoseconds since the epoch.
    """

    def __init__(
        self,
        read: Callable[[str], tuple[bytes, os.stat_result]] = read_with_status,
        look: Callable[[str], os.stat_result] = status_of,
        is_local: Callable[[str], bool] = volumes.is_local,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._read = read
        self._look = look
        self._is_local = is_local
        self._now = now
        self._states: dict[str, str] = {}
        self._more: dict[str, str] = {}
        self._unsure: set[str] = set()
        self._local: dict[int, bool] = {}
        """By device."""

    @property
    def sources(self) -> Sources:
        """All that was seen so far."""
        return Sources(dict(self._states), dict(self._more), settled=not self._unsure)

    def sure(self, paths: Iterable[str]) -> dict[str, str]:
        """The states of those of these files that have no other content as long as they have them."""
        return {path: self._states[path] for path in paths if path not in self._unsure}

    def read(self, path: str) -> bytes:
        """The content of a file of the configuration.

        Raises:
            OSError: it can't be read, as nginx is told as well.
        """
        begun = self._now()
        content, status = self._read(path)
        self._states[path] = self._judged(path, status, begun)
        return content

    def note(self, path: str) -> str:
        """The state of a file or folder of the configuration; the first look counts.

        Of a folder before it is listed, of a file before it is known whether it has to be read.
        """
        if path not in self._states:
            self._states[path] = self._looked_at(path)
        return self._states[path]

    def note_more(self, path: str) -> None:
        """Look at something else that a generation depends on, in the same way."""
        if path not in self._states and path not in self._more:
            self._more[path] = self._looked_at(path)

    def _looked_at(self, path: str) -> str:
        begun = self._now()
        try:
            status = self._look(path)
        except OSError:
            return ABSENT
        return self._judged(path, status, begun)

    def _judged(self, path: str, status: os.stat_result, begun: int) -> str:
        settled = is_settled(status, begun)
        if stat.S_ISDIR(status.st_mode):
            found = state_of_folder(path, status if settled else None)
            settled = True
        else:
            found = state_by(status)
        if status.st_dev not in self._local:
            self._local[status.st_dev] = self._is_local(path)
        if settled and self._local[status.st_dev]:
            self._unsure.discard(path)
        else:
            self._unsure.add(path)
        return found
