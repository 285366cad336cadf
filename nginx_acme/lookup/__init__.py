"""Asks DNS.

What may live here: questions to this host's resolver and what its answers mean, no word of
certificates.

The C library asks, in threads of our own. The event loop's executor was no place for that: its
threads are waited for, so a resolver that doesn't answer would hold up the start of nginx until
it gives up, after half a minute.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

from nginx_acme.errors import NginxAcmeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    _Found = tuple[Any, Any, Any, Any, tuple[Any, ...]]

_NO_ADDRESS = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
"""NXDOMAIN, and NODATA where the C library tells it (musl calls it NXDOMAIN, too)."""


class LookupFailed(NginxAcmeError):
    """The resolver can't say whether there is an address."""


def resolve(
    name: str, getaddrinfo: Callable[..., Sequence[_Found]] = socket.getaddrinfo
) -> tuple[str, ...]:
    """The addresses (A and AAAA) of a host name, as long as it takes; empty: there are none.

    A dot is put behind the name: a search list would find what no CA finds. /etc/hosts is not
    looked at then, which no CA knows either.

    Raises:
        LookupFailed: only the resolver's definite word counts as none.
    """
    try:
        found = getaddrinfo(f"{name}.".encode("ascii"), None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in _NO_ADDRESS:
            return ()
        raise LookupFailed(f"{name} can't be looked up: {error.strerror}") from error
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


async def addresses(
    name: str, *, seconds: float, resolve: Callable[[str], tuple[str, ...]] = resolve
) -> tuple[str, ...]:
    """The same, for at most so many seconds.

    Raises:
        LookupFailed: also when the time is over.
    """
    answer: Future[tuple[str, ...]] = Future()
    asking = threading.Thread(target=_ask, args=(resolve, name, answer), daemon=True)
    try:
        asking.start()
    except RuntimeError as error:  # the limit of processes
        raise LookupFailed(f"{name} can't be looked up: {error}") from error
    try:
        async with asyncio.timeout(seconds):
            return await asyncio.wrap_future(answer)
    except TimeoutError:
        raise LookupFailed(f"{name} can't be looked up: no answer in {seconds:g} s") from None


def _ask(
    resolve: Callable[[str], tuple[str, ...]], name: str, answer: Future[tuple[str, ...]]
) -> None:
    """In a thread: the answer, also when nobody waits for it any more."""
    answer.set_running_or_notify_cancel()
    try:
        found = resolve(name)
    except LookupFailed as error:
        answer.set_exception(error)
    else:
        answer.set_result(found)
