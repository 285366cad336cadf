"""How what is in the store stands, for whom it is, and the accounts it came by.

Pure: what the store has comes in as values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from nginx_acme.doctor.finding import Finding, fine, odd, wrong
from nginx_acme.policy import Renew, Wait

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nginx_acme.plan import Issuer
    from nginx_acme.sight import Finding as Seen
    from nginx_acme.standing import Standing
    from nginx_acme.store import AccountFolder

CERTIFICATE = "certificates.state"
SERVED = "certificates.served"
ORPHAN = "certificates.orphan"
ACCOUNT = "accounts.registered"
CONTACT = "accounts.contact"


class Kept(NamedTuple):
    """One key type of one certificate, and what is wrong with its file."""

    standing: Standing
    damage: str | None


class Sighting(NamedTuple):
    """One that is good to be served, and what handshakes show of it."""

    standing: Standing
    seen: Seen


def judge_sighting(sighting: Sighting) -> Finding:
    """Whether nginx serves what is on disk."""
    subject, seen = _subject(sighting.standing), sighting.seen
    if seen.served:
        return fine(SERVED, subject, "is served")
    if seen.served is None:
        return odd(SERVED, subject, f"can't be seen from here: {seen.words}")
    return wrong(SERVED, subject, f"is not served: {seen.words}", "nginx-acme -s reload")


def _subject(one: Standing) -> str:
    return f"{one.label} {one.key_type}"


def judge_certificate(kept: Kept, *, running: bool) -> Finding:
    """How it stands; `running`: there is an nginx that shows it, or what stands in for it."""
    one, subject = kept.standing, _subject(kept.standing)
    if kept.damage is not None:
        words = f"its file is damaged ({kept.damage}), nginx can't serve it"
        return wrong(CERTIFICATE, subject, words, "start nginx-acme, or reload: it is made anew")
    if one.bundle is None:
        return _missing(one, running=running)
    day, tried = f"{one.bundle.facts.not_after:%Y-%m-%d}", _tried(one)
    if not one.usable:
        advice = _advice(one, running=running)
        return wrong(CERTIFICATE, subject, f"expired on {day}{tried}", advice)
    if one.left_out:
        without = ", ".join(one.left_out)
        return odd(CERTIFICATE, subject, f"valid until {day}, without {without}{tried}")
    if one.attempt.problem:
        return odd(CERTIFICATE, subject, f"valid until {day}{tried}")
    return fine(CERTIFICATE, subject, f"valid until {day}")


def _missing(one: Standing, *, running: bool) -> Finding:
    """Its own isn't there: that is wrong after a failure, and else on its way."""
    subject, words = _subject(one), "there is none yet"
    if one.shown is not None:
        what = "a temporary one" if one.shown.facts.temporary else "another one"
        words = f"{what} is shown in its place"
    if one.attempt.problem:
        return wrong(CERTIFICATE, subject, f"{words}{_tried(one)}", _advice(one, running=running))
    if running:
        return odd(CERTIFICATE, subject, words, _advice(one, running=True))
    return fine(CERTIFICATE, subject, f"{words}, it is asked for when nginx starts or is reloaded")


def _tried(one: Standing) -> str:
    """How the last attempt failed, and when the next one is; nothing where none has failed."""
    if not one.attempt.problem:
        return ""
    until = one.decision.until if isinstance(one.decision, Wait) else None
    later = f"; the next is at {until:%Y-%m-%d %H:%M} UTC" if until is not None else ""
    return f"; the last attempt failed: {one.attempt.problem}{later}"


def _advice(one: Standing, *, running: bool) -> str | None:
    if not running:
        return "start nginx-acme, or reload it"
    if isinstance(one.decision, Renew):
        return "nginx-acme renew"
    return f"put that right, then nginx-acme renew --force {one.certificate.names[0].value}"


def judge_orphan(label: str) -> Finding:
    """A certificate of the store that no configuration shows."""
    return odd(ORPHAN, label, "no server asks for it, it is not renewed")


def judge_account(issuer: Issuer, account: AccountFolder | None) -> Iterator[Finding]:
    """Whether there is an account at the issuer, as far as is known on this side."""
    if account is None or account.url is None:
        yield fine(ACCOUNT, issuer.name, "an account will be made with the first order")
        if not issuer.accept_terms:
            words = "its terms of service, if it has any, are not accepted"
            yield odd(ACCOUNT, issuer.name, words, 'add "accept_terms_of_service;" to its block')
        return
    terms = f", agreed to {account.terms}" if account.terms else ""
    yield fine(ACCOUNT, issuer.name, f"account {account.url}{terms}")
    if issuer.contacts and set(issuer.contacts) != set(account.contacts):
        words = f"has {', '.join(account.contacts) or 'no contact'}, not the configured ones"
        yield odd(CONTACT, issuer.name, words, "nginx-acme account update-contact")
