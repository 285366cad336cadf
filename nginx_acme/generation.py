"""The generated tree on disk: a mirror of the user's folder, with its own copy of the configuration.

    INSTANCE/generated -> generations/12        what nginx is started with; switched by one rename
    INSTANCE/previous  -> generations/11        what it was before
    INSTANCE/generations/12/                    a generation
    INSTANCE/generations/12/.tested-main        its main file once more, for `nginx -t` and for us
    INSTANCE/generations/12/.trial-main         and, while a draft is tested, with another pid file
    INSTANCE/generations/12.json                what it leaves to do (`Generation.work`)

nginx resolves relative paths from the folder of the file given with ``-c``. So a generation has a
symbolic link for every entry of the user's folder, but for the files of the configuration: each
is a copy, with our text in a few of them, and what lies on the way to one is a real folder. Those of
other folders are below `OUTSIDE`, under their own absolute paths.

Copies only of what differs were tried first. Then a reload for a renewal also took what had been
saved in any other file since, finished or not, and a new file in a folder of includes; and a HUP
took one half of an edit at once, and the other one with the next generation. To copy everything is
no way either: certificates, password files and whatever a directive of a third party reads would be
stale.

Links lead to the path as the user wrote it, not to what it stands for today: a link that is
turned to another release later goes on working.

Who opens the main file that nginx was started with is nginx, at a reload: that is how the agent
knows of one. So we never do, and it is there a second time.

A path is the bytes of the configuration, whatever the locale says (`encoding`).
"""

from __future__ import annotations

import os
import re
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nginx_acme import disk
from nginx_acme.encoding import to_bytes, to_text
from nginx_acme.errors import StateError
from nginx_acme.generate import OUTSIDE
from nginx_acme.manifest import GENERATED
from nginx_acme.mirror import (
    BINARY,
    FOLDER_MODE,
    TESTED,
    USER_MAIN,
    can_share,
    mirror_of,
    tree_at,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from nginx_acme.mirror import Folder

PREVIOUS = "previous"
GENERATIONS = "generations"

DRAFT_AGE = 3600.0
"""Seconds after which a generation that was never switched to is nobody's any more."""

_TRIAL = ".trial-main"


@dataclass(frozen=True, slots=True)
class Generation:
    """A generation at `path`, made from the main file `user_main`; both are absolute."""

    path: str
    user_main: str

    @property
    def main(self) -> str:
        """The main file for ``nginx -t -c``; nginx is started with the one below `GENERATED`."""
        return f"{self.path}/{to_text(TESTED)}"

    @property
    def trial(self) -> str:
        """Where the main file may stand in another form while it is tested (`trial`)."""
        return f"{self.path}/{_TRIAL}"

    @property
    def work(self) -> str:
        """Where what is left to do is written, before the switch; one without it is a draft."""
        return f"{self.path}.json"

    @property
    def number(self) -> int:
        """Its place among the generations of the instance."""
        return int(os.path.basename(self.path))

    @property
    def instance(self) -> str:
        """The folder of the instance."""
        return os.path.dirname(os.path.dirname(self.path))

    def translate(self, text: str) -> str:
        """Words of nginx with the user's paths in place of the generated ones."""
        text = text.replace(self.main, self.user_main).replace(self.trial, self.user_main)
        roots = (self.path, os.path.join(self.instance, GENERATED))
        generated = "|".join(map(re.escape, roots))
        outside = re.escape(f"/{OUTSIDE}/")
        folder = os.path.dirname(self.user_main).rstrip("/")
        return re.sub(
            rf"(?:{generated})(?:(?P<outside>{outside})|(?=/|[\s\"':;,)]|$))",
            lambda found: "/" if found["outside"] else folder,
            text,
        )

    def translate_dump(self, output: bytes) -> bytes:
        """The same for the output of ``nginx -T``, which has files of any encoding in it."""
        return to_bytes(self.translate(to_text(output)))

    def rewritten(self, texts: Mapping[str, str]) -> Generation:
        """The same with other texts in its files, whatever the user's folder has by now.

        This one is given back where no text is another one.

        Args:
            texts: by the user's paths, of all that `texts` has.

        Raises:
            StateError: it can't be written; nothing is left behind.
        """
        if dict(self.texts()) == texts:
            return self
        top = tree_at(to_bytes(self.path))
        for place, user_path in self._places():
            top.put(place, to_bytes(texts[user_path]))
        top.files[to_bytes(os.path.basename(self.user_main))] = top.files[TESTED]
        return _made(self.instance, self.user_main, top, self)

    def folders(self) -> Iterator[str]:
        """The real folders that it is made of."""
        return (to_text(folder) for folder, _, _ in os.walk(to_bytes(self.path)))

    def texts(self) -> Iterator[tuple[str, str]]:
        """The user's path and the text of each file that is no link."""
        for place, user_path in self._places():
            with open(to_bytes(f"{self.path}/{place}"), "rb") as file:
                yield user_path, to_text(file.read())

    def _places(self) -> Iterator[tuple[str, str]]:
        """Where each of them is here, and for the user."""
        user_folder, name = os.path.split(self.user_main)
        for folder, _, names in os.walk(to_bytes(self.path)):
            for path in (os.path.join(folder, name) for name in names):
                place = to_text(os.path.relpath(path, to_bytes(self.path)))
                made = path.endswith(BINARY) and os.path.islink(path.removesuffix(BINARY))
                if made or os.path.islink(path) or place in {name, _TRIAL}:
                    continue
                if place == to_text(TESTED):
                    yield place, self.user_main
                elif place.startswith(f"{OUTSIDE}/"):
                    yield place, place[len(OUTSIDE) :]
                else:
                    yield place, os.path.join(user_folder, place)

    def discard(self) -> None:
        """Remove it, unless it is the one in use."""
        if current(self.instance) != self:
            _remove(self.path)


def write(
    instance: str,
    main: str,
    files: Mapping[str, str],
    *,
    listed: Iterable[str] = (),
    exclude: str,
    look: Callable[[str], object] | None = None,
    like: Generation | None = None,
) -> Generation:
    """A generation for the user's configuration, on disk and not in use yet.

    The current one is given back where it would be the same. Who writes for one instance at the
    same time makes two generations; a lock decides which is switched to last.

    Args:
        instance: the folder of the instance, or any other that exists.
        main: absolute path of the user's main file.
        files: absolute path, as nginx opens it, and text of each file of the configuration.
        listed: the folders in which includes look for files; no other one comes into them.
        exclude: the state directory; where it is below the user's folder it is not mirrored.
        look: is told of each folder of the user's before it is listed.
        like: another one than the current one to share with what is the same.

    Raises:
        StateError: it can't be written; nothing is left behind.
        ConfigError: the user's folder is not what it was when it was read.
    """
    wanted = mirror_of(main, files, listed, exclude, look)
    before = current(instance)
    name = to_bytes(os.path.basename(main))
    if before is not None and before.user_main == main:
        there = to_bytes(before.path)
        if wanted.is_at(there, name) and _stamp(there, name) == _stamp(there, TESTED):
            return before
    return _made(instance, main, wanted, like or before)


def _made(instance: str, main: str, wanted: Folder, like: Generation | None) -> Generation:
    path, name = _new_folder(f"{instance}/{GENERATIONS}"), to_bytes(os.path.basename(main))
    shared = like is not None and can_share(to_bytes(like.path), to_bytes(path))
    try:
        own = (name, TESTED)  # by its opening the first one is known that nginx reads
        wanted.fill(to_bytes(path), to_bytes(like.path) if like and shared else None, own)
        moment = _stamp(to_bytes(path), TESTED)[1]
        os.utime(os.path.join(to_bytes(path), name), ns=(moment, moment))
    except OSError as error:
        _remove(path)
        raise StateError(f'cannot write "{path}": {error.strerror}', path) from error
    return Generation(path, main)


def switch(instance: str, generation: Generation) -> None:
    """Make a generation the one that nginx reads, in one step.

    Raises:
        StateError: it is not there any more, or the link can't be made.
    """
    if not os.path.isdir(generation.path):
        raise StateError(f'"{generation.path}" is gone', generation.path)
    before = current(instance)
    if before == generation:
        return
    if before is not None:
        disk.point(f"{instance}/{PREVIOUS}", f"{GENERATIONS}/{before.number}")
    disk.point(f"{instance}/{GENERATED}", f"{GENERATIONS}/{generation.number}")


def current(instance: str) -> Generation | None:
    """The generation that nginx reads; None where there is none."""
    return _linked(instance, GENERATED)


def prune(instance: str) -> None:
    """Remove the generations that nobody needs; what can't be removed stays until the next time.

    The current one and the one before stay. So do drafts, as long as the launcher that made one
    may still be waiting to switch to it.
    """
    kept = {_linked(instance, GENERATED), _linked(instance, PREVIOUS)}
    numbers = {found.number for found in kept if found is not None}
    folder = f"{instance}/{GENERATIONS}"
    for number in _numbers(folder) - numbers:
        path = f"{folder}/{number}"
        if os.path.exists(f"{path}.json") or _age(path) > DRAFT_AGE:
            _remove(path)


def _linked(instance: str, link: str) -> Generation | None:
    try:
        number = os.path.basename(os.readlink(f"{instance}/{link}"))
        path = f"{instance}/{GENERATIONS}/{int(number)}"
        user_main = os.readlink(os.path.join(to_bytes(path), USER_MAIN))
    except (OSError, ValueError):
        return None
    return Generation(path, to_text(user_main))


def _numbers(folder: str) -> set[int]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return set()
    return {int(number) for name in names if (number := name.partition(".")[0]).isdecimal()}


def _new_folder(generations: str) -> str:
    disk.make_folder(generations, FOLDER_MODE)
    number = max(_numbers(generations), default=0) + 1
    while True:
        path = f"{generations}/{number}"
        try:
            os.mkdir(path, FOLDER_MODE)
        except FileExistsError:
            number += 1
        except OSError as error:
            raise StateError(f'cannot make "{path}": {error.strerror}', path) from error
        else:
            return path


def _age(path: str) -> float:
    """Seconds since the folder was made; a clock that was set back since counts as time passed."""
    try:
        return abs(time.time() - os.stat(path).st_mtime)
    except FileNotFoundError:
        return 0.0


def _remove(path: str) -> None:
    shutil.rmtree(path, ignore_errors=True)
    disk.remove(f"{path}.json")


def _stamp(folder: bytes, name: bytes) -> tuple[int, int]:
    """Size and time of a file; who changes it changes that."""
    status = os.stat(os.path.join(folder, name))
    return status.st_size, status.st_mtime_ns
