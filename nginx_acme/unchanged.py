"""The start with nothing to do: nothing has changed since the last one, so nginx starts at once.

What was made then is still right, if everything that it was made from is what it was (`manifest`).
Nothing of the configuration is read but the main file, for a hint where the manifest is; nothing
is written but the name of who has the lock; nobody else's code is imported. The agent looks
at all of it when nginx runs.

Where anything is unclear, it is a start like any other (`start`).
"""

from __future__ import annotations

import os
import sys
import time

from nginx_acme import disk
from nginx_acme.agent.spawning import spawn
from nginx_acme.errors import StateError
from nginx_acme.labels import instance_name
from nginx_acme.manifest import kept_manifest, kept_served
from nginx_acme.master import find_master
from nginx_acme.process import become, bindable, conf_path, found_environ, prefix_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from nginx_acme.commandline import CommandLine
    from nginx_acme.log import Log
    from nginx_acme.manifest import Manifest
    from nginx_acme.process import Nginx, Signals

STATE_PATH_VARIABLE = "NGINX_ACME_STATE_PATH"
"""Set by a container image, whose main file isn't ours to write a directive into."""

_STATE_PATH_DIRECTIVE = b"acme_state_path"
_NOT_BARE = frozenset(b" \t\r\n\"'\\{}#$")


def start_again(
    command: CommandLine, nginx: Nginx, environ: Mapping[str, str], signals: Signals, log: Log
) -> None:
    """Become nginx with what it was started with last; return where that may not be right."""
    main = conf_path(nginx, command)
    name = instance_name(main, prefix_path(nginx, command), os.uname().nodename)
    for root in _roots(main, environ):
        folder = f"{root}/instances/{name}"
        made = kept_manifest(folder)
        if made is None or not _is_right(made, folder, context_of(command, nginx, environ)):
            continue
        try:
            held = disk.try_lock(f"{root}/locks/start-{name}.lock")
        except StateError:
            return
        if held is None:
            return
        # The lock is given back by exec, unless it can't be done after all.
        if not all(bindable(host, port, ipv6only=only) is None for host, port, only in made.added):
            held.release()
            return
        _spawn_agent(made, nginx, environ, signals, log)
        generated = f"{folder}/generated/{os.path.basename(main)}"
        environ = found_environ()
        become(nginx.path, command.for_start(generated, environ), environ, signals)


def context_of(command: CommandLine, nginx: Nginx, environ: Mapping[str, str]) -> tuple[str, ...]:
    """What a start depends on besides files: who, with which options, under which Python."""
    return (
        str(os.geteuid()),
        nginx.path,
        sys.executable,
        *sys.path,
        *command.settings(conf_path(nginx, command), prefix=prefix_path(nginx, command)),
        environ.get(STATE_PATH_VARIABLE, ""),
    )


def _roots(main: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Where the state directory may be.

    A hint is enough: what a manifest says is compared with what is there, and one that lies where
    the state was once was made from another configuration.
    """
    folder = main.rpartition("/")[0]
    said = _said(main)
    usual = environ.get(STATE_PATH_VARIABLE) or f"{folder}/acme"
    return (os.path.join(folder, said), usual) if said else (usual,)


def _said(main: str) -> str | None:
    """The first word that may be said of it in the main file, if that is a plain one."""
    try:
        with open(main, "rb") as file:
            rest = file.read().partition(_STATE_PATH_DIRECTIVE)[2]
    except OSError:
        return None
    word, end, _ = rest.lstrip().partition(b";")
    return os.fsdecode(word) if end and word and not _NOT_BARE & frozenset(word) else None


def _is_right(made: Manifest, folder: str, context: tuple[str, ...]) -> bool:
    """Whether a start would come to the same, and has to get and to say nothing."""
    try:
        generation = os.readlink(f"{folder}/generated")
    except OSError:
        return False
    served = kept_served(folder)
    return (
        made.generation == generation
        and made.context == context
        and not made.left_out
        and find_master(made.pid_file) is None
        and served is not None
        and served.usable(time.time())
        and not made.sources.changed()
    )


def _spawn_agent(
    made: Manifest, nginx: Nginx, environ: Mapping[str, str], signals: Signals, log: Log
) -> None:
    log.add_file(made.error_log)
    for warning in made.warnings:
        log.warn(warning)
    if not made.agent:
        return
    try:
        spawn(
            made.agent,
            nginx,
            environ,
            error_log=made.error_log,
            starter=os.getpid(),
            hung_up=signals.hung_up,
        )
    except OSError as error:
        log.error(f"the agent can't be started, nobody renews until it is: {error}")
