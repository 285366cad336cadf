"""Whether nginx could listen on an address, without taking it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from nginx_acme.free_address import why_not_free
from tests.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket that listens on all IPv4 addresses."""
    with socket.create_server(("0.0.0.0", free_port())) as server:
        yield server


def test_free(listener: socket.socket) -> None:
    """An address is free unless somebody listens there, also on another address of its port."""
    port = listener.getsockname()[1]
    taken = f"bind() to {{}}:{port} failed (98: Address already in use)"
    assert why_not_free("0.0.0.0", free_port()) is None
    assert why_not_free("0.0.0.0", port) == taken.format("0.0.0.0")
    assert why_not_free("127.0.0.1", port) == taken.format("127.0.0.1")
    assert why_not_free("::", port, ipv6only=False) == taken.format("[::]")
    assert why_not_free("::", port) is None


def test_free_leaves_nothing() -> None:
    """Asking doesn't take the address."""
    port = free_port()
    assert why_not_free("127.0.0.1", port) is None
    with socket.create_server(("127.0.0.1", port)):
        assert why_not_free("127.0.0.1", port) is not None


def test_free_elsewhere() -> None:
    """An address that is not of this machine can't be bound, and the reason is told."""
    reason = "bind() to {}:80 failed (99: Cannot assign requested address)"
    assert why_not_free("192.0.2.1", 80) == reason.format("192.0.2.1")
    assert why_not_free("2001:db8::1", 80) == reason.format("[2001:db8::1]")
