"""Proof that nginx serves what is on disk: handshakes with its own listeners.

A reload that nginx took is no proof: a name may be another server's, an address another
program's, and a file may have been read a moment before it was replaced. So each certificate is
looked at where a client would see it, until it is seen there.

That it can't be seen (QUIC only, STARTTLS only, an address that isn't here) is a third result
and no failure; `status` tells it.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from nginx_acme.certificate import leaf_der, read_leaf
from nginx_acme.errors import BadBundle
from nginx_acme.handshake import Refused, Unseen, ask, questions
from nginx_acme.log import printable
from nginx_acme.store import Proof

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from nginx_acme.handshake import Question
    from nginx_acme.launch import Home
    from nginx_acme.log import Log
    from nginx_acme.plan import Shown
    from nginx_acme.standing import Standing, Survey
    from nginx_acme.work import Work

    Key = tuple[str, str]
    """Label and key type."""

PATIENCE = 30.0
"""Seconds for nginx to show what it has been told to load."""
FRESH = timedelta(days=1)
"""For so long what was seen counts as seen; a reload may have put another server in its way."""
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


# The story of a run --------------------------------------------------------------------------


class Proven(NamedTuple):
    """The labels of what isn't served, and whether nginx was `asked` for anything."""

    unserved: list[str]
    asked: bool


def prove(work: Work, seen: Survey, home: Home, log: Log, trouble: str | None = None) -> Proven:
    """Look at what hasn't been seen lately and note what was found.

    What is new gets its time to be seen; the rest is looked at once.

    Args:
        work: of the generation that nginx runs.
        seen: how its certificates stand.
        home: of the nginx; its store is open for writing.
        log: gets an error for what is not served.
        trouble: what went wrong when nginx was told to load it.
    """
    noted, now = home.instance.proofs(), seen.at
    own = [one for one in seen.found if one.bundle is not None]
    known = {key(one): proof for one in own if (proof := about(one, noted)) is not None}
    new = [one for one in own if key(one) not in known]
    old = [one for one in own if key(one) in known and not _is_fresh(known[key(one)], now)]
    found = _look(work, new, PATIENCE if trouble is None else 0.0, trouble)
    _tell(log, "new certificate", found)
    again = _look(work, old, 0.0, trouble)
    _tell(log, "certificate", again)
    found.update(again)
    serials = {key(one): _serial(one) for one in own}
    fresh = {k: Proof(serials[k], each.served, each.words, now) for k, each in found.items()}
    proofs = {**known, **fresh}
    if proofs != noted:
        home.instance.note_proofs(proofs)
    unserved = [label for (label, _), proof in proofs.items() if proof.served is False]
    return Proven(unserved, asked=bool(fresh))


def _is_fresh(proof: Proof, now: datetime) -> bool:
    """Whether it need not be looked at again today."""
    return proof.served is True and timedelta(0) <= now - proof.at < FRESH


def _look(
    work: Work, wanted: Sequence[Standing], patience: float, trouble: str | None
) -> dict[Key, Finding]:
    """What is found of each, with what went wrong where that is why it isn't served."""
    findings = look(work, wanted, patience)
    return dict(zip(map(key, wanted), (_because(f, trouble) for f in findings), strict=True))


def _because(finding: Finding, trouble: str | None) -> Finding:
    if trouble is None or finding.served is not False:
        return finding
    return Finding(False, f"{finding.words}; {trouble}")


def key(one: Standing) -> Key:
    """What a proof is noted under."""
    return one.label, one.key_type


def about(one: Standing, proofs: Mapping[Key, Proof]) -> Proof | None:
    """What was found of the very certificate that nginx is given now."""
    proof = proofs.get(key(one))
    return proof if proof is not None and proof.serial == _serial(one) else None


def _serial(one: Standing) -> str:
    return f"{one.shown.facts.serial:x}" if one.shown else ""


def _tell(log: Log, what: str, findings: Mapping[Key, Finding]) -> None:
    """An error for what is not served; for many of them a few."""
    amiss = [(label, found) for (label, _), found in findings.items() if found.served is False]
    for label, found in amiss[:_FEW]:
        log.error(f"the {what} of {label} is not served: {found.words}")
    if len(amiss) > _FEW:
        log.error(f"{len(amiss) - _FEW} more certificates are not served")


# Looking ---------------------------------------------------------------------------------------


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
