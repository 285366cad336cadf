"""Which programs are to be told what: by how certificates stand, and by what was told before.

What may live here: pure functions of both; the clock is an argument.

Rules
- `deployed` is told until it is taken (exit code 0): a program that copies the certificate to
  another server must not miss one. It may be told twice, when we were killed in between.
- `failed` is about all certificates in one call, and once a day until there are others: a
  thousand certificates that fail one after the other were a thousand mails an hour elsewhere.
- `expiring` speaks only of certificates that are due: the operator or the CA may want a renewal
  so late that a quarter of the life is left by then, and all is well.
- `recovered` follows only what was told.
- What is told of a certificate no longer matters when the configuration no longer wants it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from nginx_acme.report.verdict import GOOD, OWN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from nginx_acme.plan import Hook
    from nginx_acme.report import Row

    Subject = tuple[str, str]
    """Label and key type."""
    Marks = Mapping[Subject, str]
    """What there is to say of each."""

FAILURES = 3
"""In a row: before that a CA or a network has only had a bad moment."""
SHARES = ((0.1, "1/10"), (0.25, "1/4"))
"""Of the life that are left when it is told that a certificate expires."""
AGAIN = timedelta(days=1)
"""Between two calls of the same program for the same event about the same thing."""
ANEW = timedelta(hours=1)
"""The same, where there is something new to say."""

NOT_SERVED, NOT_RENEWED = "not served", "not renewed"


@dataclass(frozen=True, slots=True)
class Told:
    """What one program was told of one event.

    `at` is when it was called last and `taken` whether it ended with 0 then. `marks` are what it
    knows; of `recovered`, what it is still to be told.
    """

    at: datetime | None = None
    taken: bool = True
    marks: Marks = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Call:
    """What a program is to be told, not before `earliest`: of these certificates, and why."""

    hook: Hook
    marks: Marks
    earliest: datetime


def deployed(rows: Iterable[Row]) -> dict[Subject, str]:
    """The serial numbers of certificates that are in use, as far as it can be seen."""
    return {
        _subject(row): row.serial
        for row in rows
        if row.state in GOOD and row.serial and row.served is not False
    }


def failed(rows: Iterable[Row], now: datetime) -> dict[Subject, str]:
    """What is wrong with those that need somebody's attention."""
    found: dict[Subject, str] = {}
    for row in rows:
        if row.served is False:
            found[_subject(row)] = NOT_SERVED
        elif row.failures >= FAILURES or (row.problem and _half_gone(row, now)):
            found[_subject(row)] = NOT_RENEWED
    return found


def expiring(rows: Iterable[Row], now: datetime) -> dict[Subject, str]:
    """The serial numbers of those that are due and near their end, and how near."""
    found: dict[Subject, str] = {}
    for row in rows:
        if row.state not in OWN or row.renewal is None or now < row.renewal:
            continue
        left = _share_left(row, now)
        near = next((words for share, words in SHARES if left <= share), None)
        if near is not None:
            found[_subject(row)] = f"{row.serial} {near}"
    return found


def _half_gone(row: Row, now: datetime) -> bool:
    """Whether half of the time between renewal and expiry is gone; of what is lost, all is."""
    if row.state not in OWN or row.renewal is None or row.not_after is None:
        return False
    return now >= row.renewal + (row.not_after - row.renewal) / 2


def _share_left(row: Row, now: datetime) -> float:
    if row.not_before is None or row.not_after is None or row.not_after <= row.not_before:
        return 0.0
    return (row.not_after - now) / (row.not_after - row.not_before)


def _subject(row: Row) -> Subject:
    return row.label, row.key_type


# What follows ----------------------------------------------------------------------------------


def settled(
    told: Mapping[Hook, Told], hooks: Iterable[Hook], rows: Iterable[Row], now: datetime
) -> dict[Hook, Told]:
    """What these hooks know, after what is over: that waits for those of `recovered`."""
    rows = tuple(rows)
    troubled = failed(rows, now).keys() | expiring(rows, now).keys()
    wanted = {_subject(row) for row in rows}
    known = {hook: told.get(hook, Told()) for hook in hooks}
    over: dict[Subject, str] = {}
    for hook, one in known.items():
        if hook.event in {"failed", "expiring"}:
            over.update((s, hook.event) for s in one.marks if s in wanted and s not in troubled)
            known[hook] = replace(one, marks={s: m for s, m in one.marks.items() if s in troubled})
        else:
            known[hook] = replace(one, marks={s: m for s, m in one.marks.items() if s in wanted})
    for hook, one in known.items():
        if hook.event == "recovered":
            waiting = {**one.marks, **over}
            kept = {s: m for s, m in waiting.items() if s not in troubled}
            known[hook] = replace(one, marks=kept)
    return known


def calls(told: Mapping[Hook, Told], rows: Iterable[Row], now: datetime) -> Iterator[Call]:
    """What is to be said to the hooks of `told`, which is `settled`, now or later."""
    rows = tuple(rows)
    for hook, one in told.items():
        match hook.event:
            case "deployed":
                wait, marks = timedelta(0), _new(deployed(rows), one)
            case "failed":
                marks = failed(rows, now)
                wait = ANEW if _new(marks, one) else AGAIN
            case "expiring":
                wait, marks = AGAIN * (not one.taken), _new(expiring(rows, now), one)
            case _:
                wait, marks = AGAIN * (not one.taken), dict(one.marks)
        if marks:
            yield Call(hook, marks, _after(one.at, wait, now))


def _new(marks: Marks, told: Told) -> dict[Subject, str]:
    return {subject: mark for subject, mark in marks.items() if told.marks.get(subject) != mark}


def _after(at: datetime | None, wait: timedelta, now: datetime) -> datetime:
    """So long after a call; one in the future was made by a clock that was wrong."""
    return now if at is None or at > now else at + wait


def heard(told: Told, call: Call, now: datetime, *, taken: bool) -> Told:
    """What a program knows after a call."""
    if call.hook.event == "failed":  # once a day, also if it never ends well
        return Told(now, taken, call.marks)
    if not taken:
        return Told(now, taken, told.marks)
    if call.hook.event == "recovered":
        return Told(now, taken, {s: m for s, m in told.marks.items() if s not in call.marks})
    return Told(now, taken, {**told.marks, **call.marks})


def next_look(told: Mapping[Hook, Told], rows: Iterable[Row], now: datetime) -> datetime | None:
    """When there is something to say again; None: not as long as nothing changes."""
    moments = (
        max(call.earliest, _after(told[call.hook].at, ANEW, now)) for call in calls(told, rows, now)
    )
    return min(moments, default=None)
