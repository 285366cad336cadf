"""`nginx-acme -t` and `-T`: what nginx says of the generation that a start would make.

It is made in a private folder, and nothing else is written.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nginx_acme import generation
from nginx_acme.directives import hint
from nginx_acme.draft import write
from nginx_acme.errors import ConfigError, NginxRejected
from nginx_acme.judgement import judge
from nginx_acme.launch import utc_now
from nginx_acme.places import borrow
from nginx_acme.store import Store
from nginx_acme.understanding import understand

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nginx_acme.generation import Generation
    from nginx_acme.launch import Launch
    from nginx_acme.understanding import Understood


def test(launch: Launch) -> int:
    """What `nginx -t` says of the generation that a start would make. Writes nothing of ours.

    Raises:
        NginxAcmeError: a mistake in the configuration; its note is nginx's last word.
    """
    try:
        return _test(launch)
    except (ConfigError, NginxRejected) as mistake:
        mistake.add_note(f"nginx: configuration file {launch.main} test failed")
        raise


def _test(launch: Launch) -> int:
    understood = understand(launch)
    if understood is None:
        launch.become_nginx(launch.command.argv)
    understood.tell_warnings()
    with in_scratch(understood) as written:
        argv = launch.command.for_nginx(written.main, error_log=launch.nowhere)
        said = judge(launch.nginx, argv, written.translate)
    sys.stdout.buffer.write(written.translate_dump(said.output))
    sys.stdout.flush()
    for line in said.lines:
        launch.log.relay(hint(line))
    return said.returncode


@contextmanager
def in_scratch(understood: Understood) -> Iterator[Generation]:
    """The generation that a start would make, in a private folder that is gone afterwards.

    Raises:
        StateError: there is no such folder.
    """
    with understood.launch.scratch() as scratch:
        there = understood.at(Store(scratch))
        places = borrow(there.plan, there.home.store, there.home.stand_ins, utc_now())
        current = generation.current(understood.home.instance.path)
        yield write(there, places, there.plan.added, like=current)
