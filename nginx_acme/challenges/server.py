"""The temporary HTTP server's process: it answers challenges until nginx does (`http01`).

What it hears and says, a line each, over the socket that is its stdin:

    present TOKEN KEY_AUTHORIZATION     heard; "present TOKEN" comes back when it can be answered
    clean_up TOKEN                      heard; the same comes back when it is forgotten
    fetched TOKEN                       said when a GET of TOKEN has its answer, the first time

It ends with its stdin, so a launcher that is killed leaves nothing behind.

Anybody may ask it anything: a connection gets one answer and `SECONDS`, and when there are
`CONNECTIONS` of them the oldest has to go. Without that bound, clients that never finish a request
would use up the descriptors, and the CA could not connect.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections import deque
from typing import TYPE_CHECKING

from aiohttp import web

from nginx_acme.challenges.http01 import BACKLOG, PATH

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiohttp.web_protocol import RequestHandler

SECONDS = 5.0
CONNECTIONS = 512
RETRY_AFTER = "5"  # seconds; nginx will be there


def serve(descriptors: str) -> None:
    """Listen on these sockets (numbers, with commas between them) until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable()  # what clients do wrong is no news
    listening = [socket.socket(fileno=int(number)) for number in descriptors.split(",") if number]
    launcher = socket.socket(fileno=0)
    asyncio.run(_serve(listening, launcher))


async def _serve(listening: Iterable[socket.socket], launcher: socket.socket) -> None:
    hears, says = await asyncio.open_connection(sock=launcher)
    challenges = _Challenges(says)
    server = web.Server(challenges.answer, access_log=None, lingering_time=0)
    connections = _Connections(server)
    loop = asyncio.get_running_loop()
    for held in listening:
        await loop.create_server(connections, sock=held, backlog=BACKLOG)
    sweeping = asyncio.create_task(connections.sweep())
    with contextlib.suppress(ConnectionError):
        async for line in hears:
            challenges.obey(line.decode("ascii"))
    sweeping.cancel()


class _Challenges:
    """What is answered."""

    def __init__(self, launcher: asyncio.StreamWriter) -> None:
        self._launcher = launcher
        self._answers: dict[str, str] = {}
        self._unfetched: set[str] = set()

    def obey(self, line: str) -> None:
        """Do what the launcher says, and echo it."""
        word, token, *key_authorization = line.split()
        if word == "present":
            self._answers[token] = key_authorization[0]
            self._unfetched.add(token)
        else:
            self._answers.pop(token, None)
            self._unfetched.discard(token)
        self._say(word, token)

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """The key authorization for a token that is presented, 503 for everything else."""
        path = request.path
        token = path.removeprefix(PATH) if path.startswith(PATH) else ""
        key_authorization = self._answers.get(token)
        if key_authorization is None or request.method not in ("GET", "HEAD"):
            return _response(
                "nginx is starting\n", status=503, headers={"Retry-After": RETRY_AFTER}
            )
        response = _response(key_authorization)
        await response.prepare(request)
        await response.write_eof()
        if request.method == "GET" and token in self._unfetched:
            self._unfetched.remove(token)
            self._say("fetched", token)
        return response

    def _say(self, word: str, token: str) -> None:
        self._launcher.write(f"{word} {token}\n".encode("ascii"))


def _response(
    text: str, *, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    response = web.Response(text=text, status=status, headers=headers)
    response.headers["Server"] = "nginx-acme"
    response.force_close()
    return response


class _Connections:
    """Makes the protocol of each connection, and ends those that take too long or are too many."""

    def __init__(self, server: web.Server) -> None:
        self._server = server
        self._open: deque[tuple[float, RequestHandler]] = deque()

    def __call__(self) -> RequestHandler:
        """The protocol of a new connection."""
        if len(self._open) == CONNECTIONS:
            self._end_oldest()
        handler = self._server()
        self._open.append((asyncio.get_running_loop().time(), handler))
        return handler

    async def sweep(self) -> None:
        """End what is too old, for ever."""
        while True:
            await asyncio.sleep(1)
            oldest = asyncio.get_running_loop().time() - SECONDS
            while self._open and self._open[0][0] < oldest:
                self._end_oldest()

    def _end_oldest(self) -> None:
        _, handler = self._open.popleft()
        if handler.transport is not None:
            handler.transport.abort()
