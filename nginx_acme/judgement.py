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

_VERDICTS = ("the configuration file ", "configuration file ")
"""How `-t` begins what it says of the whole; after nginx's name."""


class Check:
    """What `nginx -t` said: `lines` on stderr, for the user; `output` on stdout (`-T`).

    `messages` are the lines without its verdict, which only a test has: nginx says so much of a
    configuration when it is started.
    """

    __slots__ = ("lines", "messages", "ok", "output", "returncode")

    def __init__(self, returncode: int, lines: tuple[str, ...], output: bytes) -> None:
        self.ok = returncode == 0
        self.returncode = returncode
        self.lines = lines
        self.messages = tuple(line for line in lines if not _is_verdict(line))
        self.output = output


def _is_verdict(line: str) -> bool:
    name, _, words = line.partition(": ")
    return name in NAMES and words.startswith(_VERDICTS)


def check(nginx: Nginx, argv: Sequence[str], translate: Callable[[str], str]) -> Check:
    """Run nginx with `argv`, which has `-t` or `-T`; `translate` puts the user's paths in a line.

    Lines stay as nginx writes them (`nginx: [emerg] …`), without the end of the line.
    """
    return checked(Run(nginx.path, argv), translate)


def checked(testing: Run, translate: Callable[[str], str]) -> Check:
    """The same of an nginx that runs already."""
    returncode, output, messages = testing.result()
    lines = os.fsdecode(messages).removesuffix("\n").split("\n") if messages else ()
    return Check(returncode, tuple(map(translate, lines)), output)
