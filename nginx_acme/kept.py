"""Texts of the user's files, kept beside the generation that was made from them.

A file that is what it was when it was read is not opened again: a reload after one edit reads one
file of ten thousand. What tells that a file is the same is its state, where that can be trusted
(`seen`).

Texts are kept and not what they mean, which was tried first: to look at a text again takes less
than a tenth of a second for ten thousand servers, and a reader that has learned something finds it
at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from nginx_acme import sealed
from nginx_acme.encoding import to_bytes, to_text
from nginx_acme.seen import Seen

if TYPE_CHECKING:
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
        seen: looks at files, and reads them.
    """

    def __init__(self, find: Callable[[bytes], Iterable[str]], seen: Seen | None = None) -> None:
        self.seen = seen or Seen()
        self._find = find
        self._loaded: dict[str, Mapping[str, str]] = {}
        self._before: dict[str, Text] = {}

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
        if before is not None and before.state == self.seen.note(path):
            return before.content
        content = self.seen.read(path)
        for folder in self._find(content):
            self.load(folder)
        return content

    def keep(self, folder: str, texts: Mapping[str, str]) -> None:
        """Keep what was read, in the folder of an instance; no harm if it can't be written.

        Args:
            folder: of the instance.
            texts: what came of what was read, by path.
        """
        states = self.seen.sure(texts)
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
