"""What Linux tells a process that waits, as far as Python 3.11 doesn't: inotify and timerfd.

What may live here: system calls by the C library and what their bytes mean. Both are descriptors
to be polled, so whoever waits for them sleeps. Python has timerfd from 3.13 on.

The agent needs this for years beside nginx; ctypes is 0.5 MiB.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import time

IN_OPEN = 0x20
IN_CLOSE_NOWRITE = 0x10
IN_MOVED_TO = 0x80
IN_ONLYDIR = 0x01000000
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000

_IN_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK  # IN_CLOEXEC | IN_NONBLOCK; so are timerfd's
_EVENT = struct.Struct("iIII")
"""struct inotify_event, before its name (inotify(7))."""
_SETTING = struct.Struct("4q")
"""struct itimerspec: the interval, then the moment, in seconds and nanoseconds."""
_ABSOLUTE = 1
_CANCEL_ON_SET = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _called(result: int) -> int:
    """What a call returned; OSError where it failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


class Inotify:
    """Watches of files and folders on this machine; OSError where there can be none."""

    __slots__ = ("descriptor",)

    def __init__(self) -> None:
        self.descriptor = _called(_libc.inotify_init1(_IN_FLAGS))

    def watch(self, path: str, mask: int) -> int:
        """Watch a path; what `read` knows it by. A second time changes the mask."""
        return _called(_libc.inotify_add_watch(self.descriptor, os.fsencode(path), mask))

    def forget(self, watched: int) -> None:
        """Watch it no more; no error where it is gone."""
        _libc.inotify_rm_watch(self.descriptor, watched)

    def read(self) -> list[tuple[int, int, bytes]]:
        """What has happened since: which watch, the mask, and the name in a folder."""
        try:
            data = os.read(self.descriptor, 65536)
        except BlockingIOError:
            return []
        events: list[tuple[int, int, bytes]] = []
        at = 0
        while at < len(data):
            watched, mask, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size + length
            events.append((watched, mask, data[at - length : at].rstrip(b"\0")))
        return events


class WallClock:
    """A timer by the wall clock: it goes off late after a suspension, and when the clock is set.

    OSError where there is none (some sandboxes).
    """

    __slots__ = ("descriptor",)

    def __init__(self) -> None:
        self.descriptor = _called(_libc.timerfd_create(time.CLOCK_REALTIME, _IN_FLAGS))

    def set(self, moment: float) -> bool:
        """Go off at this moment, in seconds since the epoch; True: the clock was set just now."""
        setting = _SETTING.pack(0, 0, max(int(moment), 1), 0)
        flags = _ABSOLUTE | _CANCEL_ON_SET
        try:
            _called(_libc.timerfd_settime(self.descriptor, flags, setting, None))
        except OSError as error:
            if error.errno != errno.ECANCELED:
                raise
            return True  # and it is armed all the same (timerfd_create(2), Notes)
        return False

    def read(self) -> bool:
        """Whether the moment has come, or the clock was set; False where neither."""
        try:
            return bool(os.read(self.descriptor, 8))
        except OSError as error:
            return error.errno == errno.ECANCELED


def show_title(title: str) -> None:
    """Let `ps` and `systemctl status` show this in place of the command line, as far as it fits.

    As nginx does it: over the arguments that this process was started with, which are behind
    `program_invocation_name`. Where they can't be found nothing changes.
    """
    try:
        start = ctypes.cast(
            ctypes.c_void_p.in_dll(_libc, "program_invocation_name"), ctypes.c_void_p
        ).value
        with open("/proc/self/cmdline", "rb") as file:
            shown = file.read()
    except (ValueError, OSError):
        return
    if start is None or not shown or ctypes.string_at(start, len(shown)) != shown:
        return
    text = os.fsencode(title)[: len(shown) - 1]
    ctypes.memmove(start, text.ljust(len(shown), b"\0"), len(shown))
