"""`nginx -t` on a draft, without what others would notice of it.

Where there is no pid file yet, `nginx -t` makes an empty one. Who waits for nginx by that file, as
scripts and nginx's own tests do, took it for started while we were still asking a CA. To remove
the file after the test was no way: it had been seen by then. So such a draft is tested with
another pid file; what becomes of the real one is between nginx and the user, as ever.

A password may come through a named pipe, to who reads it first. That is to be the nginx that
runs, so then there is no test: what is wrong nginx says itself when it starts or is reloaded.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from nginx_acme import disk
from nginx_acme.encoding import to_bytes, to_text
from nginx_acme.nginx.edit import argument_spans
from nginx_acme.nginx.syntax import parse_until_mistake

if TYPE_CHECKING:
    from nginx_acme.generation import Generation
    from nginx_acme.nginx.syntax import Directive
    from nginx_acme.understanding import Understood

_NOWHERE = os.devnull
_PASSWORD_FILE = "ssl_password_file"  # noqa: S105 - the name of a directive
"""That of servers; before those towards upstreams stands the protocol."""


def trial(understood: Understood, written: Generation) -> tuple[str, ...]:
    """The arguments of such a test; what they need is beside the draft until `end_trial`.

    Raises:
        StateError: that can't be written.
    """
    launch = understood.launch
    main, directives = written.main, launch.command.directives
    if _would_appear(understood.pid_file):
        main, directives = _elsewhere(understood, written)
    return launch.command.for_test(main, error_log=launch.nowhere, directives=directives)


def would_take_a_password(understood: Understood) -> bool:
    """Whether a test would read one that is told once."""
    source = understood.source
    if not any(_PASSWORD_FILE in file.text for file in source.files.values()):
        return False
    return any(
        _is_pipe(os.path.join(source.folder, directive.args[0]))
        for directive, _ in source.walk()
        if directive.name.endswith(_PASSWORD_FILE) and directive.args
    )


def _is_pipe(path: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except OSError:
        return False


def end_trial(written: Generation) -> None:
    """Leave nothing beside the draft."""
    disk.remove(written.trial)


def _would_appear(pid_file: str) -> bool:
    """Whether a test would make it; where it can't be made, that is for nginx to say."""
    folder = os.path.dirname(pid_file)
    return not os.path.lexists(pid_file) and os.access(folder, os.W_OK | os.X_OK)


def _elsewhere(understood: Understood, written: Generation) -> tuple[str, str | None]:
    """The main file and the directives of -g, with another pid file in the one or the other.

    One that is said in a file which the main file includes stays: the whole way to it would have
    to be written once more.
    """
    given = understood.launch.command.directives or ""
    for directive in parse_until_mistake(given, "command line")[0]:
        if directive.name == "pid" and directive.args:
            start, end = argument_spans(given, directive)[1]
            return written.main, f"{given[:start]}{_NOWHERE}{given[end:]}"
    said = next((one for one in understood.main_context("pid") if one.args), None)
    if said is None:
        return written.main, f"pid {_NOWHERE}; {given}"
    if said.path == understood.source.main:
        text = to_text(disk.read(written.main) or b"")
        moved = _moved(text, understood.source.files[said.path].text, said)
        disk.replace(written.trial, to_bytes(moved), mode=0o600, durable=False)
        return written.trial, None
    return written.main, None


def _moved(text: str, user: str, said: Directive) -> str:
    """A generated text with another pid file where the user's says one; no line more or less."""
    words = user[said.start : said.end]
    line = 0
    for _ in range(user.count("\n", 0, said.start)):
        line = text.index("\n", line) + 1
    at = text.index(words, line) - said.start
    start, end = argument_spans(user, said)[1]
    return f"{text[: at + start]}{_NOWHERE}{text[at + end :]}"
