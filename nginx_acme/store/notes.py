"""What is noted about the certificate of one key type: attempts, who issued it, the CA's advice.

What may live here: values and the fields that they are on disk (`records`), nothing of files. Each
note reads what it can and takes the rest for missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nginx_acme.policy.ari import Advice
from nginx_acme.store import records

if TYPE_CHECKING:
    from datetime import datetime

    from nginx_acme.store.records import Fields


@dataclass(frozen=True, slots=True)
class Attempt:
    """How trying went since the last success, for one key type; `problem` in the CA's words.

    `next` is when it may be asked for again, and `at` when that was noted, by which it is believed.
    A certificate without some of its names is no success: the attempts go on. `blocked` are the
    names that the preflight held the last one back for, and `in_vain` is how many certificates in
    a row were due when they came.
    """

    failures: int = 0
    next: datetime | None = None
    problem: str | None = None
    at: datetime | None = None
    blocked: tuple[str, ...] = ()
    in_vain: int = 0


NO_ATTEMPT = Attempt()


@dataclass(frozen=True, slots=True)
class Issued:
    """Who issued a bundle; `account` is the name of the account's folder."""

    directory_url: str
    account: str | None
    not_after: datetime | None


def read_attempt(fields: Fields) -> Attempt:
    """Its times are bounded by `policy`, not here."""
    return Attempt(
        failures=records.count(fields.get("failures")),
        next=records.time(fields.get("next")),
        problem=records.text(fields.get("problem")),
        at=records.time(fields.get("at")),
        blocked=records.texts(fields.get("blocked")),
        in_vain=records.count(fields.get("in_vain")),
    )


def attempt_fields(attempt: Attempt) -> Fields:
    """As `read_attempt` reads it."""
    return {
        "failures": attempt.failures,
        "next": records.time_text(attempt.next),
        "problem": attempt.problem,
        "at": records.time_text(attempt.at),
        "blocked": list(attempt.blocked),
        "in_vain": attempt.in_vain,
    }


def read_issued(fields: Fields) -> Issued | None:
    """None where nobody is named."""
    directory_url = records.text(fields.get("directory_url"))
    if directory_url is None:
        return None
    account, not_after = records.text(fields.get("account")), records.time(fields.get("not_after"))
    return Issued(directory_url, account, not_after)


def issued_fields(issued: Issued) -> Fields:
    """As `read_issued` reads it."""
    return {
        "directory_url": issued.directory_url,
        "account": issued.account,
        "not_after": records.time_text(issued.not_after),
    }


def read_advice(fields: Fields) -> Advice | None:
    """Its times are bounded by `ari`, not here; None where it isn't known when it was asked for."""
    asked, ask = records.time(fields.get("asked")), records.time(fields.get("ask"))
    if asked is None or ask is None:
        return None
    return Advice(
        asked,
        ask,
        start=records.time(fields.get("start")),
        end=records.time(fields.get("end")),
        moment=records.time(fields.get("moment")),
        explanation=records.text(fields.get("explanation")),
        problem=records.text(fields.get("problem")),
    )


def advice_fields(advice: Advice) -> Fields:
    """As `read_advice` reads it."""
    return {
        "asked": records.time_text(advice.asked),
        "ask": records.time_text(advice.ask),
        "start": records.time_text(advice.start),
        "end": records.time_text(advice.end),
        "moment": records.time_text(advice.moment),
        "explanation": advice.explanation,
        "problem": advice.problem,
    }
