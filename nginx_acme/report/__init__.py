"""What is known of an nginx and its certificates, for people and for programs.

What may live here: shapes and words. The facts come in as values (`overview` gathers them);
nothing is looked up, and the clock is one of the facts.

    verdict     one word and one sentence
    document    JSON, for programs
    metrics     for Prometheus
    table       text, for a terminal
    page        HTML, for a browser, in the style of `style`
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Row:
    """One key type of one certificate.

    `state` is one of: valid, due (valid, and it is time for the next), expired, revoked, temporary
    (a stand-in that nobody trusts), other (another certificate of the store stands in), missing.
    Times and issuer are those of what is shown. `renewal` is when the next one is wanted,
    `next_attempt` when one that is wanted now is asked for, and `problem` what the last attempt
    failed of, in the CA's words.
    """

    label: str
    names: tuple[str, ...]
    issuer: str
    directory_url: str
    key_type: str
    profile: str | None
    state: str
    not_before: datetime | None
    not_after: datetime | None
    issued_by: str | None
    renewal: datetime | None
    next_attempt: datetime | None
    failures: int
    problem: str | None
    path: str
    places: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    """Names that the certificate had to do without: it is degraded."""
    renewal_by: str | None = None
    """By whose word it is renewed then: "renew_before", "renewal information", "lifetime"."""
    explanation_url: str | None = None
    """Where the CA says why it wants it renewed (RFC 9773 §4.2)."""
    served: bool | None = None
    """Whether a handshake with nginx showed it; None where nobody knows."""
    unproved: str | None = None
    """Why nobody can know, or what was shown in its place."""
    serial: str | None = None
    """Of what is shown, in hexadecimal."""


@dataclass(frozen=True, slots=True)
class Overview:
    """One nginx (an instance of the state directory `state`) and its certificates at `now`.

    `agent_pid` is the process that does what is due beside it, `last_look` when the certificates
    were last looked at for what is due, by that one, by `renew` or by a start or reload. `silent`
    says why no CA is asked from here.
    """

    now: datetime
    instance: str
    state: str
    nginx_pid: int | None
    agent_pid: int | None
    last_look: datetime | None
    rows: tuple[Row, ...]
    silent: str | None = None


def span(delta: timedelta) -> str:
    """A length of time in its largest unit: ``59 d``, ``7 h``, ``12 min``, ``3 s``, ``-2 d``."""
    seconds = round(delta.total_seconds())
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if abs(seconds) >= 2 * length:
            return f"{int(seconds / length)} {unit}"
    return f"{seconds} s"
