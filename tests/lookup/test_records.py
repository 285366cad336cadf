"""What DNS servers say of a name, and which CAA records count for it."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING, Self, TypeVar

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from nginx_acme.lookup import LookupFailed
from nginx_acme.lookup.records import Caa, Refused, RelevantCaa, Resolver
from nginx_acme.nginx.listen import Address
from tests.servers import LOCALHOST, free_port

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Zone = Mapping[str, tuple[str, ...] | str]

T = TypeVar("T")

NOTHING = RelevantCaa("", ())


class Dns:
    """A resolver for these names, each with its records, or a word for how it fails.

    `unknown` has no such name, `broken` is SERVFAIL, `bogus` is so only to those who want DNSSEC
    checked, `closed` is nothing for us. Names that aren't here have no records.
    """

    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((LOCALHOST, 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.asked: list[str] = []

    @property
    def address(self) -> Address:
        """Where it is."""
        return Address(*self._socket.getsockname())

    def __enter__(self) -> Self:
        """Begin to answer."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, by a question that is none."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"", self.address)
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while wire := (received := self._socket.recvfrom(4096))[0]:
            answer = self._answer(dns.message.from_wire(wire))
            self._socket.sendto(answer.to_wire(), received[1])

    def _answer(self, query: dns.message.Message) -> dns.message.Message:
        (question,) = query.question
        name, kind = str(question.name).removesuffix("."), question.rdtype.name
        self.asked.append(f"{name} {kind}")
        has, answer = self._zone.get(name, ()), dns.message.make_response(query)
        if has == "unknown":
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif has == "broken" or (has == "bogus" and not query.flags & dns.flags.CD):
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif has == "closed":
            answer.set_rcode(dns.rcode.REFUSED)
        elif not isinstance(has, str):
            owner = name
            for alias in _records(has, "CNAME"):
                answer.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", "CNAME", alias))
                owner = alias.removesuffix(".")
            if found := _records(self._zone.get(owner, ()), kind):
                answer.answer.append(dns.rrset.from_text(f"{owner}.", 60, "IN", kind, *found))
        return answer


def _records(has: tuple[str, ...] | str, kind: str) -> list[str]:
    return [text.removeprefix(f"{kind} ") for text in has if text.startswith(f"{kind} ")]


def ask(zone: Zone, what: Callable[[Resolver], Awaitable[T]]) -> T:
    """Ask a resolver for this zone."""

    async def run(address: Address) -> T:
        return await what(Resolver(address))

    with Dns(zone) as server:
        return asyncio.run(run(server.address))


def addresses(zone: Zone) -> tuple[str, ...]:
    """The addresses of www.example.com."""
    return ask(zone, lambda resolver: resolver.addresses("www.example.com"))


def caa(zone: Zone) -> RelevantCaa:
    """The CAA records that count for www.example.com."""
    return ask(zone, lambda resolver: resolver.caa("www.example.com"))


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        pytest.param(
            {"www.example.com": ("A 192.0.2.1", "A 192.0.2.2", "AAAA 2001:db8::1")},
            {"192.0.2.1", "192.0.2.2", "2001:db8::1"},
            id="both families",
        ),
        pytest.param({"www.example.com": ("AAAA 2001:db8::1",)}, {"2001:db8::1"}, id="IPv6 alone"),
        pytest.param(
            {"www.example.com": ("CNAME cdn.example.net.",), "cdn.example.net": ("A 192.0.2.3",)},
            {"192.0.2.3"},
            id="an alias",
        ),
        pytest.param({"www.example.com": ("TXT x",)}, set(), id="no address"),
        pytest.param({"www.example.com": "unknown"}, set(), id="no such name"),
    ],
)
def test_addresses(zone: Zone, expected: set[str]) -> None:
    """The addresses of both families, wherever an alias leads; none is an answer."""
    assert set(addresses(zone)) == expected


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        pytest.param({}, NOTHING, id="nobody"),
        pytest.param(
            {"www.example.com": ('CAA 0 issue "a.example"',), "com": ('CAA 0 issue "b.example"',)},
            RelevantCaa("www.example.com", (Caa(False, "issue", "a.example"),)),
            id="its own",
        ),
        pytest.param(
            {"www.example.com": "unknown", "example.com": ('CAA 0 ISSUE ";"',)},
            RelevantCaa("example.com", (Caa(False, "issue", ";"),)),
            id="its parent",
        ),
        pytest.param(
            {"com": ('CAA 128 tbs "x"',)},
            RelevantCaa("com", (Caa(True, "tbs", "x"),)),
            id="the last but the root, critical",
        ),
        pytest.param(
            {
                "www.example.com": ("CNAME x.cdn.example.",),
                "x.cdn.example": ('CAA 0 issue "cdn.example"',),
                "example.com": ('CAA 0 issue "a.example"',),
            },
            RelevantCaa("www.example.com", (Caa(False, "issue", "cdn.example"),)),
            id="where an alias leads",
        ),
        pytest.param(
            {
                "www.example.com": ("CNAME x.cdn.example.",),
                "x.cdn.example": (),
                "cdn.example": ('CAA 0 issue "cdn.example"',),
                "example.com": ('CAA 0 issue "a.example"',),
            },
            RelevantCaa("example.com", (Caa(False, "issue", "a.example"),)),
            id="not the parents of where an alias leads",
        ),
    ],
)
def test_caa(zone: Zone, expected: RelevantCaa) -> None:
    """The records of the nearest name that has any count (RFC 8659 §3)."""
    assert caa(zone) == expected


@pytest.mark.parametrize("question", [addresses, caa])
@pytest.mark.parametrize(
    ("state", "words", "definite"),
    [
        pytest.param("broken", "SERVFAIL", True, id="SERVFAIL"),
        pytest.param("closed", "REFUSED", False, id="not for us"),
        pytest.param("bogus", "its DNSSEC is broken", True, id="DNSSEC"),
    ],
)
def test_failures(
    question: Callable[[Zone], object],
    state: str,
    words: str,
    definite: bool,  # noqa: FBT001
) -> None:
    """No answer is told from none; what a CA hears, too, is told from what may be this host's."""
    with pytest.raises(LookupFailed) as caught:
        question({"www.example.com": state})
    assert str(caught.value).endswith(f" of www.example.com can't be looked up: {words}")
    assert isinstance(caught.value, Refused) == definite


def test_once() -> None:
    """Names with the same parents don't ask for these again."""

    async def several(resolver: Resolver) -> None:
        names = (f"{host}.example.com" for host in "abc")
        await asyncio.gather(*(resolver.caa(name) for name in names))

    async def run(address: Address) -> None:
        await several(Resolver(address))

    with Dns({}) as server:
        asyncio.run(run(server.address))
        assert sorted(server.asked) == [
            *(f"{name} CAA" for name in ("a.example.com", "b.example.com", "c.example.com")),
            "com CAA",
            "example.com CAA",
        ]


def test_nobody_there() -> None:
    """A server that isn't there is no answer of DNS."""

    async def run() -> None:
        resolver = Resolver(Address(LOCALHOST, free_port()), seconds=0.2)
        with pytest.raises(LookupFailed, match="can't be looked up") as caught:
            await resolver.addresses("example.com")
        assert not isinstance(caught.value, Refused)

    asyncio.run(run())


def test_no_name() -> None:
    """What is no name can't be looked up."""
    with pytest.raises(LookupFailed, match=r"CAA of a\.\.b can't be looked up"):
        ask({}, lambda resolver: resolver.caa("a..b"))
