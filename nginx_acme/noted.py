"""What is noted when a generation is taken into use: what it was made from, and what a start does.

For whoever asks next whether anything has changed (`running`, `unchanged`). That it can't be
written costs time, never more: everything is read again.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from nginx_acme import disk, generation
from nginx_acme.beside import agent_facts
from nginx_acme.errors import StateError
from nginx_acme.manifest import Manifest, keep_manifest
from nginx_acme.places import NAMELESS
from nginx_acme.state_path import state_path
from nginx_acme.unchanged import context_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nginx_acme.nginx.listen import Listen
    from nginx_acme.understanding import Understood
    from nginx_acme.work import Work


def note_sources(understood: Understood, added: tuple[Listen, ...], work: Work) -> None:
    """Note what the current generation was made from.

    Args:
        understood: the configuration.
        added: the addresses that were added.
        work: what it leaves to do.
    """
    home = understood.home
    for path in _more_sources(understood):
        understood.seen.note_more(path)
    manifest = Manifest(
        generation=os.readlink(home.instance.generated),
        sources=understood.seen.sources,
        context=_context(understood),
        added=[(*one.address, one.ipv6only) for one in added],
        left_out=len(added) < len(understood.plan.added),
        pid_file=work.pid_file,
        error_log=work.error_log,
        agent=agent_facts(home, work) if work.agent else "",
        warnings=tuple(filter(None, (*understood.warnings, understood.ephemeral))),
    )
    with suppress(StateError):
        keep_manifest(home.instance.path, manifest)


def _context(understood: Understood) -> tuple[str, ...]:
    """Of a start that comes to the same; of none where that would put things elsewhere."""
    launch, home, settings = understood.launch, understood.home, understood.plan.settings
    usual = state_path(launch.environ, understood.source.folder, settings.state_path)
    if home.runtime.root != usual or not settings.issue:
        return ()
    return context_of(launch.command, launch.nginx, launch.environ)


def _more_sources(understood: Understood) -> Iterator[str]:
    """What it depends on besides the configuration: its folders, the program, who is answered for.

    And that it is there: of a generation that has lost a file nginx may serve less, in silence.
    """
    launch = understood.launch
    current = generation.current(understood.home.instance.path)
    yield from current.folders() if current else ()
    # Whatever else is there is mirrored, and may be what a `map` includes.
    yield from {os.path.dirname(path) for path in understood.source.files}
    yield launch.nginx.path
    for directive in understood.main_context("load_module"):
        yield from (os.path.join(launch.prefix, module) for module in directive.args)
    yield from (issuer.account_key for issuer in understood.plan.issuers if issuer.account_key)
    root = understood.home.store.root
    yield f"{root}/layout"
    yield f"{root}/accounts"
    for name in disk.names_in(f"{root}/accounts"):
        yield f"{root}/accounts/{name}/account.json"
        yield f"{root}/accounts/{name}/key.pem"
    nameless = f"{root}/certificates/{NAMELESS}"
    for name in disk.names_in(nameless):
        yield f"{nameless}/{name}"
