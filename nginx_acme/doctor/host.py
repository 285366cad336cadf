"""Is this host one on which certificates can be kept, and challenges be answered?

Pure: facts in, findings out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from nginx_acme.doctor.finding import Finding, fine, odd, wrong
from nginx_acme.policy import EARLIEST_CLOCK

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime

    from nginx_acme.nginx.listen import Address

CLOCK = "host.clock"
PORT = "host.port"
STATE = "state.folder"
KEPT = "state.kept"
SPACE = "state.space"
WORKERS = "state.workers"
PRIVATE = "state.private"

LEAST_BYTES = 1 << 20
"""A few hundred certificates."""
FEW_BYTES = 16 << 20
FEW_FILES = 1000


# The clock -------------------------------------------------------------------------------


def judge_clock(now: datetime, latest: datetime | None) -> Finding:
    """Whether the clock can be believed; `latest` is the latest moment that anything here knows."""
    shown = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    if now < EARLIEST_CLOCK:
        words = f"{shown} is before this release was made ({EARLIEST_CLOCK:%Y-%m})"
        return wrong(CLOCK, "clock", words, "set it, no CA is asked until then")
    if latest is not None and latest > now:
        return odd(
            CLOCK,
            "clock",
            f"{shown} is before {latest:%Y-%m-%d %H:%M:%S} UTC, when something here was done",
            "is it right? was the machine restored?",
        )
    return fine(CLOCK, "clock", f"{shown} looks right")


# The state directory ---------------------------------------------------------------------


class Folder(NamedTuple):
    """A folder that leads somewhere; `mode` has the bits of chmod, `acl` whether more is said."""

    path: str
    mode: int
    uid: int
    gid: int
    acl: bool = False


class User(NamedTuple):
    """Who nginx's workers are."""

    name: str
    uid: int
    gids: AbstractSet[int]


@dataclass(frozen=True, slots=True)
class State:
    """The state directory, or the folder that it would be made in (`exists`).

    `mine` is whether it belongs to who asks, or that is root; only then `unwritable` says anything.
    `free_files` is None where the file system has no limit. `way` are the folders that lead to
    the challenges, `secret` those that are for nobody else.
    """

    root: str
    exists: bool
    mine: bool
    newer: bool
    unwritable: str | None
    file_system: str
    ephemeral: bool
    free_bytes: int
    free_files: int | None
    way: Sequence[Folder]
    secret: Sequence[Folder]
    workers: User | None


def judge_state(state: State) -> Iterator[Finding]:
    """What speaks against keeping certificates there."""
    yield _usable(state)
    if state.ephemeral:
        yield odd(
            KEPT,
            state.root,
            f"goes away with its {state.file_system}; every new container or boot asks the CA again",
            f"put it on a volume (-v nginx-acme:{state.root})",
        )
    if state.exists or not state.unwritable:
        yield _space(state)
    if state.workers is not None:
        yield from _for_workers(state, state.workers)


def judge_source(root: str, certificates: int) -> Finding:
    """The state directory of a node that asks no CA, and how many certificates are there."""
    if not certificates:
        return wrong(STATE, root, "has no certificates to be taken", "mount it, or copy it here")
    return fine(
        STATE, root, f"has {certificates} certificate{'s' * (certificates != 1)} to be taken"
    )


def _usable(state: State) -> Finding:
    if state.newer:
        return wrong(
            STATE,
            state.root,
            "was changed by a newer nginx-acme; nothing is renewed or written",
            "install that one again",
        )
    if not state.mine:
        return odd(STATE, state.root, "belongs to another user", "ask as that one")
    if state.unwritable:
        return wrong(STATE, state.root, state.unwritable, "no CA is asked until it can be written")
    return fine(STATE, state.root, "can be written" if state.exists else "will be made")


def _space(state: State) -> Finding:
    free = f"{state.free_bytes / (1 << 20):.0f} MiB free"
    if state.free_bytes < LEAST_BYTES:
        return wrong(SPACE, state.root, free, "make room, no CA is asked with a full disk")
    if state.free_bytes < FEW_BYTES:
        return odd(SPACE, state.root, free, "make room")
    if state.free_files is not None and state.free_files < FEW_FILES:
        return odd(SPACE, state.root, f"room for {state.free_files} files only", "make room")
    return fine(SPACE, state.root, free)


def _for_workers(state: State, workers: User) -> Iterator[Finding]:
    """Workers pass through to the challenges, and into nothing secret."""
    closed = [folder.path for folder in state.way if not _lets_in(folder, workers)]
    if closed:
        yield wrong(
            WORKERS,
            closed[0],
            f"can't be entered by nginx's workers ({workers.name}), so no challenge is answered",
            f'chmod o+x "{closed[0]}", or another "acme_state_path"',
        )
    else:
        yield fine(WORKERS, state.root, f"nginx's workers ({workers.name}) reach the challenges")
    for folder in state.secret:
        if workers.uid != folder.uid and _lets_in(folder, workers):
            yield wrong(
                PRIVATE,
                folder.path,
                f"can be entered by nginx's workers ({workers.name})",
                f'chmod 700 "{folder.path}"',
            )
        elif folder.mode & 0o077:
            yield odd(PRIVATE, folder.path, "is open to others", f'chmod 700 "{folder.path}"')


def _lets_in(folder: Folder, user: User) -> bool:
    """Whether the bits let this user pass through; what an ACL says is not judged."""
    if folder.acl or user.uid == 0:
        return True
    if folder.uid == user.uid:
        return bool(folder.mode & 0o100)
    return bool(folder.mode & (0o010 if folder.gid in user.gids else 0o001))


# Ports -----------------------------------------------------------------------------------


class Port(NamedTuple):
    """An address where nginx is to listen. `added`: by us, for challenges.

    `held`: nginx has it. `refused` says why nobody could have it now, `holder` who has it.
    """

    address: Address
    added: bool
    held: bool
    refused: str | None
    holder: str | None


def judge_port(port: Port, *, running: bool) -> Finding:
    """Whether nginx gets the address where it needs it."""
    subject = str(port.address)
    if port.held:
        return fine(PORT, subject, "nginx listens")
    if port.holder:
        words = f"{port.holder} listens there"
        advice = "stop it, or let it forward /.well-known/acme-challenge/ to nginx"
        return wrong(PORT, subject, words, advice if port.added else "stop it")
    if port.refused and port.added:
        return odd(PORT, subject, f"left out, {port.refused}")
    if port.refused:
        return wrong(PORT, subject, port.refused)
    if running:
        return odd(PORT, subject, "nginx doesn't listen there yet", "nginx-acme -s reload")
    return fine(PORT, subject, "free")
