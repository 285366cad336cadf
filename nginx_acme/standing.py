"""How each certificate stands: what the store has, and what is to be done about it by now.

Reads the store and writes nothing; asks nobody. What the clock says is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from nginx_acme.policy import Decision, Due, Life, Renew, decide, when_due
from nginx_acme.store import Attempt, Identity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from nginx_acme.bundle import Bundle
    from nginx_acme.plan import Certificate
    from nginx_acme.policy.ari import Advice
    from nginx_acme.store import CertificateFolder, Store


@dataclass(frozen=True, slots=True)
class Standing:
    """One key type of one certificate.

    `folder` is its own in the store, if it has one yet. `bundle` is the certificate's own, which
    is `usable` if it is good today; `shown` is what nginx is given, which may be another one
    meanwhile or instead. `due` is when the certificate's own is renewed, `advice` what its CA said
    of that, and `left_out` are the names that it should have and hasn't.
    """

    certificate: Certificate
    folder: CertificateFolder | None
    key_type: str
    bundle: Bundle | None
    shown: Bundle | None
    attempt: Attempt
    decision: Decision
    usable: bool
    due: Due | None = None
    advice: Advice | None = None
    left_out: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What the operator knows it by."""
        return self.folder.label if self.folder else self.certificate.names[0].value

    @property
    def to_ask(self) -> str | None:
        """Why it is to be asked for now; None: it isn't."""
        return self.decision.because if isinstance(self.decision, Renew) else None


def life_of(bundle: Bundle | None) -> Life | None:
    """The validity of a bundle; None where there is none."""
    return Life(bundle.facts.not_before, bundle.facts.not_after) if bundle else None


def due_of(certificate: Certificate, bundle: Bundle | None, advice: Advice | None) -> Due | None:
    """When a bundle of a certificate is to be renewed; None where there is none."""
    life, before = life_of(bundle), certificate.issuer.renew_before
    if life is None:
        return None
    return when_due(
        life,
        renew_before=None if before is None else timedelta(seconds=before),
        advised=advice.moment if advice else None,
    )


def advised(one: Standing) -> Bundle | None:
    """What there is of a certificate, where its CA's advice about it counts."""
    issuer, own = one.certificate.issuer, one.bundle
    if own is None or one.folder is None or issuer.local or issuer.renew_before is not None:
        return None
    issued = one.folder.issued(one.key_type)
    by_issuer = issued is not None and issued.directory_url == issuer.directory_url
    return own if by_issuer and own.facts.authority_key_id is not None else None


def left_out_of(certificate: Certificate, bundle: Bundle | None) -> tuple[str, ...]:
    """The names that somebody asked for and that a bundle of the certificate doesn't have."""
    if bundle is None:
        return ()
    names = (name.value for name in certificate.names if name.value not in certificate.optional)
    return tuple(name for name in names if not bundle.facts.covers(name))


def standings(
    certificates: Iterable[Certificate], store: Store, now: datetime
) -> Iterator[Standing]:
    """Every key type of every certificate."""
    for certificate in certificates:
        yield from of_folder(certificate, store.find(Identity(*certificate.identity)), now)


def missing(
    certificates: Iterable[Certificate], store: Store, now: datetime
) -> tuple[Certificate, ...]:
    """Those that can't be served as they are, and are to be asked for now."""
    found = standings(certificates, store, now)
    wanted = {one.certificate: None for one in found if one.to_ask and not one.usable}
    return tuple(wanted)


def can_serve(certificates: Iterable[Certificate], store: Store, now: datetime) -> bool:
    """Whether one of them can be served today, by itself or by the nearest that there is."""
    return any(
        _is_good(store.nearest(Identity(*certificate.identity), key_type, now), now)
        for certificate in certificates
        for key_type in certificate.key_types
    )


def unfinished(certificates: Iterable[Certificate], store: Store, now: datetime) -> bool:
    """Whether one is to be asked for, now or when its next attempt is due."""
    return any(one.to_ask or not one.usable for one in standings(certificates, store, now))


def of_folder(
    certificate: Certificate, folder: CertificateFolder | None, now: datetime
) -> Iterator[Standing]:
    """Every key type of one certificate."""
    for key_type in certificate.key_types:
        bundle = folder.own(key_type) if folder else None
        shown = folder.read(key_type) if folder else None
        attempt = folder.attempt(key_type) if folder else Attempt()
        advice = folder.advice(key_type) if folder and bundle else None
        due, left_out = due_of(certificate, bundle, advice), left_out_of(certificate, bundle)
        yield Standing(
            certificate,
            folder,
            key_type,
            bundle,
            shown,
            attempt,
            decision=decide(
                life_of(bundle),
                due,
                attempt.next,
                now,
                noted=attempt.at,
                left_out=left_out,
            ),
            usable=_is_good(bundle, now),
            due=due,
            advice=advice,
            left_out=left_out,
        )


def _is_good(bundle: Bundle | None, now: datetime) -> bool:
    """Not expired, and not temporary. "Not yet valid" is good: clocks are wrong more often."""
    return bundle is not None and not bundle.facts.temporary and now < bundle.facts.not_after
