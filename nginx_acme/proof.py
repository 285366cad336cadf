"""Proof that nginx serves what is on disk: what is looked at when (`sight`), and what is noted.

A reload that nginx took is no proof: a name may be another server's, an address another
program's, and a file may have been read a moment before it was replaced. So each certificate is
looked at where a client would see it, until it is seen there.

That it can't be seen (QUIC only, STARTTLS only, an address that isn't here) is a third result
and no failure; `status` tells it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from nginx_acme.standing import standings
from nginx_acme.store import Proof

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from nginx_acme.launch import Home
    from nginx_acme.log import Log
    from nginx_acme.sight import Finding
    from nginx_acme.standing import Standing
    from nginx_acme.work import Work

    Key = tuple[str, str]
    """Label and key type."""

PATIENCE = 30.0
"""Seconds for nginx to show what it has been told to load."""
FRESH = timedelta(days=1)
"""For so long what was seen counts as seen; a reload may have put another server in its way."""
_FEW = 3


def prove(work: Work, home: Home, now: datetime, log: Log, trouble: str | None = None) -> list[str]:
    """Look at what hasn't been seen lately and note what was found; the labels of what isn't served.

    What is new gets its time to be seen; the rest is looked at once.

    Args:
        work: of the generation that nginx runs.
        home: of the nginx; its store is open for writing.
        now: the wall clock.
        log: gets an error for what is not served.
        trouble: what went wrong when nginx was told to load it.
    """
    noted = home.instance.proofs()  # before what they are of, which another process may replace
    own = [one for one in standings(work.certificates, home.store, now) if one.bundle is not None]
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
    return [label for (label, _), proof in proofs.items() if proof.served is False]


def _is_fresh(proof: Proof, now: datetime) -> bool:
    """Whether it need not be looked at again today."""
    return proof.served is True and timedelta(0) <= now - proof.at < FRESH


def _look(
    work: Work, wanted: Sequence[Standing], patience: float, trouble: str | None
) -> dict[Key, Finding]:
    """What is found of each, with what went wrong where that is why it isn't served."""
    if not wanted:
        return {}
    from nginx_acme.sight import look  # noqa: PLC0415 - 40 ms, for nothing in most rounds

    findings = look(work, wanted, patience)
    return dict(zip(map(key, wanted), (_because(f, trouble) for f in findings), strict=True))


def _because(finding: Finding, trouble: str | None) -> Finding:
    if trouble is None or finding.served is not False:
        return finding
    return replace(finding, words=f"{finding.words}; {trouble}")


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
