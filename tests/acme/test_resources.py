"""The RFCs' own examples, and what an answer may not be."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nginx_acme.acme.resources import (
    LONGEST_TEXT,
    Account,
    AccountStatus,
    Authorization,
    AuthorizationStatus,
    Challenge,
    ChallengeStatus,
    Directory,
    Identifier,
    Order,
    OrderStatus,
    RenewalInfo,
    certificate_chain,
    certificate_id,
    http_date,
    is_https,
    plain,
    problem_from_json,
    retry_after,
)
from nginx_acme.errors import UnexpectedAnswer

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)

DIRECTORY = json.loads("""
{
  "newNonce": "https://example.com/acme/new-nonce",
  "newAccount": "https://example.com/acme/new-account",
  "newOrder": "https://example.com/acme/new-order",
  "newAuthz": "https://example.com/acme/new-authz",
  "revokeCert": "https://example.com/acme/revoke-cert",
  "keyChange": "https://example.com/acme/key-change",
  "meta": {
    "termsOfService": "https://example.com/acme/terms/2017-5-30",
    "website": "https://www.example.com/",
    "caaIdentities": ["example.com"],
    "externalAccountRequired": false
  }
}""")

ACCOUNT = json.loads("""
{
  "status": "valid",
  "contact": ["mailto:cert-admin@example.org", "mailto:admin@example.org"],
  "termsOfServiceAgreed": true,
  "orders": "https://example.com/acme/orders/rzGoeA"
}""")

ORDER = json.loads("""
{
  "status": "valid",
  "expires": "2016-01-20T14:09:07.99Z",
  "identifiers": [
    { "type": "dns", "value": "www.example.org" },
    { "type": "dns", "value": "example.org" }
  ],
  "notBefore": "2016-01-01T00:00:00Z",
  "notAfter": "2016-01-08T00:00:00Z",
  "authorizations": [
    "https://example.com/acme/authz/PAniVnsZcis",
    "https://example.com/acme/authz/r4HqLzrSrpI"
  ],
  "finalize": "https://example.com/acme/order/TOlocE8rfgo/finalize",
  "certificate": "https://example.com/acme/cert/mAt3xBGaobw"
}""")

AUTHORIZATION = json.loads("""
{
  "status": "valid",
  "expires": "2015-03-01T14:09:07.99Z",
  "identifier": { "type": "dns", "value": "www.example.org" },
  "challenges": [
    {
      "url": "https://example.com/acme/chall/prV_B7yEyA4",
      "type": "http-01",
      "status": "valid",
      "token": "DGyRejmCefe7v4NfDGDKfA",
      "validated": "2014-12-01T12:05:58.16Z"
    }
  ],
  "wildcard": false
}""")

CHALLENGE = json.loads("""
{
  "type": "http-01",
  "url": "https://example.com/acme/chall/prV_B7yEyA4",
  "status": "pending",
  "token": "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"
}""")

PROBLEM = json.loads(r"""
{
  "type": "urn:ietf:params:acme:error:malformed",
  "detail": "Some of the identifiers requested were rejected",
  "subproblems": [
    {
      "type": "urn:ietf:params:acme:error:malformed",
      "detail": "Invalid underscore in DNS name \"_example.org\"",
      "identifier": { "type": "dns", "value": "_example.org" }
    },
    {
      "type": "urn:ietf:params:acme:error:rejectedIdentifier",
      "detail": "This CA will not issue for \"example.net\"",
      "identifier": { "type": "dns", "value": "example.net" }
    }
  ]
}""")

RENEWAL_INFO = json.loads("""
{
  "suggestedWindow": {
    "start": "2025-01-02T04:00:00Z",
    "end": "2025-01-03T04:00:00Z"
  },
  "explanationURL": "https://acme.example.com/docs/ari"
}""")

URL = "https://example.com/acme/order/TOlocE8rfgo"


def read_order(value: object) -> Order:
    """The order as any test here reads it."""
    return Order.from_json(value, url=URL)


def read_account(value: object) -> Account:
    """The same for an account."""
    return Account.from_json(value, url=URL)


def read_authorization(value: object) -> Authorization:
    """The same for an authorization."""
    return Authorization.from_json(value, url=URL)


# --- what the RFCs show ---------------------------------------------------------------------


def test_directory() -> None:
    """RFC 8555 §7.1.1."""
    assert Directory.from_json(DIRECTORY) == Directory(
        new_nonce="https://example.com/acme/new-nonce",
        new_account="https://example.com/acme/new-account",
        new_order="https://example.com/acme/new-order",
        revoke_cert="https://example.com/acme/revoke-cert",
        key_change="https://example.com/acme/key-change",
        terms_of_service="https://example.com/acme/terms/2017-5-30",
        website="https://www.example.com/",
        caa_identities=("example.com",),
        external_account_required=False,
    )


def test_directory_extensions() -> None:
    """RFC 9773 §4 and draft-ietf-acme-profiles §3 add to the directory."""
    value = DIRECTORY | {
        "renewalInfo": "https://example.com/acme/renewal-info",
        "meta": {"externalAccountRequired": True, "profiles": {"classic": "what you know"}},
    }
    directory = Directory.from_json(value)
    assert directory.renewal_info == "https://example.com/acme/renewal-info"
    assert directory.profiles == {"classic": "what you know"}
    assert directory.external_account_required


def test_bare_directory() -> None:
    """A private CA may have no meta and no revocation; what is always needed is enough."""
    needed = ("newNonce", "newAccount", "newOrder")
    directory = Directory.from_json({name: DIRECTORY[name] for name in needed})
    assert directory.terms_of_service is None
    assert directory.profiles == {}


def test_account() -> None:
    """RFC 8555 §7.1.2."""
    assert read_account(ACCOUNT) == Account(
        url=URL,
        status=AccountStatus.VALID,
        contact=("mailto:cert-admin@example.org", "mailto:admin@example.org"),
        terms_agreed=True,
    )


def test_order() -> None:
    """RFC 8555 §7.1.3."""
    assert read_order(ORDER) == Order(
        url=URL,
        status=OrderStatus.VALID,
        identifiers=(Identifier("dns", "www.example.org"), Identifier("dns", "example.org")),
        authorizations=(
            "https://example.com/acme/authz/PAniVnsZcis",
            "https://example.com/acme/authz/r4HqLzrSrpI",
        ),
        finalize="https://example.com/acme/order/TOlocE8rfgo/finalize",
        certificate="https://example.com/acme/cert/mAt3xBGaobw",
        expires=datetime(2016, 1, 20, 14, 9, 7, 990_000, tzinfo=UTC),
    )


def test_order_extensions() -> None:
    """RFC 9773 §5 and draft-ietf-acme-profiles §4 add to the order."""
    order = read_order(ORDER | {"replaces": "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE", "profile": "x"})
    assert (order.replaces, order.profile) == ("aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE", "x")


@pytest.mark.parametrize("status", ["invalid", "deactivated", "expired", "revoked"])
def test_order_that_ended(status: str) -> None:
    """RFC 8555 §7.1.6: an order without its authorizations is invalid, whatever a CA calls it."""
    assert read_order(ORDER | {"status": status}).status is OrderStatus.INVALID


def test_authorization() -> None:
    """RFC 8555 §7.1.4."""
    authorization = read_authorization(AUTHORIZATION)
    assert authorization == Authorization(
        url=URL,
        identifier=Identifier("dns", "www.example.org"),
        status=AuthorizationStatus.VALID,
        challenges=(
            Challenge(
                type="http-01",
                url="https://example.com/acme/chall/prV_B7yEyA4",
                status=ChallengeStatus.VALID,
                token="DGyRejmCefe7v4NfDGDKfA",  # noqa: S106
            ),
        ),
        expires=datetime(2015, 3, 1, 14, 9, 7, 990_000, tzinfo=UTC),
    )
    assert authorization.name == "www.example.org"


def test_wildcard() -> None:
    """RFC 8555 §7.1.4: the authorization of a wildcard names its base, the order the wildcard."""
    assert read_authorization(AUTHORIZATION | {"wildcard": True}).name == "*.www.example.org"


def test_challenge() -> None:
    """RFC 8555 §8.3."""
    challenge = Challenge.from_json(CHALLENGE)
    assert challenge.status is ChallengeStatus.PENDING
    assert challenge.token == "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"  # noqa: S105


def test_challenge_of_tomorrow() -> None:
    """A type that this program doesn't know, without a token, spoils nothing."""
    value = {name: CHALLENGE[name] for name in ("url", "status")} | {"type": "dns-persist-01"}
    assert Challenge.from_json(value).token is None


def test_failed_challenge() -> None:
    """RFC 8555 §8: a challenge says why it failed."""
    error = {"type": "urn:ietf:params:acme:error:dns", "detail": "NXDOMAIN"}
    failed = Challenge.from_json(CHALLENGE | {"status": "invalid", "error": error})
    assert str(failed.error) == "NXDOMAIN (dns)"


def test_renewal_info() -> None:
    """RFC 9773 §4.2."""
    assert RenewalInfo.from_json(RENEWAL_INFO) == RenewalInfo(
        start=datetime(2025, 1, 2, 4, 0, 0, tzinfo=UTC),
        end=datetime(2025, 1, 3, 4, 0, 0, tzinfo=UTC),
        explanation="https://acme.example.com/docs/ari",
    )


@pytest.mark.parametrize("page", ["javascript:alert(1)", "http://plain.example/", "", "see there"])
def test_renewal_info_with_a_strange_page(page: str) -> None:
    """A page that nobody should open is none; the window counts all the same."""
    assert RenewalInfo.from_json(RENEWAL_INFO | {"explanationURL": page}).explanation is None


@pytest.mark.parametrize(
    ("key_id", "serial", "expected"),
    [
        pytest.param(
            "69885b6b87464041e1b37b847ba0ae2cde01c8d4",
            0x8765_4321,
            "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE",
            id="RFC 9773 §4.1, with a zero before the number",
        ),
        pytest.param("00ff", 0x7F, "AP8.fw", id="none needed"),
        pytest.param("00ff", 0x80, "AP8.AIA", id="one needed"),
        pytest.param("00ff", 0xFF00, "AP8.AP8A", id="a zero at its end"),
    ],
)
def test_certificate_id(key_id: str, serial: int, expected: str) -> None:
    """RFC 9773 §4.1: the serial number is as DER has it."""
    assert certificate_id(bytes.fromhex(key_id), serial) == expected


# --- problems -------------------------------------------------------------------------------


def test_problem() -> None:
    """RFC 8555 §6.7.1."""
    problem = problem_from_json(PROBLEM, status=400, retry_after=NOW)
    assert (problem.type, problem.status, problem.retry_after) == ("malformed", 400, NOW)
    assert problem.detail == "Some of the identifiers requested were rejected"
    assert [(each.identifier, each.type) for each in problem.subproblems] == [
        ("_example.org", "malformed"),
        ("example.net", "rejectedIdentifier"),
    ]


def test_problem_with_instance() -> None:
    """RFC 8555 §7.3.3: what to read when terms have changed."""
    value = {
        "type": "urn:ietf:params:acme:error:userActionRequired",
        "detail": "Terms of service have changed",
        "instance": "https://example.com/acme/agreement/?token=W8Ih3PswD-8",
    }
    problem = problem_from_json(value, status=403)
    assert str(problem) == (
        "Terms of service have changed (userActionRequired), see"
        " https://example.com/acme/agreement/?token=W8Ih3PswD-8"
    )
    assert problem.permanent


@pytest.mark.parametrize(
    ("value", "status", "words"),
    [
        pytest.param(None, 503, "HTTP status 503 Service Unavailable", id="no JSON"),
        pytest.param(["no"], 599, "HTTP status 599", id="unknown status"),
        pytest.param({}, 429, "HTTP status 429 Too Many Requests", id="empty"),
        pytest.param({"detail": 5, "title": "No"}, 400, "No", id="title"),
        pytest.param({"type": "https://a/b", "detail": "x"}, 400, "x (https://a/b)", id="own type"),
        pytest.param({"detail": "x", "status": 409}, 0, "x", id="inside of an order"),
        pytest.param({"type": None, "subproblems": {"a": 1}}, 0, "about:blank", id="all wrong"),
    ],
)
def test_poor_problems(value: object, status: int, words: str) -> None:
    """A refusal is read as far as it can be read, and never refused itself."""
    assert str(problem_from_json(value, status=status)) == words


def test_many_subproblems() -> None:
    """Subproblems are no way to fill a log, nor to nest without end."""
    value: dict[str, Any] = {"detail": "x"}
    for _ in range(500):
        value = {"detail": "x", "subproblems": [value] * 200}
    problem = problem_from_json(value)
    assert len(problem.subproblems) == 100
    assert problem.subproblems[0].subproblems == ()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@settings(deadline=None, max_examples=50)
@given(
    st.dictionaries(
        st.sampled_from(["type", "detail", "title", "status", "identifier", "subproblems"]),
        json_values | st.lists(st.dictionaries(st.sampled_from(["type", "detail"]), json_values)),
    )
)
def test_any_problem(value: dict[str, object]) -> None:
    """Whatever a refusal looks like, it becomes a Problem on one line."""
    assert str(problem_from_json(value)).isprintable()


# --- what is refused ------------------------------------------------------------------------


def without(document: dict[str, Any], name: str) -> dict[str, Any]:
    """The document, less a field."""
    return {field: value for field, value in document.items() if field != name}


@pytest.mark.parametrize(
    ("read", "value", "words"),
    [
        pytest.param(
            Directory.from_json, [], "directory: not a JSON object: an array", id="no object"
        ),
        pytest.param(
            Directory.from_json,
            without(DIRECTORY, "newNonce"),
            'directory: "newNonce" is missing',
            id="no nonces",
        ),
        pytest.param(
            Directory.from_json,
            DIRECTORY | {"newOrder": "http://example.com/acme/new-order"},
            "directory: \"newOrder\" is not an https URL: 'http://example.com/acme/new-order'",
            id="plain http",
        ),
        pytest.param(
            Directory.from_json,
            DIRECTORY | {"meta": "https://example.com/"},
            "meta: not a JSON object: 'https://example.com/'",
            id="meta",
        ),
        pytest.param(
            Directory.from_json,
            DIRECTORY | {"meta": {"externalAccountRequired": "no"}},
            "meta: \"externalAccountRequired\" is not true or false: 'no'",
            id="flag",
        ),
        pytest.param(
            Directory.from_json,
            DIRECTORY | {"meta": {"caaIdentities": "example.com"}},
            "meta: \"caaIdentities\" is not an array: 'example.com'",
            id="texts",
        ),
        pytest.param(
            Directory.from_json,
            DIRECTORY | {"meta": {"profiles": {"classic": 1}}},
            'profiles: "classic" is not a string: 1',
            id="profiles",
        ),
        pytest.param(
            read_account,
            ACCOUNT | {"status": "asleep"},
            "account: \"status\" is not one of valid, deactivated, revoked: 'asleep'",
            id="account status",
        ),
        pytest.param(
            read_order, without(ORDER, "status"), 'order: "status" is missing', id="no status"
        ),
        pytest.param(
            read_order,
            ORDER | {"status": "done"},
            "order: \"status\" is not one of pending, ready, processing, valid, invalid: 'done'",
            id="order status",
        ),
        pytest.param(
            read_order,
            without(ORDER, "certificate"),
            'order: "certificate" is missing',
            id="valid without certificate",
        ),
        pytest.param(
            read_order,
            ORDER | {"status": "ready", "certificate": "file:///etc/passwd"},
            "order: \"certificate\" is not an https URL: 'file:///etc/passwd'",
            id="certificate in a file",
        ),
        pytest.param(
            read_order,
            ORDER | {"authorizations": ["https://example.com/a\r\nHost: b"]},
            "order: \"authorizations\" is not an https URL: 'https://example.com/a\\r\\nHost: b'",
            id="URL with a header",
        ),
        pytest.param(
            read_order,
            ORDER | {"authorizations": ORDER["finalize"]},
            'order: "authorizations" is not an array:'
            " 'https://example.com/acme/order/TOlocE8rfgo/finalize'",
            id="one authorization",
        ),
        pytest.param(
            read_order,
            ORDER | {"identifiers": ["example.org"]},
            "identifier: not a JSON object: 'example.org'",
            id="identifier",
        ),
        pytest.param(
            read_order,
            ORDER | {"expires": "tomorrow"},
            "order: \"expires\" is not a time of RFC 3339: 'tomorrow'",
            id="expires",
        ),
        pytest.param(
            read_order,
            ORDER | {"expires": "2016-01-20T14:09:07"},
            "order: \"expires\" is not a time of RFC 3339: '2016-01-20T14:09:07'",
            id="nobody's time",
        ),
        pytest.param(
            read_order,
            ORDER | {"expires": "0001-01-01T00:00:00+23:59"},
            "order: \"expires\" is not a time of RFC 3339: '0001-01-01T00:00:00+23:59'",
            id="before time began",
        ),
        pytest.param(
            read_order,
            ORDER | {"expires": 1453298947},
            'order: "expires" is not a string: 1453298947',
            id="seconds",
        ),
        pytest.param(
            read_authorization,
            without(AUTHORIZATION, "identifier"),
            'authorization: "identifier" is missing',
            id="nobody's authorization",
        ),
        pytest.param(
            Challenge.from_json,
            CHALLENGE | {"token": "../../../../etc/passwd"},
            'challenge: "token" is not base64url of 16 to 128 characters:'
            " '../../../../etc/passwd'",
            id="token that climbs",
        ),
        pytest.param(
            Challenge.from_json,
            CHALLENGE | {"token": "a" * 129},
            f'challenge: "token" is not base64url of 16 to 128 characters: \'{"a" * 99}',
            id="token without end",
        ),
        pytest.param(
            RenewalInfo.from_json,
            {
                "suggestedWindow": {
                    "start": "2025-01-03T04:00:00Z",
                    "end": "2025-01-03T04:00:00Z",
                }
            },
            "suggestedWindow: \"end\" is not later than the start: '2025-01-03 04:00:00+00:00'",
            id="empty window",
        ),
    ],
)
def test_wrong(read: Callable[[object], object], value: object, words: str) -> None:
    """What breaks the protocol is refused, and the message says which field it is."""
    with pytest.raises(UnexpectedAnswer) as caught:
        read(value)
    assert str(caught.value) == words


@pytest.mark.parametrize(
    "read",
    [Directory.from_json, read_account, read_order, read_authorization, Challenge.from_json],
)
@settings(deadline=None, max_examples=50)
@given(st.data())
def test_anything(read: Callable[[object], object], data: st.DataObject) -> None:
    """Of any JSON, an answer is made or an UnexpectedAnswer; nothing else can happen."""
    names = [*DIRECTORY, *DIRECTORY["meta"], *ACCOUNT, *ORDER, *AUTHORIZATION, *CHALLENGE]
    fields = st.dictionaries(st.sampled_from(names), json_values | st.just("https://a/"))
    with suppress(UnexpectedAnswer):
        read(data.draw(json_values | fields))


# --- texts, URLs, times, chains -------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("Zertifikat für example.com", "Zertifikat für example.com", id="as it is"),
        pytest.param("a\r\n2026/05/01 [emerg] b", "a\\r\\n2026/05/01 [emerg] b", id="a log line"),
        pytest.param("\x1b[31mred\x07", "\\x1b[31mred\\x07", id="terminal"),
        pytest.param("a\u202eb\u2028c\x9bd", "a\\u202eb\\u2028c\\x9bd", id="Unicode's own"),
        pytest.param("\ud800", "\\ud800", id="half a character"),
        pytest.param("x" * 9999, "x" * LONGEST_TEXT, id="long"),
        pytest.param("\x00" * 9999, ("\\x00" * 500)[:LONGEST_TEXT], id="long when escaped"),
    ],
)
def test_plain(text: str, expected: str) -> None:
    """What a CA says can't forge a line of a log, nor drive a terminal."""
    assert plain(text) == expected


@settings(deadline=None, max_examples=50)
@given(st.text())
def test_always_plain(text: str) -> None:
    """A plain text stays as it is."""
    assert plain(plain(text)) == plain(text)
    assert plain(text).isprintable()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param("https://ca.example/dir", True, id="https"),
        pytest.param("HTTPS://ca.example", True, id="upper case"),
        pytest.param("https://[::1]:14000/dir", True, id="address"),
        pytest.param("http://ca.example/dir", False, id="http"),
        pytest.param("https://my_ca:8443?dir", True, id="port and query"),
        pytest.param("https://ca.example:99999/", False, id="no such port"),
        pytest.param("https://ca.example:/", False, id="empty port"),
        pytest.param("https://ca..example/", False, id="empty label"),
        pytest.param(f"https://{'a' * 64}.example/", False, id="long label"),
        pytest.param("https://user:secret@ca.example/", False, id="password"),
        pytest.param("https://ca.example/#x", True, id="fragment"),
        pytest.param("https://", False, id="no host"),
        pytest.param("https://ca.example/a b", False, id="space"),
        pytest.param("https://ca.example/\n", False, id="newline"),
        pytest.param("https://cä.example/", False, id="not ASCII"),
        pytest.param("https://ca.example/" + "a" * 2000, False, id="long"),
        pytest.param("//ca.example/", False, id="relative"),
    ],
)
def test_is_https(url: str, expected: bool) -> None:  # noqa: FBT001
    """RFC 8555 §6.1: https, and no character that isn't one of a URL."""
    assert is_https(url) is expected


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        pytest.param("120", None, 120, id="seconds"),
        pytest.param("0", None, 0, id="at once"),
        pytest.param("Fri, 01 May 2026 12:02:00 GMT", None, 120, id="date"),
        pytest.param(
            "Fri, 01 May 2026 14:02:00 GMT", NOW + timedelta(hours=2), 120, id="our clock is slow"
        ),
        pytest.param("Fri, 01 May 2026 11:00:00 GMT", None, 0, id="past"),
        pytest.param("Friday, 01-May-26 12:02:00 GMT", None, 120, id="RFC 850"),
        pytest.param("Fri May  1 12:02:00 2026", None, 120, id="asctime"),
        pytest.param("99999999999999999999", None, None, id="never"),
        pytest.param(
            "Fri, 31 Dec 9999 23:59:59 GMT", NOW - timedelta(days=9999), None, id="after all time"
        ),
        pytest.param("Fri, 01 May 2026 14:02:00 +0200", None, 120, id="another zone"),
        pytest.param("Fri, 01 May 2026 14:02:00 +9999999999", None, None, id="no zone on earth"),
        pytest.param("-5", None, None, id="negative"),
        pytest.param("1.5", None, None, id="fraction"),
        pytest.param("soon", None, None, id="words"),
        pytest.param("", None, None, id="empty"),
        pytest.param(None, None, None, id="no header"),
    ],
)
def test_retry_after(value: str | None, date: datetime | None, seconds: int | None) -> None:
    """RFC 9110 §10.2.3: seconds or a date, which counts from the CA's own clock."""
    expected = None if seconds is None else NOW + timedelta(seconds=seconds)
    assert retry_after(value, now=NOW, date=date) == expected


@settings(deadline=None, max_examples=50)
@given(st.text())
def test_any_retry_after(value: str) -> None:
    """No header can do worse than to say nothing."""
    moment = retry_after(value, now=NOW, date=http_date(value))
    assert moment is None or moment >= NOW


PEM = b"-----BEGIN CERTIFICATE-----\nMIIB\nAA==\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(PEM + PEM, id="as the RFC has it"),
        pytest.param((PEM + PEM).replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(PEM + b"\n" + PEM + b"\n\n", id="blank lines"),
        pytest.param((PEM + PEM).rstrip(), id="no last newline"),
    ],
)
def test_chain(body: bytes) -> None:
    """RFC 8555 §9.1: certificates and nothing else, each on lines of its own."""
    assert certificate_chain(body) == PEM + PEM


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>", id="page"),
        pytest.param(PEM.replace(b"CERTIFICATE", b"PRIVATE KEY"), id="key"),
        pytest.param(PEM + PEM.replace(b"CERTIFICATE", b"PRIVATE KEY"), id="key as well"),
        pytest.param(b"issuer: us\n" + PEM, id="text"),
        pytest.param(PEM[:-20], id="cut"),
        pytest.param(PEM.replace(b"MIIB", b"M\x00IB"), id="NUL"),
    ],
)
def test_no_chain(body: bytes) -> None:
    """Whatever isn't a certificate stays out of the file that has the key."""
    with pytest.raises(UnexpectedAnswer, match="PEM"):
        certificate_chain(body)
