"""The generation that nginx runs: whose it is, and what it leaves to do.

`renew` and `status` work from it, never from the user's files: those may be under the operator's
hands, and only the operator's reload activates what is in them.
"""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nginx_acme import disk, generation
from nginx_acme.binary import pid_path
from nginx_acme.commandline import parse
from nginx_acme.draft import test
from nginx_acme.errors import ConfigError, StateError
from nginx_acme.launch import Home, home_at
from nginx_acme.manifest import current_manifest
from nginx_acme.master import find_master, master_of
from nginx_acme.nginx.files import glob_files
from nginx_acme.nginx.source import Unreadable, read_source
from nginx_acme.state_path import state_path
from nginx_acme.store import Store
from nginx_acme.understanding import files_of
from nginx_acme.work import from_json

if TYPE_CHECKING:
    from nginx_acme.judgement import Judgement
    from nginx_acme.launch import Launch
    from nginx_acme.master import Master
    from nginx_acme.work import Work


def find_home(launch: Launch) -> Home:
    """Where things are kept, also while the configuration has a mistake.

    Of a file that can't even be read the state directory is known as far as it is the default one
    or the environment's. An nginx that runs says itself which instance it is.
    """
    said = _said(launch)
    folder = os.path.dirname(launch.main)
    path = said.get("acme_state_path")
    root = state_path(launch.environ, folder, os.path.join(folder, path) if path else None)
    home = home_at(launch, Store(root))
    master = find_master(pid_path(launch.nginx, launch.command, said.get("pid")))
    found = None if master is None else started_at(master)
    if master is not None and found is not None:
        home = as_started(home_at(launch, Store(found[0])), master) or home
    return _with_source(home)


def needed_home(launch: Launch) -> Home:
    """The same; ConfigError where the main file can't be read and nginx was never started with it."""
    home = find_home(launch)
    if generation.current(home.instance.path) is None:
        launch.demand_main()
    return home


def home_of(launch: Launch, instance: str) -> Home:
    """The same where the folder of the instance is known."""
    root, _, name = instance.rpartition("/instances/")
    return _with_source(replace(home_at(launch, Store(root)), name=name))


def _with_source(home: Home) -> Home:
    """The same with the state directory that it takes its certificates from, if there is one."""
    try:
        work = current_work(home)
    except StateError:  # to be told by whoever needs it
        return home
    return home if work is None or work.source is None else replace(home, source=Store(work.source))


def _said(launch: Launch) -> dict[str, str]:
    """What the configuration, as far as it can be read, says of the state and of the pid file."""
    try:
        source = read_source(launch.main, files_of(launch).read, glob_files)
    except Unreadable as mistake:
        source = mistake.source
    except ConfigError:
        return {}
    return {
        directive.name: directive.args[0]
        for directive, _ in source.walk()
        if directive.name in {"acme_state_path", "pid"} and directive.args
    }


def started_at(master: Master) -> tuple[str, str] | None:
    """State directory and instance of a master that runs a generation of ours; None for another."""
    path, generated, _ = (master.conf or "").rpartition("/generated/")
    root, instances, name = path.rpartition("/instances/")
    return (root, name) if generated and instances else None


def as_started(home: Home, master: Master) -> Home | None:
    """The home as it is for this master, which runs the same main file; None where it doesn't.

    Its state directory is the one of `home`. Its name may be another: that is made of the host's,
    which a machine may get, or change, while nginx runs. By its name alone it is known where its
    generations were removed.
    """
    found = started_at(master)
    if found is None or found[0] != home.runtime.root:
        return None
    there = replace(home, name=found[1])
    current = generation.current(there.instance.path)
    same = there.name == home.name if current is None else current.user_main == home.main
    return there if same else None


def current_work(home: Home) -> Work | None:
    """What the generation that nginx runs leaves to do; None without one."""
    current = generation.current(home.instance.path)
    text = disk.read(current.work) if current is not None else None
    return None if current is None or text is None else from_json(text, current.work)


def why_silent(home: Home, work: Work) -> str | None:
    """Why this nginx asks no CA, nor the issuer `local`; None: it does."""
    if work.issue and not home.sheltered:
        return None
    root = home.state.root
    why = f'nginx was started while "{root}" could not be written, no CA is asked before a restart'
    if not work.issue:
        why = '"acme_issue" is off, another node asks the CA'
    return f'{why}; what is new in "{root}" is taken' if home.source else why


def needed_work(home: Home) -> Work:
    """The same; StateError without one."""
    work = current_work(home)
    if work is None:
        path = home.instance.path
        raise StateError(f'"{path}" has no generation yet, start nginx first', path)
    return work


def wanted_since(home: Home) -> datetime:
    """When the current generation was made.

    Raises:
        StateError: there is none.
    """
    needed_work(home)
    status = os.stat(f"{home.instance.generated}/")
    return datetime.fromtimestamp(status.st_mtime, UTC)


def running_master(home: Home) -> Master | None:
    """The nginx that runs this instance's generation; None where none does.

    Raises:
        StateError: there is no generation.
    """
    return master_of(needed_work(home).pid_file, home.generated_main)


def test_current(home: Home, work: Work) -> Judgement | None:
    """`nginx -t` on the generation that nginx runs, as nginx was started; None without one."""
    current = generation.current(home.instance.path)
    return None if current is None else test(home.launch, parse(work.options), current)


def is_edited(home: Home) -> bool:
    """Whether the configuration that the current generation was made from has changed, or may have."""
    made = current_manifest(home.instance.path)
    return made is None or made.sources.edited()


def is_up_to_date(home: Home) -> bool:
    """Whether nothing that it depends on has, nor an address may be free that was not."""
    made = current_manifest(home.instance.path)
    return made is not None and not made.left_out and not made.sources.changed()
