"""``nginx-acme renew [--force NAME]``: get what is due, and let the running nginx take it up.

Works from the generation that nginx runs, never from the user's files: only a reload of the
operator's activates edits. A no-op where nothing is due, so a timer may call it as often as it
likes. With `--finish`, as a start leaves it behind, it stays until nothing is missing any more,
nginx ends, or `LONGEST_STAY` is over.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from nginx_acme import disk
from nginx_acme.errors import NginxAcmeError, NginxRejected, StateError
from nginx_acme.issuing import Scene, through_nginx
from nginx_acme.launch import current_work, generated_main, test_current, understand, utc_now
from nginx_acme.log import Log
from nginx_acme.progress import progress_for
from nginx_acme.reload import find_master, reload

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from nginx_acme.issuance import Wanted
    from nginx_acme.launch import Launch, Understood
    from nginx_acme.reconcile import Outcome
    from nginx_acme.reload import Master
    from nginx_acme.work import Work

LONGEST_STAY = timedelta(days=1)
"""After that the next start, reload or timer goes on."""
START_WAIT = 60.0
"""Seconds for nginx to write its pid file after a start left us behind."""
RELOAD_WAIT = 30.0
"""Seconds for nginx to take up a reload."""
_POLL = 0.05


def run(launch: Launch) -> int:
    """Do it; the exit code is 1 where something failed, 0 where nothing had to be done."""
    parser = argparse.ArgumentParser("nginx-acme renew", description=__doc__)
    parser.add_argument(
        "--force",
        metavar="NAME",
        action="append",
        default=[],
        help="ask for the certificate with this name now, whatever the time and the failures",
    )
    parser.add_argument("--finish", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(launch.command.rest)
    understood = understand(launch, always=True)
    if understood is None:
        raise NginxAcmeError(f"{launch.main} can't be read, nginx -t says why")
    understood.store.open_for_writing()
    work = current_work(understood)
    if work is None:
        raise NginxAcmeError("there is no generation yet, start nginx first")
    renewal = Renewal(understood, work, _log(launch, work, detached=given.finish))
    if given.finish:
        return renewal.finish()
    unknown = set(given.force) - {n.value for c in work.certificates for n in c.names}
    if unknown:
        raise NginxAcmeError(f"no certificate has the name {', '.join(sorted(unknown))}")
    outcome = renewal.once(frozenset(given.force))
    return 1 if outcome.failed else 0


def _log(launch: Launch, work: Work, *, detached: bool) -> Log:
    """A detached process says everything with date and pid, where nginx says it."""
    if not detached:
        return launch.log
    return Log(sys.stderr, error_log=work.error_log, dated=True)


class Renewal:
    """One instance's renewals, as long as this process lives."""

    def __init__(self, understood: Understood, work: Work, log: Log) -> None:
        self._understood = understood
        self._work = work
        self._log = log

    def once(self, force: frozenset[str] = frozenset()) -> Outcome:
        """Get what is due, reload what was got."""
        with progress_for(sys.stderr, self._log.notice) as progress:
            outcome = asyncio.run(
                through_nginx(
                    self._work.certificates,
                    Scene(self._understood.store, self._log, progress),
                    self._work.answering,
                    force,
                )
            )
        if outcome.new_accounts:
            self._log.error(
                "reload nginx to let it answer for the new account of"
                f" {', '.join(outcome.new_accounts)}"
            )
        if outcome.installed:
            self._activate(outcome.installed)
        return outcome

    def finish(self) -> int:
        """Go on until nothing is missing; one process for an instance."""
        held = disk.try_lock(self._understood.instance.agent_lock)
        if held is None:
            return 0
        with held:
            master = self._started_master()
            over = utc_now() + LONGEST_STAY
            while master is not None and _lives(master):
                outcome = self.once()
                if not outcome.missing or outcome.next is None or outcome.next > over:
                    break
                self._sleep_until(outcome.next, master)
        return 0

    def _started_master(self) -> Master | None:
        end = time.monotonic() + START_WAIT
        while time.monotonic() < end:
            master = self._master()
            if master is not None:
                return master
            time.sleep(_POLL)
        return None

    def _master(self) -> Master | None:
        master = find_master(self._work.pid_file)
        main = generated_main(self._understood)
        return master if master is not None and master.uses(main) else None

    def _sleep_until(self, moment: datetime, master: Master) -> None:
        """By the wall clock, and no longer than nginx lives."""
        while utc_now() < moment and _lives(master):
            time.sleep(min(5.0, max(0.1, (moment - utc_now()).total_seconds())))

    def _activate(self, installed: Sequence[Wanted]) -> None:
        """Let nginx load the new files; the old ones come back if it refuses them."""
        master = self._master()
        if master is None:
            self._log.notice("nginx is not running, it takes the certificates when it starts")
            return
        said = test_current(self._understood)
        if said is not None and not said.ok:
            for wanted in installed:
                with suppress(StateError):
                    wanted.folder.put_back(wanted.key_type)
            raise NginxRejected(said.lines)
        reload(master, RELOAD_WAIT, error_log=self._work.error_log or "stderr")
        self._log.notice(f"nginx reloaded for {', '.join(w.folder.label for w in installed)}")


def _lives(master: Master) -> bool:
    return os.path.exists(f"/proc/{master.pid}")
