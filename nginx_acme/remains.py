"""What is left of an nginx that is no more, which a start removes from the state directory.

The name of an instance has the host's in it, so each container that is made anew leaves one behind:
a folder with generations, a page, and locks. What is kept of certificates is nobody's remains.

Gone is only what nobody has written to for a month, while the agent looks daily; whose locks are
free; and of which no nginx runs here. That the locks are free was not enough: between hosts some
file systems know of none. An nginx without an agent may run elsewhere with nobody looking, and
needs its generation for a HUP: it stays.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from nginx_acme.errors import StateError
from nginx_acme.master import find_master
from nginx_acme.running import current_work

if TYPE_CHECKING:
    from datetime import datetime

    from nginx_acme.launch import Home
    from nginx_acme.log import Log
    from nginx_acme.store import Instance

AGE = timedelta(days=30)
MOST = 10
"""In one start, which is not to take longer for hundreds; the next one goes on."""


def remove(home: Home, log: Log, now: datetime) -> None:
    """Remove what is left of others in the state directory of this nginx.

    That it can't be removed is said, and is no reason for anything to fail.
    """
    removed = 0
    with suppress(StateError):  # whatever is wrong there is told by who needs it
        for each in home.store.instances():
            if each.name != home.name and removed < MOST:
                removed += _removed(home, each, log, now)


def _removed(home: Home, instance: Instance, log: Log, now: datetime) -> bool:
    try:
        if not _is_old(instance, now) or _may_run(home, instance):
            return False
        return instance.remove(partial(_is_old, instance, now))
    except (StateError, OSError) as error:
        log.warn(f'"{instance.path}" is of an nginx that is gone, and can\'t be removed: {error}')
        return False


def _is_old(instance: Instance, now: datetime) -> bool:
    return now - instance.last_written() > AGE


def _may_run(home: Home, instance: Instance) -> bool:
    """Whether an nginx may run on it; where it can't be read what that one is to do, one may."""
    try:
        work = current_work(replace(home, name=instance.name))
    except StateError:
        return True
    if work is None:
        return False
    master = find_master(work.pid_file)
    return not work.agent or (master is not None and instance.generated in master.command_line)
