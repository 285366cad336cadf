"""How each certificate stands: what the store has, and what is to be done about it by now.

Reads the store and writes nothing; asks nobody. What the clock says is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nginx_acme.policy import Decision, Life, Renew, decide
from nginx_acme.store import Attempt, Identity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from nginx_acme.certificate import Bundle
    from nginx_acme.plan import Certificate
    from nginx_acme.store import CertificateFolder, Store


@dataclass(frozen=True, slots=True)
class Standing:
    """One key type of one certificate.

    `bundle` is the certificate's own, if it has one yet; `shown` is what nginx is given meanwhile
    or instead.
    """

    certificate: Certificate
    folder: CertificateFolder
    key_type: str
    bundle: Bundle | None
    attempt: Attempt
    decision: Decision
    usable: bool

    @property
    def shown(self) -> Bundle | None:
        """What nginx is given."""
        return self.bundle or self.folder.read(self.key_type)

    @property
    def to_ask(self) -> str | None:
        """Why it is to be asked for now; None: it isn't."""
        return self.decision.because if isinstance(self.decision, Renew) else None


def life_of(bundle: Bundle | None) -> Life | None:
    """The validity of a bundle; None where there is none."""
    return Life(bundle.facts.not_before, bundle.facts.not_after) if bundle else None


def standings(
    certificates: Iterable[Certificate], store: Store, now: datetime
) -> Iterator[Standing]:
    """Every key type of every certificate that has a folder in the store."""
    for certificate in certificates:
        folder = store.find(Identity(*certificate.identity))
        if folder is not None:
            yield from of_folder(certificate, folder, now)


def of_folder(
    certificate: Certificate, folder: CertificateFolder, now: datetime
) -> Iterator[Standing]:
    """Every key type of one certificate."""
    for key_type in certificate.key_types:
        bundle, attempt = folder.own(key_type), folder.attempt(key_type)
        life = life_of(bundle)
        decision = decide(life, attempt.next, now)
        usable = life is not None and now < life.not_after
        yield Standing(certificate, folder, key_type, bundle, attempt, decision, usable)
