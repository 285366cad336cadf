"""What wakes the agent: the wall clock, a read generated file, a new generation, the end of nginx.

What may live here: descriptors to be polled, and what it means that one of them can be read. With
all of them there is no wake-up without a reason. Old kernels and sandboxes lack some; there the
agent looks from time to time.
"""

from __future__ import annotations

import os
import select
import time

from nginx_acme import linux
from nginx_acme.master import exists

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

STARTED, SURELY, LOOK, DUE = REASONS = ("started", "surely", "look", "due")
"""Why there is a turn; of several the first one, which does what the others would.

`STARTED`: the agent has. `LOOK`: somebody has read the generated main file. `SURELY`: a process of
ours has made a generation from the user's files; a HUP may have come before its main file was
watched. `DUE`: the moment has come, or the clock was set.
"""

_WAKE, _GENERATED = b"wake", b"generated"
"""In the instance's folder: the file whose replacement wakes, the link whose replacement switches.

As `store.instances` and `generation` have them, which are too much for who stays for years.
"""

WITHOUT_TIMER = 900.0
"""Seconds between two looks at the clock where nothing tells that it was set."""
WITHOUT_PIDFD = 5.0
"""Seconds between two looks whether nginx is alive where nothing tells (before Linux 5.3)."""


class Alarms:
    """All of them, for an nginx that runs on `main` in the folder of its instance."""

    def __init__(self, nginx: int, main: str, folder: str) -> None:
        self.ended = False
        """Whether nginx has."""
        self._main = main
        self._inotify = _opened(linux.Inotify)
        self._timer = _opened(linux.WallClock)
        self._watched = -1
        if self._inotify is not None:
            self._inotify.watch(folder, linux.IN_MOVED_TO | linux.IN_ONLYDIR)
        self.follow(nginx)
        self._watch_main()

    def follow(self, nginx: int) -> bool:
        """Look at the end of this nginx from now on; whether it is alive."""
        self._pid = nginx
        try:
            self._nginx = os.pidfd_open(nginx)
        except OSError:
            self._nginx = -1
        self.ended = not exists(nginx)
        return not self.ended

    def wait(self, moment: float) -> set[str]:
        """Wait for one of them; which. `moment` is in seconds since the epoch."""
        left = max(moment - time.time(), 0.0)
        descriptors = []
        if self._timer is None:
            left = min(left, WITHOUT_TIMER)
        else:
            self._timer.set(moment)
            descriptors.append(self._timer.descriptor)
        why = self._polled(descriptors, left if self._timer is None else None)
        if time.time() >= moment or (self._timer is not None and self._timer.read()):
            why.add(DUE)
        return why

    def wait_for(self, descriptor: int, end: float) -> set[str]:
        """The same while a turn goes on, which is over when `descriptor` can be read.

        Nothing is due meanwhile. `end`: by the monotonic clock, at the latest.
        """
        return self._polled([descriptor], max(end - time.monotonic(), 0.0))

    def _polled(self, more: list[int], seconds: float | None) -> set[str]:
        poll = select.poll()
        for descriptor in more:
            poll.register(descriptor, select.POLLIN)
        if self._inotify is not None:
            poll.register(self._inotify.descriptor, select.POLLIN)
        if self._nginx >= 0:
            poll.register(self._nginx, select.POLLIN)
        else:
            seconds = WITHOUT_PIDFD if seconds is None else min(seconds, WITHOUT_PIDFD)
        ready = {found for found, _ in poll.poll(None if seconds is None else seconds * 1000)}
        if self._nginx in ready:
            os.close(self._nginx)
            self.ended = True
        elif self._nginx < 0:
            self.ended = not exists(self._pid)
        return self._happened()

    def _happened(self) -> set[str]:
        why: set[str] = set()
        for watched, mask, name in self._inotify.read() if self._inotify is not None else ():
            if name == _GENERATED:
                self._watch_main()
            elif name == _WAKE or mask & linux.IN_Q_OVERFLOW:
                why.add(SURELY)
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
        except OSError:  # gone; the next switch brings another one
            self._watched = -1
        if before not in {-1, self._watched}:
            self._inotify.forget(before)


def _opened(kind: Callable[[], T]) -> T | None:
    """None in a sandbox that has no such thing, or where the user has no more of them."""
    try:
        return kind()
    except OSError:
        return None
