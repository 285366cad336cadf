"""One run of renewals: what is due is got, or what another node has got, and nginx takes it up.

Begun and ended by `rounds`, which knows that there is anything to do.

From the generation that nginx runs, never from the user's files: only a reload of the operator's
activates edits. Where nginx doesn't run, challenges are answered by a server of our own.
"""

from __future__ import annotations

import errno
import time
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

from nginx_acme import locks
from nginx_acme.account import find_account
from nginx_acme.answering import answer_also, answer_as, answer_instead
from nginx_acme.challenges.http01 import Responder
from nginx_acme.errors import ConfigError, NginxAcmeError, NginxRejected
from nginx_acme.launch import utc_now
from nginx_acme.loaded import behind, reload_and_note
from nginx_acme.master import exists
from nginx_acme.orders.ports import Outcome
from nginx_acme.places import answer_of, answers_known, answers_of, stand_in
from nginx_acme.policy import DAILY
from nginx_acme.reload import BETWEEN_RELOADS
from nginx_acme.running import running_master, test_current, wanted_since
from nginx_acme.sockets import listening
from nginx_acme.standing import standings
from nginx_acme.store import Attempt
from nginx_acme.taking import accounts, next_look, take

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from nginx_acme.generate import Answer
    from nginx_acme.launch import Home
    from nginx_acme.log import Log
    from nginx_acme.master import Master
    from nginx_acme.orders.issuance import Wanted
    from nginx_acme.standing import Standing
    from nginx_acme.store import AccountFolder, Identity
    from nginx_acme.work import Work

FIRST_RELOAD = 4.0
"""Seconds after which what has come is taken up, though others are still on their way.

The next of these is after `BETWEEN_RELOADS`; at the end of the run there is one in any case.
"""


class Renewal:
    """One instance's renewals; its store is open for writing."""

    def __init__(self, home: Home, log: Log) -> None:
        self._home = home
        self._log = log

    def get(
        self,
        work: Work,
        master: Master | None,
        found: Sequence[Standing],
        force: frozenset[Identity],
    ) -> Outcome | None:
        """Get what is due and reload what was got; None: nginx ended meanwhile.

        Args:
            work: of the generation that nginx runs.
            master: the nginx that does.
            found: how the certificates stood a moment ago.
            force: those that are asked for in any case.

        Raises:
            NginxAcmeError: nobody could be asked, or nginx doesn't take what was got.
        """
        from nginx_acme.issuing import Scene, through_nginx  # noqa: PLC0415 - `take` asks nobody

        due = bool(force) or any(one.to_ask for one in found)
        if master is None and work.answering and due:
            return self._without_nginx(work, force)
        if due:
            self._answer_for_all(work)
        held = listening(master.pid) if master is not None else frozenset()
        missing = frozenset(one.label for one in found if not one.usable)
        watch = _Watch(master, missing, partial(self._activate_early, work))
        outcome = through_nginx(
            work.certificates,
            Scene(self._home.store, self._log, self._home.launch.signals),
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

    def take(self, work: Work) -> Outcome:
        """What another node has got, and whose challenges it wants answered.

        Raises:
            NginxAcmeError: it can't be read, or nginx doesn't take what was got.
        """
        home, outcome, now = self._home, Outcome(), utc_now()
        if home.source is not None:
            outcome.installed += take(work.certificates, home.source, home.store, self._log, now)
        if outcome.installed or self._behind(work):
            self._activate(work, outcome.installed)
        if home.source is not None:
            known = accounts(home, home.source, work.issuers)
            answer_as(home, answers_known(work.certificates, home.source, known))
        found = standings(work.certificates, home.store, now)
        outcome.missing += [one.label for one in found if not one.usable]
        outcome.look_at(next_look(wanted_since(home), now, missing=bool(outcome.missing)))
        return outcome

    def _activate_early(self, work: Work, installed: Sequence[Wanted]) -> bool:
        """As `_activate`, while others are on their way; what goes wrong is told at the end."""
        try:
            self._activate(work, installed)
        except NginxAcmeError:
            return False
        return True

    def _without_nginx(self, work: Work, force: frozenset[Identity]) -> Outcome:
        """The same with a server of our own."""
        from nginx_acme.issuing import Scene, with_responder  # noqa: PLC0415 - as above

        scene = Scene(self._home.store, self._log, self._home.launch.signals)
        with in_place_of_nginx(self._home, work) as responder:
            return with_responder(work.certificates, scene, responder, force)

    def _answer_for_all(self, work: Work) -> None:
        """Let nginx answer for accounts that another instance of this store has changed."""
        store = self._home.store
        found: list[Answer] = []
        for issuer in work.issuers:
            # A key of the operator's that is missing is said with what it is missing for.
            with suppress(ConfigError):
                account = None if issuer.local else find_account(store, issuer)
                found += [] if account is None else answers_of(store, account)
        if found:
            answer_also(self._home, found)

    def _answer_for(self, old: AccountFolder, new: AccountFolder) -> None:
        """Let nginx answer for a new account."""
        store = self._home.store
        answer_instead(self._home, answer_of(store, old), answer_of(store, new))

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
        master = running_master(self._home)
        if master is None:
            return False
        reload_and_note(self._home, master, work)
        return True

    def _behind(self, work: Work) -> list[str]:
        """What nginx hasn't read yet, whoever got it."""
        home = self._home
        return behind(home.instance, standings(work.certificates, home.store, utc_now()))

    def _must_be_accepted(self, work: Work, installed: Sequence[Wanted]) -> None:
        """Raise NginxRejected where nginx refuses its configuration.

        If that is for a new certificate the one before comes back, and the next attempt is
        tomorrow's. If it isn't (files of the user's change under the generation) the new ones
        stay for when it is put right: given up they would be asked for again and again.
        """
        said = test_current(self._home, work)
        if said is not None and not said.ok and self._is_filled_in(work):
            said = test_current(self._home, work)
        if said is None or said.ok:
            return
        new = [(it, it.folder.read(it.key_type), it.folder.issued(it.key_type)) for it in installed]
        for wanted in installed:
            wanted.folder.put_back(wanted.key_type)
        again, now = test_current(self._home, work), utc_now()
        for wanted, bundle, issued in new:
            if again is None or again.ok:
                words = "nginx refuses it: " + "; ".join(said.messages)
                attempt = Attempt(1, now + DAILY, words, now)
                wanted.folder.record(wanted.key_type, attempt)
            elif bundle is not None and issued is not None:
                whose = issued.directory_url, issued.account
                attempt = wanted.folder.attempt(wanted.key_type)
                wanted.folder.install(wanted.key_type, bundle, *whose, attempt=attempt)
        raise NginxRejected(said.messages)

    def _is_filled_in(self, work: Work) -> bool:
        """Whether a file was missing or damaged, and now there is what is nearest to it.

        Only where nginx wouldn't load anything otherwise: as long as it isn't told to, it has the
        right one in memory.
        """
        store, filled = self._home.store, []
        for one in standings(work.certificates, store, now := utc_now()):
            if one.shown is None and one.folder is not None:
                stand_in(store, one.folder, one.key_type, now)
                filled.append(one.label)
        for label in filled:
            self._log.error(f"{label}: another certificate is served in place of what is damaged")
        return bool(filled)


@contextmanager
def in_place_of_nginx(home: Home, work: Work) -> Iterator[Responder]:
    """A server of our own that answers challenges, and which nginx doesn't meet when it is started.

    Raises:
        NginxAcmeError: it is being started, or another program is where it would listen.
    """
    held = locks.try_lock(home.instance.start_lock)
    if held is None:
        raise NginxAcmeError("nginx is being started; what is due is got when it runs")
    with held:
        responder, refused = Responder.bind(x for x in work.answering if not x.proxy_protocol)
        with responder:
            for address, error in refused:
                if error.errno == errno.EADDRINUSE:
                    raise NginxAcmeError(f"nginx does not run, and another program has {address}")
            responder.start()
            yield responder


class _Watch:
    """Looks at a run while it lasts: nginx may end, and what was missing may be served already.

    One that takes its time doesn't hold up the others; but each reload costs nginx its workers. So
    what only renews another one waits for the end of the run.
    """

    def __init__(
        self,
        master: Master | None,
        missing: frozenset[str],
        activate: Callable[[Sequence[Wanted]], bool],
    ) -> None:
        self._master = master
        self._missing = missing
        self._activate = activate
        self.activated = 0
        """How many of what has come nginx has taken up."""
        self._next = time.monotonic() + FIRST_RELOAD

    def look(self, outcome: Outcome) -> bool:
        """Whether to go on; what has come is taken up, if it is time."""
        if self._master is None:
            return True
        come = tuple(outcome.installed)
        urgent = any(it.folder.label in self._missing for it in come[self.activated :])
        if urgent and time.monotonic() >= self._next:
            if self._activate(come[self.activated :]):
                self.activated = len(come)
            self._next = time.monotonic() + BETWEEN_RELOADS
        return exists(self._master.pid)
