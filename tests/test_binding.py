"""Whether nginx could listen on an address, without taking it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from nginx_acme.binding import bindable
from tests.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket that listens on all IPv4 addresses."""
    with socket.create_server(("0.0.0.0", free_port())) as server:
        yield server


def test_bindable(listener: socket.socket) -> None:
    """An address is free unless somebody listens there, also on another address of its port."""
    port = listener.getsockname()[1]
    taken = f"bind() to {{}}:{port} failed (98: Address already in use)"
    assert bindable("0.0.0.0", free_port()) is None
    assert bindable("0.0.0.0", port) == taken.format("0.0.0.0")
    assert bindable("127.0.0.1", port) == taken.format("127.0.0.1")
    assert bindable("::", port, ipv6only=False) == taken.format("[::]")
    assert bindable("::", port) is None


def test_bindable_leaves_nothing() -> None:
    """Asking doesn't take the address."""
    port = free_port()
    assert bindable("127.0.0.1", port) is None
    with socket.create_server(("127.0.0.1", port)):
        assert bindable("127.0.0.1", port) is not None


def test_bindable_elsewhere() -> None:
    """An address that is not of this machine can't be bound, and the reason is told."""
    reason = "bind() to {}:80 failed (99: Cannot assign requested address)"
    assert bindable("192.0.2.1", 80) == reason.format("192.0.2.1")
    assert bindable("2001:db8::1", 80) == reason.format("[2001:db8::1]")
