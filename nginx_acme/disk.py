"""How anything gets to disk: whole or not at all, private from birth, durable where it must be.

What may live here: files, folders, links and locks, without a word of what is in them.

Rules
- A file is replaced by a rename of a complete file from the same folder. Writing in place, or
  copying from another file system, leaves a torn file when the process is killed.
- The mode is set before the first byte of content. `open` and then `chmod` leaves a moment in
  which a private key is readable by everyone, and the umask of who started us decides for how many.
- fsync is asked for by the caller, one file at a time: a kill needs only the rename, a power cut
  needs both, and with a thousand certificates an fsync for each note would take minutes.
- Locks are flock's, which end with the process that holds them. A file with a pid in it was not
  enough: the pid is somebody else's after a reboot, and unknown in another container.
- What goes wrong is a StateError that names the path, raised from the OSError.

Imported at every start, so nothing but the interpreter itself is needed here (no contextlib,
tempfile or shutil, which cost more than the start that has nothing to do).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time

from nginx_acme.errors import StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType
    from typing import Self

_LEFTOVER = ".nginx-acme-"
_LEFTOVER_AGE = 3600.0  # seconds; a write that lives takes milliseconds
_PROBE = b"\0" * 16384  # bytes; about two certificates with their keys, and their notes
_POLL = 0.05  # seconds between two looks at a lock that somebody holds
_EPHEMERAL = frozenset({"overlay", "tmpfs", "ramfs", "rootfs"})
_OTHERS = 0o077
_LOCAL = frozenset(
    {"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "tmpfs", "xfs", "zfs"}
)
"""Not those of images made elsewhere: files in two of them may be equal in all but their content."""
_ESCAPES = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))  # proc(5)


class _Doing:
    """What is tried with which path: an OSError inside becomes the StateError that says so."""

    __slots__ = ("path", "verb")

    def __init__(self, verb: str, path: str) -> None:
        self.verb = verb
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise StateError(f'cannot {self.verb} "{self.path}": {reason}', self.path) from error


# Files


def read(path: str) -> bytes | None:
    """The content of a file; None where there is none (nor the folder that it would be in)."""
    with _Doing("read", path):
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
    with _Doing("write", path):
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
    with _Doing("switch", link):
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
    with _Doing("set aside", path):
        os.rename(path, aside)
    return aside


def remove(path: str) -> None:
    """Remove a file; no error where there is none."""
    with _Doing("remove", path):
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
    with _Doing("make the folder", path):
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
    with _Doing("make a folder in", parent):
        os.mkdir(path, mode)
        os.chmod(path, mode)
    return path


def rename_folder(path: str, name: str) -> bool:
    """Give a folder its final name; False where a folder with content has that name already."""
    with _Doing("write", name):
        try:
            os.rename(path, name)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                return False
            raise
    return True


def names_in(path: str) -> list[str]:
    """What is in a folder, sorted, without leftovers; nothing where there is no folder."""
    with _Doing("read", path):
        try:
            names = os.listdir(path)
        except (FileNotFoundError, NotADirectoryError):
            return []
    return sorted(name for name in names if not is_leftover(name))


def remove_folder(path: str) -> None:
    """Remove a folder of files; no error where there is none."""
    with _Doing("remove", path):
        try:
            names = os.listdir(path)
        except FileNotFoundError:
            return
        for name in names:
            _unlink(os.path.join(path, name))
        os.rmdir(path)


def sync_folder(path: str) -> None:
    """What was made, renamed or removed in this folder survives a power cut."""
    with _Doing("write", path):
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
        with _Doing("remove", path):
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
    with _Doing("read", folder):
        names = os.listdir(folder)
    for name in names:
        if is_leftover(name):
            yield os.path.join(folder, name)


# Locks


class Lock:
    """A lock that is held, until the end of its `with`, `release`, or the end of the process.

    Held by one, or shared by any number who keep that one out.

    Not taken over by a child: the lock is given back by name, whatever descriptors of it a
    forked child still has open.
    """

    __slots__ = ("_descriptor", "path")

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def release(self) -> None:
        """Give it back; a second time does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)

    def lasts(self) -> bool:
        """Whether it keeps anybody off, as far as can be seen.

        It doesn't any more if somebody removed its file, with all of its folder perhaps.
        """
        try:
            return self._descriptor >= 0 and _is_still(self.path, self._descriptor)
        except NotADirectoryError:
            return False
        except OSError:
            return True

    def __enter__(self) -> Self:
        """The lock is held already; `with` says until when."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give it back."""
        self.release()


def lock(path: str, *, wait: float, shared: bool = False) -> Lock:
    """Take the lock `path` (a file in a folder that exists), waiting `wait` seconds at most.

    This blocks, so an event loop asks `try_lock` again and again instead. A thread would do for
    the waiting, but a task that is cancelled meanwhile could not give back what its thread gets.

    Args:
        path: made if need be.
        wait: seconds.
        shared: others who want it shared may have it, too.

    Raises:
        StateError: the wait is over; the message names who holds it and since when.
    """
    end = time.monotonic() + wait
    while True:
        held = try_lock(path, shared=shared)
        if held is not None:
            return held
        left = end - time.monotonic()
        if left <= 0:
            raise StateError(f'"{path}" is locked by {holder(path)}', path)
        time.sleep(min(_POLL, left))


def try_lock(path: str, *, shared: bool = False) -> Lock | None:
    """Take the lock `path` now; None where somebody holds it, in this process or another."""
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with _Doing("lock", path):
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
                if _is_still(path, descriptor):
                    _sign(descriptor)
                    return Lock(path, descriptor)
            except BlockingIOError:
                os.close(descriptor)
                return None
            except BaseException:
                os.close(descriptor)
                raise
            # Somebody removed the file between our open and our flock: a lock on nothing.
            os.close(descriptor)


def holder(path: str) -> str:
    """Who holds the lock `path`, in words, as far as it could be written down."""
    try:
        signature = read(path)
    except StateError:
        signature = None
    return (signature or b"another process").decode("utf-8", "replace").strip()


def held_by(path: str) -> int | None:
    """The pid of the process on this machine that holds the lock `path`; None where none is seen.

    It isn't tried: who wanted it in that moment would think that it is held. Who signed it and has
    it open still has it, whatever the name of this machine is by now.
    """
    try:
        words = (read(path) or b"").split(maxsplit=2)
        pid = int(words[1]) if words[:1] == [b"process"] else 0
        return pid if _has_open(pid, os.stat(path)) else None
    except (StateError, OSError, ValueError, IndexError):  # of another user, or gone meanwhile
        return None


def _has_open(pid: int, file: os.stat_result) -> bool:
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        try:
            if os.path.samestat(os.stat(f"{folder}/{name}"), file):
                return True
        except FileNotFoundError:  # closed by now
            continue
    return False


def _is_still(path: str, descriptor: int) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))


def _sign(descriptor: int) -> None:
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    text = f"process {os.getpid()} on {os.uname().nodename} since {since}\n".encode()
    try:
        os.pwrite(descriptor, text, 0)
        os.ftruncate(descriptor, len(text))
    except OSError:
        # A full disk. The lock holds all the same; only the message of who waits is poorer.
        pass


# Where


def probe_writable(folder: str) -> None:
    """Try whether certificates could be kept in `folder`: write, read and delete a file.

    With fsync, because some file systems find out only then that they are full.

    Raises:
        StateError: they could not; the message names the folder and the reason.
    """
    path = _temporary(folder)
    with _Doing("write to", folder):
        try:
            _write_new(path, _PROBE, 0o600, durable=True)
            with open(path, "rb") as file:
                back = file.read()
        finally:
            _unlink(path)
    if back != _PROBE:
        raise StateError(f'"{folder}" does not keep what is written to it', folder)


def is_ephemeral(path: str) -> bool:
    """Whether what is kept at `path` is gone after the next boot or with its container."""
    return file_system(path) in _EPHEMERAL


def is_local(path: str) -> bool:
    """Whether nobody but this kernel writes to the file system of `path`, so a stat tells what is."""
    return file_system(path) in _LOCAL


def file_system(path: str) -> str:
    """The type of the file system that `path` is on or would be on, as in /proc/mounts ("ext4").

    "" where it can't be known.
    """
    try:
        mounts = read("/proc/self/mountinfo")
    except StateError:
        mounts = None
    return _type_of(os.path.realpath(path), os.fsdecode(mounts or b""))


def _type_of(path: str, mountinfo: str) -> str:
    """The type of the mount with the longest mount point above `path`; of equals the last (on top).

    Device numbers were tried first: st_dev is another number than mountinfo's on btrfs.
    """
    longest, found = -1, ""
    for line in mountinfo.split("\n"):
        mount, separator, source = line.partition(" - ")
        if not separator:
            continue
        mount_point = _unescaped(mount.split(" ")[4])
        if len(mount_point) >= longest and _is_below(path, mount_point):
            longest, found = len(mount_point), source.split(" ")[0]
    return found


def _unescaped(text: str) -> str:
    for escape, character in _ESCAPES:
        text = text.replace(escape, character)
    return text


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def temporary_folder() -> str:
    """Where anybody may make a folder of his own; in a read-only container that may be one alone."""
    folders = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - new folders are made there
    return next((path for path in folders if os.access(path, os.W_OK | os.X_OK)), folders[0])


def private_folder(environ: Mapping[str, str]) -> str:
    """A folder for what must be written when the state directory can't be: made, ours, tried.

    The first that works of $RUNTIME_DIRECTORY (systemd), /run/nginx-acme, and one of our own in
    /dev/shm and in $TMPDIR. Where everybody may write, a folder counts only if it is ours and
    nobody else may write in it: its name is no secret. Others may pass through (0711), since
    nginx's workers open files by paths that lead through a generation.

    Raises:
        StateError: none of them works.
    """
    for path in _private_candidates(environ):
        if _is_usable(path):
            return path
    raise StateError(f'no private folder can be written, not even "{path}"', path)


def _private_candidates(environ: Mapping[str, str]) -> Iterator[str]:
    runtime = environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if os.path.isabs(runtime):
        yield runtime
    yield "/run/nginx-acme"
    own = f"nginx-acme-{os.geteuid()}"
    yield f"/dev/shm/{own}"  # noqa: S108 - _is_usable looks whose it is
    yield os.path.join(environ.get("TMPDIR") or "/tmp", own)  # noqa: S108 - the same


def _is_usable(folder: str) -> bool:
    try:
        make_folder(folder, 0o711)
        if not _is_private(folder):
            return False
        probe_writable(folder)
    except StateError:
        return False
    return True


def _is_private(folder: str) -> bool:
    status = os.lstat(folder)
    ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    return ours and not status.st_mode & 0o022
