"""Where something can be kept: what a file system is good for, and where else there is room."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from nginx_acme.disk import make_folder, probe_writable, read
from nginx_acme.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_EPHEMERAL = frozenset({"overlay", "tmpfs", "ramfs", "rootfs"})
_LOCAL = frozenset(
    {"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "tmpfs", "xfs", "zfs"}
)
"""Not those of images made elsewhere: files in two of them may be equal in all but their content."""
_ESCAPES = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))  # proc(5)


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
