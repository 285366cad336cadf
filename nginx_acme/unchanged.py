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

from nginx_acme import locks
from nginx_acme.binary import conf_path, prefix_path
from nginx_acme.errors import StateError
from nginx_acme.labels import instance_name, instance_path, start_lock_path
from nginx_acme.manifest import GENERATED, current_manifest, kept_served, state_of
from nginx_acme.master import find_master
from nginx_acme.process import become, found_environ
from nginx_acme.spawning import spawn
from nginx_acme.state_path import STATE_PATH_VARIABLE, state_path, state_path_hints

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from nginx_acme.binary import Nginx
    from nginx_acme.commandline import CommandLine
    from nginx_acme.log import Log
    from nginx_acme.manifest import Manifest
    from nginx_acme.process import Signals


def start_again(
    command: CommandLine, nginx: Nginx, environ: Mapping[str, str], signals: Signals, log: Log
) -> None:
    """Become nginx with what it was started with last; return where that may not be right."""
    main = conf_path(nginx, command)
    name = instance_name(main, prefix_path(nginx, command), os.uname().nodename)
    for root in _roots(main, environ):
        folder = instance_path(root, name)
        generated = f"{folder}/{GENERATED}/{os.path.basename(main)}"
        made = current_manifest(folder)
        if (
            made is None
            or not _is_there(generated)
            or not _is_right(made, folder, context_of(command, nginx, environ))
        ):
            continue
        try:
            held = locks.try_lock(start_lock_path(root, name))
        except StateError:
            return
        if held is None:
            return
        # The lock is given back by exec, unless it can't be done after all.
        if not _are_free(made.added):
            held.release()
            return
        log.add_file(made.error_log)
        for warning in made.warnings:
            log.warn(warning)
        if made.agent:
            spawn(
                made.agent,
                nginx,
                environ,
                log,
                error_log=made.error_log,
                starter=os.getpid(),
                hung_up=signals.hung_up,
            )
        found = found_environ()
        become(nginx.path, command.for_start(generated, found), found, signals)


def context_of(command: CommandLine, nginx: Nginx, environ: Mapping[str, str]) -> tuple[str, ...]:
    """What a start depends on besides files: who, with which options, which programs, which boot.

    A power cut may have taken what a generation has in it, and left what is noted of it.
    """
    return (
        _boot(),
        str(os.geteuid()),
        state_of(__file__),
        nginx.path,
        *map(str, nginx.version),
        nginx.configure,
        sys.executable,
        *sys.path,
        *command.settings(conf_path(nginx, command), prefix=prefix_path(nginx, command)),
        environ.get(STATE_PATH_VARIABLE, ""),
    )


def _roots(main: str, environ: Mapping[str, str]) -> Iterator[str]:
    """Where the state directory may be."""
    folder = main.rpartition("/")[0]
    try:
        with open(main, "rb") as file:
            hints = tuple(state_path_hints(file.read(), folder))
    except OSError:
        return
    for hint in dict.fromkeys((*hints, None)):
        yield state_path(environ, folder, hint)


def _is_there(generated: str) -> bool:
    """Whether the main file is one of ours, and not an empty one."""
    try:
        status = os.stat(generated)
    except OSError:
        return False
    return status.st_uid == os.geteuid() and status.st_size > 0


def _are_free(added: Collection[tuple[str, int, bool]]) -> bool:
    """Whether nginx can listen on the addresses that were added."""
    if not added:
        return True  # spares an import
    from nginx_acme.free_address import why_not_free

    return all(why_not_free(host, port, ipv6only=only) is None for host, port, only in added)


def _boot() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return file.read().strip().decode()
    except OSError:
        return ""


def _is_right(made: Manifest, folder: str, context: tuple[str, ...]) -> bool:
    """Whether a start would come to the same, and has to get and to say nothing."""
    served = kept_served(folder)
    return (
        made.context == context
        and not made.left_out
        and find_master(made.pid_file) is None
        and served is not None
        and served.usable(time.time())
        and not made.sources.changed()
    )
