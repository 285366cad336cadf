"""What wakes the agent: the wall clock, a read generated file, a new generation, the end of nginx.

What may live here: descriptors to be polled, and what it means that one of them can be read. With
all of them there is no wake-up without a reason. Old kernels and sandboxes lack some; there the
agent looks from time to time.
"""

from __future__ import annotations

import os
import select
import time

from nginx_acme.agent import linux
from nginx_acme.master import exists

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import TypeVar

    T = TypeVar("T")

STARTED, SURELY, LOOK, DUE = REASONS = ("started", "surely", "look", "due")
"""Why there is a turn.

The user's files are looked at because somebody has read the generated main file (`LOOK`), or may
have done so before it was watched; or a HUP of somebody else's came with one of ours, or may have
become one with it (`SURELY`, which needs no other evidence). What is due is got when the agent has
started (`STARTED`), and when the moment has come, the clock was set or a generation is new (`DUE`).
"""

_WAKE, _LOOK, _GENERATED = b"wake", b"look", b"generated"
"""In the instance's folder: the files whose replacement wakes, the link whose replacement switches.

As `store.instances` and `generation` have them, which are too much for who stays for years.
"""

FAR = 86400.0
"""Seconds to a moment that doesn't matter; so is that of a clock which is set meanwhile."""
WITHOUT_ALARM = 900.0
"""Seconds between two looks where nothing tells that the clock was set, or what another one did."""
WITHOUT_PIDFD = 5.0
"""Seconds between two looks whether nginx is alive where nothing tells (before Linux 5.3)."""


class Alarms:
    """All of them, for an nginx that runs on `main` in the folder of its instance."""

    def __init__(self, nginx: int, main: str, folder: str) -> None:
        self.ended = False
        """Whether nginx has."""
        self.lost = False
        """Whether the folder of the instance was removed, with all that was in it."""
        self._main = main
        self._inotify = _opened(linux.Inotify)
        self._timer = _opened(linux.WallClock)
        self._watched = self._folder = -1
        self.deaf: OSError | None = None
        """Why a HUP isn't noticed at once; the agent looks from time to time then."""
        try:
            if self._inotify is not None:
                self._folder = self._inotify.watch(folder, linux.IN_MOVED_TO | linux.IN_ONLYDIR)
        except OSError as error:  # the user's watches are used up
            self.deaf = error
        self.follow(nginx)
        self._watch_main()

    def follow(self, nginx: int) -> bool:
        """Look at the end of this nginx from now on; whether it is alive."""
        self._pid, self._nginx, self.ended = nginx, -1, False
        try:
            self._nginx = os.pidfd_open(nginx)
        except ProcessLookupError:
            self.ended = True
        except (AttributeError, OSError):  # Linux before 5.3, or a Python that was made on one
            self.ended = not exists(nginx)
        return not self.ended

    def wait(self, moment: float | None, more: Mapping[int, float]) -> set[str]:
        """Wait for one of them; which.

        Args:
            moment: when something is due, in seconds since the epoch; None: nothing is.
            more: other descriptors that end the wait when they can be read, with the moments (by
                the monotonic clock) when they end it anyway.
        """
        poll = select.poll()
        for descriptor in (*more, *self._descriptors()):
            poll.register(descriptor, select.POLLIN)
        was_set = False
        if self._timer is not None:
            was_set = self._timer.set(time.time() + FAR if moment is None else moment)
        seconds = min(self._ends(moment, more), default=None)
        ready = {found for found, _ in poll.poll(None if seconds is None else seconds * 1000)}
        if self._nginx in ready:
            os.close(self._nginx)
            self.ended = True
        elif self._nginx < 0:
            self.ended = not exists(self._pid)
        was_set |= self._timer is not None and self._timer.read()
        why = self._happened()
        if moment is not None and (was_set or self._is_deaf or time.time() >= moment):
            why |= {DUE, LOOK} if self._is_deaf else {DUE}
        return why

    @property
    def _is_deaf(self) -> bool:
        return self._inotify is None or self.deaf is not None

    def _descriptors(self) -> Iterator[int]:
        if self._inotify is not None:
            yield self._inotify.descriptor
        if self._timer is not None:
            yield self._timer.descriptor
        if self._nginx >= 0:
            yield self._nginx

    def _ends(self, moment: float | None, more: Mapping[int, float]) -> Iterator[float]:
        """What ends the wait without a descriptor, in seconds from now."""
        for end in more.values():
            yield max(end - time.monotonic(), 0.0)
        if self._nginx < 0:
            yield WITHOUT_PIDFD
        if (self._timer is None or self._is_deaf) and moment is not None:
            yield min(max(moment - time.time(), 0.0), WITHOUT_ALARM)

    def _happened(self) -> set[str]:
        why: set[str] = set()
        for watched, mask, name in self._inotify.read() if self._inotify is not None else ():
            if watched == self._folder and mask & linux.IN_IGNORED:
                self.lost = True
            elif name == _GENERATED:
                self._watch_main()
                why.add(LOOK)
            elif name == _WAKE:
                why.add(DUE)
            elif name == _LOOK or mask & linux.IN_Q_OVERFLOW:
                why |= {SURELY, DUE}
            elif watched == self._watched and mask & linux.IN_OPEN:
                why.add(LOOK)
        return why

    def _watch_main(self) -> None:
        """Watch the main file of the current generation, and that of no other one."""
        if self._inotify is None:
            return
        before = self._watched
        try:
            self._watched = self._inotify.watch(self._main, linux.IN_OPEN)
            self.deaf = self.deaf if self._folder < 0 else None
        except FileNotFoundError:  # the next switch brings another one
            self._watched = -1
        except OSError as error:
            self._watched, self.deaf = -1, error
        if before not in {-1, self._watched}:
            self._inotify.forget(before)


def _opened(kind: Callable[[], T]) -> T | None:
    """None in a sandbox that has no such thing, or where the user has no more of them."""
    try:
        return kind()
    except OSError:
        return None
