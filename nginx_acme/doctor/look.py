"""Looks at the names from where this host is: DNS, CAA, and how a probe is answered.

All at once, for `SECONDS` at most; what was not looked at by then is said to be so. No CA is
asked. While nginx runs, a probe is armed as a challenge would be and asked for on nginx's own
listeners and at the addresses that DNS has. Where it doesn't, a server of our own listens for it
meanwhile, which nginx must not meet when it is started: whoever looks holds the lock of a start.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from nginx_acme import locks
from nginx_acme.challenges.http01 import Armed, Responder
from nginx_acme.doctor import caa, gather
from nginx_acme.doctor.finding import Finding, odd, wrong
from nginx_acme.doctor.names import (
    ADDRESS,
    CHALLENGE,
    Route,
    Sight,
    judge_addresses,
    judge_answer,
    listener_for,
)
from nginx_acme.errors import NginxAcmeError, StateError
from nginx_acme.lookup import LookupFailed
from nginx_acme.lookup.records import Refused, Resolver
from nginx_acme.nginx.listen import Address, Listen
from nginx_acme.preflight import armed
from nginx_acme.sockets import listening, local_networks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nginx_acme.doctor.case import Case
    from nginx_acme.identifiers import Name
    from nginx_acme.master import Master
    from nginx_acme.plan import Certificate, Issuer
    from nginx_acme.preflight import Probe

SECONDS = 10.0
"""For all names together."""
PROBE_SECONDS = 8.0
"""For probes; an address that gives no answer must not cost the name its other findings."""
AT_ONCE = 20
HTTP_PORT = 80
"""Where a CA comes (RFC 8555 §8.3)."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A name of one certificate."""

    name: Name
    certificate: Certificate


def look(case: Case, server: Address | None) -> list[Finding]:
    """Look at every name that a CA will look at; `server` is the DNS server to ask.

    Raises:
        LookupFailed: there is none.
    """
    wanted: dict[tuple[Name, Issuer], _Wanted] = {}
    for one in case.certificates:
        for name in one.names if not one.issuer.local else ():
            wanted.setdefault((name, one.issuer), _Wanted(name, one))
    if not wanted:
        return []
    with ExitStack() as stack:
        reason = _keep_clear(case, stack)
        untried = [_untried("nginx", reason)] if reason is not None else []
        return untried + asyncio.run(_look(case, list(wanted.values()), server, probing=not reason))


def _keep_clear(case: Case, stack: ExitStack) -> str | None:
    """See to it that no sweep removes our probe, and no start of nginx meets our server.

    Why neither can be had; None where all is clear until `stack` ends.
    """
    instance = case.home.instance
    try:
        if case.home.store.newer:
            return "the state directory is a newer nginx-acme's"
        if case.ours is not None:
            stack.enter_context(case.home.store.lock_probes())
        elif os.path.isdir(os.path.dirname(instance.start_lock)):
            held = locks.try_lock(instance.start_lock)
            if held is None:
                return "nginx is being started"
            stack.enter_context(held)
    except StateError as error:
        return str(error)
    return None


def _untried(subject: str, reason: object) -> Finding:
    return odd(CHALLENGE, subject, f"no challenge could be tried: {reason}")


async def _look(
    case: Case, wanted: Sequence[_Wanted], server: Address | None, *, probing: bool
) -> list[Finding]:
    resolver, findings = Resolver(server), list[Finding]()
    async with AsyncExitStack() as stack:
        eye = _Eye(case, resolver)
        if probing and case.ours is not None:
            findings += await eye.use_nginx(case.ours, stack)
        elif probing:
            findings += await eye.use_own_server(stack)
        looks = {asyncio.create_task(eye.look(one)): one for one in wanted}
        done, late = await asyncio.wait(looks, timeout=SECONDS)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
    for task, one in looks.items():
        if task in done:
            findings += task.result()
        else:
            words = f"could not be looked at within {SECONDS:g} s"
            findings.append(odd(ADDRESS, one.name.value, words, "try again, or another --resolver"))
    return findings


class _Eye:
    """Looks at names, `AT_ONCE` of them at the same time; so the first are done when time is over."""

    def __init__(self, case: Case, resolver: Resolver) -> None:
        self._case = case
        self._resolver = resolver
        self._local = local_networks()
        self._listens: Sequence[Listen] = case.listens
        self._held: Sequence[Listen] = ()
        self._probes: dict[Issuer, Probe] = {}
        self._unknown = frozenset(gather.unknown(case)) if case.ours is not None else frozenset()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._askers: dict[Certificate, caa.Asker] = {}

    async def use_nginx(self, master: Master, stack: AsyncExitStack) -> list[Finding]:
        """Arm a probe in the nginx that runs, for each issuer that it answers for by now."""
        case, findings = self._case, list[Finding]()
        answering = case.work.answering if case.work is not None else ()
        seen = listening(master.pid)  # nothing, where we may not look
        self._held = self._listens = [x for x in answering if not seen or x.address in seen]
        for issuer in gather.issuers(case):
            try:
                folder = gather.challenges(case, issuer)
                if folder is not None:
                    probe = armed(Armed(folder), PROBE_SECONDS)
                    self._probes[issuer] = await stack.enter_async_context(probe)
            except NginxAcmeError as error:
                findings.append(_untried(issuer.name, error))
        return findings

    async def use_own_server(self, stack: AsyncExitStack) -> list[Finding]:
        """Let a server of our own answer a probe, on the addresses that are free."""
        responder, _ = Responder.bind(x for x in self._listens if not x.proxy_protocol)
        stack.callback(responder.close)
        if not responder.addresses:
            return []
        try:
            responder.start()
            probe = await stack.enter_async_context(armed(responder, PROBE_SECONDS))
        except NginxAcmeError as error:
            return [_untried("nginx", error)]
        self._probes = dict.fromkeys(gather.issuers(self._case), probe)
        return []

    async def look(self, wanted: _Wanted) -> list[Finding]:
        """Everything about one name."""
        async with self._turns:
            found = await asyncio.gather(
                self._addresses(wanted), self._challenge(wanted), self._caa(wanted)
            )
        return [finding for finding in found if finding is not None]

    async def _addresses(self, wanted: _Wanted) -> Finding:
        name, issuer = wanted.name, wanted.certificate.issuer
        try:
            addresses = (name.value,) if name.is_ip else await self._resolver.addresses(name.value)
        except LookupFailed as error:
            known = isinstance(error, Refused) and issuer.public
            judge = wrong if known else odd
            return judge(ADDRESS, name.value, str(error), "put its DNS right" if known else None)
        routes = await asyncio.gather(*(self._route(wanted, address) for address in addresses))
        optional = name.value in wanted.certificate.optional
        blind = not routes and issuer.public and not await self._knows(issuer)
        return judge_addresses(Sight(name, issuer.public, optional, tuple(routes), blind=blind))

    async def _knows(self, issuer: Issuer) -> bool:
        """Whether DNS knows the CA itself; behind a proxy this host's may know no public name."""
        try:
            return bool(
                await self._resolver.addresses(urlsplit(issuer.directory_url).hostname or "")
            )
        except LookupFailed:
            return False

    async def _route(self, wanted: _Wanted, address: str) -> Route:
        here = any(ipaddress.ip_address(address) in network for network in self._local)
        listen = listener_for(address, self._listens) if here else None
        probe = self._probe(wanted)
        if probe is None:
            return Route(address, here, listen is not None, None)
        port = listen.address.port if listen is not None else self._port(here=here)
        proxied = listen is not None and listen.proxy_protocol
        answer = await probe.fetch(
            wanted.name,
            Listen(
                Address(address, port),
                ssl=False,
                quic=False,
                default_server=False,
                proxy_protocol=proxied,
                ipv6only=True,
            ),
        )
        return Route(address, here, listen is not None, answer)

    def _port(self, *, here: bool) -> int:
        """Where to look on an address on which nginx doesn't listen."""
        ports = {listen.address.port for listen in self._case.listens}
        return min(ports) if here and ports and HTTP_PORT not in ports else HTTP_PORT

    async def _challenge(self, wanted: _Wanted) -> Finding | None:
        probe = self._probe(wanted)
        if probe is None or not self._held:
            return None
        return judge_answer(wanted.name, await probe.ask(wanted.name, self._held))

    def _probe(self, wanted: _Wanted) -> Probe | None:
        """None, too, where the nginx that runs was not told of the name yet."""
        if wanted.name.value in self._unknown:
            return None
        return self._probes.get(wanted.certificate.issuer)

    async def _caa(self, wanted: _Wanted) -> Finding | None:
        name, issuer = wanted.name, wanted.certificate.issuer
        if name.is_ip:
            return None
        try:
            found = await self._resolver.caa(name.value.removeprefix("*."))
        except LookupFailed as error:
            known = isinstance(error, Refused) and issuer.public
            judge = wrong if known else odd
            advice = "put its DNS right: a CA refuses to issue then" if known else None
            return judge(caa.CHECK, name.value, str(error), advice)
        if not found.records and issuer.public and not await self._knows(issuer):
            return None  # not the DNS that the CA asks
        return caa.judge(name, found, self._asker(wanted.certificate))

    def _asker(self, certificate: Certificate) -> caa.Asker:
        """Who asks for this certificate, as CAA records may name them."""
        if certificate not in self._askers:
            self._askers[certificate] = gather.asker(self._case, certificate)
        return self._askers[certificate]
