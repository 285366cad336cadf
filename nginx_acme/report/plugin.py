"""The line of ``status --check`` and its exit code, as monitoring plugins have them.

The form is that of the Monitoring Plugins Development Guidelines: a word for the state, a text,
and behind a bar what can be drawn. CRITICAL is what visitors see or soon will, and that nobody
looks after certificates any more; WARNING is what has not gone well so far.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from nginx_acme.report import span
from nginx_acme.report.verdict import GOOD, is_stale

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from nginx_acme.report import Overview, Row


class State(IntEnum):
    """The exit codes."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


FAILURES = 3
"""In a row, before they are worth a warning."""
WARN_MARGIN, LAST_MARGIN = 0.5, 0.25
"""Of the time between renewal and expiry, what is left when it is a warning, and critical."""

_SERVICE = "NGINX-ACME"
_MOST = 5
_LONGEST_WORDS = 200  # characters, of a CA
_DAY = 86400


class Finding(NamedTuple):
    """Something that is wrong, and how much so."""

    state: State
    words: str


def to_line(overview: Overview, *, agent: bool) -> tuple[State, str]:
    """The exit code and the line, without its end.

    Args:
        overview: how it stands; `served` was seen just now.
        agent: whether there is to be one.
    """
    found = sorted(_findings(overview, agent=agent), key=lambda finding: -finding.state)
    state = found[0].state if found else State.OK
    words = [finding.words for finding in found[:_MOST]]
    if len(found) > _MOST:
        words.append(f"and {len(found) - _MOST} more")
    return state, line(state, "; ".join(words) or _all_well(overview), _numbers(overview, found))


def line(state: State, words: str, numbers: str = "") -> str:
    """One line of the form; a bar and ends of lines would mean something in it."""
    text = f"{_SERVICE} {state.name} - {' '.join(words.replace('|', '/').split())}"
    return f"{text} | {numbers}" if numbers else text


def _findings(overview: Overview, *, agent: bool) -> Iterator[Finding]:
    if overview.nginx_pid is None:
        yield Finding(State.CRITICAL, "nginx does not run")
    elif agent and overview.agent_pid is None:
        yield Finding(State.CRITICAL, "the agent does not run, nginx-acme renew brings it back")
    if is_stale(overview):
        yield Finding(
            State.CRITICAL, f"nobody has looked since {overview.last_look:%Y-%m-%d %H:%M}"
        )
    for row in overview.rows:
        state, words = _judged(row, overview.now)
        if state is not State.OK:
            said = f": {row.problem[:_LONGEST_WORDS]}" if row.problem else ""
            yield Finding(state, words + said)


def _judged(row: Row, now: datetime) -> Finding:
    """One certificate, without the CA's words."""
    name, end = row.names[0], row.not_after
    if row.state in {"missing", "revoked", "temporary"}:
        return Finding(State.CRITICAL, f"{name} is {row.state}")
    if end is not None and now >= end:
        return Finding(State.CRITICAL, f"{name} expired on {end:%Y-%m-%d}")
    if row.served is False:
        return Finding(State.CRITICAL, f"{name} is not served, {row.unproved}")
    if row.state not in GOOD:
        return Finding(State.WARNING, f"another certificate stands in for {name}")
    left = _margin_left(row, now)
    if left < WARN_MARGIN:
        state = State.CRITICAL if left < LAST_MARGIN else State.WARNING
        return Finding(state, f"{name} expires in {span(end - now) if end else 'no time'}")
    if row.left_out:
        return Finding(State.WARNING, f"{name} is without {', '.join(row.left_out)}")
    if row.failures >= FAILURES:
        return Finding(State.WARNING, f"{name} failed {row.failures} times")
    return Finding(State.OK, name)


def _margin_left(row: Row, now: datetime) -> float:
    if row.renewal is None or row.not_after is None or row.not_after <= row.renewal:
        return 1.0
    return (row.not_after - now) / (row.not_after - row.renewal)


def _all_well(overview: Overview) -> str:
    count = len(overview.rows)
    if not count:
        return "no certificates"
    first = min(overview.rows, key=lambda row: row.not_after or overview.now)
    left = span((first.not_after or overview.now) - overview.now)
    words = f"{count} certificate{'s' * (count != 1)}, {first.names[0]} expires in {left}"
    unseen = sum(row.served is None for row in overview.rows)
    return f"{words}, {unseen} not seen" if unseen else words


def _numbers(overview: Overview, found: list[Finding]) -> str:
    """What can be drawn; days of the certificate that ends first."""
    ends = [row.not_after for row in overview.rows if row.not_after]
    numbers = [f"certificates={len(overview.rows)};;;0"]
    if ends:
        days = (min(ends) - overview.now).total_seconds() / _DAY
        numbers.insert(0, f"days_left={days:.1f}")
    for state in (State.WARNING, State.CRITICAL):
        count = sum(finding.state is state for finding in found)
        numbers.append(f"{state.name.lower()}={count};;;0")
    return " ".join(numbers)
