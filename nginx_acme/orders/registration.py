"""An account as its CA knows it: made, and kept up to date (RFC 8555 §7.3).

What may live here: what is said to the CA of the account itself, and what of it is kept. Which
account an issuer means is `account`'s business.

Contacts and terms are looked at when there is something to order, never for their own sake: a run
that has nothing to do asks nobody.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING

from nginx_acme.acme.jws import AccountKey
from nginx_acme.errors import AcmeError, Problem, UnexpectedAnswer
from nginx_acme.threads import to_the_end

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from nginx_acme.acme.client import Client
    from nginx_acme.acme.resources import Directory
    from nginx_acme.log import Log
    from nginx_acme.plan import Issuer
    from nginx_acme.store import AccountFolder

NO_CONTACT = frozenset({"invalidContact", "unsupportedContact"})
"""Refusals of a contact."""
BAD_KEY = frozenset({"badPublicKey", "badSignatureAlgorithm"})
"""Refusals of a key; that another account has it is HTTP's 409 (§7.3.5)."""


class TermsNotAccepted(AcmeError):
    """The CA has terms of service, and the configuration doesn't say that they are accepted."""

    permanent = True


@dataclass(frozen=True, slots=True)
class Registration:
    """An issuer's account, and the conversation in which it is looked after."""

    client: Client
    issuer: Issuer
    now: Callable[[], datetime]
    log: Log

    async def current(self, account: AccountFolder) -> AccountFolder:
        """The account as it is at the CA, which knows what the configuration says of it.

        Raises:
            AcmeError: there is none, and the CA makes none.
        """
        directory = await self.client.directory()
        account = await self.with_settled_key(account)
        if account.url is None:
            return await self._made(account, directory)
        account = await self._with_terms(account, directory)
        return await self._with_contacts(account)

    async def with_settled_key(self, account: AccountFolder) -> AccountFolder:
        """The account with the key that the CA knows, where a change of keys was cut short.

        The CA may have heard of the next key, though nobody heard its answer. If it hasn't, the key
        is kept: the request may be under way, and whoever changes keys again takes that one.
        """
        following = account.following()
        if following is None:
            return account
        url = await self.client.account_of(AccountKey(following.key_pem))
        if url is None:
            return account
        self.client.key = AccountKey(following.key_pem)
        self.log.notice(f"{self.issuer.name}: the CA has taken the new key of the account")
        return await to_the_end(lambda: account.become(replace(following, url=url)))

    async def with_next_key(
        self, account: AccountFolder, following: AccountFolder
    ) -> AccountFolder:
        """The account with another key (§7.3.5), which is on disk.

        Raises:
            Problem: the CA doesn't take it; where that is said of the key, it is forgotten.
            AcmeError: it isn't known whether the CA has taken it.
        """
        try:
            await self.client.change_key(AccountKey(following.key_pem))
        except Problem as problem:
            # Anything else may be said to an old key, by a CA that has taken the next one before.
            if problem.type in BAD_KEY or problem.status == HTTPStatus.CONFLICT:
                await to_the_end(account.keep_key)
            raise
        return await to_the_end(lambda: account.become(following))

    async def _made(self, account: AccountFolder, directory: Directory) -> AccountFolder:
        """Make the account, or find the one of this key (§7.3, §7.3.1)."""
        terms = directory.terms_of_service
        if directory.external_account_required:
            raise Problem(
                "externalAccountRequired",
                f"{self.issuer.name} makes accounts only for customers that it knows already"
                " (external account binding), which is not supported yet",
            )
        if terms is not None and not self.issuer.accept_terms:
            raise TermsNotAccepted(
                f'issuer "{self.issuer.name}" asks to agree to {terms}; if you do, add'
                ' "accept_terms_of_service;" to its block'
            )
        contacts = self.issuer.contacts
        try:
            made = await self.client.new_account(contacts, terms_agreed=terms is not None)
        except Problem as problem:
            if problem.type not in NO_CONTACT or not contacts:
                raise
            self.log.warn(f"{self.issuer.name} takes no such contact, it is left out: {problem}")
            contacts = ()
            made = await self.client.new_account((), terms_agreed=terms is not None)
        if terms is not None:
            self.log.notice(f"{self.issuer.name}: by registering you agree to {terms}")
        known = replace(
            account,
            url=made.url,
            terms=terms or account.terms,
            agreed=self.now() if terms is not None else account.agreed,
            contacts=contacts,
            wanted=self.issuer.contacts,
        )
        return await to_the_end(known.save)

    async def _with_terms(self, account: AccountFolder, directory: Directory) -> AccountFolder:
        """Say once that the terms of service are others than those that were agreed to.

        A CA that wants them to be agreed to anew says so itself (userActionRequired, §7.3.3).
        """
        terms = directory.terms_of_service
        if terms is None or terms in {account.terms, account.told_terms}:
            return account
        agreed = f", you have agreed to {account.terms}" if account.terms else ""
        self.log.notice(f"{self.issuer.name}: the terms of service are now {terms}{agreed}")
        return await to_the_end(replace(account, told_terms=terms).save)

    async def _with_contacts(self, account: AccountFolder) -> AccountFolder:
        """Tell the CA the contacts of the configuration, where those have changed (§7.3.2).

        No certificate is late for that, whatever goes wrong: a refusal of the contacts, and an
        answer that can't be understood, are told, and noted, so that this is done once; after
        anything else the next order tries again.
        """
        wanted, before = self.issuer.contacts, account.wanted
        if wanted == (account.contacts if before is None else before):
            return account
        try:
            return await self.with_contacts(account, wanted)
        except AcmeError as error:
            self.log.warn(f"{self.issuer.name} does not take the contacts: {error}")
            refused = isinstance(error, Problem) and error.type in NO_CONTACT
            if not refused and not isinstance(error, UnexpectedAnswer):
                return account
        return await to_the_end(replace(account, wanted=wanted).save)

    async def with_contacts(
        self, account: AccountFolder, contacts: tuple[str, ...]
    ) -> AccountFolder:
        """Tell the CA these contacts; those of the configuration count as told, too.

        Raises:
            AcmeError: the CA doesn't take them, as far as is known; the others stay.
        """
        await self.client.update_contacts(contacts)
        shown = ", ".join(contacts) or "none"
        self.log.notice(f"{self.issuer.name}: contacts are now {shown}")
        known = replace(account, contacts=contacts, wanted=self.issuer.contacts)
        return await to_the_end(known.save)
