"""The metrics, read by Prometheus' own client."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from nginx_acme.report.metrics import to_metrics
from tests.report.rows import ALL, DEGRADED, EXPIRED, FAILING, NEW, NOW, UNSERVED, VALID, of

if TYPE_CHECKING:
    from nginx_acme.report import Overview

Samples = dict[str, dict[tuple[str, str], float]]


def read(overview: Overview) -> Samples:
    """Each metric's values by label and key type of the certificate."""
    found: Samples = {}
    for family in text_string_to_metric_families(to_metrics(overview, "1.2")):
        for sample in family.samples:
            labels = sample.labels
            key = labels.get("certificate", ""), labels.get("key_type", "")
            values = found.setdefault(sample.name, {})
            assert key not in values, "Prometheus refuses all where two have the same labels"
            values[key] = sample.value
    return found


def only(overview: Overview) -> dict[str, float]:
    """Each metric's value, where there is one certificate."""
    return {name: next(iter(values.values())) for name, values in read(overview).items()}


def test_values() -> None:
    """Times are seconds since the epoch, counts numbers, and what isn't known is absent."""
    now = NOW.timestamp()
    assert only(of(FAILING)) == {
        "nginx_acme_build_info": 1,
        "nginx_acme_last_check_timestamp_seconds": now - 3600,
        "nginx_acme_certificate_info": 1,
        "nginx_acme_certificate_valid": 1,
        "nginx_acme_certificate_degraded": 0,
        "nginx_acme_certificate_not_before_seconds": now - 75 * 86400,
        "nginx_acme_certificate_not_after_seconds": now + 15 * 86400,
        "nginx_acme_certificate_renewal_seconds": now - 15 * 86400,
        "nginx_acme_certificate_next_attempt_seconds": now + 6000,
        "nginx_acme_certificate_failures": 3,
    }


def test_states() -> None:
    """An alert can tell what needs somebody; the end of a stand-in is nobody's."""
    samples = read(of(*ALL))
    valid = samples["nginx_acme_certificate_valid"]
    assert {label for (label, _), value in valid.items() if value} == {
        row.label for row in ALL if row.state in {"valid", "due"}
    }
    ends = samples["nginx_acme_certificate_not_after_seconds"]
    assert {label for label, _ in ends} == {
        row.label for row in ALL if row.state in {"valid", "due", "expired"}
    }
    assert samples["nginx_acme_certificate_degraded"][DEGRADED.label, "ecdsa:256"] == 1
    assert samples["nginx_acme_certificate_served"] == {(UNSERVED.label, "ecdsa:256"): 0}


def test_info() -> None:
    """What a certificate is stands in labels of its own, whatever characters are in them."""
    odd = replace(VALID, issuer='a\\b"c\nd', issued_by="Täst", profile="short")
    (info,) = (
        family.samples[0]
        for family in text_string_to_metric_families(to_metrics(of(odd), "1.2"))
        if family.name == "nginx_acme_certificate_info"
    )
    assert info.labels == {
        "certificate": "example.com",
        "key_type": "ecdsa:256",
        "name": "example.com",
        "issuer": 'a\\b"c\nd',
        "issued_by": "Täst",
        "profile": "short",
        "state": "valid",
    }


def test_no_two_alike() -> None:
    """What has no folder yet may have its name in common with another."""
    other = replace(NEW, issuer="corp")
    rsa = replace(NEW, key_type="rsa:2048")
    samples = read(of(NEW, other, rsa))
    assert set(samples["nginx_acme_certificate_failures"]) == {
        ("new.example", "ecdsa:256"),
        ("new.example (2)", "ecdsa:256"),
        ("new.example", "rsa:2048"),
    }


def test_form() -> None:
    """Each metric is explained and has a type, once and before its values (0.0.4)."""
    text = to_metrics(of(EXPIRED, VALID), "1.2")
    assert text.endswith("\n")
    for block in text.split("# HELP ")[1:]:
        name = block.partition(" ")[0]
        head, kind, *values = block.splitlines()
        assert re.fullmatch(rf"{name} [A-Z].*\.", head)
        assert kind == f"# TYPE {name} gauge"
        assert all(line.startswith((f"{name} ", f"{name}{{")) for line in values)


def test_never_looked() -> None:
    """Before the first look there is no time of it."""
    overview = replace(of(VALID), last_look=None)
    assert "nginx_acme_last_check_timestamp_seconds" not in read(overview)
