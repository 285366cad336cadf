"""``nginx-acme account``: the accounts at the authorities.

    show              what is known of each; from the disk alone, unless the CA is to be asked
    rollover          another key for an account
    deactivate        the end of an account
    update-contact    other contacts, at once and not with the next order

Whatever changes an account does so while nobody asks its CA for certificates.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from nginx_acme import directives
from nginx_acme.account import find_account, has_own_key, key_of
from nginx_acme.answering import answer_also, answer_any_instead
from nginx_acme.certificate import key_type_of, new_key
from nginx_acme.commands import parser_for
from nginx_acme.directives import Mistake, nearest
from nginx_acme.errors import AcmeError, NginxAcmeError, Problem
from nginx_acme.issuing import client_for
from nginx_acme.launch import utc_now
from nginx_acme.log import printable
from nginx_acme.orders.registration import Registration
from nginx_acme.places import answer_of, answers_of
from nginx_acme.running import current_work, needed_home, why_silent
from nginx_acme.understanding import understand

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from nginx_acme.launch import Home, Launch
    from nginx_acme.plan import Issuer
    from nginx_acme.store import AccountFolder

_GONE = frozenset({"unauthorized", "accountDoesNotExist"})
"""What a CA says in the name of an account that it has closed, or forgotten."""


def run(launch: Launch) -> int:
    """Do it; the exit code is 0 where it is done."""
    rest = launch.command.rest
    if not rest or rest[0] == "--ask":
        rest = ("show", *rest)
    parser = _parser()
    if not rest[0].startswith("-") and rest[0] not in _DEEDS:
        raise NginxAcmeError(f'unknown word "{rest[0]}"{nearest(rest[0], _DEEDS)}')
    given = parser.parse_args(rest)
    home = needed_home(launch)
    _DEEDS[given.deed](home, given)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = parser_for("account", "The accounts at the authorities; without a word: show.")
    deeds = parser.add_subparsers(dest="deed", metavar="WORD", required=True)
    for deed, what in (
        ("show", "what is known of each account"),
        ("rollover", "give an account another key"),
        ("deactivate", "close an account for good"),
        ("update-contact", "tell the authority the contacts of the configuration, or these"),
    ):
        one = deeds.add_parser(deed, help=what, description=what)
        one.add_argument(
            "issuer", metavar="ISSUER", nargs="?", help="may be left out where there is one alone"
        )
        if deed == "show":
            one.add_argument("--ask", action="store_true", help="ask the authority, too")
        elif deed == "update-contact":
            one.add_argument("contacts", metavar="CONTACT", nargs="*")
        else:
            one.add_argument("--yes", action="store_true", help="don't ask whether it is meant")
    return parser


# Which ones ------------------------------------------------------------------------------


def _issuers(home: Home) -> list[Issuer]:
    """Those that are asked for certificates, and those where orders to them were rehearsed.

    By the generation that nginx runs; by the configuration where there is none yet.
    """
    work = current_work(home)
    understood = understand(home.launch) if work is None else None
    used = work.issuers if work else understood.plan.issuers if understood else ()
    asked = [issuer for issuer in used if not issuer.local]
    twins = (twin for issuer in asked if (twin := issuer.twin()) is not None)
    rehearsed = [twin for twin in twins if find_account(home.state, twin) is not None]
    return list({issuer.name: issuer for issuer in (*asked, *rehearsed)}.values())


def _meant(home: Home, name: str | None) -> Issuer:
    """The issuer of this name; the only one, where none is said.

    Raises:
        NginxAcmeError: there is none, or there are several.
    """
    issuers = {issuer.name: issuer for issuer in _issuers(home)}
    names = ", ".join(issuers)
    if not issuers:
        raise NginxAcmeError("no authority is asked for certificates, there are no accounts")
    if name is None and len(issuers) > 1:
        raise NginxAcmeError(f"there are several issuers, say which: {names}")
    if name is not None and name not in issuers:
        near = nearest(name, issuers) or f", there is {names}"
        raise NginxAcmeError(f'no certificate is wanted from issuer "{name}"{near}')
    return issuers[name] if name is not None else next(iter(issuers.values()))


def _account(home: Home, issuer: Issuer) -> AccountFolder:
    """The issuer's account, as far as the CA has made it.

    Raises:
        NginxAcmeError: it hasn't.
    """
    account = find_account(home.store, issuer)
    if account is None or account.url is None:
        raise NginxAcmeError(f"there is no account at {issuer.name} yet")
    return account


def _open_to_change(home: Home) -> None:
    """Raises NginxAcmeError where that is no business of this node's."""
    work = current_work(home)
    _must_ask(home)
    if work is not None:
        home.launch.log.add_file(work.error_log)
    home.store.open_for_writing()


def _must_ask(home: Home) -> None:
    """Raises NginxAcmeError where no CA is asked from here."""
    work = current_work(home)
    if work is not None and (why := why_silent(home, work)) is not None:
        raise NginxAcmeError(why)


# show ------------------------------------------------------------------------------------


def _show(home: Home, given: argparse.Namespace) -> None:
    if given.ask:
        _must_ask(home)
    one = None if given.issuer is None else _meant(home, given.issuer)
    issuers = _issuers(home) if one is None else [one]
    if not issuers:
        sys.stdout.write("no authority is asked for certificates, there are no accounts\n")
    for number, issuer in enumerate(issuers):
        lines = [*([""] if number else []), *_about(home, issuer, ask=given.ask)]
        sys.stdout.writelines(f"{line}\n" for line in lines)
        sys.stdout.flush()


def _about(home: Home, issuer: Issuer, *, ask: bool) -> Iterator[str]:
    yield f"{printable(issuer.name)}  {issuer.directory_url}"
    account = find_account(home.state, issuer)
    if account is None:
        yield _fact("account", "none yet, it is made with the first order")
        return
    yield _fact("account", account.url or "not made yet, that is done with the first order")
    if account.made is not None:
        yield _fact("since", f"{account.made:%Y-%m-%d}")
    whose = f" (your file {printable(issuer.account_key)})" if has_own_key(issuer) else ""
    yield _fact("key", f"{key_type_of(account.key_pem)}{whose}")
    yield _fact("thumbprint", key_of(account).thumbprint)
    if account.following() is not None:
        yield _fact(
            "next key", "the CA may have it; run rollover again, or wait for the next order"
        )
    yield from _contacts(issuer, account)
    if account.terms is not None:
        when = f", agreed to on {account.agreed:%Y-%m-%d}" if account.agreed else ""
        yield _fact("terms", f"{account.terms}{when}")
    if account.told_terms is not None:
        yield _fact("", f"now {account.told_terms}")
    yield _fact("folder", account.path)
    if ask and account.url is not None:
        yield _fact("at the CA", asyncio.run(_standing(issuer, account)))


def _contacts(issuer: Issuer, account: AccountFolder) -> Iterator[str]:
    yield _fact("contacts", ", ".join(account.contacts) or "none")
    told = account.contacts if account.wanted is None else account.wanted
    if issuer.contacts != told:
        wanted = ", ".join(issuer.contacts) or "none"
        yield _fact("", f"to be: {wanted}; told with the next order, or by update-contact")


def _fact(name: str, value: str) -> str:
    return f"    {name:<11} {value}"


async def _standing(issuer: Issuer, account: AccountFolder) -> str:
    """What the CA says of the account."""
    try:
        async with client_for(issuer, key_of(account), account.url) as client:
            there = await client.account()
    except NginxAcmeError as error:
        return str(error)
    contacts = ", ".join(there.contact)
    return f"{there.status}, {f'contacts {contacts}' if contacts else 'it shows no contacts'}"


# rollover --------------------------------------------------------------------------------


def _roll_over(home: Home, given: argparse.Namespace) -> None:
    """Another key: on disk, then answered for by nginx, then at the CA, then the account's.

    nginx answers for both keys from then on until its next reload by the operator, so that no
    challenge fails, whoever is killed when.
    """
    issuer = _meant(home, given.issuer)
    if has_own_key(issuer):
        raise NginxAcmeError(
            f'the key of "{issuer.name}" is your file "{issuer.account_key}"; rollover makes keys'
            " of its own only"
        )
    work = current_work(home)
    if work is not None and work.answer_any and not given.yes:
        raise NginxAcmeError(
            'with "acme_challenge_answer any" other nodes may answer with the old key; run it with'
            " --yes, then reload nginx on each of them"
        )
    _open_to_change(home)
    store, log = home.store, home.launch.log
    with store.lock_accounts_alone():
        before = _account(home, issuer)
        if before.following() is None:
            before.save_next_key(new_key(issuer.account_key))
        if work is not None and issuer in work.issuers:
            answer_also(home, answers_of(store, before))
        try:
            account = asyncio.run(_told(home, issuer, before))
        except AcmeError as error:
            if before.following() is None:
                raise
            raise NginxAcmeError(
                f"{error}; which key the CA has is found out when this is run again, or with the"
                " next order"
            ) from error
        if work is not None:
            answer_any_instead(home, answer_of(store, before), answer_of(store, account))
    log.notice(
        f"{issuer.name}: account {account.url} has another key, {key_type_of(account.key_pem)} with"
        f" the thumbprint {key_of(account).thumbprint}"
    )


async def _told(home: Home, issuer: Issuer, before: AccountFolder) -> AccountFolder:
    """The account with its next key, of which the CA may have been told before."""
    async with client_for(issuer, key_of(before), before.url) as client:
        registration = Registration(client, issuer, utc_now, home.launch.log)
        account, following = await registration.with_settled_key(before), before.following()
        if account.name != before.name or following is None:
            return account
        return await registration.with_next_key(account, following)


# deactivate ------------------------------------------------------------------------------


def _deactivate(home: Home, given: argparse.Namespace) -> None:
    issuer = _meant(home, given.issuer)
    _open_to_change(home)
    account, log = _account(home, issuer), home.launch.log
    _must_be_meant(
        f"Close the account {account.url} at {issuer.name} for good? Its certificates stay valid,"
        " and can't be renewed or revoked with it any more.",
        given,
    )
    with home.store.lock_accounts_alone():
        words = asyncio.run(_closed(home, issuer, account))
        # By the key that it has by now.
        _account(home, issuer).set_aside("deactivated", utc_now())
    log.notice(f"{issuer.name}: account {account.url} {words}")
    other = (
        "with the same key, which no CA takes again" if has_own_key(issuer) else "with a new key"
    )
    log.notice(f"the next start or reload makes another one, {other}, if it is wanted still")


async def _closed(home: Home, issuer: Issuer, account: AccountFolder) -> str:
    """Have the CA close the account; what became of it."""
    async with client_for(issuer, key_of(account), account.url) as client:
        try:
            registration = Registration(client, issuer, utc_now, home.launch.log)
            await registration.with_settled_key(account)
            await client.deactivate_account()
        except Problem as problem:
            if problem.type not in _GONE:
                raise
            return f"is of no use any more: {problem}"
    return "is closed"


def _must_be_meant(question: str, given: argparse.Namespace) -> None:
    """Raises NginxAcmeError unless somebody says so."""
    if given.yes:
        return
    if not sys.stdin.isatty():
        raise NginxAcmeError("nobody is there to be asked whether this is meant, add --yes")
    sys.stderr.write(f'{question}\nSay "yes": ')
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() != "yes":
        raise NginxAcmeError("nothing was changed")


# update-contact --------------------------------------------------------------------------


def _update_contact(home: Home, given: argparse.Namespace) -> None:
    name, said = given.issuer, list(given.contacts)
    if name is not None and _is_contact(name) and name not in _names(home):
        name, said = None, [name, *said]
    issuer = _meant(home, name)
    try:
        contacts = directives.contacts(said) or issuer.contacts
    except Mistake as mistake:
        raise NginxAcmeError(str(mistake)) from mistake
    _open_to_change(home)
    with home.store.lock_accounts_alone():
        asyncio.run(_updated(home, issuer, _account(home, issuer), contacts))


async def _updated(
    home: Home, issuer: Issuer, account: AccountFolder, contacts: tuple[str, ...]
) -> None:
    async with client_for(issuer, key_of(account), account.url) as client:
        registration = Registration(client, issuer, utc_now, home.launch.log)
        account = await registration.with_settled_key(account)
        await registration.with_contacts(account, contacts)


def _is_contact(word: str) -> bool:
    return "@" in word or ":" in word


def _names(home: Home) -> Sequence[str]:
    return [issuer.name for issuer in _issuers(home)]


_DEEDS = {
    "show": _show,
    "rollover": _roll_over,
    "deactivate": _deactivate,
    "update-contact": _update_contact,
}
