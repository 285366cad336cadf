"""Whose challenges nginx answers, changed while it runs.

What may live here: to make the current generation anew with other accounts, and nothing else anew,
and to let nginx take it up. Not from the user's files, which may be under the operator's hands.

    answer_instead        for an account in place of another one, from now on
    answer_any_instead    the same for tokens that nobody has opened
    answer_also           for more accounts than before, and a way back
    answer_as             for accounts of another node, as they are there by now
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nginx_acme import generation
from nginx_acme.commandline import parse
from nginx_acme.draft import test, use
from nginx_acme.errors import NginxRejected, ReloadFailed, StateError
from nginx_acme.generate import answers_for, with_answer, with_hosts, with_hosts_of
from nginx_acme.loaded import reload_and_note
from nginx_acme.running import needed_work, running_master

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from nginx_acme.generate import Answer
    from nginx_acme.generation import Generation
    from nginx_acme.launch import Home


def answer_instead(home: Home, old: Answer, new: Answer) -> None:
    """Let nginx answer for another account: its name and thumbprint stand where the old ones stood.

    Raises:
        NginxAcmeError: as `answer_also`.
    """
    with home.store.lock_generation(home.instance):
        texts = {
            path: text.replace(old.name, new.name).replace(old.thumbprint, new.thumbprint)
            for path, text in _current(home).texts()
        }
        _use(home, texts)


def answer_any_instead(home: Home, old: Answer, new: Answer) -> None:
    """Let nginx answer any token of the hosts of an account for another one, where it does so.

    Raises:
        NginxAcmeError: as `answer_also`.
    """
    with home.store.lock_generation(home.instance):
        before = dict(_current(home).texts())
        texts = {path: with_hosts_of(text, old, new) for path, text in before.items()}
        if texts != before:
            _use(home, texts)
        generation.prune(home.instance.path)


def answer_also(home: Home, more: Iterable[Answer]) -> Detour | None:
    """Let nginx answer for more accounts.

    Returns:
        The way back; None where it answers for all of them already.

    Raises:
        NginxRejected: nginx refuses it; the current generation stays.
        ReloadFailed: nginx doesn't take it up; the same.
        StateError: it can't be written, or there is none that answers any challenge.
    """
    with home.store.lock_generation(home.instance):
        before = _current(home)
        texts = dict(before.texts())
        missing = [one for one in more if not _is_answered(one, texts)]
        if not missing:
            return None
        for answer in missing:
            texts = {path: with_answer(text, answer) for path, text in texts.items()}
            if not _is_answered(answer, texts):
                raise StateError(f'"{before.path}" answers no challenges', before.path)
        return Detour(home, before, _use(home, texts))


def answer_as(home: Home, answers: Sequence[Answer]) -> bool:
    """Let nginx answer for accounts as another node has them; whether that is new.

    It goes on answering for those before them, which their node may still be asking for.

    Raises:
        NginxAcmeError: as `answer_also`.
    """
    with home.store.lock_generation(home.instance):
        before = dict(_current(home).texts())
        texts = {path: with_hosts(text, answers) for path, text in before.items()}
        for answer in answers:
            if not _is_answered(answer, texts):
                texts = {path: with_answer(text, answer) for path, text in texts.items()}
        if texts == before:
            return False
        _use(home, texts)
        return True


@dataclass(frozen=True, slots=True)
class Detour:
    """A generation that nginx runs for a while."""

    home: Home
    before: Generation
    meanwhile: Generation

    def go_back(self) -> None:
        """Let nginx run the one before again, unless it runs another one by now.

        Raises:
            ReloadFailed: it doesn't take it up.
        """
        home = self.home
        with home.store.lock_generation(home.instance):
            if generation.current(home.instance.path) == self.meanwhile:
                generation.switch(home.instance.path, self.before)
                _reload(home)
                self.meanwhile.discard()

    def give_up(self) -> None:
        """The same in a hurry: nginx goes on with this one until somebody reloads it."""
        if generation.current(self.home.instance.path) == self.meanwhile:
            generation.switch(self.home.instance.path, self.before)


def _current(home: Home) -> Generation:
    current = generation.current(home.instance.path)
    if current is None:
        path = home.instance.path
        raise StateError(f'"{path}" has no generation', path)
    return current


def _is_answered(answer: Answer, texts: Mapping[str, str]) -> bool:
    return any(answers_for(text, answer) for text in texts.values())


def _use(home: Home, texts: Mapping[str, str]) -> Generation:
    """The current generation with other texts, if nginx accepts it and takes it up."""
    before, work, instance = _current(home), needed_work(home), home.instance.path
    anew = before.rewritten(texts)
    said = test(home.launch, parse(work.options), anew)
    if not said.ok:
        anew.discard()
        raise NginxRejected(said.messages)
    use(home, anew, work)
    try:
        _reload(home)
    except ReloadFailed:
        generation.switch(instance, before)
        raise
    return anew


def _reload(home: Home) -> None:
    """Let nginx take up the current generation, if it runs."""
    master = running_master(home)
    if master is not None:
        reload_and_note(home, master, needed_work(home))
