"""Asks DNS servers themselves, for what the C library can't be asked: CAA, and of whom to ask.

What may live here: the questions, and what an answer is; the only module that knows dnspython.
What a record means to a certificate is for `doctor.caa`.

The C library asks the servers of /etc/resolv.conf, looks into files beside them, and tells neither
why it has no answer nor whether the name is there. A CA looks into no file.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.name
import dns.rcode
import dns.resolver

from nginx_acme.lookup import LookupFailed

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from nginx_acme.nginx.listen import Address

AT_ONCE = 20
"""Questions to a server at the same time."""
SECONDS = 4.0

_SERVFAIL = "SERVFAIL"
_RECURSE_UNCHECKED = dns.flags.RD | dns.flags.CD
"""Ask for an answer whether or not its DNSSEC is right (RFC 4035 §3.2.2)."""


class Refused(LookupFailed):
    """The name's own servers, or its DNSSEC, don't work (SERVFAIL); a CA hears the same."""


class Caa(NamedTuple):
    """A CAA record (RFC 8659 §4.1); the tag in lower case."""

    critical: bool
    tag: str
    value: str


class RelevantCaa(NamedTuple):
    """The records that count for a name, and the name that has them; no records: nobody does."""

    owner: str
    records: tuple[Caa, ...]


class Resolver:
    """Asks a DNS server, the same question once. It belongs to one event loop.

    `server` is None for those of this host; `seconds` are for a question with its repetitions.

    Raises:
        LookupFailed: this host has none.
    """

    def __init__(self, server: Address | None = None, *, seconds: float = SECONDS) -> None:
        try:
            self._resolver = dns.asyncresolver.Resolver(configure=server is None)
            self._unchecked = dns.asyncresolver.Resolver(configure=server is None)
        except dns.exception.DNSException as error:
            raise LookupFailed(f"this host has no DNS server: {error}") from error
        self._unchecked.flags = _RECURSE_UNCHECKED
        for resolver in (self._resolver, self._unchecked):
            resolver.lifetime = seconds
            if server is not None:
                resolver.nameservers, resolver.port = [server.host], server.port
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._asked: dict[tuple[str, str], asyncio.Task[dns.resolver.Answer | None]] = {}

    async def addresses(self, name: str) -> tuple[str, ...]:
        """The addresses (A, then AAAA) of a host name; empty: there are none.

        Raises:
            LookupFailed: whether there are any of one kind can't be known. `Refused`: by the CA,
                either, as far as it depends on the name's servers.
        """
        both = await _gather(self._ask(name, "A"), self._ask(name, "AAAA"))
        return tuple(str(record.address) for found in both if found for record in found)

    async def caa(self, name: str) -> RelevantCaa:
        """The CAA records that count for a name: its own, else its parent's and so on (RFC 8659 §3).

        Aliases (CNAME) are followed, by the server; the parents of where they lead don't count.

        Raises:
            LookupFailed: as `addresses`.
        """
        labels = name.split(".")
        for i in range(len(labels)):
            owner = ".".join(labels[i:])
            if found := await self._ask(owner, "CAA"):
                return RelevantCaa(owner, tuple(_caa(r.flags, r.tag, r.value) for r in found))
        return RelevantCaa("", ())

    async def _ask(self, name: str, kind: str) -> dns.resolver.Answer | None:
        """None: there are no such records, or no such name."""
        asked = self._asked.get((name, kind))
        if asked is None:
            asked = self._asked[name, kind] = asyncio.create_task(self._ask_once(name, kind))
            asked.add_done_callback(_look_at)  # whoever asked may be gone by then
        return await asyncio.shield(asked)

    async def _ask_once(self, name: str, kind: str) -> dns.resolver.Answer | None:
        async with self._slots:
            try:
                return await _answer(self._resolver, name, kind)
            except dns.resolver.NoNameservers as error:
                why = _rcodes(error)
                definite = why == _SERVFAIL
                if definite and await self._is_known_unchecked(name, kind):
                    why = "its DNSSEC is broken"
                kind_of_failure = Refused if definite else LookupFailed
                raise kind_of_failure(f"{kind} of {name} can't be looked up: {why}") from error
            except dns.exception.Timeout as error:
                raise LookupFailed(f"{kind} of {name} can't be looked up: no answer") from error
            except (dns.exception.DNSException, OSError) as error:
                raise LookupFailed(f"{kind} of {name} can't be looked up: {error}") from error

    async def _is_known_unchecked(self, name: str, kind: str) -> bool:
        try:
            await _answer(self._unchecked, name, kind)
        except (dns.exception.DNSException, OSError):
            return False
        return True


def _rcodes(error: dns.resolver.NoNameservers) -> str:
    """What the servers said, in DNS's own words; those that aren't there say nothing."""
    answers = [answer for *_, answer in error.kwargs["errors"] if answer is not None]
    said = dict.fromkeys(dns.rcode.to_text(answer.rcode()) for answer in answers)
    return ", ".join(said) or "no answer"


def _look_at(asked: asyncio.Task[dns.resolver.Answer | None]) -> None:
    if not asked.cancelled():
        asked.exception()


async def _answer(
    resolver: dns.asyncresolver.Resolver, name: str, kind: str
) -> dns.resolver.Answer | None:
    question = dns.name.from_text(f"{name}.")
    try:
        return await resolver.resolve(question, kind, raise_on_no_answer=False, search=False)
    except dns.resolver.NXDOMAIN:
        return None


async def _gather(
    *asked: Coroutine[None, None, dns.resolver.Answer | None],
) -> list[dns.resolver.Answer | None]:
    """What all say, once all have said it."""
    found = await asyncio.gather(*asked, return_exceptions=True)
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return [one for one in found if not isinstance(one, BaseException)]


def _caa(flags: int, tag: bytes, value: bytes) -> Caa:
    text = tag.decode("ascii", "replace").lower(), value.decode("ascii", "replace")
    return Caa(bool(flags & 0x80), *text)
