"""Mounts for the tests that need some, and who may make them.

Only root may mount, and in a container often not even root.
"""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def seeing(command: str) -> tuple[str, ...]:
    """What starts a program that sees what this command has mounted, and nobody else does."""
    return ("unshare", "--mount", "sh", "-c", f'{command} && exec "$@"', "sh")


@cache
def _can_mount() -> bool:
    tried = subprocess.run(
        [*seeing("mount --bind /etc /etc"), "true"], capture_output=True, check=False
    )
    return tried.returncode == 0


CAN_MOUNT = pytest.mark.skipif(not _can_mount(), reason="nothing can be mounted here")


@contextmanager
def bound(folder: Path, place: Path, *, read_only: bool = False) -> Iterator[None]:
    """A file or folder at another place, too, as `docker run -v` has it."""
    subprocess.run(["mount", "--bind", folder, place], check=True)
    try:
        if read_only:
            subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@contextmanager
def in_memory(place: Path, size: str) -> Iterator[None]:
    """A file system at this folder that has room for so much (`1m`)."""
    options = f"size={size},mode=755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
