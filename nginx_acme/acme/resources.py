"""What a CA says: RFC 8555's resources as frozen values, read from JSON that nobody vouches for.

Three rules. What a field must be is said where it is read, and an answer that breaks it is an
`UnexpectedAnswer` that names the field; only a problem is taken as it comes, since a refusal's
words matter most when everything else is broken. No text gets in with a control character or
longer than 2,000 characters: it goes on to logs, terminals, pages and hooks. And no URL gets in
that is not https, since whatever is in an answer is requested next.

josepy's JSON classes were no model: their fields are made by a metaclass, which no type checker
sees through, and their errors don't say which field. Time is an argument here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from nginx_acme.acme.jws import base64url
from nginx_acme.errors import NO_TYPE, Problem, UnexpectedAnswer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LONGEST_TEXT = 2000
"""Characters of a text from the CA that are kept."""

MOST_SUBPROBLEMS = 100
"""As many as a certificate has names."""

_PROBLEM_TYPES = "urn:ietf:params:acme:error:"
_HTTPS = re.compile(
    r"https://"
    r"(?:(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?:[/?][!-~]*)?",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"[-_A-Za-z0-9]{16,128}")
_SECONDS = re.compile(r"[0-9]{1,9}")
_NEVER = timedelta(seconds=1e9)
_CERTIFICATE = re.compile(
    rb"-----BEGIN CERTIFICATE-----\r?\n[A-Za-z0-9+/=\r\n]+-----END CERTIFICATE-----"
)

_Status = TypeVar("_Status", bound=StrEnum)


class OrderStatus(StrEnum):
    """RFC 8555 §7.1.6."""

    PENDING = "pending"
    READY = "ready"
    PROCESSING = "processing"
    VALID = "valid"
    INVALID = "invalid"


class AuthorizationStatus(StrEnum):
    """RFC 8555 §7.1.6."""

    PENDING = "pending"
    VALID = "valid"
    INVALID = "invalid"
    DEACTIVATED = "deactivated"
    EXPIRED = "expired"
    REVOKED = "revoked"


class ChallengeStatus(StrEnum):
    """RFC 8555 §7.1.6."""

    PENDING = "pending"
    PROCESSING = "processing"
    VALID = "valid"
    INVALID = "invalid"


class AccountStatus(StrEnum):
    """RFC 8555 §7.1.6."""

    VALID = "valid"
    DEACTIVATED = "deactivated"
    REVOKED = "revoked"


_ENDED = frozenset(
    {AuthorizationStatus.DEACTIVATED, AuthorizationStatus.EXPIRED, AuthorizationStatus.REVOKED}
)
"""What becomes of authorizations, and what some CAs (pebble up to 2.4) say of their order, too."""


@dataclass(frozen=True, slots=True)
class Directory:
    """The URLs of a CA and what it says of itself (RFC 8555 §7.1.1).

    `profiles` is name -> description (draft-ietf-acme-profiles); `renewal_info` is RFC 9773's.
    """

    new_nonce: str
    new_account: str
    new_order: str
    revoke_cert: str | None = None
    key_change: str | None = None
    renewal_info: str | None = None
    terms_of_service: str | None = None
    website: str | None = None
    caa_identities: tuple[str, ...] = ()
    external_account_required: bool = False
    profiles: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Read a directory object."""
        directory = _Fields("directory", value)
        meta = directory.inner("meta")
        return cls(
            new_nonce=directory.url("newNonce"),
            new_account=directory.url("newAccount"),
            new_order=directory.url("newOrder"),
            revoke_cert=directory.optional_url("revokeCert"),
            key_change=directory.optional_url("keyChange"),
            renewal_info=directory.optional_url("renewalInfo"),
            terms_of_service=meta.optional_text("termsOfService"),
            website=meta.optional_text("website"),
            caa_identities=meta.texts("caaIdentities"),
            external_account_required=meta.flag("externalAccountRequired"),
            profiles=meta.descriptions("profiles"),
        )


@dataclass(frozen=True, slots=True)
class Account:
    """An account (RFC 8555 §7.1.2); its URL is the "kid" that signs every later request."""

    url: str
    status: AccountStatus
    contact: tuple[str, ...] = ()
    terms_agreed: bool = False

    @classmethod
    def from_json(cls, value: object, *, url: str) -> Self:
        """Read an account object; its URL is in the answer's Location."""
        account = _Fields("account", value)
        return cls(
            url=url,
            status=account.status(AccountStatus),
            contact=account.texts("contact"),
            terms_agreed=account.flag("termsOfServiceAgreed"),
        )


@dataclass(frozen=True, slots=True)
class Identifier:
    """What a certificate is for (RFC 8555 §9.7.7, RFC 8738): `type` is ``dns`` or ``ip``."""

    type: str
    value: str

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Read an identifier object."""
        identifier = _Fields("identifier", value)
        return cls(identifier.text("type"), identifier.text("value"))


@dataclass(frozen=True, slots=True)
class Order:
    """An order (RFC 8555 §7.1.3).

    `certificate` is a URL exactly when the order is valid. `retry_after` is when the answer that
    told of the order said to come back.
    """

    url: str
    status: OrderStatus
    identifiers: tuple[Identifier, ...]
    authorizations: tuple[str, ...]
    finalize: str
    certificate: str | None = None
    expires: datetime | None = None
    profile: str | None = None
    replaces: str | None = None
    error: Problem | None = None
    retry_after: datetime | None = None

    @classmethod
    def from_json(cls, value: object, *, url: str, retry_after: datetime | None = None) -> Self:
        """Read an order object; its URL is what was asked, or the Location of a new one."""
        order = _Fields("order", value)
        ended = order.text("status") in _ENDED
        status = OrderStatus.INVALID if ended else order.status(OrderStatus)
        certificate = order.url if status is OrderStatus.VALID else order.optional_url
        return cls(
            url=url,
            status=status,
            identifiers=tuple(map(Identifier.from_json, order.array("identifiers"))),
            authorizations=order.urls("authorizations"),
            finalize=order.url("finalize"),
            certificate=certificate("certificate"),
            expires=order.optional_time("expires"),
            profile=order.optional_text("profile"),
            replaces=order.optional_text("replaces"),
            error=order.problem("error"),
            retry_after=retry_after,
        )


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to prove control (RFC 8555 §7.1.5, §8).

    `token` is there for the types of RFC 8555 and RFC 8737, and then it is base64url, so it is
    safe as the name of a file. `retry_after` is as with `Order`.
    """

    type: str
    url: str
    status: ChallengeStatus
    token: str | None = None
    error: Problem | None = None
    retry_after: datetime | None = None

    @classmethod
    def from_json(cls, value: object, *, retry_after: datetime | None = None) -> Self:
        """Read a challenge object."""
        challenge = _Fields("challenge", value)
        token = challenge.optional_text("token")
        if token is not None and not _TOKEN.fullmatch(token):
            raise challenge.wrong("token", "base64url of 16 to 128 characters", token)
        return cls(
            type=challenge.text("type"),
            url=challenge.url("url"),
            status=challenge.status(ChallengeStatus),
            token=token,
            error=challenge.problem("error"),
            retry_after=retry_after,
        )


@dataclass(frozen=True, slots=True)
class Authorization:
    """Whether an account may have certificates for an identifier (RFC 8555 §7.1.4)."""

    url: str
    identifier: Identifier
    status: AuthorizationStatus
    challenges: tuple[Challenge, ...]
    wildcard: bool = False
    expires: datetime | None = None

    @property
    def name(self) -> str:
        """The identifier's value as the order has it: a wildcard's authorization is without `*.`."""
        return f"*.{self.identifier.value}" if self.wildcard else self.identifier.value

    @classmethod
    def from_json(cls, value: object, *, url: str) -> Self:
        """Read an authorization object."""
        authorization = _Fields("authorization", value)
        return cls(
            url=url,
            identifier=Identifier.from_json(authorization.required("identifier")),
            status=authorization.status(AuthorizationStatus),
            challenges=tuple(map(Challenge.from_json, authorization.array("challenges"))),
            wildcard=authorization.flag("wildcard"),
            expires=authorization.optional_time("expires"),
        )


@dataclass(frozen=True, slots=True)
class RenewalInfo:
    """When a certificate should be renewed (RFC 9773 §4.2); `retry_after`: when to ask again.

    `explanation` is a page that says why, by https.
    """

    start: datetime
    end: datetime
    explanation: str | None = None
    retry_after: datetime | None = None

    @classmethod
    def from_json(cls, value: object, *, retry_after: datetime | None = None) -> Self:
        """Read a renewal information object; a window that ends before it starts is none."""
        info = _Fields("renewalInfo", value)
        window = _Fields("suggestedWindow", info.required("suggestedWindow"))
        start, end = window.time("start"), window.time("end")
        if end <= start:
            raise window.wrong("end", "later than the start", str(end))
        page = info.optional_text("explanationURL")
        return cls(start, end, page if page and is_https(page) else None, retry_after)


def certificate_id(authority_key_id: bytes, serial: int) -> str:
    """What a CA knows a certificate by (RFC 9773 §4.1).

    Args:
        authority_key_id: the keyIdentifier of the certificate's AuthorityKeyIdentifier.
        serial: its number; as DER writes it, with a zero before a first byte over 127.
    """
    octets = serial.to_bytes(serial.bit_length() // 8 + 1, signed=True)
    return f"{base64url(authority_key_id)}.{base64url(octets)}"


def problem_from_json(
    value: object, *, status: int = 0, retry_after: datetime | None = None
) -> Problem:
    """Read a problem document (RFC 7807, RFC 8555 §6.7), as far as it is one; never fails.

    Args:
        value: the parsed body of the answer, None where it is no JSON
        status: the HTTP status of the answer; without one, the document's own counts
        retry_after: as the answer's header says
    """
    document = _dict(value)
    own = document.get("status")
    number = status or (own if isinstance(own, int) else 0)
    return Problem(
        _text(document, "type").removeprefix(_PROBLEM_TYPES) or NO_TYPE,
        _text(document, "detail") or _text(document, "title") or _phrase(number),
        status=number,
        identifier=_text(_dict(document.get("identifier")), "value") or None,
        subproblems=tuple(_subproblems(document)),
        retry_after=retry_after,
        instance=_text(document, "instance") or None,
    )


def retry_after(value: str | None, *, now: datetime, date: datetime | None) -> datetime | None:
    """The moment that a Retry-After header means (RFC 9110 §10.2.3), None where it says nothing.

    An HTTP date is measured from the `date` of the same answer where there is one: with a clock
    that is wrong here it would be hours away, or long ago.
    """
    if value is None:
        return None
    if _SECONDS.fullmatch(value):
        return now + timedelta(seconds=int(value))
    moment = http_date(value)
    if moment is None:
        return None
    wait = moment - (date or now)
    return now + max(wait, timedelta()) if wait < _NEVER else None


def http_date(value: str | None) -> datetime | None:
    """The moment that an HTTP date names (RFC 9110 §5.6.7), None where it is none."""
    try:
        moment = parsedate_to_datetime(value) if value else None
    except (ValueError, OverflowError):
        return None
    return moment and moment.replace(tzinfo=moment.tzinfo or UTC)


def is_https(url: str) -> bool:
    """Whether this is a URL that may be requested (RFC 8555 §6.1): https, and well formed.

    What is let through here goes to a resolver and a socket, which have their own ways to fail
    with an empty label or a port of 99999.
    """
    found = _HTTPS.fullmatch(url) if len(url) <= LONGEST_TEXT else None
    return found is not None and int(found["port"] or 443) < 1 << 16


def plain(text: str) -> str:
    """The text on one line: nothing unprintable, at most 2,000 characters."""
    head = text[:LONGEST_TEXT]
    if head.isprintable():
        return head
    return "".join(map(_visible, head))[:LONGEST_TEXT]


def certificate_chain(body: bytes) -> bytes:
    """A certificate with its issuers (RFC 8555 §9.1), PEM and nothing else, one newline after each.

    Whatever is not a certificate is refused: a file with keys is what this becomes a part of.
    """
    certificates = _CERTIFICATE.findall(body)
    if not certificates or _CERTIFICATE.sub(b"", body).strip():
        raise UnexpectedAnswer("the certificate of the order is not a chain of PEM certificates")
    return b"".join(pem.replace(b"\r\n", b"\n") + b"\n" for pem in certificates)


class _Fields:
    """The fields of a JSON object, each asked for by name and type."""

    def __init__(self, kind: str, value: object) -> None:
        if not isinstance(value, dict):
            raise UnexpectedAnswer(f"{kind}: not a JSON object: {_excerpt(value)}")
        self._kind = kind
        self._fields: dict[str, Any] = value

    def wrong(self, name: str, wanted: str, found: object) -> UnexpectedAnswer:
        """The error that says which field is not what it must be."""
        return UnexpectedAnswer(f'{self._kind}: "{name}" is not {wanted}: {_excerpt(found)}')

    def required(self, name: str) -> object:
        """A field that must be there, of whatever type."""
        value = self._fields.get(name)
        if value is None:
            raise UnexpectedAnswer(f'{self._kind}: "{name}" is missing')
        return value

    def inner(self, name: str) -> _Fields:
        """An object inside; an empty one where it is missing."""
        value = self._fields.get(name)
        return _Fields(name, {} if value is None else value)

    def array(self, name: str) -> list[object]:
        """An array that must be there."""
        value = self.required(name)
        if not isinstance(value, list):
            raise self.wrong(name, "an array", value)
        return value

    def text(self, name: str) -> str:
        """A string that must be there."""
        return plain(self._string(name, self.required(name)))

    def optional_text(self, name: str) -> str | None:
        """A string, None where it is missing."""
        value = self._fields.get(name)
        return None if value is None else plain(self._string(name, value))

    def texts(self, name: str) -> tuple[str, ...]:
        """An array of strings; an empty one where it is missing."""
        if self._fields.get(name) is None:
            return ()
        return tuple(plain(self._string(name, value)) for value in self.array(name))

    def descriptions(self, name: str) -> Mapping[str, str]:
        """An object whose values are texts; an empty one where it is missing."""
        inner = self.inner(name)
        return MappingProxyType({plain(key): inner.text(key) for key in inner._fields})

    def url(self, name: str) -> str:
        """An https URL that must be there."""
        return self._https(name, self.required(name))

    def optional_url(self, name: str) -> str | None:
        """An https URL, None where it is missing."""
        value = self._fields.get(name)
        return None if value is None else self._https(name, value)

    def urls(self, name: str) -> tuple[str, ...]:
        """An array of https URLs that must be there."""
        return tuple(self._https(name, value) for value in self.array(name))

    def flag(self, name: str) -> bool:
        """A boolean, false where it is missing."""
        value = self._fields.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(name, "true or false", value)
        return value is True

    def time(self, name: str) -> datetime:
        """A moment that must be there."""
        return self._moment(name, self.required(name))

    def optional_time(self, name: str) -> datetime | None:
        """A moment, None where it is missing."""
        value = self._fields.get(name)
        return None if value is None else self._moment(name, value)

    def status(self, statuses: type[_Status]) -> _Status:
        """The object's status, one of those that the RFC knows."""
        value = self.text("status")
        try:
            return statuses(value)
        except ValueError:
            raise self.wrong("status", f"one of {', '.join(statuses)}", value) from None

    def problem(self, name: str) -> Problem | None:
        """A problem document, None where it is missing."""
        value = self._fields.get(name)
        return None if value is None else problem_from_json(value)

    def _string(self, name: str, value: object) -> str:
        if not isinstance(value, str):
            raise self.wrong(name, "a string", value)
        return value

    def _https(self, name: str, value: object) -> str:
        url = self._string(name, value)
        if not is_https(url):
            raise self.wrong(name, "an https URL", url)
        return url

    def _moment(self, name: str, value: object) -> datetime:
        """RFC 3339, which says from which place on earth the time is told."""
        try:
            moment = datetime.fromisoformat(self._string(name, value))
            if moment.tzinfo is not None:
                return moment.astimezone(UTC)
        except (ValueError, OverflowError):
            pass
        raise self.wrong(name, "a time of RFC 3339", value)


def _subproblems(document: Mapping[str, object]) -> Iterator[Problem]:
    subproblems = document.get("subproblems")
    if isinstance(subproblems, list):
        yield from map(_subproblem, subproblems[:MOST_SUBPROBLEMS])


def _subproblem(value: object) -> Problem:
    """RFC 8555 §6.7.1: a subproblem has none of its own, however deep a CA may nest them."""
    return problem_from_json({**_dict(value), "subproblems": None})


def _dict(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _text(document: Mapping[str, object], name: str) -> str:
    value = document.get(name)
    return plain(value) if isinstance(value, str) else ""


def _phrase(status: int) -> str:
    """What there is to say where the CA said nothing."""
    try:
        return f"HTTP status {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP status {status}" if status else ""


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")


def _excerpt(value: object) -> str:
    """Enough of a wrong value to recognize it."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "an array"
    return plain(repr(value)[:100])
