"""The issuers of one run: one conversation with each, and what it may be asked for.

What may live here: which session is whose, and how long it is of use. What is said in it is
`issuance`'s business.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from nginx_acme.account import find_account, replace_account
from nginx_acme.errors import ConfigError, StateError
from nginx_acme.orders.allowance import Allowance
from nginx_acme.orders.issuance import Session

if TYPE_CHECKING:
    from nginx_acme.errors import Problem
    from nginx_acme.orders.ports import Ports
    from nginx_acme.plan import Issuer
    from nginx_acme.store import AccountFolder


class Sessions:
    """A session for each issuer, made when it is first asked for."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._sessions: dict[Issuer, Session] = {}
        self._allowances: dict[Issuer, Allowance] = {}
        self._replacing = asyncio.Lock()
        self._replaced: set[Issuer] = set()

    def find(self, issuer: Issuer) -> Session | None:
        """The session with an issuer; None where there is none, which is for who orders to say."""
        with suppress(ConfigError, StateError):
            return self.get(issuer)
        return None

    def get(self, issuer: Issuer) -> Session:
        """The session with an issuer.

        Raises:
            ConfigError: the account's key is to be a file's, and that isn't one.
            StateError: the account is lost.
        """
        if issuer not in self._sessions:
            account = find_account(self._ports.store, issuer)
            if account is None:
                raise StateError(
                    f'the account at "{issuer.name}" is lost, reload nginx to get another one',
                    self._ports.store.root,
                )
            self._sessions[issuer] = self._made(issuer, account)
        return self._sessions[issuer]

    async def with_new_account(self, session: Session, problem: Problem) -> Session:
        """A session with a new account, where the CA doesn't know that of `session` any more.

        Raises:
            Problem: what the CA said, if there has been a new one already.
        """
        async with self._replacing:
            issuer = session.issuer
            if self._sessions[issuer] is not session:
                return self._sessions[issuer]
            store, now = self._ports.store, self._ports.now()
            account = None
            if issuer not in self._replaced:
                account = await asyncio.to_thread(
                    replace_account, store, issuer, session.account, now
                )
            if account is None:
                raise problem
            self._replaced.add(issuer)
            self._ports.log.error(
                f"{issuer.name} does not know the account {session.account.url} any more; a new"
                " one is made"
            )
            await self._ports.answer_for(session.account, account)
            self._sessions[issuer] = self._made(issuer, account)
            return self._sessions[issuer]

    def allowance(self, issuer: Issuer) -> Allowance:
        """What the account of an issuer may still ask for."""
        if issuer not in self._allowances:
            url = issuer.directory_url
            self._allowances[issuer] = Allowance(self._ports, url, lambda: self.get(issuer).account)
        return self._allowances[issuer]

    def _made(self, issuer: Issuer, account: AccountFolder) -> Session:
        ports = self._ports
        client = ports.connect(issuer, account)
        return Session(issuer, account, client, ports.now, ports.log, ports.progress)
