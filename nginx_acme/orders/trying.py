"""One attempt at one certificate, as a value: what is asked for, and what it may do without."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nginx_acme import policy
from nginx_acme.standing import due_of, life_of

if TYPE_CHECKING:
    from collections.abc import Container
    from datetime import datetime

    from nginx_acme.bundle import Bundle
    from nginx_acme.orders.issuance import Wanted
    from nginx_acme.plan import Certificate
    from nginx_acme.store import Attempt, CertificateFolder


@dataclass(frozen=True, slots=True)
class Try:
    """An attempt: for which certificate, and what is asked; `before`: how the last one went.

    `forced`: the operator wants it now.
    """

    certificate: Certificate
    wanted: Wanted
    before: Attempt
    forced: bool

    @property
    def folder(self) -> CertificateFolder:
        """Where it is kept."""
        return self.wanted.folder

    @property
    def own(self) -> Bundle | None:
        """What there is of it."""
        return self.folder.own(self.wanted.key_type)

    @property
    def due(self) -> datetime | None:
        """When that is to be renewed."""
        due = due_of(self.certificate, self.own, self.folder.advice(self.wanted.key_type))
        return due.moment if due else None

    def without(self, dead: Container[str]) -> Try:
        """The same for fewer names."""
        rest = tuple(name for name in self.wanted.names if name.value not in dead)
        return replace(self, wanted=replace(self.wanted, names=rest))

    def may_become(self, rest: Try, now: datetime) -> bool:
        """Whether it is time for a certificate with no more names than those of `rest`."""
        if self.certificate.issuer.all_names:
            return False
        own, remaining = self.own, set(rest.wanted.values)
        has = {name for name in self.folder.identity.names if own and own.facts.covers(name)}
        return policy.may_leave_out(
            life_of(own),
            self.due,
            self.before.failures + 1,
            now,
            loses=not has <= remaining,
            gains=not remaining <= has,
        )
