"""The http-01 challenge (RFC 8555 §8.3), before nginx runs and while it runs.

    Responder    a temporary HTTP server on nginx's own addresses; only before nginx starts
    Armed        an empty file for each token, which the generated configuration looks for

The temporary server is a process of its own (`server`). aiohttp takes a quarter of a second to
import; as a child it does so beside our own imports and the first requests to the CA, and while
it does, connections wait in the backlog of sockets that are bound already. A thread would have
shared one interpreter with everything else and gained nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from nginx_acme.disk import remove, replace
from nginx_acme.errors import NginxAcmeError, UnexpectedAnswer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Self

    from nginx_acme.nginx.listen import Address, Listen

CHALLENGE_TYPE = "http-01"
PATH = "/.well-known/acme-challenge/"
"""Where the CA looks (RFC 8555 §8.3); the token follows."""

BACKLOG = 511  # as nginx

_TOKEN = re.compile(r"[-_A-Za-z0-9]{16,128}")

_CHILD = """
import _thread, os, select, signal, sys

signal.signal(signal.SIGHUP, signal.SIG_IGN)

def end_with_the_launcher():
    line = select.poll()
    line.register(0, 0)
    line.poll()
    os._exit(0)

_thread.start_new_thread(end_with_the_launcher, ())
sys.path[:] = sys.argv[2:]
from nginx_acme.challenges.server import serve
serve(sys.argv[1])
"""
"""Not ``-m``: isolated (-I), it would not find what is installed for one user alone.

A thread sees the launcher's end (which poll tells unasked) from the start. As long as the imports
take, a launcher that is killed and started again would find the addresses taken, and leave them
out of nginx's configuration.
"""


_NO_ROOTS = {"SSL_CERT_FILE": os.devnull}
"""aiohttp reads the system's roots twice when it is imported, 80 ms that a server has no use for."""


def _check_token(token: str) -> None:
    """A token is base64url (RFC 8555 §8.3), and becomes a file name and a part of a line here.

    Raises:
        UnexpectedAnswer: the CA sent something else.
    """
    if not _TOKEN.fullmatch(token):
        raise UnexpectedAnswer(f"the CA sent a challenge whose token is none: {token[:200]!r}")


class Armed:
    """Solver for a running nginx: an empty file in `folder` arms a token, removing it disarms it.

    The generated configuration answers a token whose file is there; nginx's workers need only
    search permission. No reload, and any other token stays the user's own affair. Nobody says
    when the CA has fetched it.
    """

    challenge_type = CHALLENGE_TYPE

    def __init__(self, folder: str) -> None:
        self._folder = folder

    async def present(self, token: str, key_authorization: str) -> None:  # noqa: ARG002 - nginx knows the thumbprint
        """Arm a token.

        Raises:
            UnexpectedAnswer: it is no token.
            StateError: the file can't be made.
        """
        _check_token(token)
        replace(os.path.join(self._folder, token), b"", mode=0o644, durable=False)

    async def clean_up(self, token: str) -> None:
        """Disarm a token; what never was armed, or is no token, is disarmed already."""
        if _TOKEN.fullmatch(token):
            remove(os.path.join(self._folder, token))

    async def fetched(self, token: str) -> None:  # noqa: ARG002 - nobody knows of any
        """Never return."""
        await asyncio.get_running_loop().create_future()


class Responder:
    """Solver for the time before nginx starts: `bind`, `start`, then as any other, then `close`.

    `start` needs no event loop, the rest belongs to one. Any other request than for the tokens
    presented is answered with 503.
    """

    challenge_type = CHALLENGE_TYPE

    def __init__(self, bound: Sequence[tuple[Address, socket.socket]]) -> None:
        self.addresses = tuple(dict.fromkeys(address for address, _ in bound))
        self._sockets = tuple(held for _, held in bound)
        self._child: _Child | None = None

    @classmethod
    def bind(
        cls, listens: Iterable[Listen]
    ) -> tuple[Responder, tuple[tuple[Address, OSError], ...]]:
        """Listen on these addresses as nginx would; those that can't be had come with the reason.

        From here on connections wait for an answer. An address that a wildcard among them covers
        is not bound beside it. The PROXY protocol is not spoken: leave out listeners that want it.
        """
        bound: list[tuple[Address, socket.socket]] = []
        refused: list[tuple[Address, OSError]] = []
        for listen in uncovered(listens):
            try:
                bound += [(listen.address, held) for held in _listening(listen)]
            except OSError as error:
                refused.append((listen.address, error))
        return cls(bound), tuple(refused)

    def start(self) -> None:
        """Start the server's process; this doesn't wait for it.

        Raises:
            NginxAcmeError: no process can be started.
        """
        try:
            self._child = _Child([held.fileno() for held in self._sockets])
        except OSError as error:
            raise NginxAcmeError(f"cannot start the temporary HTTP server: {error}") from error
        finally:
            self._let_go()

    async def present(self, token: str, key_authorization: str) -> None:
        """Make a token answerable; it is when this returns.

        Raises:
            UnexpectedAnswer: it is no token.
            NginxAcmeError: the server has ended.
        """
        _check_token(token)
        child = self._running()
        child.forget(token)
        await child.tell(f"present {token}", key_authorization)

    async def clean_up(self, token: str) -> None:
        """Answer a token no longer; a server that has ended answers none."""
        if not _TOKEN.fullmatch(token):
            return
        child = self._running()
        try:
            await child.tell(f"clean_up {token}")
        except ServerEnded:
            return
        finally:
            child.forget(token)

    async def fetched(self, token: str) -> None:
        """Return when somebody has got the answer for a token that was presented."""
        await self._running().fetched(token).wait()

    def close(self) -> None:
        """End the server; its addresses are free when this returns. A second time does nothing.

        It is killed: what it has answered is in the kernel's hands, and what it has not is
        nothing that a slower end would answer.
        """
        self._let_go()
        if self._child is not None:
            self._child.close()

    def __enter__(self) -> Self:
        """It is closed at the end of the `with`."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _running(self) -> _Child:
        if self._child is None:
            raise NginxAcmeError("the temporary HTTP server was not started")
        return self._child

    def _let_go(self) -> None:
        for held in self._sockets:
            held.close()


# --- addresses ------------------------------------------------------------------------------


def uncovered(listens: Iterable[Listen]) -> list[Listen]:
    """Each address once, without those that a wildcard among them takes care of, as in nginx."""
    by_address = {listen.address: listen for listen in listens}
    wildcards = {
        (family, listen.address.port): listen.address
        for listen in sorted(by_address.values(), key=lambda listen: not listen.ipv6only)
        for family in _families_of_wildcard(listen)
    }
    return [
        listen
        for address, listen in by_address.items()
        if wildcards.get((":" in address.host, address.port), address) == address
    ]


def _families_of_wildcard(listen: Listen) -> tuple[bool, ...]:
    """What a wildcard covers (True: IPv6, False: IPv4); nothing where it is none."""
    match listen.address.host:
        case "0.0.0.0":  # noqa: S104 - as nginx writes it
            return (False,)
        case "::":
            return (True,) if listen.ipv6only else (True, False)
        case _:
            return ()


def _listening(listen: Listen) -> list[socket.socket]:
    """Sockets for an address; several where it is a host name that stands for several."""
    host, port = listen.address
    if host.startswith("unix:"):
        raise OSError(errno.EAFNOSUPPORT, "no CA reaches a unix domain socket")
    with contextlib.ExitStack() as made:
        sockets = [
            made.enter_context(_socket(family, where, ipv6only=listen.ipv6only))
            for family, _, _, _, where in socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        ]
        made.pop_all()
    return sockets


def _socket(family: int, where: tuple[object, ...], *, ipv6only: bool) -> socket.socket:
    held = socket.socket(family, socket.SOCK_STREAM)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, ipv6only)
        held.bind(where)
        held.listen(BACKLOG)
    except OSError:
        held.close()
        raise
    return held


# --- the launcher's side --------------------------------------------------------------------


class ServerEnded(NginxAcmeError):
    """The temporary server's process is no more."""


class _Child:
    """The server's process: what is said to it, and what it says."""

    def __init__(self, listening: Sequence[int]) -> None:
        self._line, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-c", _CHILD, ",".join(map(str, listening)), *sys.path],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    pass_fds=listening,
                    process_group=0,  # a Ctrl-C is for the launcher
                    env={**os.environ, **_NO_ROOTS},
                )
        except OSError:
            self._line.close()
            raise
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn = asyncio.Lock()
        self._received = b""
        self._echoes: dict[str, asyncio.Future[None]] = {}
        self._fetched: dict[str, asyncio.Event] = {}
        self._end: str | None = None

    async def tell(self, what: str, *more: str) -> None:
        """Say one line and wait until it is echoed, without `more`.

        One at a time: the two could block each other with both directions full.

        Raises:
            ServerEnded: there is nobody to say it to.
        """
        self._listen()
        async with self._turn:
            if self._end is None:
                await self._exchange(what, *more)
        if self._end is not None:
            raise ServerEnded(self._end)

    async def _exchange(self, what: str, *more: str) -> None:
        """Returns, too, when the server has ended."""
        echo = self._echoes[what] = asyncio.get_running_loop().create_future()
        try:
            self._line.sendall((" ".join((what, *more)) + "\n").encode("ascii"))
            await echo
        except OSError:
            self._has_ended()
        finally:
            self._echoes.pop(what, None)

    def fetched(self, token: str) -> asyncio.Event:
        """What is set when the server has answered a GET for `token`."""
        return self._fetched.setdefault(token, asyncio.Event())

    def forget(self, token: str) -> None:
        """Fetches of `token` up to now don't count."""
        self._fetched.pop(token, None)

    def close(self) -> None:
        """Kill the process and wait for its end; a second time does nothing."""
        self._deafen()
        self._line.close()
        if self._process.returncode is None:
            self._process.kill()
            self._process.communicate()

    def _listen(self) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._line, self._hear)

    def _deafen(self) -> None:
        if self._loop is not None and not self._loop.is_closed() and self._line.fileno() >= 0:
            self._loop.remove_reader(self._line)

    def _hear(self) -> None:
        try:
            received = self._line.recv(65536)
        except OSError:
            received = b""
        if not received:
            self._has_ended()
            return
        *lines, self._received = (self._received + received).split(b"\n")
        for line in lines:
            self._understand(line.decode("ascii"))

    def _understand(self, line: str) -> None:
        word, _, token = line.partition(" ")
        if word == "fetched":
            self.fetched(token).set()
        elif (echo := self._echoes.get(line)) is not None and not echo.done():
            echo.set_result(None)

    def _has_ended(self) -> None:
        self._deafen()
        if self._end is None:
            self._end = f"the temporary HTTP server has ended: {self._last_words()}"
        for echo in self._echoes.values():
            if not echo.done():
                echo.set_result(None)

    def _last_words(self) -> str:
        _, stderr = self._process.communicate()
        lines = stderr.decode("utf-8", "replace").strip().splitlines()
        status = self._process.returncode
        if lines:
            return lines[-1]
        return f"killed by signal {-status}" if status < 0 else f"exit code {status}"
