"""Where the state directory is, or may be.

Imported at every start; see `manifest`.
"""

from __future__ import annotations

import posixpath

from nginx_acme.encoding import to_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

STATE_PATH_VARIABLE = "NGINX_ACME_STATE_PATH"
"""Set by a container image, whose main file isn't ours to write a directive into."""

_DIRECTIVE = b"acme_state_path"
_SPACES = b" \t\r\n"
_NOT_BARE = frozenset(_SPACES + b"\"'\\{}#$")


def state_path(environ: Mapping[str, str], folder: str, said: str | None) -> str:
    """As the configuration says, else as the environment says, else in the main file's folder."""
    return said or environ.get(STATE_PATH_VARIABLE) or f"{folder}/acme"


def state_path_hints(text: bytes, folder: str) -> Iterator[str]:
    """What a file may say of it, where that is a plain word; what stands in a comment, too.

    A hint is enough for those who look for notes of an earlier start: those that lie in a wrong
    place were made from another configuration, and say so.
    """
    for after in text.split(_DIRECTIVE)[1:]:
        word, end, _ = after.lstrip(_SPACES).partition(b";")
        word = word.rstrip(_SPACES)
        if end and word and after[:1] in _SPACES and not _NOT_BARE & frozenset(word):
            yield posixpath.join(folder, to_text(word))
