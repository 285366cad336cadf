"""How long a big first issue takes, by what is known of its CA's limits.

What may live here: pure functions over `limits`. It is a forecast and stops nobody: what a registered
name is says the Public Suffix List, of which the last labels of a name are only a guess. A library
for it would say more, and be as old as its list; the CA knows and says it (`limits.scopes`).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from nginx_acme.acme.presets import Rates
    from nginx_acme.policy.limits import Ask, Limits

_SHARED = re.compile(r"[a-z]{2,3}\.[a-z]{2}")
"""What many register names below, by its look: co.uk, com.au, net.br."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """When the last of a queue can be ordered.

    `crowded` are names with more certificates below them than their CA gives at once: how many,
    and when it gives the last one.
    """

    last: datetime
    crowded: Mapping[str, tuple[int, datetime]]


def forecast(queue: Sequence[Ask], limits: Limits, rates: Rates, now: datetime) -> Forecast:
    """What a queue has before it."""
    below = [{likely_registered(name) for name in ask.names} for ask in queue]
    number = Counter(name for names in below for name in names)
    most = rates.registered_name.orders if rates.registered_name else len(queue)
    crowded = {name for name, count in number.items() if count > most}
    full = {name: limits.full.get(name, now) for name in crowded}
    moments = replace(limits, full={**limits.full, **full}).moments(queue, rates, now)
    return Forecast(
        last=max(moments, default=now),
        crowded={
            name: (
                number[name],
                max(at for at, names in zip(moments, below, strict=True) if name in names),
            )
            for name in sorted(crowded)
        },
    )


def likely_registered(name: str) -> str:
    """The name that somebody has probably registered, of which this is a part; or an address."""
    labels = name.removeprefix("*.").split(".")
    if labels[-1].isdigit():
        return name
    known = ".".join(labels[-2:])
    return ".".join(labels[-3:]) if _SHARED.fullmatch(known) else known
