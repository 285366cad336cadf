"""A rehearsal of renewals at an issuer's staging authority (``renew --dry-run``).

The whole way, with the account there, order, challenges through nginx as it runs, certificate and
all; only that the certificates are kept in a folder that goes away. So nothing is installed, and
no attempt is noted. The account is kept as any other: who rehearses often registers once.

nginx doesn't know that account. It gets a generation that answers for it, too, and the one before
it back in the end. To let every generation answer for it spares both reloads; but then what nginx
runs in earnest would depend on whether somebody has rehearsed.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from nginx_acme.account import make_account
from nginx_acme.answering import answer_also
from nginx_acme.issuing import Scene, through_nginx, with_responder
from nginx_acme.launch import utc_now
from nginx_acme.master import exists
from nginx_acme.places import answers_of
from nginx_acme.reload import RELOAD_WAIT
from nginx_acme.renewal import in_place_of_nginx
from nginx_acme.running import needed_work, running_master
from nginx_acme.sockets import listening
from nginx_acme.store import Identity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nginx_acme.launch import Home
    from nginx_acme.log import Log
    from nginx_acme.master import Master
    from nginx_acme.orders.ports import Outcome
    from nginx_acme.plan import Certificate
    from nginx_acme.store import AccountFolder, Store
    from nginx_acme.work import Work


class Rehearsal:
    """Of one instance's renewals."""

    def __init__(self, home: Home, log: Log) -> None:
        self._home = home
        self._log = log
        self._stack = ExitStack()

    def run(self, only: frozenset[Identity]) -> bool:
        """Rehearse the certificates of the current generation; whether all of them were got.

        Args:
            only: these of them; all of them, where it is empty.

        Raises:
            NginxAcmeError: nobody could be asked, or nginx is not what it was before.
        """
        home = self._home
        home.store.open_for_writing()
        with home.store.lock_generation(home.instance, wait=RELOAD_WAIT):  # of a reload under way
            work, master = needed_work(home), running_master(home)
        wanted = [one for one in work.certificates if not only or Identity(*one.identity) in only]
        certificates = [twin for one in wanted if (twin := self._twin(one)) is not None]
        asking = [one for one in wanted if not one.issuer.local]
        with home.launch.scratch() as folder:
            notes = home.store.rehearsing(folder)
            notes.open_for_writing()
            for one in certificates:
                notes.create(Identity(*one.identity), [name.value for name in one.names])
            with self._stack:
                outcome = self._outcome(certificates, notes, work, master)
        got = 0 if outcome is None else len(outcome.installed)
        number = sum(len(one.key_types) for one in asking)
        self._log.notice(f"rehearsal: {got} of {number} certificates were issued")
        return got == number

    def _twin(self, certificate: Certificate) -> Certificate | None:
        """The certificate as it is asked for in a rehearsal, where a dead name is a failure."""
        issuer = certificate.issuer
        twin = issuer.twin()
        label = certificate.names[0].value
        if issuer.local:
            self._log.notice(f'{label}: the issuer "local" asks nobody, nothing is to be rehearsed')
        elif twin is None:
            self._log.error(
                f'{label}: nobody knows where to rehearse for issuer "{issuer.name}", add'
                ' "staging URL;" to its block'
            )
        return None if twin is None else replace(certificate, issuer=replace(twin, all_names=True))

    def _outcome(
        self, certificates: Sequence[Certificate], notes: Store, work: Work, master: Master | None
    ) -> Outcome | None:
        """What comes of it; None where nobody is to be asked, and where nginx has ended."""
        if not certificates:
            return None
        home, now = self._home, utc_now()
        scene = Scene(notes, self._log, home.launch.signals)
        issuers = dict.fromkeys(one.issuer for one in certificates)
        accounts = [make_account(home.store, issuer, now) for issuer in issuers]
        all_of_them = frozenset(Identity(*one.identity) for one in certificates)
        where = ", ".join(dict.fromkeys(issuer.name for issuer in issuers))
        self._log.notice(f"rehearsal at {where}: nothing is installed")
        if master is None:
            with in_place_of_nginx(home, work) as responder:
                return with_responder(certificates, scene, responder, all_of_them)
        for account in accounts:
            self._answer_for(account)
        held, pid = listening(master.pid), master.pid
        return through_nginx(
            certificates,
            scene,
            [listen for listen in work.answering if listen.address in held],
            answer_for=lambda _, new: self._answer_for(new),
            look=lambda _: exists(pid),
            force=all_of_them,
        )

    def _answer_for(self, account: AccountFolder) -> None:
        """Let nginx answer for an account until the end of the rehearsal."""
        detour = answer_also(self._home, answers_of(self._home.store, account))
        if detour is not None:
            self._stack.callback(detour.go_back)
            self._home.launch.signals.before_end(detour.give_up)
