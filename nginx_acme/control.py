"""The stories of `-s`: what is said to the nginx that runs.

    reload               a new generation for it, tested, switched, signalled, proved
    stop, quit, reopen   nginx sends them itself, told the main file that it was started with

and of a HUP that somebody else sent (`take_up`).

A reload goes to the master that runs, at the path that it was started with. If anything is wrong
it stays as it is.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from nginx_acme import disk, generation
from nginx_acme.beside import wake_agent
from nginx_acme.draft import Proposal, left_to_do, use, write
from nginx_acme.errors import NginxAcmeError, ReloadFailed
from nginx_acme.launch import (
    free_addresses,
    is_shelter,
    understand,
    understand_running,
    utc_now,
)
from nginx_acme.loaded import reload_and_note
from nginx_acme.log import Log
from nginx_acme.master import find_master, names_process
from nginx_acme.noted import is_unchanged, note_sources
from nginx_acme.places import borrow
from nginx_acme.process import check, startup_log_path
from nginx_acme.publish import publish
from nginx_acme.reload import RELOAD_WAIT, settled_workers, was_reloaded
from nginx_acme.running import (
    as_started,
    needed_work,
    running_master,
    started_at,
    test_current,
)
from nginx_acme.sockets import listening
from nginx_acme.standing import missing
from nginx_acme.store import Store
from nginx_acme.taking import placed

if TYPE_CHECKING:
    from nginx_acme.generation import Generation
    from nginx_acme.launch import Home, Launch, Understood
    from nginx_acme.master import Master
    from nginx_acme.nginx.listen import Listen
    from nginx_acme.work import Work


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


def _send_by(rehearsed: Understood) -> int:
    """By a generation that is made for this alone: nginx runs on the user's own file, or not."""
    launch, home = rehearsed.launch, rehearsed.home
    places = borrow(rehearsed.plan, home.store, home.stand_ins, utc_now())
    written = write(rehearsed, places, ())
    said = check(launch.nginx, launch.command.for_nginx(written.main), written.translate)
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
    running = _as_started(understood, master)
    running.tell_warnings()
    added = free_addresses(running, listening(master.pid))
    _activate(running, _written(running, added), added, master)
    launch.log.entry("signal process started", startup_log_path(launch.nginx, launch.command))
    publish(running.home, launch.log, utc_now())
    wake_agent(running.home, left_to_do(running), master.pid, look=running.seen.changed())
    return 0


def _concerns_us(understood: Understood, master: Master | None) -> bool:
    """Whether the configuration is ours, or that which nginx runs is, though the user's isn't now."""
    runs_ours = master is not None and started_at(master) is not None
    return bool(understood.plan.ours) or runs_ours


def _as_started(understood: Understood, master: Master) -> Understood:
    """The configuration with its things where the running nginx reads them.

    A changed `acme_state_path` is taken up by the next start; until then nginx reads its
    generation where it is.
    """
    found, log, store = started_at(master), understood.launch.log, understood.home.store
    if found is None:
        raise NginxAcmeError('nginx must be restarted once to use "acme"')
    root, home, issue = found[0], understood.home, understood.plan.settings.issue
    if is_shelter(root):
        home = home.sheltered_at(root)
        if issue:
            log.warn(
                f'nginx was started while "{store.root}" could not be written, or with "acme_issue"'
                " off; no CA is asked until it is restarted"
            )
    elif root != store.root:
        moved = Store(root)
        home = replace(home, store=moved, runtime=moved)
        log.warn(
            f'nginx was started with the state in "{root}", "{store.root}" is used after the next'
            " restart"
        )
    if not issue and not home.sheltered:
        log.warn('"acme_issue off" is used after the next restart; until then no CA is asked')
    running = as_started(home, master)
    if running is None:
        raise NginxAcmeError(
            f'nginx (pid {master.pid}) was started for another configuration: "{master.conf}"'
        )
    return replace(understood, home=running)


def _written(running: Understood, added: tuple[Listen, ...]) -> Generation:
    """A generation with something to serve at each path; nobody has judged it yet."""
    running.home.runtime.open_for_writing()
    return write(running, placed(running, utc_now()), added)


def _activate(
    running: Understood, written: Generation, added: tuple[Listen, ...], master: Master
) -> None:
    """Make nginx read it, if it accepts it; else the generation before stays, or comes back."""
    home, work = running.home, left_to_do(running)
    drafted = Proposal(running, written).accepted()
    noted = disk.read(drafted.work)
    if running.asks:
        _issue_locally(running)
    with home.runtime.lock_generation(home.instance):
        before = generation.current(home.instance.path)
        use(home, drafted, work)
        try:
            reload_and_note(home, master, work)
        except ReloadFailed:
            if before is not None:
                generation.switch(home.instance.path, before)
            if noted is not None:  # it is the one before, and is to leave what it left
                disk.replace(drafted.work, noted, mode=0o600, durable=False)
            raise
        running.keep_files()
        note_sources(running, added, work)
        generation.prune(home.instance.path)


def _issue_locally(running: Understood) -> None:
    """Get what the issuer `local` is asked for: it takes no time."""
    home = running.home
    local = [
        one for one in missing(running.plan.certificates, home.store, utc_now()) if one.issuer.local
    ]
    if local:
        from nginx_acme.issuing import Scene, issue_locally

        issue_locally(local, Scene(home.store, running.launch.log, running.launch.signals))


# a HUP of somebody else ------------------------------------------------------------------


class TakenUp(NamedTuple):
    """Whether something is new, and whether it has to be looked at again: it was edited meanwhile.

    Of a HUP for that nothing may be seen: signals that come while nginx has one to handle become
    one, and that was ours.
    """

    new: bool
    again: bool


NOTHING = TakenUp(new=False, again=False)


def take_up(home: Home, *, surely: bool) -> TakenUp:
    """Let nginx have what the user's files say now, where somebody told it to read them.

    Args:
        home: of the nginx.
        surely: don't ask whether anybody did.

    Raises:
        NginxAcmeError: a mistake in the configuration, or nginx refuses it; the running one stays.
    """
    work, master = needed_work(home), running_master(home)
    if master is None:
        return NOTHING
    with home.runtime.lock_generation(home.instance, wait=RELOAD_WAIT):  # of a reload of ours
        told = _was_told(home, master) or surely
        if told:
            home.instance.note_workers(settled_workers(master.pid))
    # Not before they are noted: who edits after this, and hangs up, brings others.
    if is_unchanged(home) or not (told or _was_refused(home, work)):
        return NOTHING
    running = _as_started(understand_running(home.launch, home.instance.path), master)
    added = free_addresses(running, listening(master.pid))
    written = _written(running, added)
    current = generation.current(running.home.instance.path)
    if written == current and left_to_do(running) == work:
        running.keep_files()
        note_sources(running, added, work)
        return NOTHING
    running.tell_warnings()
    _activate(running, written, added, master)
    return TakenUp(new=True, again=running.seen.changed())


def _was_told(home: Home, master: Master) -> bool:
    """Whether nginx has read its configuration since its workers were noted.

    Whoever else opens the generated main file (a `grep` below the state directory) leaves its
    workers as they are.
    """
    noted = home.instance.workers()
    if master.single or not noted:
        return True
    return was_reloaded(master.pid, noted, os.path.realpath(home.instance.generations))


def _was_refused(home: Home, work: Work) -> bool:
    """Whether it may have tried to: a HUP that it refuses leaves its workers as they are, too."""
    said = test_current(home, work)
    return said is not None and not said.ok
