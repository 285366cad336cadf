"""Who listens where, by what /proc says.

What may live here: sockets of processes, no word of what is said on them.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from typing import TYPE_CHECKING

from nginx_acme.nginx.listen import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

_LISTEN = "0A"
"""The state of a socket in /proc/net/tcp (TCP_LISTEN)."""


def listening(pid: int) -> frozenset[Address]:
    """The TCP addresses on which this process listens; none where we may not know."""
    sockets = frozenset(_sockets(pid))
    return frozenset(address for inode, address in _listeners(pid) if inode in sockets)


def _sockets(pid: int) -> Iterator[str]:
    """The inodes of its sockets, as /proc/net/tcp has them."""
    folder = f"/proc/{pid}/fd"
    try:
        descriptors = os.listdir(folder)
    except OSError:
        return
    for descriptor in descriptors:
        try:
            target = os.readlink(f"{folder}/{descriptor}")
        except OSError:  # closed by now
            continue
        if target.startswith("socket:["):
            yield target[len("socket:[") : -1]


def _listeners(pid: int) -> Iterator[tuple[str, Address]]:
    """Everybody's listening sockets in the network of this process, by inode."""
    for table in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{table}", encoding="ascii") as file:
                rows = file.read().splitlines()[1:]
        except OSError:  # no IPv6 here
            continue
        for row in rows:
            _, local, _, state, _, _, _, _, _, inode, *_ = row.split()
            if state == _LISTEN:
                yield inode, _address(local)


def _address(local: str) -> Address:
    """From `0100007F:0050`: words of 32 bits as this machine has them in memory, and the port."""
    digits, _, port = local.partition(":")
    words = (int(digits[at : at + 8], 16) for at in range(0, len(digits), 8))
    packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    return Address(str(ipaddress.ip_address(packed)), int(port, 16))
