"""What /proc says of this host's sockets and addresses."""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path

import pytest

from nginx_acme.nginx.listen import Address
from nginx_acme.sockets import holder, local_networks
from tests.servers import LOCALHOST, free_port


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3"])
def test_local(address: str) -> None:
    """The loopback is this host's, with all that it has room for."""
    assert any(ipaddress.ip_address(address) in network for network in local_networks())


@pytest.mark.parametrize("address", ["192.0.2.77", "2001:db8::77", "0.0.0.0"])
def test_not_local(address: str) -> None:
    """Addresses of documentation are nobody's."""
    assert not any(ipaddress.ip_address(address) in network for network in local_networks())


@pytest.mark.ipv6
def test_local_ipv6() -> None:
    """So is that of IPv6."""
    assert any(ipaddress.ip_address("::1") in network for network in local_networks())


@pytest.mark.parametrize("host", [LOCALHOST, "0.0.0.0"])
def test_holder(host: str) -> None:
    """Who listens is found by address or behind a wildcard, with the name of the program."""
    port = free_port()
    assert holder(Address(LOCALHOST, port)) is None
    with socket.create_server((host, port)):
        name = Path("/proc/self/comm").read_text().strip()
        assert holder(Address(LOCALHOST, port)) == (os.getpid(), name)
        assert holder(Address("0.0.0.0", port)) == (os.getpid(), name)
        elsewhere = holder(Address("192.0.2.1", port))
        assert (elsewhere is None) == (host == LOCALHOST)
