"""A small ACME server without a network: a function from request to answer.

`FakeCa` is a transport for httpx, so a real `Client` talks to it. It verifies every JWS with its
own code, uses a nonce once, keeps accounts, orders and authorizations as RFC 8555 says, checks
the CSR and issues real certificates. It behaves like Boulder where pebble doesn't, since what is
green with pebble alone fails at Let's Encrypt:

- an open order of the account for the same names and profile is returned in place of a new one;
- names redundant with a wildcard are refused; number and type of names depend on the profile;
- of names refused by policy a single one is named in the words alone, without a subproblem;
- a valid authorization is used again; Retry-After comes with `processing` only;
- `replaces` is checked as Boulder does, and a predecessor has one open order;
- renewal information has Let's Encrypt's windows, three hours for a certificate of 160;
- five certificates for exactly the same names in a week, then rateLimited with Retry-After;
- what is revoked with the certificate's own key is revoked for keyCompromise.

The rest is asked for, with attributes:

    ca = FakeCa(fetch=lambda name, token: answers[token])   # HTTP-01; without it all is valid
    ca.dead.add("www.site.example")            # fails with a dns problem
    ca.paused.add("site.example")              # rateLimited without Retry-After
    ca.reject_nonces = 3                       # the next three good ones
    ca.misbehave("newOrder", busy(30))         # once; times=…, after=…
    async with Client(ca.directory_url, key, now=now, transport=ca) as client: …
    assert ca.log == ["directory", "newNonce", "newAccount"]

A fault is a coroutine function that gets `proceed`, which does what was asked and returns the
true `Reply`; so a fault may come before the deed, after it (`lost`), or change what is said of it
(`rewritten`).
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import inspect
import ipaddress
import json
import secrets
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import httpx
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping

    Proceed = Callable[[], Awaitable["Reply"]]
    Fault = Callable[[Proceed], Awaitable["Reply"]]
    Fetch = Callable[[str, str], str | Awaitable[str]]

HOST = "https://ca.example"
TYPE = "urn:ietf:params:acme:error:"


@dataclass(frozen=True, slots=True)
class Profile:
    """What a certificate may hold, and for how long it is valid."""

    names: int = 100
    ip: bool = False
    validity: timedelta = timedelta(days=90)


PROFILES: Mapping[str, Profile] = {
    "classic": Profile(),
    "tlsserver": Profile(names=25, validity=timedelta(days=45)),
    "shortlived": Profile(names=25, ip=True, validity=timedelta(hours=160)),
}


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer before it is sent; `pause`: seconds before each byte, `cut`: it ends halfway."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    pause: float = 0
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it came; `payload` is what was signed, None with GET, HEAD and POST-as-GET."""

    resource: str
    method: str
    url: str
    headers: Mapping[str, str]
    payload: Any = None


@dataclass(slots=True)
class Account:
    """An account and its public key, by the thumbprint."""

    url: str
    thumbprint: str
    jwk: Mapping[str, str]
    contact: list[str]
    status: str = "valid"


@dataclass(slots=True)
class Authorization:
    """A name's authorization; `due` is when the result of its validation shows (loop time)."""

    number: int
    account: Account
    type: str
    name: str
    profile: str
    expires: datetime
    status: str = "pending"
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    error: dict[str, object] | None = None
    due: float | None = None

    @property
    def wildcard(self) -> bool:
        """Whether only a DNS challenge will do."""
        return self.name.startswith("*.")


@dataclass(slots=True)
class Order:
    """An order; `due` is when the certificate is there (loop time)."""

    number: int
    account: Account
    names: tuple[tuple[str, str], ...]
    profile: str
    authorizations: list[Authorization]
    expires: datetime
    replaces: str | None = None
    csr: x509.CertificateSigningRequest | None = None
    due: float = 0
    chain: bytes | None = None
    error: dict[str, object] | None = None
    lag: int = 0


class Refusal(Exception):
    """The CA says no."""

    def __init__(self, status: int, type_: str, detail: str, **more: object) -> None:
        super().__init__(detail)
        self.status = status
        self.document = {"type": TYPE + type_, "detail": detail, "status": status} | more
        self.headers: dict[str, str] = {}


class FakeCa(httpx.AsyncBaseTransport):
    """A CA, and the transport that leads to it; the module's docstring shows how it is used.

    Args:
        fetch: asks for a name's token as HTTP-01 does and returns the body (or an awaitable of
            it); OSError means that nobody answers. None: every challenge is valid
        now: its clock
        validation_seconds, processing_seconds: how long either takes (by the event loop's clock)
        retry_after: what it says with `processing`; None: nothing
        replica_lag: how often a new order is unknown to those who ask for it
        intermediates: between the root and a leaf
    """

    def __init__(
        self,
        *,
        fetch: Fetch | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        validation_seconds: float = 0,
        processing_seconds: float = 0,
        retry_after: int | None = 0,
        replica_lag: int = 0,
        intermediates: int = 1,
    ) -> None:
        self.fetch = fetch
        self.now = now
        self.validation_seconds = validation_seconds
        self.processing_seconds = processing_seconds
        self.retry_after = retry_after
        self.replica_lag = replica_lag
        self.directory_url = f"{HOST}/directory"
        self.meta: dict[str, object] = {
            "termsOfService": f"{HOST}/terms",
            "website": HOST,
            "caaIdentities": ["ca.example"],
            "profiles": dict.fromkeys(PROFILES, f"{HOST}/profiles"),
        }
        self.reject_nonces = 0
        """How many good nonces are refused from now on."""
        self.dead: set[str] = set()
        """Names that fail validation."""
        self.slow: dict[str, float] = {}
        """Names whose validation takes more seconds than the others'."""
        self.paused: set[str] = set()
        """Names that this CA issues nothing for until somebody unpauses them."""
        self.rejected: set[str] = set()
        """Names refused by policy."""
        self.offered: tuple[str, ...] = ("http-01", "dns-01", "tls-alpn-01")
        """Types of challenges, where the name is no wildcard."""
        self.duplicate_limit = 5
        """Certificates for the same names in seven days."""
        self.new_terms: str | None = None
        """A URL where terms must be agreed to before anything else is done."""
        self.advises = True
        """Whether it says when to renew (RFC 9773)."""
        self.window: tuple[datetime, datetime] | None = None
        """The window for every certificate, in place of Let's Encrypt's rule."""
        self.explanation: str | None = None
        """A page about the window."""
        self.ask_again: str | None = "21600"
        """The Retry-After that comes with a window."""
        self.stranger: ec.EllipticCurvePrivateKey | None = None
        """A key that every certificate is issued for, in place of the one in the CSR."""
        self.fails_issuance: dict[str, object] | None = None
        """A problem document that orders end with after finalize."""
        self.seen: list[Seen] = []
        """Every request that came."""
        self.accounts: dict[str, Account] = {}
        self.orders: list[Order] = []
        self.issued: list[x509.Certificate] = []
        self.revoked: dict[int, int] = {}
        """Serial numbers, and why."""
        self._authorizations: list[Authorization] = []
        self._nonces: set[str] = set()
        self._faults: list[_Planned] = []
        self._issuer = _Issuer(now(), intermediates)

    @property
    def log(self) -> list[str]:
        """The resources that were asked for, in order, by their names in RFC 8555."""
        return [seen.resource for seen in self.seen]

    @property
    def count(self) -> Counter[str]:
        """How often each resource was asked for."""
        return Counter(self.log)

    @property
    def root(self) -> bytes:
        """The certificate (PEM) that everything issued leads to."""
        return _pem(self._issuer.certificates[0])

    def misbehave(self, resource: str, fault: Fault, *, times: int = 1, after: int = 0) -> None:
        """Let a fault meet requests for a resource: so many, after so many that it spares."""
        self._faults.append(_Planned(resource, fault, times, after))

    def forget_accounts(self) -> None:
        """Lose every account, as a CA does whose database was restored."""
        self.accounts.clear()

    def forget_nonces(self) -> None:
        """Let every nonce given so far be stale."""
        self._nonces.clear()

    def invalidate(self, order: Order, **problem: object) -> None:
        """Let an order turn invalid, with a problem document."""
        order.error = {"type": f"{TYPE}serverInternal", "detail": "it broke"} | problem

    # --- requests ---------------------------------------------------------------------------

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request as httpx' transports do."""
        if not str(request.url).startswith(f"{HOST}/"):
            raise httpx.ConnectError("[Errno 111] Connection refused", request=request)
        content = await request.aread()
        resource, argument = _resource(request.url.path)

        async def proceed() -> Reply:
            return await self._reply(request, resource, argument, content)

        self.seen.append(
            Seen(resource, request.method, str(request.url), request.headers, _payload(content))
        )
        planned = next((each for each in self._faults if each.meets(resource)), None)
        reply = await (planned.fault(proceed) if planned else proceed())
        headers = {"Date": format_datetime(self.now(), usegmt=True)} | dict(reply.headers)
        if headers.get("Content-Type") == "application/problem+json":
            headers.setdefault("Replay-Nonce", self._new_nonce())
        return httpx.Response(reply.status, headers=headers, stream=_Body(reply))

    async def _reply(
        self, request: httpx.Request, resource: str, argument: str, content: bytes
    ) -> Reply:
        nonce = {} if request.method == "GET" else {"Replay-Nonce": self._new_nonce()}
        try:
            reply = await self._answer(request, resource, argument, content)
        except Refusal as refusal:
            headers = {"Content-Type": "application/problem+json"} | refusal.headers
            reply = Reply(refusal.status, headers, json.dumps(refusal.document).encode())
        return replace(reply, headers=dict(reply.headers) | nonce)

    async def _answer(
        self, request: httpx.Request, resource: str, argument: str, content: bytes
    ) -> Reply:
        if request.method == "POST" and not request.headers.get("user-agent"):
            raise Refusal(400, "malformed", "No User-Agent")
        match request.method, resource:
            case "GET", "directory":
                return _json(200, self._directory())
            case "HEAD", "newNonce":
                return Reply(200)
            case "GET", "renewalInfo":
                return self._renewal_info(argument)
            case "POST", "newAccount":
                jws = self._verified(request, content, wants="jwk")
                return self._new_account(jws)
            case "POST", "revokeCert":
                return self._revoke(self._verified(request, content, wants="jwk or kid"))
            case "POST", _:
                jws = self._verified(request, content, wants="kid")
                return await self._for_account(resource, argument, jws)
            case _:
                raise Refusal(405, "malformed", "Method not allowed")

    async def _for_account(self, resource: str, argument: str, jws: Jws) -> Reply:
        account = self._account(jws)
        if self.new_terms is not None:
            refusal = Refusal(
                403, "userActionRequired", "Terms have changed", instance=self.new_terms
            )
            refusal.headers["Link"] = f'<{self.new_terms}>;rel="terms-of-service"'
            raise refusal
        match resource:
            case "account":
                return self._update_account(account, jws)
            case "keyChange":
                return self._change_key(account, jws)
            case "newOrder":
                return self._new_order(account, jws.payload)
            case "order":
                return self._show_order(self._order(account, argument))
            case "finalize":
                return self._finalize(self._order(account, argument), jws.payload)
            case "authorization":
                return self._authorization(account, argument, jws.payload)
            case "challenge":
                return await self._challenge(account, argument, jws.payload)
            case "certificate":
                return self._certificate(account, argument)
            case _:
                raise Refusal(404, "malformed", "Page not found")

    def _new_nonce(self) -> str:
        nonce = secrets.token_urlsafe(16)
        self._nonces.add(nonce)
        return nonce

    def _verified(self, request: httpx.Request, content: bytes, *, wants: str) -> Jws:
        """RFC 8555 §6.2 and §6.4, in Boulder's order."""
        if request.headers.get("content-type") != "application/jose+json":
            raise Refusal(415, "malformed", "Invalid Content-Type header on POST")
        jws = Jws.parse(content)
        found = {"jwk", "kid"} & jws.header.keys()
        if len(found) != 1 or not found <= set(wants.split(" or ")):
            raise Refusal(400, "malformed", f"The JWS must have {wants} alone")
        jwk = jws.header["jwk"] if found == {"jwk"} else self._account(jws).jwk
        if not jws.is_signed_by(jwk):
            raise Refusal(400, "malformed", "JWS verification error")
        self._spend(jws.header.get("nonce"))
        if jws.header.get("url") != str(request.url):
            raise Refusal(401, "unauthorized", "JWS header parameter 'url' incorrect")
        return jws

    def _spend(self, nonce: object) -> None:
        if nonce not in self._nonces:
            raise Refusal(400, "badNonce", "JWS has an invalid anti-replay nonce")
        self._nonces.discard(str(nonce))
        if self.reject_nonces:
            self.reject_nonces -= 1
            raise Refusal(400, "badNonce", "JWS has an anti-replay nonce that nobody likes")

    def _account(self, jws: Jws) -> Account:
        if jws.header["kid"] not in self.accounts:
            raise Refusal(400, "accountDoesNotExist", f"Account {jws.header['kid']!r} not found")
        account = self.accounts[jws.header["kid"]]
        _must_be_valid(account)
        return account

    # --- resources --------------------------------------------------------------------------

    def _directory(self) -> dict[str, object]:
        names = ["newNonce", "newAccount", "newOrder", "revokeCert", "keyChange"]
        names += ["renewalInfo"] if self.advises else []
        return {name: f"{HOST}/{name}" for name in names} | {"meta": self.meta}

    def _new_account(self, jws: Jws) -> Reply:
        jwk, wanted = jws.header["jwk"], jws.payload
        thumbprint = _thumbprint(jwk)
        known = [each for each in self.accounts.values() if each.thumbprint == thumbprint]
        if known:
            _must_be_valid(known[0])
            return self._show_account(known[0], 200)
        if wanted.get("onlyReturnExisting"):
            raise Refusal(400, "accountDoesNotExist", "No account exists with the provided key")
        if not wanted.get("termsOfServiceAgreed"):
            raise Refusal(400, "malformed", "must agree to terms of service")
        for contact in wanted.get("contact", ()):
            _check_contact(contact)
        account = Account(
            f"{HOST}/account/{secrets.token_hex(4)}", thumbprint, jwk, wanted.get("contact", [])
        )
        self.accounts[account.url] = account
        return self._show_account(account, 201)

    def _show_account(self, account: Account, status: int) -> Reply:
        shown = {"status": account.status, "contact": account.contact, "key": dict(account.jwk)}
        return _json(status, shown, Location=account.url)

    def _update_account(self, account: Account, jws: Jws) -> Reply:
        """RFC 8555 §7.3.2, §7.3.6; nothing is sent with a POST-as-GET."""
        wanted = jws.payload or {}
        for contact in wanted.get("contact", ()):
            _check_contact(contact)
        account.contact = wanted.get("contact", account.contact)
        if wanted.get("status") == "deactivated":
            account.status = "deactivated"
        return self._show_account(account, 200)

    def _change_key(self, account: Account, outer: Jws) -> Reply:
        """RFC 8555 §7.3.5, in Boulder's order."""
        inner = Jws.parse(json.dumps(outer.payload).encode())
        new = inner.header.get("jwk")
        if new is None or not inner.is_signed_by(new):
            raise Refusal(400, "malformed", "Inner JWS does not verify")
        if inner.header["url"] != outer.header["url"] or "nonce" in inner.header:
            raise Refusal(400, "malformed", "Inner JWS has another url, or a nonce")
        if inner.payload != {"account": account.url, "oldKey": dict(account.jwk)}:
            raise Refusal(400, "malformed", "Inner JWS is about another account or key")
        thumbprint = _thumbprint(new)
        for other in self.accounts.values():
            if other.thumbprint == thumbprint:
                detail = "New key is already in use for a different account"
                refusal = Refusal(409, "conflict", detail)
                refusal.headers["Location"] = other.url
                raise refusal
        account.jwk, account.thumbprint = new, thumbprint
        return self._show_account(account, 200)

    def _revoke(self, jws: Jws) -> Reply:
        """RFC 8555 §7.6: who asks has the certificate's key, or the account that it was made for.

        Who has the key alone proves that others may have it: Boulder notes keyCompromise.
        """
        leaf = x509.load_der_x509_certificate(_unbase64url(jws.payload["certificate"]))
        if leaf not in self.issued:
            raise Refusal(404, "malformed", "Certificate was not issued by this CA")
        reason = jws.payload.get("reason", 0)
        if "kid" in jws.header:
            account = self._account(jws)
            mine = (o for o in self.orders if o.chain and _leaf(o.chain) == leaf)
            if all(order.account is not account for order in mine):
                raise Refusal(403, "unauthorized", "The key ID didn't issue the certificate")
        elif _public_key(jws.header["jwk"]) != leaf.public_key():
            raise Refusal(403, "unauthorized", "JWK embedded in revocation request must match")
        else:
            reason = 1
        if reason not in {0, 1, 3, 4, 5}:
            raise Refusal(400, "badRevocationReason", f"unsupported revocation reason ({reason})")
        if leaf.serial_number in self.revoked:
            raise Refusal(400, "alreadyRevoked", "Certificate already revoked")
        self.revoked[leaf.serial_number] = reason
        return Reply(200)

    def _new_order(self, account: Account, wanted: dict[str, Any]) -> Reply:
        names = tuple(
            sorted({(each["type"], each["value"].lower()) for each in wanted["identifiers"]})
        )
        profile = wanted.get("profile") or "classic"
        self._check_names(names, profile)
        self._check_paused(names)
        replaces = wanted.get("replaces")
        if replaces is not None:
            self._check_replaces(account, names, replaces)
        self._check_duplicates(names)
        order = self._open_order(account, names, profile)
        if order is None:
            order = self._make_order(account, names, profile, replaces)
        return self._show_order(order, 201, Location=f"{HOST}/order/{order.number}")

    def _open_order(
        self, account: Account, names: tuple[tuple[str, str], ...], profile: str
    ) -> Order | None:
        for order in self.orders:
            same = (order.account, order.names, order.profile) == (account, names, profile)
            if same and self._status(order) in {"pending", "ready"}:
                return order
        return None

    def _make_order(
        self,
        account: Account,
        names: tuple[tuple[str, str], ...],
        profile: str,
        replaces: str | None,
    ) -> Order:
        authorizations = [
            self._usable(account, *name, profile) or self._authorize(account, *name, profile)
            for name in names
        ]
        soonest = min(each.expires for each in authorizations)
        order = Order(
            len(self.orders),
            account,
            names,
            profile,
            authorizations,
            min(soonest, self.now() + timedelta(hours=8)),
            replaces,
            lag=self.replica_lag,
        )
        self.orders.append(order)
        return order

    def _usable(
        self, account: Account, type_: str, name: str, profile: str
    ) -> Authorization | None:
        soon = self.now() + timedelta(hours=1)
        for each in self._authorizations:
            same = (each.account, each.type, each.name, each.profile) == (
                account,
                type_,
                name,
                profile,
            )
            if same and self._decide(each) == "valid" and each.expires > soon:
                return each
        return None

    def _authorize(self, account: Account, type_: str, name: str, profile: str) -> Authorization:
        expires = self.now() + timedelta(hours=1)
        made = Authorization(len(self._authorizations), account, type_, name, profile, expires)
        self._authorizations.append(made)
        return made

    def _order(self, account: Account, number: str) -> Order:
        order = self.orders[int(number)] if int(number) < len(self.orders) else None
        if order is None or order.lag > 0:
            if order is not None:
                order.lag -= 1
            raise Refusal(404, "malformed", f"No order found for ID {number}")
        if order.account is not account:
            raise Refusal(404, "malformed", f"No order found for account {account.url}")
        return order

    def _show_order(self, order: Order, status: int = 200, **headers: str) -> Reply:
        shown: dict[str, object] = {
            "status": self._status(order),
            "expires": order.expires.isoformat(timespec="seconds"),
            "identifiers": [{"type": type_, "value": name} for type_, name in order.names],
            "profile": order.profile,
            "authorizations": [f"{HOST}/authorization/{a.number}" for a in order.authorizations],
            "finalize": f"{HOST}/finalize/{order.number}",
        }
        if shown["status"] == "valid":
            shown["certificate"] = f"{HOST}/certificate/{order.number}"
        if order.replaces:
            shown["replaces"] = order.replaces
        if order.error:
            shown["error"] = order.error
        if shown["status"] == "processing" and self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        return _json(status, shown, **headers)

    def _status(self, order: Order) -> str:
        """As Boulder works it out each time (RFC 8555 §7.1.6)."""
        if order.error is not None:
            return "invalid"
        if order.csr is not None:
            return self._issue(order, order.csr)
        states = {self._decide(each) for each in order.authorizations}
        if states - {"pending", "valid"} or order.expires <= self.now():
            return "invalid"
        return "pending" if "pending" in states else "ready"

    def _finalize(self, order: Order, payload: dict[str, Any]) -> Reply:
        status = self._status(order)
        if status != "ready":
            raise Refusal(403, "orderNotReady", f"Order's status ({status!r}) is not acceptable")
        csr = x509.load_der_x509_csr(_unbase64url(payload["csr"]))
        self._check_csr(order, csr)
        order.csr = csr
        order.due = asyncio.get_running_loop().time() + self.processing_seconds
        shown = self._show_order(order)
        document = json.loads(shown.body) | {"status": "processing"}
        document.pop("certificate", None)
        headers = dict(shown.headers)
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        return Reply(200, headers, json.dumps(document).encode())

    def _issue(self, order: Order, csr: x509.CertificateSigningRequest) -> str:
        """Issue when it is due; the order's status from then on."""
        if order.chain is None:
            if asyncio.get_running_loop().time() < order.due:
                return "processing"
            if self.fails_issuance is not None:
                order.error = self.fails_issuance
                return "invalid"
            key = self.stranger.public_key() if self.stranger else csr.public_key()
            validity = PROFILES[order.profile].validity
            leaf = self._issuer.issue(key, order.names, self.now(), validity)
            self.issued.append(leaf)
            order.chain = b"".join(map(_pem, (leaf, *self._issuer.chain)))
        return "valid"

    def _authorization(
        self, account: Account, number: str, payload: dict[str, Any] | None
    ) -> Reply:
        authorization = self._owned(account, number)
        if payload == {"status": "deactivated"}:
            if self._decide(authorization) not in {"pending", "valid"}:
                raise Refusal(400, "malformed", "Authorization is not pending or valid")
            authorization.status = "deactivated"
        return _json(200, self._show_authorization(authorization))

    def _owned(self, account: Account, number: str) -> Authorization:
        if int(number) >= len(self._authorizations):
            raise Refusal(404, "malformed", "No such authorization")
        authorization = self._authorizations[int(number)]
        if authorization.account is not account:
            raise Refusal(403, "unauthorized", "Account does not match authorization")
        return authorization

    def _show_authorization(self, authorization: Authorization) -> dict[str, object]:
        status = self._decide(authorization)
        types = ("dns-01",) if authorization.wildcard else self.offered
        shown: dict[str, object] = {
            "identifier": {
                "type": authorization.type,
                "value": authorization.name.removeprefix("*."),
            },
            "status": status,
            "expires": authorization.expires.isoformat(timespec="seconds"),
            "challenges": [self._show_challenge(authorization, type_) for type_ in types],
        }
        return shown | ({"wildcard": True} if authorization.wildcard else {})

    def _show_challenge(self, authorization: Authorization, type_: str) -> dict[str, object]:
        """Boulder shows no `processing`."""
        decided = self._decide(authorization)
        shown: dict[str, object] = {
            "type": type_,
            "url": f"{HOST}/challenge/{authorization.number}-{type_}",
            "status": decided if decided in {"valid", "invalid"} else "pending",
            "token": authorization.token,
        }
        return shown | ({"error": authorization.error} if decided == "invalid" else {})

    async def _challenge(self, account: Account, argument: str, payload: object) -> Reply:
        number, _, type_ = argument.partition("-")
        authorization = self._owned(account, number)
        if payload != {}:
            raise Refusal(400, "malformed", "Error unmarshaling challenge response")
        if self._decide(authorization) == "pending" and authorization.due is None:
            authorization.error = await self._validate(authorization)
            more = self.slow.get(authorization.name, 0)
            now = asyncio.get_running_loop().time()
            authorization.due = now + self.validation_seconds + more
        shown = self._show_challenge(authorization, type_)
        return _json(200, shown, Link=f'<{HOST}/authorization/{number}>;rel="up"')

    async def _validate(self, authorization: Authorization) -> dict[str, object] | None:
        name, token = authorization.name, authorization.token
        if name in self.dead:
            detail = f"DNS problem: NXDOMAIN looking up A for {name}"
            return {"type": f"{TYPE}dns", "detail": detail, "status": 400}
        if self.fetch is None:
            return None
        expected = f"{token}.{authorization.account.thumbprint}"
        try:
            fetched = self.fetch(name, token)
            found = await fetched if inspect.isawaitable(fetched) else fetched
        except OSError as error:
            return {"type": f"{TYPE}connection", "detail": f"{name}: {error}", "status": 400}
        if found == expected:
            return None
        detail = f"{name}: The key authorization file from the server did not match this challenge"
        return {"type": f"{TYPE}unauthorized", "detail": detail, "status": 403}

    def _decide(self, authorization: Authorization) -> str:
        """The status, after what has come due."""
        now = asyncio.get_running_loop().time()
        due = authorization.due is not None and now >= authorization.due
        if authorization.status == "pending" and due:
            authorization.status = "invalid" if authorization.error else "valid"
            if authorization.status == "valid":
                authorization.expires = self.now() + timedelta(days=30)
        if authorization.expires <= self.now():
            return "expired"
        return authorization.status

    def _certificate(self, account: Account, number: str) -> Reply:
        order = self._order(account, number)
        if order.chain is None:
            raise Refusal(404, "malformed", "Certificate not found")
        headers = {
            "Content-Type": "application/pem-certificate-chain",
            "Link": f'<{HOST}/certificate/{number}/1>;rel="alternate"',
        }
        return Reply(200, headers, order.chain)

    def _renewal_info(self, known_by: str) -> Reply:
        """RFC 9773 §4: two thirds of the life, half of it below ten days, and 1 % around that."""
        found = [leaf for leaf in self.issued if certificate_id(leaf) == known_by]
        if not found:
            raise Refusal(404, "malformed", "Certificate not found")
        begin, end = found[0].not_valid_before_utc, found[0].not_valid_after_utc
        middle = begin + (end - begin) * (1 / 2 if end - begin < timedelta(days=10) else 2 / 3)
        around = (end - begin) / 100
        first, last = self.window or (middle - around, middle + around)
        window = {"start": first.isoformat(), "end": last.isoformat()}
        shown: dict[str, object] = {"suggestedWindow": window}
        if self.explanation is not None:
            shown["explanationURL"] = self.explanation
        again = {} if self.ask_again is None else {"Retry-After": self.ask_again}
        return _json(200, shown, **again)

    # --- what Boulder looks at ---------------------------------------------------------------

    def _check_names(self, names: tuple[tuple[str, str], ...], profile: str) -> None:
        if profile not in PROFILES:
            raise Refusal(400, "invalidProfile", f"profile name {profile!r} not recognized")
        limits = PROFILES[profile]
        if len(names) > limits.names:
            detail = f"Order cannot contain more than {limits.names} identifiers"
            raise Refusal(400, "malformed", detail)
        hosts = {name for type_, name in names if type_ == "dns"}
        if len(hosts) < len(names) and not limits.ip:
            detail = f"Profile {profile!r} does not permit IP address identifiers"
            raise Refusal(400, "rejectedIdentifier", detail)
        for name in hosts:
            if not name.startswith("*.") and "*." + name.partition(".")[2] in hosts:
                detail = f"Domain name {name!r} is redundant with a wildcard domain"
                raise Refusal(400, "malformed", detail)
        if rejected := sorted(self.rejected & hosts):
            raise _cannot_issue(rejected)

    def _check_paused(self, names: tuple[tuple[str, str], ...]) -> None:
        """A refusal without Retry-After: waiting doesn't help."""
        if paused := sorted(self.paused & {name for _, name in names}):
            detail = f"Your account is temporarily prevented from requesting certificates for {paused}. Please visit {HOST}/unpause"
            raise Refusal(429, "rateLimited", detail)

    def _check_duplicates(self, names: tuple[tuple[str, str], ...]) -> None:
        week_ago = self.now() - timedelta(days=7)
        wanted = {name for _, name in names}
        issued = [
            leaf.not_valid_before_utc
            for leaf in self.issued
            if leaf.not_valid_before_utc > week_ago and names_of(leaf) == wanted
        ]
        if len(issued) >= self.duplicate_limit:
            detail = f"too many certificates ({len(issued)}) already issued for this exact set of identifiers in the last 168h0m0s"
            refusal = Refusal(429, "rateLimited", detail)
            later = min(issued) - week_ago
            refusal.headers["Retry-After"] = str(int(later.total_seconds()))
            raise refusal

    def _check_replaces(
        self, account: Account, names: tuple[tuple[str, str], ...], replaces: str
    ) -> None:
        """RFC 9773 §5, and what Boulder answers to each mistake."""
        found = [
            (order, leaf)
            for order in self.orders
            if order.chain and certificate_id(leaf := _leaf(order.chain)) == replaces
        ]
        if not found:
            raise Refusal(404, "malformed", "path contained an unknown certificate")
        for order in self.orders:
            if order.replaces == replaces and self._status(order) != "invalid":
                raise Refusal(409, "alreadyReplaced", "which already has a replacement order")
        order, leaf = found[0]
        if order.account is not account:
            raise Refusal(403, "unauthorized", "requester account did not request the certificate")
        if not names_of(leaf) & {name for _, name in names}:
            raise Refusal(400, "malformed", "no identifiers in common")

    def _check_csr(self, order: Order, csr: x509.CertificateSigningRequest) -> None:
        if not csr.is_signature_valid:
            raise Refusal(400, "badCSR", "Invalid signature on CSR")
        san = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if _names_in(san) != {name for _, name in order.names}:
            raise Refusal(400, "badCSR", "CSR does not specify same identifiers as Order")
        spki = serialization.PublicFormat.SubjectPublicKeyInfo
        key = csr.public_key().public_bytes(serialization.Encoding.DER, spki)
        mine = _public_key(order.account.jwk).public_bytes(serialization.Encoding.DER, spki)
        if key == mine:
            raise Refusal(400, "badCSR", "certificate public key must be different than account")


# --- faults ---------------------------------------------------------------------------------


@dataclass(slots=True)
class _Planned:
    resource: str
    fault: Fault
    times: int
    after: int

    def meets(self, resource: str) -> bool:
        """Whether it is this request's turn; asking counts."""
        if resource != self.resource or self.times == 0:
            return False
        if self.after > 0:
            self.after -= 1
            return False
        self.times -= 1
        return True


def refused(
    status: int, type_: str, detail: str = "no", *, retry_after: str | None = None
) -> Fault:
    """A refusal by the CA, with a nonce as always."""

    async def fault(proceed: Proceed) -> Reply:  # noqa: ARG001
        headers = {"Content-Type": "application/problem+json"}
        headers |= {"Retry-After": retry_after} if retry_after is not None else {}
        document = {"type": TYPE + type_, "detail": detail, "status": status}
        return Reply(status, headers, json.dumps(document).encode())

    return fault


def busy(retry_after: int | str | None = None, status: int = 503) -> Fault:
    """The load balancer's words, not the CA's: no JSON, no nonce."""
    headers = {"Content-Type": "text/html"}
    headers |= {"Retry-After": str(retry_after)} if retry_after is not None else {}
    return instead(Reply(status, headers, b"<html><h1>Service Unavailable</h1></html>"))


def instead(reply: Reply) -> Fault:
    """Any answer, in place of the deed."""

    async def fault(proceed: Proceed) -> Reply:  # noqa: ARG001
        return reply

    return fault


def unreachable(cause: Exception | None = None) -> Fault:
    """No connection, for that reason."""

    async def fault(proceed: Proceed) -> Reply:  # noqa: ARG001
        raise httpx.ConnectError("All connection attempts failed") from cause

    return fault


def lost() -> Fault:
    """The deed is done, and the connection breaks before the answer."""

    async def fault(proceed: Proceed) -> Reply:
        await proceed()
        raise httpx.ReadError("")

    return fault


def rewritten(change: Callable[[dict[str, Any]], object]) -> Fault:
    """The deed is done, and its JSON is changed in place, or replaced by what is returned."""

    async def fault(proceed: Proceed) -> Reply:
        reply = await proceed()
        document = json.loads(reply.body)
        changed = change(document)
        return replace(reply, body=json.dumps(document if changed is None else changed).encode())

    return fault


def changed(**changes: Any) -> Fault:
    """The deed is done, and its `Reply` has other fields; headers are added."""

    async def fault(proceed: Proceed) -> Reply:
        reply = await proceed()
        headers = dict(reply.headers) | changes.get("headers", {})
        return replace(reply, **changes | {"headers": headers})

    return fault


def slow(seconds: float) -> Fault:
    """The deed is done, and every byte of the answer takes so long."""
    return changed(pause=seconds)


def truncated() -> Fault:
    """The deed is done, and the connection breaks within the answer."""
    return changed(cut=True)


def huge() -> Fault:
    """The deed is done, and the answer has ten million bytes."""
    return changed(body=b" " * 10_000_000)


def zipped() -> Fault:
    """The deed is done, and ten million bytes come as some thousand."""
    body = gzip.compress(b" " * 10_000_000)
    return changed(body=body, headers={"Content-Encoding": "gzip"})


# --- the wire -------------------------------------------------------------------------------


class _Body(httpx.AsyncByteStream):
    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The body as it drips, bursts or breaks."""
        body = self._reply.body
        if self._reply.pause:
            for byte in body:
                await asyncio.sleep(self._reply.pause)
                yield bytes([byte])
        elif self._reply.cut:
            yield body[: len(body) // 2]
            raise httpx.RemoteProtocolError("peer closed connection without sending complete body")
        else:
            for start in range(0, len(body), 1 << 16):
                yield body[start : start + (1 << 16)]


@dataclass(frozen=True, slots=True)
class Jws:
    """A signed request as it came, and a verifier that knows nothing of josepy."""

    header: dict[str, Any]
    payload: Any
    message: bytes
    signature: bytes

    @classmethod
    def parse(cls, content: bytes) -> Jws:
        """RFC 7515 §7.2.2."""
        try:
            jws = json.loads(content)
            header = json.loads(_unbase64url(jws["protected"]))
            signature = _unbase64url(jws["signature"])
        except (KeyError, ValueError) as error:
            raise Refusal(400, "malformed", f"Parse error reading JWS: {error}") from error
        if jws.keys() != {"protected", "payload", "signature"}:
            raise Refusal(400, "malformed", "JWS has unprotected headers")
        message = f"{jws['protected']}.{jws['payload']}".encode()
        return cls(header, _payload(content), message, signature)

    def is_signed_by(self, jwk: Mapping[str, str]) -> bool:
        """RFC 7518 §3.3, §3.4."""
        key = _public_key(jwk)
        try:
            if isinstance(key, rsa.RSAPublicKey):
                _must(self.header["alg"] == "RS256")
                key.verify(self.signature, self.message, padding.PKCS1v15(), hashes.SHA256())
                return True
            algorithm, digest = {
                "P-256": ("ES256", hashes.SHA256()),
                "P-384": ("ES384", hashes.SHA384()),
                "P-521": ("ES512", hashes.SHA512()),
            }[jwk["crv"]]
            _must(self.header["alg"] == algorithm)
            half = len(self.signature) // 2
            _must(half == (key.curve.key_size + 7) // 8)
            r, s = (int.from_bytes(part) for part in (self.signature[:half], self.signature[half:]))
            key.verify(encode_dss_signature(r, s), self.message, ec.ECDSA(digest))
        except InvalidSignature:
            return False
        return True


def _must(condition: bool) -> None:  # noqa: FBT001
    if not condition:
        raise Refusal(
            400, "badSignatureAlgorithm", "JWS signature header contains unsupported algorithm"
        )


def _public_key(jwk: Mapping[str, str]) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    number = {name: int.from_bytes(_unbase64url(jwk[name])) for name in "xyne" if name in jwk}
    if jwk["kty"] == "RSA":
        return rsa.RSAPublicNumbers(number["e"], number["n"]).public_key()
    curve = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}[jwk["crv"]]
    return ec.EllipticCurvePublicNumbers(number["x"], number["y"], curve).public_key()


def _thumbprint(jwk: Mapping[str, str]) -> str:
    """RFC 7638."""
    names = ("e", "kty", "n") if jwk["kty"] == "RSA" else ("crv", "kty", "x", "y")
    canonical = json.dumps({name: jwk[name] for name in names}, separators=(",", ":"))
    return _base64url(hashlib.sha256(canonical.encode()).digest())


def _must_be_valid(account: Account) -> None:
    """RFC 8555 §7.3.6."""
    if account.status != "valid":
        detail = f'Account is not valid, has status "{account.status}"'
        raise Refusal(403, "unauthorized", detail)


def _payload(content: bytes) -> Any:
    try:
        payload = _unbase64url(json.loads(content)["payload"])
        return json.loads(payload) if payload else None
    except (KeyError, ValueError):
        return None


def _resource(path: str) -> tuple[str, str]:
    resource, _, argument = path.strip("/").partition("/")
    return resource, argument


def _json(status: int, document: object, **headers: str) -> Reply:
    return Reply(
        status, {"Content-Type": "application/json"} | headers, json.dumps(document).encode()
    )


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unbase64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _check_contact(contact: str) -> None:
    """As Boulder did while it kept contacts."""
    if not contact.startswith("mailto:"):
        raise Refusal(400, "unsupportedContact", "only contact scheme 'mailto:' is supported")
    if contact.endswith("@example.com"):
        raise Refusal(400, "invalidContact", 'contact email has forbidden domain "example.com"')


_FORBIDDEN = "The ACME server refuses to issue a certificate for this domain name"


def _cannot_issue(rejected: list[str]) -> Refusal:
    """As Boulder says it (policy/pa.go): only several are told apart by subproblems."""
    detail, type_ = f'Cannot issue for "{rejected[0]}": {_FORBIDDEN}', "rejectedIdentifier"
    if len(rejected) == 1:
        return Refusal(400, type_, detail)
    detail += f" (and {len(rejected) - 1} more problems. Refer to sub-problems for more"
    subproblems = [
        {"type": TYPE + type_, "detail": _FORBIDDEN, "identifier": {"type": "dns", "value": name}}
        for name in rejected
    ]
    return Refusal(400, type_, f"{detail} information.)", subproblems=subproblems)


# --- certificates ---------------------------------------------------------------------------


class _Issuer:
    """A root, intermediates below it, and what they sign."""

    def __init__(self, now: datetime, intermediates: int) -> None:
        self.keys: list[ec.EllipticCurvePrivateKey] = []
        self.certificates: list[x509.Certificate] = []
        for number in range(intermediates + 1):
            key = ec.generate_private_key(ec.SECP256R1())
            name = _common_name(f"Fake intermediate {number}" if number else "Fake root")
            issuer = self.certificates[-1].subject if number else name
            certificate = (
                _builder(name, issuer, key.public_key(), now, timedelta(days=3650))
                .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
                .add_extension(
                    x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
                )
                .sign(self.keys[-1] if number else key, hashes.SHA256())
            )
            self.keys.append(key)
            self.certificates.append(certificate)

    @property
    def chain(self) -> Iterable[x509.Certificate]:
        """The intermediates, the one that signs leaves first."""
        return reversed(self.certificates[1:])

    def issue(
        self,
        key: Any,
        names: Iterable[tuple[str, str]],
        now: datetime,
        validity: timedelta,
    ) -> x509.Certificate:
        """A leaf for a public key."""
        san = x509.SubjectAlternativeName(
            [
                x509.IPAddress(ipaddress.ip_address(name)) if type_ == "ip" else x509.DNSName(name)
                for type_, name in names
            ]
        )
        signer = self.keys[-1]
        return (
            _builder(x509.Name([]), self.certificates[-1].subject, key, now, validity)
            .add_extension(san, critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
                critical=False,
            )
            .sign(signer, hashes.SHA256())
        )


def certificate_id(leaf: x509.Certificate) -> str:
    """The certID of RFC 9773 §4.1."""
    akid = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    serial = leaf.serial_number.to_bytes(leaf.serial_number.bit_length() // 8 + 1)
    return f"{_base64url(akid.key_identifier or b'')}.{_base64url(serial)}"


def names_of(leaf: x509.Certificate) -> set[str]:
    """What a certificate is for."""
    return _names_in(leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)


def _names_in(san: x509.SubjectAlternativeName) -> set[str]:
    addresses = map(str, san.get_values_for_type(x509.IPAddress))
    return {*san.get_values_for_type(x509.DNSName), *addresses}


def _leaf(chain: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificates(chain)[0]


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Any, now: datetime, validity: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now - timedelta(hours=1) + validity)
    )


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
