"""Metrics in Prometheus' text format (version 0.0.4), by its conventions for names.

Times are seconds since the epoch, so that whoever reads them does the sums with a clock that goes
on: ``nginx_acme_certificate_not_after_seconds - time() < 7 * 86400``. A certificate is known by
its label in the state directory and its key type; everything else is told of it in `_info`. Where
a stand-in is shown there is no time of its end, so that no alert takes it for the real one.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from nginx_acme.report.verdict import GOOD, OWN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime

    from nginx_acme.report import Overview, Row

    Value = int | None
    Named = Sequence[tuple[str, Row]]

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def to_metrics(overview: Overview, version: str) -> str:
    """The whole text; `version` is that of this program."""
    named = tuple(zip(_names(overview.rows), overview.rows, strict=True))
    families = (
        _family("build_info", "The nginx-acme that wrote this.", [(_labels(version=version), 1)]),
        _family(
            "last_check_timestamp_seconds",
            "When the certificates were last looked at for what is due.",
            [("", _seconds(overview.last_look))],
        ),
        _family(
            "certificate_info",
            "What a certificate is, from whom, and how it stands.",
            ((f"{name},{_about(row)}", 1) for name, row in named),
        ),
        *(_of_each(named, *family) for family in _FAMILIES),
    )
    return "".join(map("".join, families))


def _about(row: Row) -> str:
    return _labels(
        name=row.names[0],
        issuer=row.issuer,
        issued_by=row.issued_by or "",
        profile=row.profile or "",
        state=row.state,
    )


_FAMILIES: tuple[tuple[str, str, Callable[[Row], Value]], ...] = (
    (
        "certificate_valid",
        "Whether nginx has this certificate and it is not expired.",
        lambda row: row.state in GOOD,
    ),
    (
        "certificate_degraded",
        "Whether the certificate had to do without some of its names.",
        lambda row: bool(row.left_out),
    ),
    (
        "certificate_served",
        "Whether a handshake with nginx showed the certificate; absent where nobody can know.",
        lambda row: row.served,
    ),
    (
        "certificate_not_before_seconds",
        "Beginning of the certificate's validity; absent while another one stands in.",
        lambda row: _seconds(row.not_before) if row.state in OWN else None,
    ),
    (
        "certificate_not_after_seconds",
        "End of the certificate's validity; absent while another one stands in.",
        lambda row: _seconds(row.not_after) if row.state in OWN else None,
    ),
    (
        "certificate_renewal_seconds",
        "When the next certificate is wanted.",
        lambda row: _seconds(row.renewal),
    ),
    (
        "certificate_next_attempt_seconds",
        "When a certificate that is wanted now will be asked for; absent for the others.",
        lambda row: _seconds(row.next_attempt),
    ),
    (
        "certificate_failures",
        "Attempts that failed in a row since the last one that didn't.",
        lambda row: row.failures,
    ),
)


def _of_each(named: Named, name: str, meaning: str, value: Callable[[Row], Value]) -> Iterator[str]:
    return _family(name, meaning, ((labels, value(row)) for labels, row in named))


def _family(name: str, meaning: str, values: Iterable[tuple[str, Value]]) -> Iterator[str]:
    """A metric with its samples: labels and value; none where that is None."""
    yield f"# HELP nginx_acme_{name} {meaning}\n# TYPE nginx_acme_{name} gauge\n"
    for labels, value in values:
        if value is not None:
            yield f"nginx_acme_{name}{f'{{{labels}}}' if labels else ''} {value:d}\n"


def _names(rows: Iterable[Row]) -> Iterator[str]:
    """The labels that name each row, no two alike: what has no folder yet has no label of its own."""
    seen: Counter[tuple[str, str]] = Counter()
    for row in rows:
        key = row.label, row.key_type
        seen[key] += 1
        label = row.label if seen[key] == 1 else f"{row.label} ({seen[key]})"
        yield _labels(certificate=label, key_type=row.key_type)


def _labels(**values: str) -> str:
    return ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in values.items())


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else round(moment.timestamp())
