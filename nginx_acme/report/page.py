"""The page that nginx serves for people (``acme_status html;``).

One file that needs nothing else: no script, picture, font or style from anywhere, which its own
Content-Security-Policy forbids as well. Widths are attributes of SVG, since a policy that allows
one style by its hash allows no ``style="…"``. Words from outside go through `_escaped`, and the
text is ASCII in the end, so no `charset` of a server can spoil it.

What is relative ("in 30 d") is as of the last look: there is no clock in a file.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections import Counter
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING

from nginx_acme.report import span
from nginx_acme.report.style import STYLE
from nginx_acme.report.verdict import (
    ACT,
    GOOD,
    OWN,
    WATCH,
    WELL,
    coming,
    gravest,
    headline,
    trouble,
)
from nginx_acme.report.verdict import verdict as verdict_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from nginx_acme.report import Overview, Row

SHOWN_NAMES = 4
"""As many names of a certificate are shown at once; the others when they are asked for."""
SOON = timedelta(days=2)
"""What is to come within this is told with its hour."""
LENGTH = 1000
"""Of a life, in units of the drawing."""

_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"})
_GRAVITY = {ACT: 0, WATCH: 1, WELL: 2}
_STATES = {
    "valid": "valid",
    "due": "due",
    "expired": "expired",
    "revoked": "revoked",
    "temporary": "temporary",
    "other": "stand-in",
    "missing": "missing",
}
_INSTEAD = {
    "revoked": "It is revoked, and there is no other one yet.",
    "temporary": "A temporary certificate is shown, which no browser trusts.",
    "other": "Another certificate is shown in its place.",
    "missing": "There is nothing to show yet.",
}
_SIGNS = {WELL: "M7 12.5l3.4 3.4L17 9", WATCH: "M12 7v5.5l3.4 2", ACT: "M12 6.5v6.8M12 17v.01"}
_COLORS = {WELL: "16794a", WATCH: "9a6200", ACT: "c02b2b"}
_LEGEND = (
    ("gone", "gone by"),
    ("left", "until the renewal"),
    ("margin", "from the renewal to the end"),
    ("late", "left of one that is due"),
)


def to_html(overview: Overview) -> str:
    """The whole page."""
    level, said = gravest(overview), _escaped(headline(overview))
    rows = sorted(overview.rows, key=_from_worst_to_best)
    return f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_policy()}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>{said}</title>
<link rel="icon" href="{_icon(level)}">
<style>{STYLE}</style>
</head>
<body>
<header class="{level}">
{_sign(level)}
<div><h1>{said}</h1><p>{_counts(rows)}</p></div>
</header>
<main>
<dl class="facts">{"".join(_facts(overview, rows))}</dl>
{_table(rows, overview.now) if rows else ""}
</main>
<footer>
<p>Times to come are counted from the last look. There is one at least once a day; if that was longer
ago, nobody looks after these certificates any more, and <code>nginx-acme status</code> says more.</p>
{f"<p>{_escaped(overview.silent)}</p>" if overview.silent else ""}
<p>nginx-acme &middot; {_escaped(overview.instance)} in {_escaped(overview.state)}</p>
</footer>
</body>
</html>
"""


def _policy() -> str:
    """Nothing may be loaded; our style is known by its hash."""
    digest = b2a_base64(sha256(STYLE.encode()).digest(), newline=False).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none';"
        " form-action 'none'"
    )


def _icon(level: str) -> str:
    """A dot for the browser's tab; without one it would ask the server for a file."""
    return (
        "data:image/svg+xml,%3Csvg xmlns=%22http://www.w3.org/2000/svg%22 viewBox=%220 0 16 16%22%3E"
        f"%3Ccircle cx=%228%22 cy=%228%22 r=%227%22 fill=%22%23{_COLORS[level]}%22/%3E%3C/svg%3E"
    )


def _sign(level: str) -> str:
    return (
        '<svg class="sign" viewBox="0 0 24 24" aria-hidden="true"><circle cx="12" cy="12" r="12"/>'
        f'<path d="{_SIGNS[level]}"/></svg>'
    )


def _from_worst_to_best(row: Row) -> tuple[int, float]:
    """The order of the page: what needs somebody, then what ends first."""
    end = row.not_after.timestamp() if row.not_after and row.state in OWN else 0.0
    return _GRAVITY[verdict_of(row)], end


def _counts(rows: Sequence[Row]) -> str:
    counted = Counter(_STATES[row.state] for row in rows)
    return " &middot; ".join(
        f"{counted[state]} {state}" for state in _STATES.values() if counted[state]
    )


# What is said of all --------------------------------------------------------------------


def _facts(overview: Overview, rows: Sequence[Row]) -> Iterator[str]:
    now = overview.now
    if overview.last_look:
        yield _fact("Last look", _moment(overview.last_look), "at all certificates")
    requests = [(row.next_attempt or row.renewal, row) for row in rows]
    yield from _earliest("Next request", requests, now)
    ends = [(row.not_after, row) for row in rows if row.state in GOOD]
    yield from _earliest("Next end", ends, now)


def _earliest(
    term: str, moments: Sequence[tuple[datetime | None, Row]], now: datetime
) -> Iterator[str]:
    known = [(moment, row.names[0]) for moment, row in moments if moment is not None]
    if known:
        moment, name = min(known)
        yield _fact(term, _moment(moment), f"{_when(moment, now)}: {_escaped(name)}")


def _fact(term: str, value: str, more: str) -> str:
    return f"<div><dt>{term}</dt><dd>{value} <small>{more}</small></dd></div>"


def _when(moment: datetime, now: datetime) -> str:
    if moment == now:
        return "now"
    return f"in {span(moment - now)}" if moment > now else f"{span(now - moment)} ago"


def _moment(moment: datetime) -> str:
    return f'<time datetime="{moment:%Y-%m-%dT%H:%M:%SZ}">{moment:%Y-%m-%d %H:%M} UTC</time>'


def _day(moment: datetime) -> str:
    return f'<time datetime="{moment:%Y-%m-%dT%H:%M:%SZ}">{moment:%Y-%m-%d}</time>'


# What is said of each -------------------------------------------------------------------


def _table(rows: Sequence[Row], now: datetime) -> str:
    """One group of rows for each certificate.

    Roles are said, since a browser forgets those of a table that is laid out as something else,
    which it is on a phone.
    """
    groups = "\n".join(_group(row, now) for row in rows)
    legend = "".join(
        f'<li class="{kind}">{words}</li>'
        for kind, words in _LEGEND
        if f'<rect class="{kind}"' in groups
    )
    heads = "".join(
        f'<th role="columnheader" scope="col">{words}</th>'
        for words in ("Certificate", "State", "Life", "Next")
    )
    return (
        f'<ul class="legend" aria-hidden="true">{legend}</ul>\n'
        '<table role="table" aria-label="Certificates">\n'
        f'<thead role="rowgroup"><tr role="row">{heads}</tr></thead>\n'
        f"{groups}\n</table>"
    )


def _group(row: Row, now: datetime) -> str:
    level, wrong = verdict_of(row), trouble(row)
    below = (
        f'\n<tr role="row"><td role="cell" colspan="4" class="trouble"><p>{_escaped(wrong)}</p></td></tr>'
        if wrong
        else ""
    )
    return (
        f'<tbody role="rowgroup" class="{level}"><tr role="row">\n'
        f'<th role="rowheader" scope="row">{_what(row)}</th>\n'
        f'<td role="cell" class="state"><span class="pill">{_STATES[row.state]}</span>'
        + ('<span class="pill">degraded</span>' if row.left_out else "")
        + "</td>\n"
        f'<td role="cell" class="life">{_life(row, now)}</td>\n'
        f'<td role="cell" class="next">{_next(row, now)}</td>\n'
        f"</tr>{below}</tbody>"
    )


def _what(row: Row) -> str:
    """Its names, whose it is, and the rest for who asks."""
    others = row.names[1:SHOWN_NAMES]
    more = len(row.names) - 1 - len(others)
    text = ", ".join(map(_escaped, others)) + (f" and {more} more" if more else "")
    return (
        f'<span class="name">{_escaped(row.names[0])}</span>'
        + (f'<span class="names">{text}</span>' if text else "")
        + f"<details><summary>{_escaped(row.issuer)} &middot; {_escaped(row.key_type)}</summary>"
        + f"<dl>{''.join(_details(row))}</dl></details>"
    )


def _details(row: Row) -> Iterator[str]:
    values = {
        "Names": ", ".join(row.names),
        "Issued by": row.issued_by or "",
        "Directory": row.directory_url,
        "Profile": row.profile or "",
        "Asked for in": ", ".join(row.places),
        "Kept in": row.path,
        "Proof": "nginx shows it" if row.served else row.unproved or "",
        "Renewal by": row.renewal_by or "",
        "Reason": row.explanation_url or "",
    }
    for term, value in values.items():
        if value:
            yield f"<div><dt>{term}</dt><dd>{_escaped(value)}</dd></div>"


def _next(row: Row, now: datetime) -> str:
    moment = row.next_attempt or row.renewal
    if moment is None:
        return "&mdash;"
    return f"{coming(row, now)} {(_moment if moment < now + SOON else _day)(moment)}"


def _life(row: Row, now: datetime) -> str:
    """Its life as a bar: what is gone, what is left until the renewal, and what is left after it."""
    begin, end = row.not_before, row.not_after
    if row.state not in OWN or begin is None or end is None or begin >= end:
        return f'<span class="instead">{_INSTEAD.get(row.state, "")}</span>'
    gone = _place(now, begin, end)
    renewal = _place(row.renewal, begin, end) if row.renewal else gone
    rest = "late" if row.state == "due" else "margin"
    drawn = [("gone", 0, gone), ("left", gone, renewal), (rest, max(gone, renewal), LENGTH)]
    rectangles = "".join(
        f'<rect class="{kind}" x="{start}" width="{to - start}" height="1"/>'
        for kind, start, to in drawn
        if to > start
    )
    said = f"{_escaped(_in_words(row, begin, end))}, {gone * 100 // LENGTH} % of its life are gone"
    ends = "ended" if end <= now else "ends"
    return (
        f'<svg class="bar" viewBox="0 0 {LENGTH} 1" preserveAspectRatio="none" role="img"'
        f' aria-label="{said}">{rectangles}</svg>'
        f'<span class="ends"><span>issued {_day(begin)}</span>'
        f"<span>{ends} {_day(end)} ({_when(end, now)})</span></span>"
    )


def _in_words(row: Row, begin: datetime, end: datetime) -> str:
    renewal = f", renewal {row.renewal:%Y-%m-%d}" if row.renewal else ""
    return f"issued {begin:%Y-%m-%d}{renewal}, ends {end:%Y-%m-%d}"


def _place(moment: datetime, begin: datetime, end: datetime) -> int:
    """Where a moment is in a life, in units of the drawing."""
    return round(LENGTH * min(1.0, max(0.0, (moment - begin) / (end - begin))))


def _escaped(text: str) -> str:
    return text.translate(_ESCAPES)
