"""What a client sees of each certificate: handshakes with nginx's own listeners.

What may live here: where to look, in which order and for how long, and what is made of what is seen.
What is noted of that is `proof`'s, and one handshake is `handshake`'s.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from nginx_acme.certificate import leaf_der, read_leaf
from nginx_acme.errors import BadBundle
from nginx_acme.handshake import Refused, Unseen, ask, questions
from nginx_acme.log import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from nginx_acme.handshake import Question
    from nginx_acme.plan import Shown
    from nginx_acme.standing import Standing
    from nginx_acme.work import Work

LONGEST = 60.0
"""Seconds for looking at all certificates, however many they are."""
AT_ONCE = 16
_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 4.0
_ENOUGH = 8
"""Places to look at for one certificate; one that shows it is proof."""
_FEW = 3
_LONGEST_NAMES = 200  # characters


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether a certificate is served (None: it can't be seen), and what is, or why it can't."""

    served: bool | None
    words: str | None = None


def look(
    work: Work,
    wanted: Sequence[Standing],
    patience: float = 0.0,
    *,
    longest: float = LONGEST,
) -> list[Finding]:
    """What handshakes show of each; one that is not served is looked at again, for so long.

    Args:
        work: says where each is shown.
        wanted: those with something that nginx is given.
        patience: seconds.
        longest: seconds after which what was not looked at yet isn't.
    """
    numbers = {certificate.identity: n for n, certificate in enumerate(work.certificates)}
    sought = [_sought(one, numbers[one.certificate.identity], work.shown) for one in wanted]
    start = time.monotonic()
    findings = _look_at(sought, start + longest)
    pause = _FIRST_PAUSE
    while (again := [i for i, found in enumerate(findings) if found.served is False]) and (
        time.monotonic() + pause < start + patience
    ):
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
        found = _look_at([sought[i] for i in again], start + longest)
        for i, finding in zip(again, found, strict=True):
            findings[i] = finding
    return findings


@dataclass(frozen=True, slots=True)
class _Sought:
    """A certificate (DER), and where to look for it; without a place `nowhere` says why."""

    der: bytes
    key_type: str
    questions: tuple[Question, ...]
    nowhere: str


def _sought(one: Standing, number: int, shown: Iterable[Shown]) -> _Sought:
    servers = [x for x in shown if x.certificate == number and one.key_type in x.key_types]
    asked = tuple(dict.fromkeys(islice(_questions(servers, one.key_type), _ENOUGH)))
    der = leaf_der(one.shown) if one.shown else b""
    if not servers:
        return _Sought(der, one.key_type, (), "nobody noted where it is shown, reload nginx")
    quic = any(server.listens for server in servers)
    return _Sought(der, one.key_type, asked, f"only {'QUIC' if quic else 'STARTTLS'} shows it")


def _questions(servers: Sequence[Shown], key_type: str) -> Iterator[Question]:
    """Where a client would see it, each listener before another name of the same one."""
    for turn in range(_FEW):
        for server in servers:
            names = sorted(server.names, key=lambda name: name.startswith("*."))
            several = len({kind_of(each) for each in server.key_types}) > 1
            for listen in server.listens:
                if turn < len(names) and not listen.quic:
                    kind = kind_of(key_type) if several else None
                    yield from questions(listen, names[turn], kind)


def kind_of(key_type: str) -> str:
    """One of `KINDS`: those of which a server shows one for each, whatever their sizes."""
    return key_type.partition(":")[0]


def _look_at(sought: Sequence[_Sought], end: float) -> list[Finding]:
    """Side by side; an address that gives no answer is not asked for each of them."""
    silent: dict[tuple[str, int], str] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(partial(_judge, silent=silent, end=end), sought))


def _judge(sought: _Sought, silent: dict[tuple[str, int], str], end: float) -> Finding:
    """What all places together say: to be seen at one is enough, for others may be in the way."""
    found: dict[bool | None, Finding] = {}
    for question in sought.questions:
        place = question.host, question.port
        if time.monotonic() > end:
            silent.setdefault(place, "there was no time to look at it")
        try:
            finding = Finding(None, silent[place]) if place in silent else _seen(sought, question)
        except Unseen as why:
            finding = Finding(None, silent.setdefault(place, str(why)))
        if finding.served:
            return finding
        found.setdefault(finding.served, finding)
    return found.get(False) or found.get(None) or Finding(None, sought.nowhere)


def _seen(sought: _Sought, question: Question) -> Finding:
    """What one handshake shows, or two: where TLS 1.2 is off, no kind of key can be asked for.

    Raises:
        Unseen: nothing.
    """
    try:
        try:
            der = ask(question)
        except Refused:
            if question.kind is None:
                raise
            der = ask(replace(question, kind=None))
    except Refused as refused:
        return Finding(False, str(refused))
    return _compared(sought, question, der)


def _compared(sought: _Sought, question: Question, der: bytes) -> Finding:
    if der == sought.der:
        return Finding(True)
    try:
        facts = read_leaf(der)
    except BadBundle:
        return Finding(False, f"{question} shows something else")
    if question.kind is not None and kind_of(facts.key_type) != question.kind:
        other = kind_of(facts.key_type).upper()
        return Finding(None, f"{question} shows its {other} certificate and hides the other one")
    if facts.temporary:
        return Finding(False, f"{question} shows a temporary certificate")
    names = printable(", ".join(sorted(facts.names)[:_FEW]))[:_LONGEST_NAMES]
    until = f"valid until {facts.not_after:%Y-%m-%d %H:%M} UTC"
    return Finding(False, f"{question} shows another certificate, of {names}, {until}")
