"""May a name be ordered? Looked at before the CA is asked, and without costing it anything.

A probe with a random token is armed as a real challenge would be, and fetched from our own
listeners; DNS is asked for an address. A name is blocked only on proof:

    nginx answers the probe on its own address, and wrongly         its order would fail
    the resolver says that a public name has no address             the CA finds none either
    it says so of a name that we added, and knows the one above     nobody will miss it

Everything else is a warning, and the CA decides: that a listener is not reached from here (an
address that this host does not have now), that the resolver gives no answer, that the CA of a
private network asks another DNS. A real token is never fetched: a cache in front would remember
that it was not there yet.

What is not looked at is the way from outside. Where it fails from here it may well work for the
CA (a router that doesn't send back what comes from within), and what the CA says is better.

The few lines of HTTP are our own: a client library would follow proxies of the environment and
redirects, and take 0.1 s to import.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from nginx_acme import lookup
from nginx_acme.challenges.http01 import PATH
from nginx_acme.lookup import LookupFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Container, Iterable, Mapping, Sequence

    from nginx_acme.acme.order import Solver
    from nginx_acme.identifiers import Name
    from nginx_acme.nginx.listen import Listen

SECONDS = 3.0
HINT_SECONDS = 0.5
"""For what can prove nothing: it is of use only if the CA says no."""
AT_ONCE = 20
"""Connections to our own nginx at the same time."""

_LIMIT = 65536  # bytes of an answer; the right one has a few hundred
_LOCALLY = {"0.0.0.0": "127.0.0.2", "::": "::1"}  # noqa: S104 - nothing is bound here
"""Where a wildcard is reached; 127.0.0.1 may well have a listener of its own."""
_UNIX = "unix:"
_WRONGLY = (
    "nginx answers a challenge with {}; do its workers have search permission on every folder"
    " that leads to the state directory?"
)

_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?![0-9])")
_CHUNKED = re.compile(rb"\r\nTransfer-Encoding:[ \t]*chunked[ \t]*\r\n", re.IGNORECASE)
_CHUNK = re.compile(rb"(?:\r\n)?([0-9A-Fa-f]+)[^\r\n]*\r\n")
_KEY_AUTHORIZATION = rb"%s\.[-_A-Za-z0-9]{43}\s*"
"""RFC 8555 §8.1. Whose thumbprint it is says the configuration, together with the folder."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What speaks against ordering a name, by name: with proof, and without."""

    blocked: Mapping[str, str]
    warnings: Mapping[str, str]


class Verdict(Enum):
    """Of one listener, or of DNS."""

    RIGHT = auto()
    WRONG = auto()
    UNKNOWN = auto()


class Answer(NamedTuple):
    """How a question was answered; `words` say what is wrong with it."""

    verdict: Verdict
    words: str = ""


async def look(
    names: Iterable[Name],
    solver: Solver,
    listens: Sequence[Listen],
    *,
    public: bool,
    witness: str | None = None,
    optional: Container[str] = (),
    seconds: float = SECONDS,
    resolve: Callable[[str], tuple[str, ...]] = lookup.resolve,
) -> Findings:
    """What speaks against an order for these names; this takes `seconds` at most.

    Args:
        names: to be shown by http-01; wildcards, which can't be, are passed over.
        solver: arms the probe; not used where there is no listener.
        listens: the plain-HTTP addresses that our own nginx holds now.
        public: the CA asks the public DNS, and what that doesn't know can't be certified.
        witness: the host name of such a CA. Where not even that has an address, this host's
            resolver doesn't know the public DNS (behind a proxy, say) and proves nothing.
        optional: of the names, those that nobody asked for. One has no address where this host's
            resolver says so and knows the name above it, whatever the CA may know.
        seconds: for everything together.
        resolve: asks DNS (`lookup.resolve`).

    Raises:
        NginxAcmeError: the solver can't arm the probe.
    """
    wanted = [name for name in names if not name.wildcard]
    hosts = [name.value for name in wanted if not name.is_ip]
    witnesses = [] if witness is None else [witness]
    proves = public or any(host in optional for host in hosts)
    own, dns = await asyncio.gather(
        _ask_listeners(wanted, solver, listens, seconds),
        _ask_dns([*hosts, *witnesses], seconds if proves else min(seconds, HINT_SECONDS), resolve),
    )

    def is_known(name: str) -> bool:
        return name in dns and dns[name].verdict is Verdict.RIGHT

    def is_proof(name: str) -> bool:
        if name in optional and is_known(name.partition(".")[2]):
            return True
        return public and all(map(is_known, witnesses))

    found = [(name, dns[name] if is_proof(name) else _without_proof(dns[name])) for name in hosts]
    found += own
    return Findings(_words(found, Verdict.WRONG), _words(found, Verdict.UNKNOWN))


def _without_proof(finding: Answer) -> Answer:
    wrong = finding.verdict is Verdict.WRONG
    return finding._replace(verdict=Verdict.UNKNOWN) if wrong else finding


def _words(found: Iterable[tuple[str, Answer]], verdict: Verdict) -> dict[str, str]:
    """What was found with this verdict, by name."""
    words: dict[str, str] = {}
    for name, finding in found:
        if finding.verdict is verdict:
            words[name] = f"{words[name]}; {finding.words}" if name in words else finding.words
    return words


# --- DNS ------------------------------------------------------------------------------------


async def _ask_dns(
    names: Sequence[str], seconds: float, resolve: Callable[[str], tuple[str, ...]]
) -> dict[str, Answer]:
    async def ask(name: str) -> Answer:
        try:
            found = await lookup.addresses(name, seconds=seconds, resolve=resolve)
        except LookupFailed as error:
            return Answer(Verdict.UNKNOWN, str(error))
        if found:
            return Answer(Verdict.RIGHT)
        return Answer(Verdict.WRONG, f"DNS has no address for {name}")

    return dict(zip(names, await asyncio.gather(*map(ask, names)), strict=True))


# --- our own listeners ----------------------------------------------------------------------


async def _ask_listeners(
    names: Sequence[Name], solver: Solver, listens: Sequence[Listen], seconds: float
) -> list[tuple[str, Answer]]:
    if not names or not listens:
        return []
    async with armed(solver, seconds) as probe:
        findings = await asyncio.gather(*(probe.ask(name, listens) for name in names))
    return [(name.value, finding) for name, finding in zip(names, findings, strict=True)]


@asynccontextmanager
async def armed(solver: Solver, seconds: float) -> AsyncIterator[Probe]:
    """A probe that is answered as a challenge would be; it can be asked for so many seconds.

    Raises:
        NginxAcmeError: the solver can't arm it.
    """
    probe = Probe(secrets.token_urlsafe(32), seconds)
    try:
        await solver.present(probe.token, f"{probe.token}.{probe.token}")
        yield probe
    finally:
        await solver.clean_up(probe.token)


class _NoAnswer(Exception):
    """What came was no answer by HTTP; says what it was."""


class Probe:
    """A token that is armed, and how it is answered."""

    def __init__(self, token: str, seconds: float) -> None:
        self.token = token
        self._right = re.compile(_KEY_AUTHORIZATION % token.encode("ascii"))
        self._end = asyncio.get_running_loop().time() + seconds
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def ask(self, name: Name, listens: Sequence[Listen]) -> Answer:
        """What the listeners together prove about a name."""
        return _judge(await asyncio.gather(*(self.fetch(name, listen) for listen in listens)))

    async def fetch(self, name: Name, listen: Listen) -> Answer:
        """What is answered on one address for a name."""
        try:
            async with asyncio.timeout_at(self._end), self._slots:
                status, body = await _get(listen, name, PATH + self.token)
        except TimeoutError:
            return Answer(Verdict.UNKNOWN, f"{listen.address} gives no answer")
        except _NoAnswer as error:
            return _wrong(listen, str(error))
        except OSError as error:
            return Answer(Verdict.UNKNOWN, f"{listen.address} can't be reached: {_reason(error)}")
        if status != 200:  # noqa: PLR2004
            return _wrong(listen, str(status))
        if not self._right.fullmatch(body):
            return _wrong(listen, "another text")
        return Answer(Verdict.RIGHT)


def _reason(error: OSError) -> str:
    """The kernel's word; asyncio's own repeats the address."""
    number = error.errno or 0  # negative: of a look-up
    return os.strerror(number) if number > 0 else error.strerror or str(error)


def _wrong(listen: Listen, what: str) -> Answer:
    return Answer(Verdict.WRONG, f"{what} on {listen.address}")


def _judge(answers: Iterable[Answer]) -> Answer:
    """One right answer is enough: other listeners may be there for other names.

    Without one, a wrong answer is proof.
    """
    words: dict[Verdict, list[str]] = {}
    for answer in answers:
        words.setdefault(answer.verdict, []).append(answer.words)
    wrong = _WRONGLY.format(", ".join(words.get(Verdict.WRONG, [])))
    match Verdict.RIGHT in words, Verdict.WRONG in words:
        case True, False:
            return Answer(Verdict.RIGHT)
        case True, True:
            return Answer(Verdict.UNKNOWN, wrong)
        case False, True:
            return Answer(Verdict.WRONG, wrong)
        case _:
            return Answer(Verdict.UNKNOWN, "; ".join(words.get(Verdict.UNKNOWN, [])))


# --- HTTP -----------------------------------------------------------------------------------


async def _get(listen: Listen, name: Name, path: str) -> tuple[int, bytes]:
    """Status and body (RFC 9112); OSError without a connection, _NoAnswer without an answer."""
    reader, writer = await _connect(listen)
    host = f"[{name.value}]" if ":" in name.value else name.value
    proxy = "PROXY UNKNOWN\r\n" if listen.proxy_protocol else ""
    head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    try:
        writer.write((proxy + head).encode("ascii"))
        return await _answer(reader)
    finally:
        writer.close()


async def _connect(listen: Listen) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = listen.address
    if host.startswith(_UNIX):
        return await asyncio.open_unix_connection(host.removeprefix(_UNIX))
    return await asyncio.open_connection(_LOCALLY.get(host, host), port)


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        raise _NoAnswer("something that is no HTTP" if error.partial else "nothing") from error
    except asyncio.LimitOverrunError as error:
        raise _NoAnswer("something that has no end") from error
    status = _STATUS.match(head)
    if status is None:
        raise _NoAnswer("something that is no HTTP")
    body = b""
    while len(body) < _LIMIT and (more := await reader.read(_LIMIT)):
        body += more
    return int(status[1]), _joined(body) if _CHUNKED.search(head) else body


def _joined(body: bytes) -> bytes:
    """The content of a body in chunks (RFC 9112 §7.1), as far as it can be understood."""
    content, at = b"", 0
    while (chunk := _CHUNK.match(body, at)) and (size := int(chunk[1], 16)):
        at = chunk.end() + size
        content += body[chunk.end() : at]
    return content
