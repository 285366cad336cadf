"""What a look at one thing has shown: well, odd or wrong; in words, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """How it is; only `WRONG` is worth an exit code."""

    FINE = "ok"
    ODD = "warning"
    WRONG = "error"

    @property
    def gravity(self) -> int:
        """The worse, the higher."""
        return list(Verdict).index(self)


@dataclass(frozen=True, slots=True)
class Finding:
    """One check of one subject.

    `check` names the check for programs, ``group.what``, and never changes its meaning. `words`
    say how it is, without the subject in them; `advice` what the operator does about it.
    """

    check: str
    subject: str
    verdict: Verdict
    words: str
    advice: str | None = None

    @property
    def group(self) -> str:
        """What it is shown under."""
        return self.check.partition(".")[0]


def fine(check: str, subject: str, words: str) -> Finding:
    """All is well."""
    return Finding(check, subject, Verdict.FINE, words)


def odd(check: str, subject: str, words: str, advice: str | None = None) -> Finding:
    """It may be meant so, or not matter yet."""
    return Finding(check, subject, Verdict.ODD, words, advice)


def wrong(check: str, subject: str, words: str, advice: str | None = None) -> Finding:
    """As it is, something that the configuration asks for doesn't work, now or at the next renewal."""
    return Finding(check, subject, Verdict.WRONG, words, advice)
