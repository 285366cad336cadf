"""How it stands in one word and one sentence.

    WELL     nothing to do
    WATCH    visitors get what they should, or soon will; what is wrong is being tried again
    ACT      visitors don't get what they should, and trying again has not helped

The terminal and the page say the same: whoever sees both must not have to ask which is right.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from nginx_acme.report import span

if TYPE_CHECKING:
    from datetime import datetime

    from nginx_acme.report import Overview, Row

WELL, WATCH, ACT = "well", "watch", "act"

GOOD = ("valid", "due")
"""States of a certificate that is the right one and not expired."""
OWN = (*GOOD, "expired")
"""States in which the certificate itself is shown, and not another one in its place."""

STALE = timedelta(days=2)
"""Without a look there is nobody any more who looks: agent and timer do at least once a day."""

_SINGULAR = {WELL: "is well", WATCH: "is being worked on", ACT: "needs you"}
_PLURAL = {WELL: "are well", WATCH: "are being worked on", ACT: "need you"}


def verdict(row: Row) -> str:
    """One of the three for one certificate.

    A new one that nobody has failed to get yet is on its way.
    """
    tried = bool(row.failures or row.problem)
    if row.state in {"expired", "revoked"} or row.served is False:
        return ACT
    if row.state not in GOOD:
        return ACT if tried else WATCH
    return WATCH if tried or row.left_out else WELL


def gravest(overview: Overview) -> str:
    """That of all certificates together."""
    found = set(map(verdict, overview.rows))
    return next((level for level in (ACT, WATCH) if level in found), WELL)


def headline(overview: Overview) -> str:
    """How they stand together."""
    count, level = len(overview.rows), gravest(overview)
    number = sum(verdict(row) == level for row in overview.rows)
    if not count:
        return "There are no certificates"
    if count == 1:
        return f"The certificate {_SINGULAR[level]}"
    if number == count:
        return f"All {count} certificates {_PLURAL[level]}"
    return f"{number} of {count} certificates {(_SINGULAR if number == 1 else _PLURAL)[level]}"


def is_stale(overview: Overview) -> bool:
    """Whether nobody looks after the certificates any more."""
    return overview.last_look is not None and overview.now - overview.last_look > STALE


def coming(row: Row, now: datetime) -> str:
    """What is done about it next, and when; "" where nobody knows."""
    moment = row.next_attempt or row.renewal
    if moment is None:
        return ""
    what = "renewal" if row.next_attempt is None or row.state == "due" else "request"
    again = "next " if row.failures else ""
    return f"{again}{what} {'now' if moment <= now else f'in {span(moment - now)}'}"


def trouble(row: Row) -> str | None:
    """What is wrong with it, in the CA's words where those are known; None: nothing."""
    said = [f"without {', '.join(row.left_out)}"] if row.left_out else []
    if row.served is False:
        said.append(f"not served: {row.unproved}" if row.unproved else "not served")
    if row.problem:
        times = f"failed {row.failures} time{'s' * (row.failures != 1)}: " if row.failures else ""
        said.append(times + row.problem)
    return "; ".join(said) or None
