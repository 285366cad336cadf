"""What an account has to wait for: `limits.json` in its folder.

What it means is `nginx_acme.policy.limits`'s business, and so is how far a time is believed. Written often
and without fsync: a power cut may cost a refusal by the CA, which then says the same again.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from nginx_acme import disk
from nginx_acme.policy.limits import Kind, Limits, Scope, Stop
from nginx_acme.store import records

if TYPE_CHECKING:
    from nginx_acme.store.records import Access, Fields

_KINDS = frozenset(Kind)


class KeptLimits:
    """The limits of one account, on disk."""

    def __init__(self, account: str, access: Access) -> None:
        self.path = os.path.join(account, "limits.json")
        self._access = access

    def load(self) -> Limits | None:
        """What is remembered, nothing where there is no file; None where the file is broken.

        Raises:
            StateError: it can't be read.
        """
        fields = records.load(self.path)
        return None if fields is None else _limits(fields)

    def save(self, limits: Limits) -> None:
        """Remember this from now on; a broken file is set aside.

        Raises:
            StateError: it can't be written.
        """
        self._access.demand()
        fields = records.load(self.path)
        if fields is None:
            disk.set_aside(self.path, records.DAMAGED)
        records.save(self.path, {**(fields or {}), **_fields(limits)}, durable=False)


def _limits(fields: Fields) -> Limits:
    """What makes no sense is left out."""
    stops = fields.get("stops")
    found = [_stop(records.table(each)) for each in stops] if isinstance(stops, list) else []
    full, failed = records.table(fields.get("full")), records.table(fields.get("failed"))
    return Limits(
        stops=dict(each for each in found if each is not None),
        full={key: at for key, text in full.items() if (at := records.time(text))},
        failed={
            name: tuple(at for text in records.texts(texts) if (at := records.time(text)))
            for name, texts in failed.items()
        },
    )


def _stop(fields: Fields) -> tuple[Scope, Stop] | None:
    kind, until = records.text(fields.get("kind")), records.time(fields.get("until"))
    if kind not in _KINDS or until is None:
        return None
    stop = Stop(
        until,
        because=records.text(fields.get("because")) or "",
        said=fields.get("said") is True,
        failures=records.count(fields.get("failures")),
        renewals=fields.get("renewals") is True,
        at=records.time(fields.get("at")),
    )
    return Scope(Kind(kind), records.text(fields.get("name")) or ""), stop


def _fields(limits: Limits) -> Fields:
    return {
        "stops": [
            {
                "kind": scope.kind,
                "name": scope.name,
                "until": records.time_text(stop.until),
                "because": stop.because,
                "said": stop.said,
                "failures": stop.failures,
                "renewals": stop.renewals,
                "at": records.time_text(stop.at),
            }
            for scope, stop in sorted(limits.stops.items())
        ],
        "full": {key: records.time_text(at) for key, at in limits.full.items()},
        "failed": {
            name: [records.time_text(at) for at in times] for name, times in limits.failed.items()
        },
    }
