"""What CAA records mean for an order."""

from __future__ import annotations

import pytest

from nginx_acme.doctor.caa import Asker, judge
from nginx_acme.doctor.finding import Verdict
from nginx_acme.identifiers import Name
from nginx_acme.lookup.records import Caa, RelevantCaa

ACCOUNT = "https://ca.example/acct/1"
PUBLIC = Asker("letsencrypt", ("letsencrypt.org",), ACCOUNT, "http-01")
NEW = Asker("letsencrypt", ("letsencrypt.org",), None, "http-01")
PRIVATE = Asker("corp", (), None, "http-01")
PROVED = Asker("corp", (), None, "http-01", proved=True)


def records(*texts: str) -> tuple[Caa, ...]:
    """Records as zone files have them: ``issue letsencrypt.org``, with ``128`` before it if critical."""
    found = [text.removeprefix("128 ").partition(" ") for text in texts]
    critical = [text.startswith("128 ") for text in texts]
    return tuple(Caa(c, tag, value) for c, (tag, _, value) in zip(critical, found, strict=True))


@pytest.mark.parametrize(
    ("texts", "asker", "verdict", "words"),
    [
        pytest.param([], PUBLIC, "ok", "excludes nobody", id="none"),
        pytest.param(["iodef mailto:a@b"], PUBLIC, "ok", "excludes nobody", id="only iodef"),
        pytest.param(["issuewild other.example"], PUBLIC, "ok", "excludes nobody", id="wildcards"),
        pytest.param(["issue letsencrypt.org"], PUBLIC, "ok", "lets letsencrypt issue", id="ours"),
        pytest.param(["issue LetsEncrypt.ORG."], PUBLIC, "ok", "lets lets", id="upper case"),
        pytest.param(
            ["issue other.example", "issue letsencrypt.org"],
            PUBLIC,
            "ok",
            "lets",
            id="among others",
        ),
        pytest.param(
            ["issue other.example"], PUBLIC, "error", "lets other.example issue, not", id="another"
        ),
        pytest.param(["issue ;"], PUBLIC, "error", "lets nobody issue", id="nobody"),
        pytest.param(["128 tbs x"], PUBLIC, "error", 'critical tag "tbs"', id="unknown, critical"),
        pytest.param(["tbs x"], PUBLIC, "ok", "excludes nobody", id="unknown"),
        pytest.param(
            ["128 issue letsencrypt.org"], PUBLIC, "ok", "lets letsencrypt", id="known, critical"
        ),
        pytest.param(
            ["issue letsencrypt.org; validationmethods=dns-01"],
            PUBLIC,
            "error",
            "by dns-01 alone",
            id="another method",
        ),
        pytest.param(
            ["issue letsencrypt.org; validationmethods=dns-01,http-01"],
            PUBLIC,
            "ok",
            "lets letsencrypt",
            id="our method",
        ),
        pytest.param(
            [f"issue letsencrypt.org; accounturi={ACCOUNT}"],
            PUBLIC,
            "ok",
            "lets letsencrypt",
            id="our account",
        ),
        pytest.param(
            ["issue letsencrypt.org; accounturi=https://ca.example/acct/2"],
            PUBLIC,
            "error",
            f"wants the account https://ca.example/acct/2, ours is {ACCOUNT}",
            id="another account",
        ),
        pytest.param(
            ["issue letsencrypt.org; accounturi=x", "issue letsencrypt.org"],
            PUBLIC,
            "ok",
            "lets letsencrypt",
            id="another account, or any",
        ),
        pytest.param(
            [f"issue letsencrypt.org; accounturi={ACCOUNT}"],
            NEW,
            "warning",
            "there is none here yet",
            id="an account, before there is ours",
        ),
        pytest.param(
            ["issue corp.example"],
            PRIVATE,
            "warning",
            "is that corp?",
            id="whose names we don't know",
        ),
        pytest.param(
            ["issue corp.example"], PROVED, "ok", "corp has issued", id="whose names it has shown"
        ),
    ],
)
def test_caa(texts: list[str], asker: Asker, verdict: str, words: str) -> None:
    """May this CA issue, in this way, for this account (RFC 8659, RFC 8657)?"""
    found = judge(Name("example.com"), RelevantCaa("example.com", records(*texts)), asker)
    assert found.verdict is Verdict(verdict)
    assert words in found.words
    assert (found.advice is None) == (verdict == "ok")


@pytest.mark.parametrize(
    ("texts", "verdict"),
    [
        pytest.param(["issue letsencrypt.org"], "ok", id="issue counts"),
        pytest.param(["issue letsencrypt.org", "issuewild ;"], "error", id="issuewild counts more"),
        pytest.param(["issue ;", "issuewild letsencrypt.org"], "ok", id="also the other way round"),
    ],
)
def test_wildcard(texts: list[str], verdict: str) -> None:
    """For a wildcard `issuewild` counts, if there is one (RFC 8659 §4.3)."""
    found = judge(Name("*.example.com"), RelevantCaa("example.com", records(*texts)), PUBLIC)
    assert found.verdict is Verdict(verdict)


def test_whose() -> None:
    """Records of a parent are told with its name, and what to add there."""
    found = judge(
        Name("a.b.example.com"), RelevantCaa("example.com", records("issue other.example")), PUBLIC
    )
    assert found.words == "CAA of example.com lets other.example issue, not letsencrypt"
    assert found.advice == 'add: example.com. CAA 0 issue "letsencrypt.org"'
