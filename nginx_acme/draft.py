"""A generation from its first word to being the one that nginx reads.

    write, draft     it is on disk; nginx has accepted it (a Proposal: while we go on)
    use              nginx reads it at the next start or reload

A draft is not in use. So whatever goes wrong with one, nginx goes on with what it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nginx_acme import disk, generation
from nginx_acme.directives import hint
from nginx_acme.errors import NginxRejected
from nginx_acme.generate import generate
from nginx_acme.judgement import judge, judged
from nginx_acme.process import Run
from nginx_acme.trial import end_trial, trial, would_take_a_password
from nginx_acme.work import to_json, work_of

if TYPE_CHECKING:
    from nginx_acme.commandline import CommandLine
    from nginx_acme.generation import Generation
    from nginx_acme.judgement import Judgement
    from nginx_acme.launch import Home, Launch
    from nginx_acme.nginx.listen import Listen
    from nginx_acme.places import Places
    from nginx_acme.understanding import Understood
    from nginx_acme.work import Work


def write(
    understood: Understood,
    places: Places,
    added: tuple[Listen, ...],
    *,
    like: Generation | None = None,
) -> Generation:
    """Write a new generation, which shares what is the same with the current one, or with `like`.

    Nobody has judged it yet.
    """
    home, source = understood.home, understood.source
    layout = places.layout(added, home.instance.public)
    return generation.write(
        home.instance.path,
        home.main,
        source.texts | generate(source, understood.plan, layout),
        listed=source.listed,
        exclude=home.state.root,
        look=understood.seen.note_more,
        like=like,
    )


def draft(understood: Understood, places: Places, added: tuple[Listen, ...]) -> Generation:
    """Write a new generation and let nginx judge it.

    Raises:
        NginxRejected: nginx refuses it; its words, with the user's file and line.
    """
    return Proposal(understood, write(understood, places, added)).accepted()


class Proposal:
    """A draft that nginx looks at while we go on."""

    def __init__(self, understood: Understood, written: Generation) -> None:
        self._written = written
        self._testing = None
        if not would_take_a_password(understood):
            self._testing = Run(understood.launch.nginx.path, trial(understood, written))
        self._said: Judgement | None = None

    def accepted(self) -> Generation:
        """Wait for what nginx says of it; the same every time.

        Raises:
            NginxRejected: nginx refuses it; its words, with the user's file and line.
        """
        if self._said is None and self._testing is not None:
            self._said = judged(self._testing, self._written.translate)
            end_trial(self._written)
        if self._said is not None and not self._said.ok:
            self._written.discard()
            raise NginxRejected(tuple(map(hint, self._said.messages)))
        return self._written


def left_to_do(understood: Understood) -> Work:
    """What a generation of this configuration leaves to do."""
    launch, source = understood.launch, understood.home.source
    return work_of(
        understood.plan,
        options=launch.command.settings(understood.home.main, prefix=launch.prefix),
        pid_file=understood.pid_file,
        error_log=understood.error_log,
        source=None if source is None else source.root,
    )


def use(home: Home, drafted: Generation, work: Work) -> None:
    """Make a draft the generation that nginx reads, and keep the one before it."""
    disk.replace(drafted.work, to_json(work), mode=0o600, durable=False)
    generation.switch(home.instance.path, drafted)


def test(launch: Launch, command: CommandLine, written: Generation) -> Judgement:
    """`nginx -t` on a generation; what it says has the user's paths."""
    argv = command.for_test(written.main, error_log=launch.nowhere)
    return judge(launch.nginx, argv, written.translate)
