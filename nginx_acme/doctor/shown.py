"""Findings for people, and for programs.

What may live here: shapes. The words are those of the findings.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nginx_acme.doctor.finding import Finding, Verdict
from nginx_acme.log import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

SCHEMA = 1
"""Of the JSON; raised when a field changes its meaning or goes away."""

MARKS = {Verdict.FINE: "✓", Verdict.ODD: "!", Verdict.WRONG: "✗"}
_COLOURS = {Verdict.FINE: "32", Verdict.ODD: "33", Verdict.WRONG: "31"}
_MOST = 3
"""Subjects that are named in one line; the others are counted."""
_WIDEST = 40
"""Of subjects whose words stand below each other."""


def to_json(findings: Iterable[Finding], now: datetime) -> dict[str, Any]:
    """The document of ``doctor --json``: every finding by itself, absent advice is null."""
    shown = list(findings)
    return {
        "schema": SCHEMA,
        "now": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "ok": is_well(shown),
        "checks": [
            {
                "check": one.check,
                "subject": one.subject,
                "verdict": one.verdict.value,
                "words": one.words,
                "advice": one.advice,
            }
            for one in shown
        ],
    }


def is_well(findings: Iterable[Finding]) -> bool:
    """Whether nothing is wrong."""
    return all(one.verdict is not Verdict.WRONG for one in findings)


def to_text(findings: Iterable[Finding], *, colours: bool) -> Iterator[str]:
    """A line for each finding, below its group; the same of several subjects is one line."""
    for number, (group, lines) in enumerate(_together(findings).items()):
        if number:
            yield ""
        yield _painted(group, "1") if colours else group
        width = min(max(len(subject) for subject, _ in lines), _WIDEST)
        for subject, finding in lines:
            mark = MARKS[finding.verdict]
            shown = _painted(mark, _COLOURS[finding.verdict]) if colours else mark
            advice = f"; {finding.advice}" if finding.advice else ""
            yield f"  {shown} {printable(f'{subject:{width}}  {finding.words}{advice}')}"


def _painted(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m"


def _together(findings: Iterable[Finding]) -> dict[str, list[tuple[str, Finding]]]:
    """By group: the subjects of which the same is found, where the first of them would stand."""
    subjects: dict[Finding, list[str]] = {}
    for one in findings:
        subjects.setdefault(replace(one, subject=""), []).append(one.subject)
    groups: dict[str, list[tuple[str, Finding]]] = {}
    for same, names in subjects.items():
        more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
        groups.setdefault(same.group, []).append((", ".join(names[:_MOST]) + more, same))
    return groups
