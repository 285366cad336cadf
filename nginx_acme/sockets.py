"""Who listens where, by what /proc says; whether an address is free is `free_address`'s to try.

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
_WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - nothing is bound here


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


# --- this host ------------------------------------------------------------------------------


def local_networks() -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """What connects to this host itself, by the kernel's own tables; 127.0.0.0/8 is one of them.

    To bind an address was tried in its place: where ip_nonlocal_bind is on, all succeed.
    """
    found: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
    last = ""
    for line in _lines("/proc/net/fib_trie"):
        _, branch, address = line.partition("|-- ")
        if branch:
            last = address.strip()
        elif " host LOCAL" in line:
            found.append(ipaddress.IPv4Network(last + line.split()[0]))
    hosts = (int(line.split()[0], 16) for line in _lines("/proc/net/if_inet6"))
    return (*dict.fromkeys(found), *map(ipaddress.IPv6Network, hosts))


def holder(address: Address) -> tuple[int, str] | None:
    """A process that listens there, and its name; None where nobody does, or we may not know."""
    wanted = {inode for inode, held in _listeners(os.getpid()) if _clash(held, address)}
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        if wanted and not wanted.isdisjoint(_sockets(pid)):
            return pid, "".join(_lines(f"/proc/{pid}/comm"))
    return None


def _clash(one: Address, other: Address) -> bool:
    if one.port != other.port:
        return False
    return one.host == other.host or not _WILDCARDS.isdisjoint({one.host, other.host})


def _lines(path: str) -> list[str]:
    """The lines of a table; none where this kernel has none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []
