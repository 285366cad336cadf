"""What a generation was made from, and what nginx was given with it: has any of it changed?

    Sources      what was read (`seen` collects it)
    Manifest     that, and what else a start followed from
    Served       the certificates that nginx has read, and until when they are good

The last two are kept in the folder of the instance. One stat for each file tells whether it is the
same, by device, inode, size, mtime and ctime. What was absent and has come counts as well, and a
folder stands for the names in it, which are compared where its times are others: a pid file may
have come and gone. The content of files is not compared: reading a thousand of them is what a
start with nothing to do wants to avoid.

What is kept is columns of fields with NULs between them, since a path may have a newline in it,
behind a checksum. What nobody else can have written is believed, if it is whole and of this
release; everything else counts as nothing.

Imported at every start, so its data are plain classes with slots, and nothing but the interpreter
is needed (json, dataclasses or re would cost more than a thousand stats).
"""

from __future__ import annotations

import os
import zlib

from nginx_acme import __version__, disk
from nginx_acme.encoding import to_bytes, to_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

GENERATED = "generated"
"""The link to the generation in use (`generation`, which is too much for every start)."""
_MANIFEST, _SERVED = "manifest", "served"
"""Their names in the folder of an instance."""

ABSENT = "absent"
"""The state of what is not there, or can't be looked at."""
_NAMES = " with "
"""Between the state of a folder and the mark of the names in it."""


def state_of(path: str) -> str:
    """The state of a file or folder."""
    try:
        return state_by(os.stat(to_bytes(path)))
    except OSError:
        return ABSENT


def state_by(status: os.stat_result) -> str:
    """What tells a file or folder from another and from what it was."""
    return (
        f"{status.st_dev} {status.st_ino} {status.st_size}"
        f" {status.st_mtime_ns} {status.st_ctime_ns}"
    )


def state_of_folder(path: str, status: os.stat_result | None) -> str:
    """The state of a folder with the names in it; without a status, that of the names alone."""
    return f"{'' if status is None else state_by(status)}{_NAMES}{_names_in(path)}"


class Sources:
    """The files and folders that were read, and what they were then, by their paths.

    - `states` are of the configuration;
    - `more` of what else a generation depends on: other files come and go beside the main file,
      which is no edit;
    - `settled`: whether none of them can have another content without looking so (`seen`).
    """

    __slots__ = ("more", "settled", "states")

    def __init__(
        self, states: Mapping[str, str], more: Mapping[str, str], *, settled: bool
    ) -> None:
        self.states = states
        self.more = more
        self.settled = settled

    def edited(self) -> bool:
        """Whether the configuration is not what it was, or can't be told from what it was."""
        return not self.settled or _differs(self.states)

    def changed(self) -> bool:
        """The same of all."""
        return self.edited() or _differs(self.more)


class Manifest:
    """What a generation was made from, and what a start with it does.

    - `generation`: where the link to the current one leads;
    - `sources`: what was read for it;
    - `context`: what else must be equal, in the words of whoever starts nginx;
    - `added`: the addresses that were added, as host, port and ipv6only; they must be free;
    - `left_out`: whether others were left out, since they were not;
    - `pid_file`, `error_log`: nginx's;
    - `agent`: the facts that it is started with (`spawning`); empty where none is wanted;
    - `warnings`: what the operator is told at each start.
    """

    __slots__ = (
        "added",
        "agent",
        "context",
        "error_log",
        "generation",
        "left_out",
        "pid_file",
        "sources",
        "warnings",
    )

    def __init__(
        self,
        *,
        generation: str,
        sources: Sources,
        context: Sequence[str],
        added: Iterable[tuple[str, int, bool]],
        left_out: bool,
        pid_file: str,
        error_log: str,
        agent: str,
        warnings: Sequence[str],
    ) -> None:
        self.generation = generation
        self.sources = sources
        self.context = tuple(context)
        self.added = tuple(added)
        self.left_out = left_out
        self.pid_file = pid_file
        self.error_log = error_log
        self.agent = agent
        self.warnings = tuple(warnings)


def keep_manifest(folder: str, manifest: Manifest) -> None:
    """Keep it in the folder of an instance.

    Raises:
        StateError: it can't be written.
    """
    facts = (manifest.generation, manifest.pid_file, manifest.error_log, manifest.agent)
    sources, added = manifest.sources, manifest.added
    columns = (
        (*facts, _flag(sources.settled), _flag(manifest.left_out)),
        manifest.context,
        manifest.warnings,
        [host for host, _, _ in added],
        [str(port) for _, port, _ in added],
        [_flag(only) for _, _, only in added],
        sources.states.keys(),
        sources.states.values(),
        sources.more.keys(),
        sources.more.values(),
    )
    _keep(f"{folder}/{_MANIFEST}", columns)


def kept_manifest(folder: str) -> Manifest | None:
    """The one in the folder of an instance; None where there is none that can be understood."""
    try:
        columns = _kept(f"{folder}/{_MANIFEST}")
        facts, context, warnings, hosts, ports, only, paths, states, others, others_states = columns
        generation, pid_file, error_log, agent, settled, left_out = facts
        known, more = _paired(paths, states), _paired(others, others_states)
        return Manifest(
            generation=generation,
            sources=Sources(known, more, settled=settled == _flag(True)),
            context=context,
            added=[
                (host, int(port), each == _flag(True))
                for host, port, each in zip(hosts, ports, only, strict=True)
            ],
            left_out=left_out == _flag(True),
            pid_file=pid_file,
            error_log=error_log,
            agent=agent,
            warnings=warnings,
        )
    except ValueError:
        return None


def forget_manifest(folder: str) -> None:
    """Let the next start of an instance be one like the first.

    Raises:
        StateError: it can't be removed.
    """
    disk.remove(f"{folder}/{_MANIFEST}")


def current_manifest(folder: str) -> Manifest | None:
    """The same, if it is of the generation that is in use; None where it is of another one."""
    made = kept_manifest(folder)
    try:
        generation = os.readlink(f"{folder}/{GENERATED}")
    except OSError:
        return None
    return made if made is not None and made.generation == generation else None


class Served:
    """The files of certificates that nginx has read, by their paths.

    `until` is the end of the first of them, in seconds since the epoch; 0 where one of them is none
    to stay: a temporary one, or another's.
    """

    __slots__ = ("states", "until")

    def __init__(self, states: Mapping[str, str], until: int) -> None:
        self.states = states
        self.until = until

    def usable(self, now: float) -> bool:
        """Whether each is the one that was read, and still good."""
        if now >= self.until:
            return False
        for path, before in self.states.items():  # noqa: SIM110 - a generator costs as much as a stat
            if state_of(path) != before:
                return False
        return True


def keep_served(folder: str, served: Served) -> None:
    """Keep it in the folder of an instance.

    Raises:
        StateError: it can't be written.
    """
    columns = ([str(served.until)], served.states.keys(), served.states.values())
    _keep(f"{folder}/{_SERVED}", columns)


def kept_served(folder: str) -> Served | None:
    """What is kept there; None where that is nothing that can be understood."""
    try:
        (until,), paths, states = _kept(f"{folder}/{_SERVED}")
        return Served(_paired(paths, states), int(until))
    except ValueError:
        return None


def _differs(states: Mapping[str, str]) -> bool:
    for path, before in states.items():
        if (now := state_of(path)) != before:
            known, of_folder, names = before.partition(_NAMES)
            if not of_folder or (now != known and _names_in(path) != names):
                return True
    return False


def _names_in(folder: str) -> str:
    """What tells the names in a folder from others."""
    try:
        names = sorted(os.listdir(to_bytes(folder)))
    except OSError:
        return ABSENT
    return f"{len(names)} {zlib.crc32(bytes(1).join(names))}"


# --- on disk --------------------------------------------------------------------------------


def _flag(value: bool) -> str:  # noqa: FBT001 - what it is for
    return "1" if value else "0"


def _paired(paths: Sequence[str], states: Sequence[str]) -> dict[str, str]:
    return dict(zip(paths, states, strict=True))


def _keep(path: str, columns: Iterable[Iterable[str]]) -> None:
    fields: list[str] = []
    for column in columns:
        start = len(fields)
        fields += ["", *column]
        fields[start] = str(len(fields) - start - 1)
    text = to_bytes("\0".join(fields))
    disk.replace(path, _header(text) + text, mode=0o600, durable=False)


def _kept(path: str) -> list[list[str]]:
    """The columns that `_keep` wrote; ValueError for anything else, and for nothing."""
    header, line, text = disk.read_own(path).partition(b"\n")
    if header + line != _header(text):
        raise ValueError(path)
    fields = to_text(text).split("\0")
    columns, place = [], 0
    while place < len(fields):
        start = place + 1
        place = start + int(fields[place])
        columns.append(fields[start:place])
    return columns


def _header(text: bytes) -> bytes:
    return f"nginx-acme {__version__} {zlib.crc32(text):08x}\n".encode()
