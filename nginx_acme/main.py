"""The story of every start: who is meant, and does it concern us at all.

    argv -> CommandLine -> nginx answers itself    exec nginx with the same argv
                        -> a word of ours          the command of that name
                        -> -s                      `control`
                        -> -t, -T                  `configtest`
                        -> a start                 `unchanged`, else `start`; both become nginx

Light: what a start without work does not need is imported where it is needed.
"""

from __future__ import annotations

import gc

from nginx_acme import commandline
from nginx_acme.binary import error_log_path, find_nginx, nginx_of
from nginx_acme.process import Run, become, end_on_signals, found_environ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nginx_acme.log import Log

GARBAGE = 50_000
"""New objects between two looks for garbage. Ten thousand servers are half a million objects that
all stay; with Python's usual 700 half of the time was spent on looking through them."""


def main(argv: Sequence[str], environ: Mapping[str, str], this: str, log: Log) -> int:
    """Do what `argv` asks for; returns only where nginx doesn't take our place.

    Raises:
        NginxAcmeError: one sentence for the operator.
    """
    command = commandline.parse(argv)
    if command.action == commandline.COMMAND and command.word == "agent":
        from nginx_acme.agent.process import run as stay

        return stay(command.rest, log)
    gc.set_threshold(GARBAGE)
    signals = end_on_signals()
    asked = Run(find_nginx(environ, this), ["-V"])
    if command.action == commandline.PASS:
        become(nginx_of(asked).path, command.argv, found_environ(), signals)

    nginx = nginx_of(asked)
    if command.action == commandline.START:
        from nginx_acme.unchanged import start_again

        start_again(command, nginx, environ, signals, log)
    from nginx_acme.launch import Launch

    launch = Launch(command, nginx, environ, signals, log)
    if command.action == commandline.COMMAND:
        from nginx_acme.commands import run

        return run(launch)
    log.add_file(error_log_path(nginx, command, None))
    if command.action == commandline.SIGNAL:
        from nginx_acme.control import signal

        return signal(launch)
    if command.action == commandline.START:
        from nginx_acme.start import start

        start(launch)
    from nginx_acme.configtest import test

    return test(launch)
