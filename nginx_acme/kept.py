"""Texts of the user's files, kept beside the generation that was made from them.

A file that is what it was when it was read is not opened again: a reload after one edit reads one
file of ten thousand. What tells that a file is the same is its state (`manifest`), as that was of
the descriptor that it was read from. That is not believed

- of a file that changed just before it was read;
- on a network file system, where we may be shown the times of a minute ago: nginx opens the file
  and gets what is there now, and so do we.

Texts are kept and not what they mean, which was tried first: to look at a text again takes less
than a tenth of a second for ten thousand servers, and a reader that has learned something finds it
at once.
"""

from __future__ import annotations

import stat
import time
from typing import TYPE_CHECKING, NamedTuple

from nginx_acme import sealed, volumes
from nginx_acme.encoding import to_bytes, to_text
from nginx_acme.manifest import is_settled, state
from nginx_acme.nginx.files import read_with_status, status_of

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping

KEPT = "kept"
"""The name of the file in the folder of an instance."""

_KIND = b"kept 1"
_COLUMNS = 3


class Text(NamedTuple):
    """What a file had in it, and its state then."""

    state: str
    content: bytes


class Files:
    """Reads files, each once, but for those that are kept and have not changed.

    Args:
        find: the folders where more may be kept, by what is in a file.
        read: the content of a file, and its status when that was begun.
        look: the status of a file.
        now: nanoseconds since the epoch.
    """

    def __init__(
        self,
        find: Callable[[bytes], Iterable[str]],
        read: Callable[[str], tuple[bytes, os.stat_result]] = read_with_status,
        look: Callable[[str], os.stat_result] = status_of,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._find = find
        self._read = read
        self._look = look
        self._now = now
        self._loaded: dict[str, Mapping[str, str]] = {}
        self._before: dict[str, Text] = {}
        self._states: dict[str, str] = {}
        self._devices: dict[int, str] = {}

    def load(self, folder: str) -> None:
        """Know what is kept in the folder of an instance."""
        if folder not in self._loaded:
            data = sealed.kept(f"{folder}/{KEPT}", _KIND)
            texts = {} if data is None else _from_bytes(data)
            self._loaded[folder] = {path: text.state for path, text in texts.items()}
            self._before.update(texts)

    def read(self, path: str) -> bytes:
        """The content of a file.

        Raises:
            OSError: it can't be read, as nginx is told as well.
        """
        before = self._before.pop(path, None)
        if before is not None and before.state == state(self._look(path)):
            self._states[path] = before.state
            return before.content
        begun = self._now()
        content, status = self._read(path)
        if stat.S_ISREG(status.st_mode) and is_settled(status, begun):
            self._states[path] = state(status)
            self._devices.setdefault(status.st_dev, path)
        for folder in self._find(content):
            self.load(folder)
        return content

    def keep(self, folder: str, texts: Mapping[str, str]) -> None:
        """Keep what was read, in the folder of an instance; no harm if it can't be written.

        Args:
            folder: of the instance.
            texts: what came of what was read, by path.
        """
        remote = {n for n, path in self._devices.items() if not volumes.is_local(path)}
        states = {
            path: seen
            for path, seen in self._states.items()
            if not remote or int(seen.partition(" ")[0]) not in remote
        }
        if states and states != self._loaded.get(folder):
            sealed.keep(f"{folder}/{KEPT}", _KIND, _to_bytes(states, texts))
            self._loaded[folder] = states


# On disk: the length of the index, the index, the texts


def _to_bytes(states: Mapping[str, str], texts: Mapping[str, str]) -> bytes:
    contents = [to_bytes(texts[path]) for path in states]
    rows = zip(states, states.values(), (str(len(content)) for content in contents), strict=True)
    index = to_bytes("\0".join(map("\0".join, rows)))
    return b"".join((b"%d\n" % len(index), index, *contents))


def _from_bytes(data: bytes) -> dict[str, Text]:
    """What `_to_bytes` wrote."""
    begin = data.index(b"\n") + 1
    offset = begin + int(data[:begin])
    fields = to_text(data[begin:offset]).split("\0")
    texts: dict[str, Text] = {}
    for path, seen, length in zip(*(fields[n::_COLUMNS] for n in range(_COLUMNS)), strict=True):
        begin, offset = offset, offset + int(length)
        texts[path] = Text(seen, data[begin:offset])
    return texts
