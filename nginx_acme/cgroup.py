"""Whose a process is, to systemd: its control groups (cgroups(7)).

What may live here: what /proc and /sys/fs/cgroup tell and do about them. A service that has ended
takes what is left in its groups with it, and so may a session whose user logs out: whatever starts
something that is to stay has to put it where it belongs.
"""

from __future__ import annotations

_ROOT = "/sys/fs/cgroup"


def join(process: int, other: int) -> None:
    """Put a process into the groups of another one, as far as we may."""
    for hierarchy in _groups(other) - _groups(process):
        _, controllers, path = hierarchy.split(":", 2)
        # That of version 2 is beside those of version 1 where a system has both.
        for folder in (controllers.removeprefix("name="),) if controllers else ("", "unified"):
            _move(process, f"{_ROOT}/{folder}{path}/cgroup.procs")


def _move(process: int, procs: str) -> None:
    try:
        with open(procs, "w", encoding="ascii") as file:
            file.write(str(process))
    except OSError:  # it is not there; or we are in a container, or not root
        return


def _groups(process: int) -> set[str]:
    """``HIERARCHY:CONTROLLERS:PATH`` of each; none of a process that has ended."""
    try:
        with open(f"/proc/{process}/cgroup", encoding="utf-8") as file:
            return set(file.read().splitlines())
    except OSError:
        return set()
