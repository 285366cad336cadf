"""How what is in the store stands, in the doctor's words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from nginx_acme.doctor.certificates import (
    Kept,
    Sighting,
    judge_account,
    judge_certificate,
    judge_orphan,
    judge_sighting,
)
from nginx_acme.identifiers import Name
from nginx_acme.plan import Certificate, Issuer
from nginx_acme.policy import Keep, Renew, Wait
from nginx_acme.sight import Finding as Seen
from nginx_acme.standing import Standing
from nginx_acme.store import AccountFolder, Attempt
from nginx_acme.store.proved import Proved
from nginx_acme.store.records import Access
from tests.store.bundles import issue, temporary

if TYPE_CHECKING:
    from nginx_acme.bundle import Bundle
    from nginx_acme.policy import Decision

NOW = datetime(2026, 2, 1, tzinfo=UTC)
NAMES = ("a.example",)
ISSUER = Issuer("corp", "https://ca.example/dir", public=False, contacts=("mailto:a@b.example",))
CERTIFICATE = Certificate(ISSUER, (Name("a.example"),), None, ("ecdsa:256",), ())
LATER = Wait(NOW + timedelta(hours=1), "it failed")
FAILED = Attempt(2, LATER.until, "no (unauthorized)", NOW)
ACCOUNT = AccountFolder("/accounts/corp_1", ISSUER.directory_url, b"", Access("/", Proved("")))


def standing(
    bundle: Bundle | None = None,
    shown: Bundle | None = None,
    decision: Decision = Keep(NOW),  # noqa: B008 - frozen
    attempt: Attempt = Attempt(),  # noqa: B008 - frozen
    *,
    usable: bool = True,
    left_out: tuple[str, ...] = (),
) -> Standing:
    """How the certificate stands."""
    return Standing(
        CERTIFICATE,
        None,
        "ecdsa:256",
        bundle,
        shown or bundle,
        attempt,
        decision,
        usable=usable and bundle is not None,
        left_out=left_out,
    )


OWN, STAND_IN = issue(NAMES), temporary(NAMES)


@pytest.mark.parametrize(
    ("one", "running", "verdict", "words"),
    [
        pytest.param(standing(OWN), True, "ok", "valid until 2026-04-02", id="valid"),
        pytest.param(
            standing(OWN, decision=LATER, attempt=FAILED),
            True,
            "warning",
            "valid until 2026-04-02; the last attempt failed: no (unauthorized); the next is at"
            " 2026-02-01 01:00 UTC",
            id="a renewal that failed",
        ),
        pytest.param(
            standing(OWN, left_out=("www.a.example",)),
            True,
            "warning",
            "valid until 2026-04-02, without www.a.example",
            id="without a name",
        ),
        pytest.param(
            standing(OWN, decision=Renew("expired"), usable=False),
            True,
            "error",
            "expired on 2026-04-02",
            id="expired",
        ),
        pytest.param(standing(), False, "ok", "there is none yet", id="before the first start"),
        pytest.param(standing(), True, "warning", "there is none yet", id="none beside nginx"),
        pytest.param(
            standing(shown=STAND_IN, decision=Renew("none")),
            True,
            "warning",
            "a temporary one is shown in its place",
            id="temporary",
        ),
        pytest.param(
            standing(shown=issue(("b.example",)), decision=LATER, attempt=FAILED),
            True,
            "error",
            "another one is shown in its place; the last attempt failed",
            id="another's, and no success",
        ),
    ],
)
def test_certificate(one: Standing, running: bool, verdict: str, words: str) -> None:  # noqa: FBT001
    """Nothing valid after a failure is an error; what is only on its way is none."""
    found = judge_certificate(Kept(one, None), running=running)
    assert (found.verdict.value, found.subject) == (verdict, "a.example ecdsa:256")
    assert words in found.words


@pytest.mark.parametrize(
    ("decision", "running", "advice"),
    [
        pytest.param(Renew("it is expired"), True, "nginx-acme renew", id="due"),
        pytest.param(LATER, True, "nginx-acme renew --force a.example", id="waiting"),
        pytest.param(LATER, False, "start nginx-acme", id="nginx doesn't run"),
    ],
)
def test_advice(decision: Decision, running: bool, advice: str) -> None:  # noqa: FBT001
    """What to do depends on who would do it by itself, and when."""
    one = standing(decision=decision, attempt=FAILED)
    found = judge_certificate(Kept(one, None), running=running)
    assert found.advice is not None
    assert advice in found.advice


def test_damaged() -> None:
    """A damaged file can't be served, whatever else is known."""
    found = judge_certificate(Kept(standing(), "no key"), running=True)
    assert found.verdict.value == "error"
    assert "damaged (no key)" in found.words


@pytest.mark.parametrize(
    ("seen", "verdict", "words"),
    [
        pytest.param(Seen(True), "ok", "is served", id="served"),
        pytest.param(Seen(False, "another"), "error", "is not served: another", id="not"),
        pytest.param(Seen(None, "only QUIC"), "warning", "can't be seen from here", id="unseen"),
    ],
)
def test_sighting(seen: Seen, verdict: str, words: str) -> None:
    """Only what handshakes show is served; where nothing can be seen, nothing is proved."""
    found = judge_sighting(Sighting(standing(OWN), seen))
    assert (found.verdict.value, words in found.words) == (verdict, True)


def test_orphan() -> None:
    """What nobody asks for any more ends some day, unrenewed."""
    assert judge_orphan("old.example").verdict.value == "warning"


@pytest.mark.parametrize(
    ("account", "accept_terms", "expected"),
    [
        pytest.param(None, True, [("ok", "will be made")], id="none yet"),
        pytest.param(
            None, False, [("ok", "will be made"), ("warning", "not accepted")], id="terms, perhaps"
        ),
        pytest.param({"url": None}, True, [("ok", "will be made")], id="only its key"),
        pytest.param(
            {"url": "https://ca/1", "terms": "https://ca/terms", "contacts": ISSUER.contacts},
            False,
            [("ok", "account https://ca/1, agreed to https://ca/terms")],
            id="registered",
        ),
        pytest.param(
            {"url": "https://ca/1"},
            True,
            [("ok", "account https://ca/1"), ("warning", "has no contact, not the configured")],
            id="another contact",
        ),
    ],
)
def test_account(
    account: dict[str, object] | None,
    accept_terms: bool,  # noqa: FBT001
    expected: list[tuple[str, str]],
) -> None:
    """What the CA knows of us is told, as far as this side knows."""
    issuer = replace(ISSUER, accept_terms=accept_terms)
    folder = None if account is None else replace(ACCOUNT, **account)  # type: ignore[arg-type]
    found = list(judge_account(issuer, folder))
    assert [one.verdict.value for one in found] == [verdict for verdict, _ in expected]
    assert all(words in one.words for one, (_, words) in zip(found, expected, strict=True))
