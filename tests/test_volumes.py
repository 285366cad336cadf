"""What is known of file systems, and where something is kept if the state directory is no place."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nginx_acme import volumes
from tests.mounts import CAN_MOUNT, in_memory

if TYPE_CHECKING:
    from collections.abc import Callable

MOUNTS = r"""
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
28 27 0:24 / /var/lib/docker/x rw shared:1 master:2 - overlay overlay rw,lowerdir=/a
29 27 0:25 / /with\040space rw - tmpfs tmpfs rw
30 27 0:26 / /twice rw - ext4 /dev/vdb rw
31 30 0:27 / /twice rw - xfs /dev/vdc rw
32 27 0:28 / /fuse rw - fuse.sshfs host:/ rw
a line that is none
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("/", "ext4", id="root"),
        pytest.param("/etc/nginx", "ext4", id="below root"),
        pytest.param("/var/lib/docker/x", "overlay", id="the mount point itself"),
        pytest.param("/var/lib/docker/x/acme", "overlay", id="below a mount point"),
        pytest.param("/var/lib/docker/xyz", "ext4", id="a name that only begins like one"),
        pytest.param("/with space/acme", "tmpfs", id="escaped mount point"),
        pytest.param("/twice/acme", "xfs", id="the one mounted on top"),
        pytest.param("/fuse", "fuse.sshfs", id="a type with a dot"),
    ],
)
def test_type_of(path: str, expected: str) -> None:
    """The file system of a path is that of the longest mount point above it, the last of equals."""
    assert volumes._type_of(path, MOUNTS) == expected


def test_type_of_without_proc() -> None:
    """Nothing known is nothing said."""
    assert volumes._type_of("/etc", "") == ""


@CAN_MOUNT
def test_a_disk_in_memory(tmp_path: Path) -> None:
    """It is ephemeral and nobody else's, for a folder that is not made yet and through a link, too."""
    memory, link = tmp_path / "memory", tmp_path / "link"
    memory.mkdir()
    link.symlink_to(memory)
    with in_memory(memory, "64k"):
        assert volumes.file_system(str(memory)) == "tmpfs"
        assert volumes.is_ephemeral(str(link / "state" / "not yet made"))
        assert volumes.is_local(str(link / "state" / "not yet made"))
    assert volumes.file_system("/proc/self") == "proc"
    assert not volumes.is_ephemeral("/proc/self")
    assert not volumes.is_local("/proc/self")


def test_systemd_runtime_directory_comes_first(tmp_path: Path) -> None:
    """$RUNTIME_DIRECTORY may name several; the first is taken and made where it is missing."""
    folder = tmp_path / "run"
    environ = {"RUNTIME_DIRECTORY": f"{folder}:/other", "TMPDIR": str(tmp_path)}
    assert volumes.private_folder(environ) == str(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o711


def test_the_order_of_private_folders() -> None:
    """systemd's, ours in /run, in shared memory, in $TMPDIR; a relative $RUNTIME_DIRECTORY is none."""
    own = f"nginx-acme-{os.geteuid()}"
    environ = {"RUNTIME_DIRECTORY": "relative", "TMPDIR": "/other"}
    expected = ["/run/nginx-acme", f"/dev/shm/{own}", f"/other/{own}"]  # noqa: S108
    assert list(volumes._private_candidates(environ)) == expected


def _of_somebody_else(path: Path) -> None:
    if os.geteuid():
        pytest.skip("giving a folder away needs root")
    path.mkdir(mode=0o700)
    os.chown(path, 12345, 12345)


def _a_link(path: Path) -> None:
    (path.parent / "target").mkdir(mode=0o700)
    path.symlink_to(path.parent / "target")


def _open_for_all(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param(_of_somebody_else, id="of somebody else"),
        pytest.param(_a_link, id="a link"),
        pytest.param(_open_for_all, id="open for all"),
        pytest.param(Path.touch, id="a file"),
    ],
)
def test_a_prepared_trap_is_not_used(tmp_path: Path, prepare: Callable[[Path], None]) -> None:
    """The name can be guessed, so what somebody else put there doesn't count."""
    path = tmp_path / "nginx-acme-0"
    prepare(path)
    assert not volumes._is_usable(str(path))
    if path.is_dir():
        assert os.listdir(path) == []
