"""What the user's files say now becomes what the running nginx reads: a reload of ours.

It goes to the master that runs, at the path that it was started with: a new generation, tested,
switched, signalled, proved. If anything is wrong, nginx stays as it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nginx_acme import disk, generation
from nginx_acme.draft import Proposal, left_to_do, use, write
from nginx_acme.errors import NginxAcmeError, ReloadFailed
from nginx_acme.launch import is_shelter, utc_now
from nginx_acme.loaded import reload_and_note
from nginx_acme.noted import note_sources
from nginx_acme.running import as_started, current_work, started_at
from nginx_acme.sockets import listening
from nginx_acme.standing import missing
from nginx_acme.store import Store
from nginx_acme.taking import placed
from nginx_acme.understanding import free_addresses

if TYPE_CHECKING:
    from nginx_acme.generation import Generation
    from nginx_acme.master import Master
    from nginx_acme.nginx.listen import Listen
    from nginx_acme.understanding import Understood


def activate(understood: Understood, master: Master) -> Understood:
    """Make nginx read it; the same with its things where that has them.

    Raises:
        NginxAcmeError: nginx refuses it, or doesn't run with a generation of ours.
    """
    running = _as_started(understood, master)
    running.tell_warnings()
    added = free_addresses(running, listening(master.pid))
    _activate(running, _written(running, added), added, master)
    return running


def activate_if_new(understood: Understood, master: Master) -> bool:
    """Make nginx read it, unless that would be what it has; whether it was anything new.

    Raises:
        NginxAcmeError: as `activate`.
    """
    running = _as_started(understood, master)
    home = running.home
    added = free_addresses(running, listening(master.pid))
    written = _written(running, added)
    work = left_to_do(running)
    if written == generation.current(home.instance.path) and work == current_work(home):
        running.keep_files()
        note_sources(running, added, work)
        return False
    running.tell_warnings()
    _activate(running, written, added, master)
    return True


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
