"""May this CA issue for this name, by the name's CAA records (RFC 8659, RFC 8657)?

Pure: records in, a finding out. Which records count is `lookup.records`' business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from nginx_acme.doctor.finding import Finding, Verdict, fine, odd, wrong

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nginx_acme.identifiers import Name
    from nginx_acme.lookup.records import Caa, RelevantCaa

CHECK = "names.caa"
_UNDERSTOOD = frozenset(
    {"issue", "issuewild", "issuemail", "issuevmc", "iodef", "contactemail", "contactphone"}
)
"""The tags that CAs know (IANA's registry); a critical one beside them stops every CA."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who will ask: `identities` are the CA's names in CAA, none where only the CA knows them.

    `account` is the URL of our account there, None as long as there is none. `method` is the type
    of the challenges. `proved`: this CA has issued this certificate before.
    """

    issuer: str
    identities: tuple[str, ...]
    account: str | None
    method: str
    proved: bool = False


class _Permit(NamedTuple):
    """The value of an `issue` or `issuewild`; the domain is empty where nobody is let."""

    domain: str
    accounts: tuple[str, ...]
    methods: tuple[str, ...]


def judge(name: Name, found: RelevantCaa, asker: Asker) -> Finding:
    """What the records mean for an order of this name."""
    subject, where = name.value, _where(name, found)
    unknown = sorted({r.tag for r in found.records if r.critical and r.tag not in _UNDERSTOOD})
    if unknown:
        return wrong(
            CHECK,
            subject,
            f'CAA{where} has the critical tag "{unknown[0]}", which no CA understands',
            "remove that record, or its critical flag",
        )
    permits = _permits(found.records, wildcard=name.wildcard)
    if not permits:
        return fine(CHECK, subject, "CAA excludes nobody")
    if not asker.identities:
        return _without_identities(subject, where, permits, asker)
    ours = [permit for permit in permits if permit.domain in asker.identities]
    if not ours:
        return wrong(
            CHECK,
            subject,
            f"CAA{where} lets {_named(permits)} issue, not {asker.issuer}",
            f'add: {found.owner}. CAA 0 issue "{asker.identities[0]}"',
        )
    return max(
        (_restricted(subject, where, permit, asker) for permit in ours),
        key=lambda finding: -finding.verdict.gravity,
    )


def _permits(records: Iterable[Caa], *, wildcard: bool) -> list[_Permit]:
    """Who may issue; nothing: everybody may (RFC 8659 §4.2, §4.3)."""
    by_tag: dict[str, list[_Permit]] = {}
    for record in records:
        by_tag.setdefault(record.tag, []).append(_permit(record.value))
    wild = by_tag.get("issuewild", []) if wildcard else []
    return wild or by_tag.get("issue", [])


def _permit(value: str) -> _Permit:
    domain, *parameters = (part.strip() for part in value.split(";"))
    pairs = [(k.strip().lower(), v.strip()) for k, _, v in (p.partition("=") for p in parameters)]
    return _Permit(
        domain.lower().removesuffix("."),
        tuple(v for k, v in pairs if k == "accounturi"),
        tuple(m.strip() for k, v in pairs if k == "validationmethods" for m in v.split(",")),
    )


def _without_identities(
    subject: str, where: str, permits: Sequence[_Permit], asker: Asker
) -> Finding:
    """A private CA need not look at CAA at all; what names it may be called by, only it knows."""
    words = f"CAA{where} lets {_named(permits)} issue"
    if asker.proved:
        return fine(CHECK, subject, f"{words}; {asker.issuer} has issued for it")
    return odd(CHECK, subject, f"{words}; is that {asker.issuer}?", "if not, add the name it says")


def _restricted(subject: str, where: str, permit: _Permit, asker: Asker) -> Finding:
    """The CA may issue; but perhaps only in some way, or for some account (RFC 8657)."""
    if permit.methods and asker.method not in permit.methods:
        return wrong(
            CHECK,
            subject,
            f"CAA{where} lets {asker.issuer} issue by {', '.join(permit.methods)} alone",
            f'add "{asker.method}" to its validationmethods',
        )
    if permit.accounts and asker.account is None:
        return odd(
            CHECK,
            subject,
            f"CAA{where} wants the account {permit.accounts[0]}, and there is none here yet",
            "put the account of this state directory there once it is made",
        )
    if permit.accounts and asker.account not in permit.accounts:
        return wrong(
            CHECK,
            subject,
            f"CAA{where} wants the account {permit.accounts[0]}, ours is {asker.account}",
            f'set "accounturi={asker.account}" there',
        )
    return Finding(CHECK, subject, Verdict.FINE, f"CAA lets {asker.issuer} issue")


def _named(permits: Iterable[_Permit]) -> str:
    domains = dict.fromkeys(permit.domain for permit in permits if permit.domain)
    return ", ".join(domains) or "nobody"


def _where(name: Name, found: RelevantCaa) -> str:
    bare = name.value.removeprefix("*.")
    return f" of {found.owner}" if found.owner != bare else ""
