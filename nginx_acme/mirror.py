"""The tree of a generation: what is in each of its folders, and how it gets to disk.

What may live here: links, files and folders. Which generation is in use is `generation`'s.

What is in the generation before with the same content gets a second name there (a hard link): ten
thousand new files take a second of the kernel's time as soon as it has to look for inodes, and
forty megabytes. So no file of a generation is ever written in place; who wants another content
makes another generation.

Folders are 0711, since nginx's workers open files by paths that lead through them; files are
0600, since they are copies of files that may be.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nginx_acme.encoding import to_bytes, to_text
from nginx_acme.errors import ConfigError
from nginx_acme.generate import mirrored
from nginx_acme.nginx.paths import inside

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

USER_MAIN = b".user-main"
"""The link in a generation that says which file of the user it was made from."""
TESTED = b".tested-main"
"""The main file once more."""
BINARY = b".bin"
"""What nginx appends to the name of a file of `geo` ranges, for what it makes of it there."""

FOLDER_MODE = 0o711
_FILE_MODE = 0o600
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Folder:
    """What a folder of a generation has in it: links with their targets, files with their text."""

    links: dict[bytes, bytes] = field(default_factory=dict)
    files: dict[bytes, bytes] = field(default_factory=dict)
    folders: dict[bytes, Folder] = field(default_factory=dict)

    def put(self, place: str, text: bytes) -> None:
        """A file at a relative path, which leads through real folders only."""
        *way, name = to_bytes(place).split(b"/")
        self.enter(way).files[name] = text

    def enter(self, way: Sequence[bytes]) -> Folder:
        """The folder that this way leads to, as the kernel goes: ``a/..`` needs an ``a``."""
        stack = [self]
        for part in way:
            if part == b"..":
                stack.pop()
                if len(stack) == 1:
                    raise ConfigError("the path of an include leads above the root folder")
            elif part not in (b"", b"."):
                stack.append(stack[-1].folders.setdefault(part, Folder()))
        return stack[-1]

    def link_the_rest(
        self,
        user: bytes,
        excluded: os.stat_result | None,
        look: Callable[[str], object] | None,
    ) -> None:
        """A link for every entry of the user's folder that is not there yet."""
        if look is not None:
            look(to_text(user))
        for name in _entries(user, excluded):
            if name not in self.files and name not in self.folders:
                self.links[name] = os.path.join(user, name)
        for name, folder in self.folders.items():
            folder.link_the_rest(os.path.join(user, name), excluded, look)

    def fill(self, path: bytes, before: bytes | None, own: Collection[bytes] = ()) -> None:
        """Write it all into an empty folder.

        Args:
            path: of that.
            before: the same folder of the generation before, if there was one.
            own: files that are no second names of others.
        """
        os.chmod(path, FOLDER_MODE)
        here = os.open(path, _FOLDER)
        try:
            with _old(before) as there:
                for name, target in self.links.items():
                    if not (_leads(there, name, target) and _shared(there, name, here)):
                        os.symlink(target, name, dir_fd=here)
                for name, text in self.files.items():
                    same = name not in own and _contains(there, name, text)
                    if not (same and _shared(there, name, here)):
                        _write(here, name, text)
        finally:
            os.close(here)
        for name, folder in self.folders.items():
            inner = os.path.join(path, name)
            os.mkdir(inner, FOLDER_MODE)
            folder.fill(inner, None if before is None else os.path.join(before, name))

    def is_at(self, path: bytes, unread: bytes = b"") -> bool:
        """Whether exactly this is there, and what nginx makes of it.

        The file `unread` is only looked at from outside.
        """
        names = self.links.keys() | self.files.keys() | self.folders.keys()
        made = {name + BINARY for name in self.links} - names
        try:
            found = set(os.listdir(path))
        except OSError:
            return False
        with _old(path) as there:
            return (
                found - made == names
                and all(_leads(there, name, target) for name, target in self.links.items())
                and all(n == unread or _contains(there, n, text) for n, text in self.files.items())
                and all(to.is_at(os.path.join(path, n)) for n, to in self.folders.items())
            )


def mirror_of(
    main: str,
    files: Mapping[str, str],
    listed: Iterable[str],
    exclude: str,
    look: Callable[[str], object] | None,
) -> Folder:
    """The tree for a configuration."""
    conf_folder = os.path.dirname(main)
    top = Folder()
    for path, text in files.items():
        top.put(mirrored(conf_folder, path), to_bytes(text))
    top.files[TESTED] = top.files[to_bytes(os.path.basename(main))]
    for folder in listed:
        below = inside(conf_folder, folder)
        if below is not None and os.access(to_bytes(folder), os.R_OK):
            top.enter(to_bytes(below).split(b"/"))
    top.enter(_way_to(exclude, conf_folder))
    top.link_the_rest(to_bytes(conf_folder), _status(to_bytes(exclude)), look)
    top.links[USER_MAIN] = to_bytes(main)
    return top


def can_share(before: bytes, path: bytes) -> bool:
    """Whether what is in a generation can have second names in a new one, by trying it once.

    Between two file systems it can't, nor on some, nor where the system's policy is against it.
    """
    trial = os.path.join(path, USER_MAIN)
    try:
        os.link(os.path.join(before, USER_MAIN), trial, follow_symlinks=False)
    except OSError:
        return False
    os.unlink(trial)
    return True


def tree_at(path: bytes) -> Folder:
    """The tree that is there, without its files."""
    top = Folder()
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_symlink():
                top.links[entry.name] = os.readlink(entry.path)
            elif entry.is_dir():
                top.folders[entry.name] = tree_at(entry.path)
    return top


def _way_to(excluded: str, conf_folder: str) -> list[bytes]:
    """What leads from the user's folder to one below it; a link to that would lead into it."""
    below = inside(os.path.realpath(conf_folder), os.path.realpath(excluded))
    return [] if below is None else to_bytes(below).split(b"/")[:-1]


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
        raise ConfigError(f"cannot list the folder: {error.strerror}", to_text(user)) from error


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


@contextmanager
def _old(path: bytes | None) -> Iterator[int | None]:
    """The descriptor of a folder; None where there is none."""
    try:
        descriptor = None if path is None else os.open(path, _FOLDER)
    except OSError:
        descriptor = None
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _leads(folder: int | None, name: bytes, target: bytes) -> bool:
    """Whether a link of this name leads there."""
    try:
        return folder is not None and os.readlink(name, dir_fd=folder) == target
    except OSError:
        return False


def _contains(folder: int | None, name: bytes, text: bytes) -> bool:
    """Whether a file of this name has this text, and is as we make them."""
    if folder is None:
        return False
    try:
        descriptor = os.open(name, _OLD_FILE, dir_fd=folder)
    except OSError:
        return False
    try:
        status = os.fstat(descriptor)
        ours = status.st_mode == stat.S_IFREG | _FILE_MODE and status.st_uid == os.geteuid()
        return ours and status.st_size == len(text) and os.read(descriptor, len(text)) == text
    finally:
        os.close(descriptor)


def _shared(folder: int | None, name: bytes, other: int) -> bool:
    """Whether what has this name in a folder has it in another one now, too."""
    try:
        os.link(name, name, src_dir_fd=folder, dst_dir_fd=other, follow_symlinks=False)
    except OSError:
        return False
    return True


def _write(folder: int, name: bytes, text: bytes) -> None:
    descriptor = os.open(name, _NEW_FILE, _FILE_MODE, dir_fd=folder)
    with open(descriptor, "wb") as file:
        file.write(text)
