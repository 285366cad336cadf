"""How anything gets to disk: whole or not at all, private from birth, durable where it must be.

What may live here: files, folders and links, without a word of what is in them.

Rules
- A file is replaced by a rename of a complete file from the same folder. Writing in place, or
  copying from another file system, leaves a torn file when the process is killed.
- The mode is set before the first byte of content. `open` and then `chmod` leaves a moment in
  which a private key is readable by everyone, and the umask of who started us decides for how many.
- fsync is asked for by the caller, one file at a time: a kill needs only the rename, a power cut
  needs both, and with a thousand certificates an fsync for each note would take minutes.
- What goes wrong is a StateError that names the path, raised from the OSError.

Imported at every start, so nothing but the interpreter itself is needed here (no contextlib,
tempfile or shutil, which cost more than the start that has nothing to do).
"""

from __future__ import annotations

import errno
import os
import stat
import time

from nginx_acme.errors import StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

_LEFTOVER = ".nginx-acme-"
_LEFTOVER_AGE = 3600.0  # seconds; a write that lives takes milliseconds
_PROBE = b"\0" * 16384  # bytes; about two certificates with their keys, and their notes
_OTHERS = 0o077


class Doing:
    """What is tried with which path: an OSError inside becomes the StateError that says so."""

    __slots__ = ("path", "verb")

    def __init__(self, verb: str, path: str) -> None:
        self.verb = verb
        self.path = path

    def __enter__(self) -> None:
        """Nothing is done yet."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Say what could not be done."""
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise StateError(f'cannot {self.verb} "{self.path}": {reason}', self.path) from error


# Files


def read(path: str) -> bytes | None:
    """The content of a file; None where there is none (nor the folder that it would be in)."""
    with Doing("read", path):
        try:
            with open(path, "rb") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None


def read_own(path: str) -> bytes:
    """The content of a file that nobody else may read or write; nothing of another, and of none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
            return file.read() if ours and not status.st_mode & _OTHERS else b""
    except OSError:
        return b""


def replace(path: str, data: bytes, *, mode: int, durable: bool) -> None:
    """Make `data` the content of `path` and `mode` its mode, whatever the umask, in one step.

    Whoever reads sees the old file or the new one, also when this process is killed. `durable`:
    it survives a power cut once this returns. A symbolic link at `path` is replaced, not followed.

    Raises:
        StateError: nothing has changed, and nothing is left behind.
    """
    folder = os.path.dirname(path)
    with Doing("write", path):
        temporary = _temporary(folder)
        try:
            _write_new(temporary, data, mode, durable=durable)
            os.rename(temporary, path)
        except BaseException:
            _unlink(temporary)
            raise
        if durable:
            _sync_folder(folder)


def point(link: str, target: str) -> None:
    """Make `link` a symbolic link to `target`, in one step, whatever link was there before."""
    with Doing("switch", link):
        temporary = _temporary(os.path.dirname(link))
        try:
            os.symlink(target, temporary)
            os.rename(temporary, link)
        except BaseException:
            _unlink(temporary)
            raise


def set_aside(path: str, suffix: str) -> str:
    """Move a file or folder out of the way, to its own name with `suffix`; the new path."""
    aside = path + suffix
    with Doing("set aside", path):
        os.rename(path, aside)
    return aside


def remove(path: str) -> None:
    """Remove a file; no error where there is none."""
    with Doing("remove", path):
        _unlink(path)


def _temporary(folder: str) -> str:
    return os.path.join(folder, f"{_LEFTOVER}{os.getpid()}-{os.urandom(8).hex()}")


def _write_new(path: str, data: bytes, mode: int, *, durable: bool) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, mode)
    try:
        os.fchmod(descriptor, mode)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unlink(path: str) -> None:
    try:  # noqa: SIM105 - contextlib is not imported here
        os.unlink(path)
    except FileNotFoundError:
        pass


# Folders


def make_folder(path: str, mode: int) -> None:
    """Make a folder and those above it; each one made has `mode`, whatever the umask.

    What is there already stays as it is: a volume's mode is its owner's decision.
    """
    with Doing("make the folder", path):
        _make_folder(path.rstrip("/") or "/", mode)


def _make_folder(path: str, mode: int) -> None:
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    if parent:
        _make_folder(parent, mode)
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
        return
    os.chmod(path, mode)


def new_folder(parent: str, mode: int) -> str:
    """Make an empty folder in `parent` that `sweep` takes away unless it is renamed; its path."""
    path = _temporary(parent)
    with Doing("make a folder in", parent):
        os.mkdir(path, mode)
        os.chmod(path, mode)
    return path


def rename_folder(path: str, name: str) -> bool:
    """Give a folder its final name; False where a folder with content has that name already."""
    with Doing("write", name):
        try:
            os.rename(path, name)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                return False
            raise
    return True


def names_in(path: str) -> list[str]:
    """What is in a folder, sorted, without leftovers; nothing where there is no folder."""
    with Doing("read", path):
        try:
            names = os.listdir(path)
        except (FileNotFoundError, NotADirectoryError):
            return []
    return sorted(name for name in names if not is_leftover(name))


def remove_folder(path: str) -> None:
    """Remove a folder of files; no error where there is none."""
    with Doing("remove", path):
        try:
            names = os.listdir(path)
        except FileNotFoundError:
            return
        for name in names:
            _unlink(os.path.join(path, name))
        os.rmdir(path)


def sync_folder(path: str) -> None:
    """What was made, renamed or removed in this folder survives a power cut."""
    with Doing("write", path):
        _sync_folder(path)


def _sync_folder(path: str) -> None:
    descriptor = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems know no fsync of a folder; their rename is durable.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def is_leftover(name: str) -> bool:
    """Whether a file or folder of this name is unfinished, or was when its writer was killed."""
    return name.startswith(_LEFTOVER)


def sweep(folder: str, *, older_than: float = _LEFTOVER_AGE) -> None:
    """Remove what killed processes left in a folder, older than so many seconds.

    Younger ones may be another process's that is writing now. A clock that was set back makes one
    look too young or too old by as much, so the distance counts.
    """
    for path in _leftovers(folder):
        with Doing("remove", path):
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                continue
        if abs(time.time() - status.st_mtime) < older_than:
            continue
        if stat.S_ISDIR(status.st_mode):
            remove_folder(path)
        else:
            remove(path)


def _leftovers(folder: str) -> Iterator[str]:
    with Doing("read", folder):
        names = os.listdir(folder)
    for name in names:
        if is_leftover(name):
            yield os.path.join(folder, name)


def probe_writable(folder: str) -> None:
    """Try whether certificates could be kept in `folder`: write, read and delete a file.

    With fsync, because some file systems find out only then that they are full.

    Raises:
        StateError: they could not; the message names the folder and the reason.
    """
    path = _temporary(folder)
    with Doing("write to", folder):
        try:
            _write_new(path, _PROBE, 0o600, durable=True)
            with open(path, "rb") as file:
                back = file.read()
        finally:
            _unlink(path)
    if back != _PROBE:
        raise StateError(f'"{folder}" does not keep what is written to it', folder)
