"""Will a CA that looks for a name find this nginx?

Pure: what DNS says and how a probe was answered come in, findings go out. What is seen from here
is not what a CA sees: behind NAT, a CDN or a load balancer an address of somebody else's is right,
and a router may not send back what comes from within. So the way from outside is proof only when
it leads here, or when this host itself answers wrongly; and of IPv6, to which a CA goes first and
which it gives up only where nobody answers at all.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from nginx_acme.doctor.finding import Finding, Verdict, fine, odd, wrong
from nginx_acme.preflight import Answer
from nginx_acme.preflight import Verdict as Said

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nginx_acme.identifiers import Name
    from nginx_acme.nginx.listen import Listen

ADDRESS = "names.address"
CHALLENGE = "names.challenge"

_WILDCARDS = {"0.0.0.0": 4, "::": 6}  # noqa: S104 - nothing is bound here


@dataclass(frozen=True, slots=True)
class Route:
    """An address of a name.

    `here` is whether it is one of this host's. `listens` is where the configuration has nginx
    listen for plain HTTP on it. `answer` is what a probe got there, None where none was sent.
    """

    address: str
    here: bool
    listens: bool
    answer: Answer | None

    @property
    def ipv6(self) -> bool:
        """Whether a CA goes there first."""
        return ":" in self.address


@dataclass(frozen=True, slots=True)
class Sight:
    """What DNS has for a name. `public`: its CA looks from the public internet.

    `optional`: nobody asked for the name, so nobody misses it. `blind`: the DNS that was asked
    doesn't even know its CA, so it is not that of the internet.
    """

    name: Name
    public: bool
    optional: bool
    routes: tuple[Route, ...]
    blind: bool = False


class _Remark(NamedTuple):
    verdict: Verdict
    words: str
    advice: str | None = None


def judge_addresses(sight: Sight) -> Finding:
    """Where the name leads; of several remarks the worst one's advice."""
    subject = sight.name.value
    if not sight.routes:
        return _without_address(sight)
    remarks = [_route(route, sight) for route in sight.routes]
    worst = max(remarks, key=lambda remark: remark.verdict.gravity)
    if worst.verdict is Verdict.FINE:
        return fine(ADDRESS, subject, "; ".join(dict.fromkeys(r.words for r in remarks)))
    words = [remark.words for remark in remarks if remark.verdict is not Verdict.FINE]
    return Finding(ADDRESS, subject, worst.verdict, "; ".join(words), worst.advice)


def _without_address(sight: Sight) -> Finding:
    subject = sight.name.value
    if sight.optional:
        return fine(ADDRESS, subject, "has no address in DNS and is left out")
    words, advice = "has no address in DNS", "add an A or AAAA record, or remove the name"
    if sight.blind:
        words = f"{words}, which doesn't know the CA either"
        return odd(ADDRESS, subject, words, "ask a DNS server of the internet (--resolver)")
    if sight.public:
        return wrong(ADDRESS, subject, words, advice)
    return odd(ADDRESS, subject, words, f"{advice}; does its CA ask another DNS?")


def _route(route: Route, sight: Sight) -> _Remark:
    """What speaks for or against one address."""
    address, answer = route.address, route.answer
    if sight.public and not ipaddress.ip_address(address).is_global:
        return _Remark(
            Verdict.WRONG,
            f"leads to {address}, where no public CA gets",
            "let DNS lead to the address at which the internet reaches this host",
        )
    if answer is not None and answer.verdict is Said.RIGHT:
        return _Remark(Verdict.FINE, f"leads here by {address}")
    if answer is not None and answer.verdict is Said.WRONG:
        return _answered_wrongly(route, answer)
    if not route.here:
        return _elsewhere(route)
    if not route.listens:
        return _unheard(route)
    if answer is not None:
        return _Remark(Verdict.ODD, f"leads here by {address}, but {answer.words}")
    return _Remark(Verdict.FINE, f"leads here by {address}")


def _elsewhere(route: Route) -> _Remark:
    silent = f" ({route.answer.words})" if route.answer is not None else ""
    words = f"leads to {route.address}, which is not this host{silent}"
    if route.ipv6:
        words += "; a CA goes there first"
        advice = "remove the AAAA record, if it isn't that of a CDN or a load balancer"
    else:
        advice = "change DNS, if it isn't that of a NAT, a CDN or a load balancer"
    return _Remark(Verdict.ODD, words, advice)


def _answered_wrongly(route: Route, answer: Answer) -> _Remark:
    address = route.address
    if route.here and route.listens:
        return _Remark(Verdict.WRONG, f"leads here by {address}, but {answer.words}")
    if route.here:
        return _Remark(
            Verdict.WRONG,
            f"leads here by {address}, where another program answers: {answer.words}",
            "let nginx listen there, or forward /.well-known/acme-challenge/ to it",
        )
    words = f"leads to {address}, where another server answers: {answer.words}"
    if route.ipv6:
        return _Remark(
            Verdict.WRONG,
            f"{words}; a CA that gets an answer by IPv6 asks nowhere else",
            "change or remove the AAAA record",
        )
    return _Remark(
        Verdict.ODD, words, "change DNS, or let that server forward /.well-known/acme-challenge/"
    )


def _unheard(route: Route) -> _Remark:
    family = "IPv4" if route.ipv6 else "IPv6"
    listen = "[::]:80" if route.ipv6 else "80"
    return _Remark(
        Verdict.ODD,
        f"leads here by {route.address}, but nginx listens on {family} only",
        f'add "listen {listen};", or remove the {"AAAA" if route.ipv6 else "A"} record',
    )


def judge_answer(name: Name, answer: Answer) -> Finding:
    """How nginx answers challenges for a name on its own addresses."""
    match answer.verdict:
        case Said.RIGHT:
            return fine(CHALLENGE, name.value, "nginx answers challenges for it")
        case Said.WRONG:
            return wrong(CHALLENGE, name.value, answer.words)
        case Said.UNKNOWN:
            return odd(CHALLENGE, name.value, f"no challenge could be tried: {answer.words}")


def listener_for(address: str, listens: Iterable[Listen]) -> Listen | None:
    """The one of nginx's addresses that takes a connection to `address`; port 80 before others."""
    version = ipaddress.ip_address(address).version
    fitting = [listen for listen in listens if _takes(listen, address, version)]
    return min(fitting, key=lambda listen: listen.address.port != 80, default=None)  # noqa: PLR2004


def _takes(listen: Listen, address: str, version: int) -> bool:
    host = listen.address.host
    wildcard = _WILDCARDS.get(host)
    dual = wildcard == 6 and not listen.ipv6only  # noqa: PLR2004
    return host == address or wildcard == version or dual
