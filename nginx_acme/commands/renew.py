"""``nginx-acme renew [--force NAME]``: get what is due, and let the running nginx take it up.

Works from the generation that nginx runs, never from the user's files: only a reload of the
operator's activates edits. A no-op where nothing is due, so a timer may call it as often as it
likes. Where nginx doesn't run, challenges are answered by a server of our own.

With `--finish`, as a start leaves it behind, it stays until nothing is missing any more, nginx
ends, or `LONGEST_STAY` is over. One such process for an instance; a reload's new generation is
seen by the one that is there.
"""

from __future__ import annotations

import argparse
import errno
import sys
import time
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from nginx_acme import disk, generation
from nginx_acme.challenges.http01 import Responder
from nginx_acme.commands import parser_for
from nginx_acme.draft import logs_to_stderr
from nginx_acme.errors import NginxAcmeError, NginxRejected, StateError
from nginx_acme.issuing import Scene, through_nginx, with_responder
from nginx_acme.launch import utc_now
from nginx_acme.loaded import behind, on_disk
from nginx_acme.log import Log
from nginx_acme.places import answer_of
from nginx_acme.policy import DAILY
from nginx_acme.reload import find_master, listening, reload
from nginx_acme.running import answer_anew, current_work, find_home, test_current
from nginx_acme.store import Attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from nginx_acme.generation import Generation
    from nginx_acme.issuance import Wanted
    from nginx_acme.launch import Home, Launch
    from nginx_acme.reconcile import Outcome
    from nginx_acme.reload import Master
    from nginx_acme.store import AccountFolder
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
FIRST_RELOAD = 4.0
"""Seconds after which what has come is taken up, though others are still on their way."""
BETWEEN_RELOADS = 600.0
"""Seconds to the next of these; at the end of the run there is one in any case."""
RELOAD_WAIT = 30.0
"""Seconds for nginx to take up a reload."""
_POLL = 0.05
_LOOK = 1.0


def run(launch: Launch) -> int:
    """Do it; the exit code is 1 where something failed, 0 where nothing had to be done."""
    parser = parser_for(
        "renew",
        "Get what is due, and let the running nginx take it up. Does nothing where nothing is due.",
    )
    parser.add_argument(
        "--force",
        metavar="NAME",
        action="append",
        default=[],
        help="ask for the certificate with this name now, whatever the time and the failures",
    )
    parser.add_argument("--finish", metavar="STATE", help=argparse.SUPPRESS)
    parser.add_argument("--starter", metavar="PID", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args(launch.command.rest)
    home = find_home(launch, given.finish)
    work = current_work(home)
    if work is None:
        raise NginxAcmeError(f'"{home.instance.path}" has no generation yet, start nginx first')
    if given.finish:
        return _Finisher(home, _detached_log(work), given.starter).finish()
    launch.log.add_file(work.error_log)
    outcome = Renewal(home, launch.log).once(_known(given.force, work))
    return 1 if outcome is None or outcome.failed else 0


def _known(force: Iterable[str], work: Work) -> frozenset[str]:
    """The names as certificates have them; NginxAcmeError for one that none has."""
    names = frozenset(name.lower().rstrip(".") for name in force)
    unknown = names - {name.value for one in work.certificates for name in one.names}
    if unknown:
        raise NginxAcmeError(f"no certificate has the name {', '.join(sorted(unknown))}")
    return names


def _detached_log(work: Work) -> Log:
    """Everything with date and pid, where nginx says it."""
    if logs_to_stderr(work.error_log):
        return Log(sys.stderr, dated=True)
    return Log(None, error_log=work.error_log)


class Renewal:
    """One instance's renewals."""

    def __init__(self, home: Home, log: Log) -> None:
        self._home = home
        self._log = log
        self._scene = Scene(home.store, log, home.launch.signals)

    def once(self, force: frozenset[str] = frozenset()) -> Outcome | None:
        """Get what is due, reload what was got; None: nginx ended meanwhile.

        Raises:
            NginxAcmeError: nobody could be asked, or nginx doesn't take what was got.
        """
        store, home = self._home.store, self._home
        store.open_for_writing()
        with store.lock_generation(home.instance, wait=RELOAD_WAIT):  # of a reload under way
            work, master = self.work(), self.master()
        responder = None if master else self._responder(work)
        if responder is not None:
            with responder:
                return with_responder(work.certificates, self._scene, responder, force)
        held = listening(master.pid) if master is not None else frozenset()
        watch = _Watch(master, partial(self._activate_early, work))
        outcome = through_nginx(
            work.certificates,
            self._scene,
            # Where another program listens, its answer to a probe would be no proof.
            [listen for listen in work.answering if listen.address in held],
            answer_for=self._answer_for,
            look=watch.look,
            force=force,
        )
        is_behind = master is not None and bool(self._behind(work))
        if outcome is not None and (is_behind or outcome.installed[watch.activated :]):
            self._activate(work, outcome.installed[watch.activated :])
        return outcome

    def _activate_early(self, work: Work, installed: Sequence[Wanted]) -> bool:
        """As `_activate`, while others are on their way; what goes wrong is told at the end."""
        try:
            self._activate(work, installed)
        except NginxAcmeError:
            return False
        return True

    def work(self) -> Work:
        """What the current generation leaves to do."""
        work = current_work(self._home)
        if work is None:
            instance = self._home.instance.path
            raise StateError(f'"{instance}" has no generation any more', instance)
        return work

    def master(self) -> Master | None:
        """The nginx that runs this instance's generation."""
        master = find_master(self.work().pid_file)
        return master if master is not None and master.uses(self._home.generated_main) else None

    def _responder(self, work: Work) -> Responder | None:
        """A server for challenges while nginx doesn't run; None where somebody is there already."""
        responder, refused = Responder.bind(x for x in work.answering if not x.proxy_protocol)
        if responder.addresses and all(error.errno != errno.EADDRINUSE for _, error in refused):
            responder.start()
            return responder
        responder.close()
        return None

    def _answer_for(self, old: AccountFolder, new: AccountFolder) -> None:
        """Let nginx answer for a new account."""
        store, home = self._home.store, self._home
        with store.lock_generation(home.instance):
            answer_anew(home, answer_of(store, old), answer_of(store, new))
            self._reload(self.work())

    def _activate(self, work: Work, installed: Sequence[Wanted]) -> None:
        """Let nginx load the new files, and those that another process got."""
        new = [*(wanted.folder.label for wanted in installed), *self._behind(work)]
        labels = ", ".join(dict.fromkeys(new))
        with self._home.store.lock_generation(self._home.instance):
            self._must_be_accepted(work, installed)
            if self._reload(work):
                self._log.notice(f"nginx reloaded for {labels}")
            else:
                self._log.notice(f"nginx is not running, it takes {labels} when it starts")

    def _reload(self, work: Work) -> bool:
        """Whether nginx runs, and now with what is there."""
        master = self.master()
        if master is None:
            return False
        seen = on_disk(work.certificates, self._home.store, utc_now())
        reload(master, RELOAD_WAIT, error_log=work.error_log)
        self._home.instance.note_loaded(seen)
        return True

    def _behind(self, work: Work) -> list[str]:
        """What nginx hasn't read yet, whoever got it."""
        home = self._home
        return behind(home.instance, work.certificates, home.store, utc_now())

    def _must_be_accepted(self, work: Work, installed: Sequence[Wanted]) -> None:
        """Raise NginxRejected where nginx refuses its configuration.

        If that is for a new certificate the one before comes back, and the next attempt is
        tomorrow's. If it isn't (files of the user's change under the generation) the new ones
        stay for when it is put right: given up they would be asked for again and again.
        """
        said = test_current(self._home, work)
        if said is None or said.ok:
            return
        new = [(it, it.folder.read(it.key_type), it.folder.issued(it.key_type)) for it in installed]
        for wanted in installed:
            wanted.folder.put_back(wanted.key_type)
        again, now = test_current(self._home, work), utc_now()
        for wanted, bundle, issued in new:
            if again is None or again.ok:
                attempt = Attempt(1, now + DAILY, "nginx refuses it: " + "; ".join(said.lines), now)
                wanted.folder.record(wanted.key_type, attempt)
            elif bundle is not None and issued is not None:
                whose = issued.directory_url, issued.account
                wanted.folder.install(wanted.key_type, bundle, *whose)
        raise NginxRejected(said.lines)


class _Watch:
    """Looks at a run while it lasts: nginx may end, and what has come may be served already.

    One that takes its time doesn't hold up the others; but each reload costs nginx its workers.
    """

    def __init__(self, master: Master | None, activate: Callable[[Sequence[Wanted]], bool]) -> None:
        self._master = master
        self._activate = activate
        self.activated = 0
        """How many of what has come nginx has taken up."""
        self._next = time.monotonic() + FIRST_RELOAD

    def look(self, outcome: Outcome) -> bool:
        """Whether to go on; what has come is taken up, if it is time."""
        if self._master is None:
            return True
        come = tuple(outcome.installed)
        if len(come) > self.activated and time.monotonic() >= self._next:
            if self._activate(come[self.activated :]):
                self.activated = len(come)
            self._next = time.monotonic() + BETWEEN_RELOADS
        return _exists(self._master.pid)


class _Finisher:
    """What a start or a reload leaves behind, for the nginx whose process `starter` is or was."""

    def __init__(self, home: Home, log: Log, starter: int) -> None:
        self._home = home
        self._log = log
        self._starter = starter
        self._renewal = Renewal(home, log)

    def finish(self) -> int:
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
        return 0

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
        return self._renewal.master() if _exists(master.pid) else None

    def _started_master(self) -> Master | None:
        """The master, when it has written its pid file; None where it never does."""
        end = time.monotonic() + START_WAIT
        while (master := self._renewal.master()) is None and time.monotonic() < end:
            time.sleep(_POLL)
            if not _exists(self._starter):  # a daemon leaves it so, a moment before
                end = min(end, time.monotonic() + DAEMON_WAIT)
        return master

    def _generation(self) -> Generation | None:
        return generation.current(self._home.instance.path)


def _exists(pid: int) -> bool:
    """Whether a process lives; one that has ended and isn't collected has no command line."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return bool(file.read(1))
    except OSError:
        return False
