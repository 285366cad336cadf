"""What a start or a reload leaves behind when nginx goes on without all of its certificates.

It stays until nothing is missing any more, nginx ends, or `LONGEST_STAY` is over. One such process
for an instance; a reload's new generation is seen by the one that is there.
"""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from nginx_acme import disk, generation
from nginx_acme.draft import logs_to_stderr
from nginx_acme.errors import NginxAcmeError, NginxRejected
from nginx_acme.launch import utc_now
from nginx_acme.log import Log
from nginx_acme.master import exists
from nginx_acme.renewal import Renewal

if TYPE_CHECKING:
    from datetime import datetime

    from nginx_acme.generation import Generation
    from nginx_acme.launch import Home
    from nginx_acme.master import Master
    from nginx_acme.work import Work

LONGEST_STAY = timedelta(days=1)
"""After that the next start, reload or timer goes on."""
AGAIN = timedelta(minutes=1)
"""After what should not have happened."""
START_WAIT = 60.0
"""Seconds for nginx to write its pid file after a start left us behind."""
DAEMON_WAIT = 2.0
"""Seconds for it after the process that it was started as has ended."""
LOCK_WAIT = 60.0
"""Seconds for the one that an earlier start left behind to end; a reload may keep it busy."""
_POLL = 0.05
_LOOK = 1.0


class LeftBehind:
    """The process, for the nginx whose own `starter` is or was."""

    def __init__(self, home: Home, work: Work, starter: int) -> None:
        self._home = home
        self._starter = starter
        self._log = _log(work)
        self._renewal = Renewal(home, self._log)

    def finish(self) -> None:
        """Go on until nothing is missing; one process for an instance."""
        master = self._started_master()
        end = time.monotonic() + LOCK_WAIT
        while master is not None and time.monotonic() < end:
            held = disk.try_lock(self._home.instance.agent_lock)
            if held is None:  # by one that is about to see that its nginx has ended
                master = self._after_a_look(master)
                continue
            with held:
                seen = self._stay(master)
            # A reload that saw the lock held left nobody behind.
            if self._generation() == seen:
                break
            master = self._renewal.master()

    def _stay(self, master: Master | None) -> Generation | None:
        """The generation for which there is nothing left to do, or nobody to do it for."""
        over, seen = utc_now() + LONGEST_STAY, self._generation()
        while master is not None and utc_now() < over:
            seen = self._generation()
            moment = self._pass()
            master = None if moment is None else self._wait(moment, master, seen)
        return seen

    def _pass(self) -> datetime | None:
        """Get what is due; when to go on, None where nothing is missing."""
        try:
            outcome = self._renewal.once()
        except NginxRejected as rejected:
            for line in rejected.lines:
                self._log.relay(line)
            return utc_now() + AGAIN
        except NginxAcmeError as error:
            self._log.error(str(error))
            return utc_now() + AGAIN
        return outcome.next if outcome is not None and outcome.missing else None

    def _wait(self, moment: datetime, master: Master, seen: Generation | None) -> Master | None:
        """By the wall clock, until a reload brings something new; None: nginx has ended."""
        there = self._after_a_look(master)
        while there is not None and utc_now() < moment and self._generation() == seen:
            there = self._after_a_look(there)
        return there

    def _after_a_look(self, master: Master) -> Master | None:
        """The master a moment later, by its new pid after a binary upgrade; None: it has ended."""
        time.sleep(_LOOK)
        return self._renewal.master() if exists(master.pid) else None

    def _started_master(self) -> Master | None:
        """The master, when it has written its pid file; None where it never does."""
        end = time.monotonic() + START_WAIT
        while (master := self._renewal.master()) is None and time.monotonic() < end:
            time.sleep(_POLL)
            if not exists(self._starter):  # a daemon leaves it so, a moment before
                end = min(end, time.monotonic() + DAEMON_WAIT)
        return master

    def _generation(self) -> Generation | None:
        return generation.current(self._home.instance.path)


def _log(work: Work) -> Log:
    """Everything with date and pid, where nginx says it."""
    if logs_to_stderr(work.error_log):
        return Log(sys.stderr, dated=True)
    return Log(None, error_log=work.error_log)
