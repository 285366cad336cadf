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

Folders are 0711, since nginx's workers open files by paths that lead through them; files are
0600, since they are copies of files that may be.

A path is the bytes of the configuration, whatever the locale says (`nginx.files`).
"""

from __future__ import annotations

import os
import re
import shutil
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nginx_acme import disk
from nginx_acme.errors import ConfigError, StateError
from nginx_acme.generate import OUTSIDE, mirrored
from nginx_acme.nginx.paths import inside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

GENERATED = "generated"
PREVIOUS = "previous"
GENERATIONS = "generations"

DRAFT_AGE = 3600.0
"""Seconds after which a generation that was never switched to is nobody's any more."""

_FOLDER_MODE = 0o711
_FILE_MODE = 0o600
_USER_MAIN = b".user-main"
"""The link in a generation that says which file of the user it was made from."""
_TESTED = b".tested-main"
_TRIAL = ".trial-main"
_BINARY = b".bin"
"""What nginx appends to the name of a file of `geo` ranges, for what it makes of it there."""
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Generation:
    """A generation at `path`, made from the main file `user_main`; both are absolute."""

    path: str
    user_main: str

    @property
    def main(self) -> str:
        """The main file for ``nginx -t -c``; nginx is started with the one below `GENERATED`."""
        return f"{self.path}/{_text(_TESTED)}"

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
        text = output.decode("utf-8", "surrogateescape")
        return self.translate(text).encode("utf-8", "surrogateescape")

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
        top = _found(_bytes(self.path))
        for place, user_path in self._places():
            top.put(place, _bytes(texts[user_path]))
        top.files[_bytes(os.path.basename(self.user_main))] = top.files[_TESTED]
        return _made(self.instance, self.user_main, top)

    def texts(self) -> Iterator[tuple[str, str]]:
        """The user's path and the text of each file that is no link."""
        for place, user_path in self._places():
            with open(_bytes(f"{self.path}/{place}"), "rb") as file:
                yield user_path, _text(file.read())

    def _places(self) -> Iterator[tuple[str, str]]:
        """Where each of them is here, and for the user."""
        user_folder, name = os.path.split(self.user_main)
        for folder, _, names in os.walk(_bytes(self.path)):
            for path in (os.path.join(folder, name) for name in names):
                place = _text(os.path.relpath(path, _bytes(self.path)))
                made = path.endswith(_BINARY) and os.path.islink(path.removesuffix(_BINARY))
                if made or os.path.islink(path) or place in {name, _TRIAL}:
                    continue
                if place == _text(_TESTED):
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

    Raises:
        StateError: it can't be written; nothing is left behind.
        ConfigError: the user's folder is not what it was when it was read.
    """
    wanted = _wanted(main, files, listed, exclude, look)
    before = current(instance)
    name = _bytes(os.path.basename(main))
    if before is not None and before.user_main == main:
        there = _bytes(before.path)
        if wanted.is_at(there, name) and _stamp(there, name) == _stamp(there, _TESTED):
            return before
    return _made(instance, main, wanted)


def _made(instance: str, main: str, wanted: _Folder) -> Generation:
    path, name = _new_folder(f"{instance}/{GENERATIONS}"), _bytes(os.path.basename(main))
    try:
        wanted.fill(_bytes(path))
        moment = _stamp(_bytes(path), _TESTED)[1]
        os.utime(os.path.join(_bytes(path), name), ns=(moment, moment))
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
        user_main = os.readlink(os.path.join(_bytes(path), _USER_MAIN))
    except (OSError, ValueError):
        return None
    return Generation(path, _text(user_main))


def _numbers(folder: str) -> set[int]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return set()
    return {int(number) for name in names if (number := name.partition(".")[0]).isdecimal()}


def _new_folder(generations: str) -> str:
    disk.make_folder(generations, _FOLDER_MODE)
    number = max(_numbers(generations), default=0) + 1
    while True:
        path = f"{generations}/{number}"
        try:
            os.mkdir(path, _FOLDER_MODE)
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


# --- the tree -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Folder:
    """What a folder of a generation has in it; links with their targets, files with their text."""

    links: dict[bytes, bytes] = field(default_factory=dict)
    files: dict[bytes, bytes] = field(default_factory=dict)
    folders: dict[bytes, _Folder] = field(default_factory=dict)

    def put(self, place: str, text: bytes) -> None:
        """A file at a relative path, which leads through real folders only."""
        *way, name = _bytes(place).split(b"/")
        self.enter(way).files[name] = text

    def enter(self, way: Sequence[bytes]) -> _Folder:
        """The folder that this way leads to, as the kernel goes: ``a/..`` needs an ``a``."""
        stack = [self]
        for part in way:
            if part == b"..":
                stack.pop()
                if len(stack) == 1:
                    raise ConfigError("the path of an include leads above the root folder")
            elif part not in (b"", b"."):
                stack.append(stack[-1].folders.setdefault(part, _Folder()))
        return stack[-1]

    def link_the_rest(
        self,
        user: bytes,
        excluded: os.stat_result | None,
        look: Callable[[str], object] | None,
    ) -> None:
        """A link for every entry of the user's folder that is not there yet."""
        if look is not None:
            look(_text(user))
        for name in _entries(user, excluded):
            if name not in self.files and name not in self.folders:
                self.links[name] = os.path.join(user, name)
        for name, folder in self.folders.items():
            folder.link_the_rest(os.path.join(user, name), excluded, look)

    def fill(self, path: bytes) -> None:
        """Write it all into an empty folder."""
        os.chmod(path, _FOLDER_MODE)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name, target in self.links.items():
                os.symlink(target, name, dir_fd=descriptor)
            for name, text in self.files.items():
                new = os.open(name, _NEW_FILE, _FILE_MODE, dir_fd=descriptor)
                with os.fdopen(new, "wb") as file:
                    file.write(text)
        finally:
            os.close(descriptor)
        for name, folder in self.folders.items():
            os.mkdir(os.path.join(path, name), _FOLDER_MODE)
            folder.fill(os.path.join(path, name))

    def is_at(self, path: bytes, unread: bytes = b"") -> bool:
        """Whether exactly this is there, and what nginx makes of it.

        The file `unread` is only looked at from outside.
        """
        names = self.links.keys() | self.files.keys() | self.folders.keys()
        made = {name + _BINARY for name in self.links} - names
        try:
            return (
                set(os.listdir(path)) - made == names
                and all(os.readlink(b"%s/%s" % (path, n)) == to for n, to in self.links.items())
                and all(
                    n == unread or _contains(b"%s/%s" % (path, n), to)
                    for n, to in self.files.items()
                )
                and all(to.is_at(b"%s/%s" % (path, n)) for n, to in self.folders.items())
            )
        except OSError:
            return False


def _wanted(
    main: str,
    files: Mapping[str, str],
    listed: Iterable[str],
    exclude: str,
    look: Callable[[str], object] | None,
) -> _Folder:
    """The tree for a configuration."""
    conf_folder = os.path.dirname(main)
    top = _Folder()
    for path, text in files.items():
        top.put(mirrored(conf_folder, path), _bytes(text))
    top.files[_TESTED] = top.files[_bytes(os.path.basename(main))]
    for folder in listed:
        below = inside(conf_folder, folder)
        if below is not None and os.access(_bytes(folder), os.R_OK):
            top.enter(_bytes(below).split(b"/"))
    top.enter(_way_to(exclude, conf_folder))
    top.link_the_rest(_bytes(conf_folder), _status(_bytes(exclude)), look)
    top.links[_USER_MAIN] = _bytes(main)
    return top


def _found(path: bytes) -> _Folder:
    """The tree that is there, without its files."""
    top = _Folder()
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_symlink():
                top.links[entry.name] = os.readlink(entry.path)
            elif entry.is_dir():
                top.folders[entry.name] = _found(entry.path)
    return top


def _way_to(excluded: str, conf_folder: str) -> list[bytes]:
    """What leads from the user's folder to one below it; a link to that would lead into it."""
    below = inside(os.path.realpath(conf_folder), os.path.realpath(excluded))
    return [] if below is None else _bytes(below).split(b"/")[:-1]


def _entries(user: bytes, excluded: os.stat_result | None) -> Iterator[bytes]:
    """The names in the user's folder; none where there is no such folder (any more)."""
    try:
        with os.scandir(user) as entries:
            for entry in entries:
                if excluded is None or not _is(entry, excluded):
                    yield entry.name
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise ConfigError(f"cannot list the folder: {error.strerror}", _text(user)) from error


def _is(entry: os.DirEntry[bytes], folder: os.stat_result) -> bool:
    """Whether an entry is this folder or leads to it; plain files need no look."""
    if entry.is_file(follow_symlinks=False):
        return False
    status = _status(entry.path)
    return status is not None and os.path.samestat(status, folder)


def _status(path: bytes) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _stamp(folder: bytes, name: bytes) -> tuple[int, int]:
    """Size and time of a file; who changes it changes that."""
    status = os.stat(os.path.join(folder, name))
    return status.st_size, status.st_mtime_ns


def _contains(path: bytes, text: bytes) -> bool:
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        return file.read() == text


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
