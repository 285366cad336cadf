"""What the resolver's answers mean."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from nginx_acme.lookup import LookupFailed, addresses, resolve

if TYPE_CHECKING:
    from collections.abc import Callable

    Found = tuple[Any, Any, Any, Any, tuple[Any, ...]]


def ask(name: str, answers: object, seconds: float = 10) -> tuple[str, ...]:
    """Look up a name with a resolver that gives this answer, or raises it."""

    def resolver(asked: str) -> tuple[str, ...]:
        assert asked == name
        if isinstance(answers, Exception):
            raise answers
        assert isinstance(answers, tuple)
        return answers

    return asyncio.run(addresses(name, seconds=seconds, resolve=resolver))


def test_addresses() -> None:
    """Addresses of both families come as they are."""
    assert ask("example.com", ("192.0.2.1", "2001:db8::1")) == ("192.0.2.1", "2001:db8::1")


def test_no_address() -> None:
    """The resolver's word that there is none is an answer."""
    assert ask("example.com", ()) == ()


def test_failed() -> None:
    """Where the resolver doesn't know, nobody knows."""
    with pytest.raises(LookupFailed, match="later"):
        ask("example.com", LookupFailed("later"))


def test_no_answer() -> None:
    """A resolver that doesn't answer is not waited for, neither then nor at the end."""
    end = threading.Event()

    def hangs(_: str) -> tuple[str, ...]:
        end.wait(60)
        return ()

    start = time.monotonic()
    try:
        with pytest.raises(LookupFailed, match=r"no answer in 0\.05 s"):
            asyncio.run(addresses("example.com", seconds=0.05, resolve=hangs))
        assert time.monotonic() - start < 30
    finally:
        end.set()


def test_loop_of_the_past() -> None:
    """An answer that comes when the event loop is gone disturbs nobody."""
    end, over = threading.Event(), threading.Event()

    def late(_: str) -> tuple[str, ...]:
        end.wait(60)
        over.set()
        return ("192.0.2.1",)

    with pytest.raises(LookupFailed):
        asyncio.run(addresses("example.com", seconds=0.01, resolve=late))
    end.set()
    assert over.wait(10)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("no-such-name.invalid", id="no such name"),
        pytest.param("a..b", id="no name at all"),
        pytest.param("x" * 64 + ".example", id="long label"),
    ],
)
def test_the_real_resolver(name: str) -> None:
    """What can have no address has none, or can't be looked up here."""
    with contextlib.suppress(LookupFailed):
        assert resolve(name) == ()


def test_end_of_the_process() -> None:
    """A process ends while its resolver still hasn't answered."""
    script = (
        "import asyncio, time; from nginx_acme.lookup import *\n"
        "try: asyncio.run(addresses('x', seconds=0.01, resolve=lambda _: time.sleep(600)))\n"
        "except LookupFailed as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert "no answer" in done.stdout
    assert done.stderr == ""


class TestResolve:
    """What the C library's answers mean."""

    def test_question(self) -> None:
        """The name is asked for as it is, whatever search list this host has."""
        asked: list[bytes] = []

        def getaddrinfo(name: bytes, *_: object, **__: object) -> list[Found]:
            asked.append(name)
            v4, v6 = ("192.0.2.1", 0), ("2001:db8::1", 0, 0, 0)
            return [(2, 1, 6, "", v4), (10, 1, 6, "", v6), (2, 1, 6, "", v4)]

        assert resolve("example.com", getaddrinfo) == ("192.0.2.1", "2001:db8::1")
        assert asked == [b"example.com."]

    @pytest.mark.parametrize("number", [socket.EAI_NONAME, socket.EAI_NODATA])
    def test_none(self, number: int) -> None:
        """NXDOMAIN and NODATA say that there is no address."""
        assert resolve("example.com", failing(number)) == ()

    @pytest.mark.parametrize("number", [socket.EAI_AGAIN, socket.EAI_FAIL, socket.EAI_MEMORY])
    def test_unknown(self, number: int) -> None:
        """Everything else says nothing."""
        with pytest.raises(LookupFailed, match=r"example\.com can't be looked up: words"):
            resolve("example.com", failing(number))


def failing(number: int) -> Callable[..., list[Found]]:
    """A getaddrinfo that fails."""

    def getaddrinfo(*_: object, **__: object) -> list[Found]:
        raise socket.gaierror(number, "words")

    return getaddrinfo
