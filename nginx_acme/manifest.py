"""What a start depended on, and whether that has changed: the start with nothing to do.

    Sources      collects what is read, while it is read
    Manifest     that and everything else that a start's result followed from; on disk as text

One stat for each file tells whether it is the same, by device, inode, size, mtime and ctime. What
was absent and has come counts as well, and a folder stands for the names in it. Content is not
compared: reading a thousand files is what a start with nothing to do wants to avoid.

A file that changed within the last two seconds may change again within the same tick of a coarse
clock and look the same, so such a manifest is not trusted and the next start reads everything
again. ctime says so; mtime can be set to anything.

The text has fields that end with NUL, since a path may have a newline in it. It ends with a word,
so one that is cut off is known. What can't be understood is no manifest.

Imported at every start, so its data are plain classes with slots, and nothing but the interpreter
is needed (json, dataclasses or re would cost more than a hundred stats).
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_HEADER = "nginx-acme manifest 1"
_END = "end"
_ABSENT = "absent"
_TICK = 2_000_000_000  # nanoseconds; FAT's clock, the coarsest there is


def state_of(path: str) -> str:
    """What tells a file or folder from another and from what it was; `_ABSENT` without one."""
    try:
        status = os.stat(path)
    except OSError:
        return _ABSENT
    return _state(status)


def _state(status: os.stat_result) -> str:
    return (
        f"{status.st_dev} {status.st_ino} {status.st_size}"
        f" {status.st_mtime_ns} {status.st_ctime_ns}"
    )


class Sources:
    """The files and folders that are read now; `now` is the time before the first, in ns."""

    __slots__ = ("_now", "settled", "states")

    def __init__(self, now: int) -> None:
        self._now = now
        self.states: dict[str, str] = {}
        self.settled = True
        """Whether none of them has changed just before."""

    def note(self, path: str) -> None:
        """Look at a file before it is read, or at a folder before it is listed.

        The first look counts: what is changed between the look and the reading looks changed to
        the next start, never the other way round.
        """
        if path in self.states:
            return
        try:
            status = os.stat(path)
        except OSError:
            self.states[path] = _ABSENT
            return
        self.states[path] = _state(status)
        if status.st_ctime_ns > self._now - _TICK:
            self.settled = False


class Served:
    """A certificate's file at its path, and until when it is good, in seconds since the epoch."""

    __slots__ = ("not_after", "path", "renewal", "state")

    def __init__(self, path: str, state: str, not_after: int, renewal: int) -> None:
        self.path = path
        self.state = state
        self.not_after = not_after
        self.renewal = renewal
        """When it is to be renewed; 0 where the file is none to stay, a temporary one or a
        certificate of other names."""


class Manifest:
    """What a start depended on.

    - `context`: what must be equal: argv, uid, host name, version …; names and values are the
      caller's;
    - `settled` and `states`: of all files and folders that were read (`Sources`), among them the
      binary and its modules;
    - `added`: the addresses that were added, as host, port and ipv6only; they must be free;
    - `certificates`: what is served;
    - `result`: what the next start needs to know, in the caller's own words.
    """

    __slots__ = ("added", "certificates", "context", "result", "settled", "states")

    def __init__(
        self,
        *,
        context: Mapping[str, str],
        states: Mapping[str, str],
        settled: bool,
        added: Iterable[tuple[str, int, bool]],
        certificates: Iterable[Served],
        result: Mapping[str, str],
    ) -> None:
        self.context = dict(context)
        self.states = dict(states)
        self.settled = settled
        self.added = tuple(added)
        self.certificates = tuple(certificates)
        self.result = dict(result)

    def unchanged(self, context: Mapping[str, str]) -> bool:
        """Whether everything that was read is as it was, and the rest of the world, too."""
        if not self.settled or self.context != context:
            return False
        for path, state in self.states.items():  # noqa: SIM110 - ten thousand times
            if state_of(path) != state:
                return False
        return True

    def usable(self, now: float) -> bool:
        """Whether each certificate is the one that was served, and still good."""
        return all(
            served.renewal and now < served.not_after and state_of(served.path) == served.state
            for served in self.certificates
        )

    def with_certificates(self, certificates: Iterable[Served]) -> Manifest:
        """The same start with other certificates, after a renewal."""
        return Manifest(
            context=self.context,
            states=self.states,
            settled=self.settled,
            added=self.added,
            certificates=certificates,
            result=self.result,
        )


# --- on disk --------------------------------------------------------------------------------


def encode(manifest: Manifest) -> bytes:
    """The text for `decode`."""
    served = (
        (it.path, it.state, str(it.not_after), str(it.renewal)) for it in manifest.certificates
    )
    fields = (
        _HEADER,
        str(int(manifest.settled)),
        *_section(manifest.context.items()),
        *_section(manifest.states.items()),
        *_section((host, str(port), str(int(only))) for host, port, only in manifest.added),
        *_section(served),
        *_section(manifest.result.items()),
        _END,
    )
    return "\0".join(fields).encode("utf-8", "surrogateescape")


def decode(text: bytes | None) -> Manifest | None:
    """What `encode` wrote; None for anything else, and for nothing."""
    fields = (text or b"").decode("utf-8", "surrogateescape").split("\0")
    if fields[0] != _HEADER or fields[-1] != _END:
        return None
    try:
        return _manifest(_Fields(fields[1:-1]))
    except (ValueError, IndexError):
        return None


def _section(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """The number of rows, and their fields."""
    rows = list(rows)
    yield str(len(rows))
    for row in rows:
        yield from row


def _manifest(fields: _Fields) -> Manifest:
    settled = fields.one() == "1"
    context = dict(fields.pairs())
    states = dict(fields.pairs())
    added = [(host, int(port), only == "1") for host, port, only in fields.rows(3)]
    certificates = [
        Served(path, state, int(not_after), int(renewal))
        for path, state, not_after, renewal in fields.rows(4)
    ]
    return Manifest(
        context=context,
        states=states,
        settled=settled,
        added=added,
        certificates=certificates,
        result=dict(fields.pairs()),
    )


class _Fields:
    """The fields of a text, taken one section after the other."""

    __slots__ = ("_at", "_fields")

    def __init__(self, fields: list[str]) -> None:
        self._fields = fields
        self._at = 0

    def one(self) -> str:
        self._at += 1
        return self._fields[self._at - 1]

    def columns(self, width: int) -> list[list[str]]:
        """A section by its columns; ValueError where it has not so many fields."""
        end = self._at + 1 + width * int(self.one())
        section = self._fields[self._at : end]
        if self._at + len(section) != end:
            raise ValueError(end)
        self._at = end
        return [section[column::width] for column in range(width)]

    def pairs(self) -> Iterable[tuple[str, str]]:
        names, values = self.columns(2)
        return zip(names, values, strict=True)

    def rows(self, width: int) -> Iterable[tuple[str, ...]]:
        return zip(*self.columns(width), strict=True)
