"""The stories of `-s`: what is said to the nginx that runs.

reload               the user's files are what it reads next (`activation`)
stop, quit, reopen   nginx sends them itself, told the main file that it was started with
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from nginx_acme.activation import activate
from nginx_acme.beside import wake_agent
from nginx_acme.binary import startup_log_path
from nginx_acme.draft import left_to_do, write
from nginx_acme.errors import NginxAcmeError
from nginx_acme.judgement import judge
from nginx_acme.launch import utc_now
from nginx_acme.log import Log
from nginx_acme.master import find_master, names_process
from nginx_acme.places import borrow
from nginx_acme.publish import publish
from nginx_acme.running import started_at
from nginx_acme.store import Store
from nginx_acme.understanding import understand

if TYPE_CHECKING:
    from nginx_acme.launch import Launch
    from nginx_acme.master import Master
    from nginx_acme.understanding import Understood


def signal(launch: Launch) -> int:
    """Do what `-s` says; the exit code.

    Raises:
        NginxAcmeError: a mistake in the configuration, nginx refuses it, or doesn't run with a
            generation of ours; everything stays as it was.
    """
    return _reload(launch) if launch.command.signal == "reload" else _send(launch)


# stop, quit, reopen ----------------------------------------------------------------------


def _send(launch: Launch) -> int:
    """Let nginx send it; it reads its configuration to learn where its pid file is."""
    understood = understand(launch)
    if understood is None:
        launch.become_nginx(launch.command.argv)
    main = _generated_main(understood)
    if main is not None:
        launch.become_nginx(launch.command.for_nginx(main))
    return _send_by_scratch(understood)


def _send_by_scratch(understood: Understood) -> int:
    with understood.launch.scratch() as scratch:
        return _send_by(understood.at(Store(scratch)))


def _generated_main(understood: Understood) -> str | None:
    """The main file that nginx was started with, or would be; None where none was ever made."""
    master = find_master(understood.pid_file)
    if master is not None and started_at(master) is not None:
        return master.conf
    main = understood.home.generated_main
    return main if os.path.exists(main) else None


def _send_by(there: Understood) -> int:
    """By a generation that is made for this alone: nginx runs on the user's own file, or not."""
    launch, home = there.launch, there.home
    places = borrow(there.plan, home.store, home.stand_ins, utc_now())
    written = write(there, places, ())
    said = judge(launch.nginx, launch.command.for_nginx(written.main), written.translate)
    Log(launch.log.stream).relay(*said.lines)  # nginx has written to its error log itself
    return said.returncode


# reload ----------------------------------------------------------------------------------


def _reload(launch: Launch) -> int:
    understood = understand(launch, always=True)
    master = None if understood is None else find_master(understood.pid_file)
    if understood is None or not _concerns_us(understood, master):
        launch.become_nginx(launch.command.argv)
    launch.log.add_file(understood.error_log)
    if master is None and names_process(understood.pid_file):
        raise NginxAcmeError(f'"{understood.pid_file}" names a process that is no nginx')
    if master is None:
        return _send_by_scratch(understood)
    running = activate(understood, master)
    launch.log.entry("signal process started", startup_log_path(launch.nginx, launch.command))
    publish(running.home, launch.log, utc_now())
    wake_agent(running.home, left_to_do(running), master.pid, look=running.edited())
    return 0


def _concerns_us(understood: Understood, master: Master | None) -> bool:
    """Whether the configuration is ours, or that which nginx runs is, though the user's isn't now."""
    runs_ours = master is not None and started_at(master) is not None
    return bool(understood.plan.ours) or runs_ours
