"""What nginx says of a configuration: `nginx -t` and `nginx -T`.

Nobody else knows all that it refuses, so nothing is switched to that it has not accepted.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from nginx_acme.binary import NAMES
from nginx_acme.process import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nginx_acme.binary import Nginx

_LAST_WORDS = ("the configuration file ", "configuration file ")
"""How `-t` begins its last word; after nginx's name."""


class Judgement:
    """What `nginx -t` said: `lines` on stderr, for the user; `output` on stdout (`-T`).

    `messages`: `lines` without its last word on the whole, which a start never says.
    """

    __slots__ = ("lines", "messages", "ok", "output", "returncode")

    def __init__(self, returncode: int, lines: tuple[str, ...], output: bytes) -> None:
        self.ok = returncode == 0
        self.returncode = returncode
        self.lines = lines
        self.messages = tuple(line for line in lines if not _is_last_word(line))
        self.output = output


def _is_last_word(line: str) -> bool:
    name, _, words = line.partition(": ")
    return name in NAMES and words.startswith(_LAST_WORDS)


def judge(nginx: Nginx, argv: Sequence[str], translate: Callable[[str], str]) -> Judgement:
    """Run nginx with `argv`, which has `-t` or `-T`; `translate` puts the user's paths in a line.

    Lines stay as nginx writes them (`nginx: [emerg] …`), without the end of the line.
    """
    return judged(Run(nginx.path, argv), translate)


def judged(testing: Run, translate: Callable[[str], str]) -> Judgement:
    """The same of a test that was started before."""
    returncode, output, messages = testing.result()
    lines = os.fsdecode(messages).removesuffix("\n").split("\n") if messages else ()
    return Judgement(returncode, tuple(map(translate, lines)), output)
