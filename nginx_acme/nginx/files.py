"""The files that nginx would read: what `source.read_source` is given for the real file system.

The only module of this folder that touches the world. Python's own `glob` was tried first: it
does not sort, reads ``[^a]`` and backslashes differently, and gives ``**`` a meaning. nginx calls
glob(3) without flags and in the C locale; so do these rules, and the C library is the oracle of
the tests.

A path is the bytes of the configuration, whatever the locale says (`encoding`).
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from nginx_acme.encoding import to_bytes, to_text

if TYPE_CHECKING:
    from collections.abc import Callable

_WILD = re.compile(rb"[*?[\\]")
_PIECE = re.compile(
    rb"""
      (?P<many> \* )
    | (?P<one> \? )
    | \[ (?P<other> [!^]?+ ) (?P<members> \]?+ (?: \[:[a-z]+:\] | \\. | [^\]\\] )*+ ) \]
    | (?P<never> \\\Z )
    | \\?+ (?P<literal> . )
    """,
    re.VERBOSE | re.DOTALL,
)
_MEMBER = re.compile(
    rb"\[:(?P<kind>[a-z]+):\]|\\?(?P<first>.)(?:-(?:\\(?P<escaped>.)|(?P<last>.)))?", re.DOTALL
)
_KINDS = {
    b"alnum": b"0-9A-Za-z",
    b"alpha": b"A-Za-z",
    b"blank": rb" \t",
    b"cntrl": rb"\x00-\x1f\x7f",
    b"digit": b"0-9",
    b"graph": rb"\x21-\x7e",
    b"lower": b"a-z",
    b"print": rb"\x20-\x7e",
    b"punct": rb"\x21-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e",
    b"space": rb"\t-\r ",
    b"upper": b"A-Z",
    b"xdigit": b"0-9A-Fa-f",
}


def read_bytes(path: str) -> bytes:
    """What nginx reads of a file: as many bytes as its size says, so nothing of a device.

    Raises:
        OSError: with the number that open() or pread() has for nginx, also for a folder.
    """
    return read_with_status(path)[0]


def read_with_status(path: str) -> tuple[bytes, os.stat_result]:
    """The same, and what the file was when that was begun."""
    descriptor = os.open(to_bytes(path), os.O_RDONLY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        return os.read(descriptor, status.st_size) if status.st_size else b"", status
    finally:
        os.close(descriptor)


def status_of(path: str) -> os.stat_result:
    """What a file is now."""
    return os.stat(to_bytes(path))


def glob_files(pattern: str, look: Callable[[str], object] | None = None) -> list[str]:
    """The paths that match, sorted by their bytes: glob(3) without flags, in the C locale.

    A name that begins with a dot is only matched by a dot. A folder that can't be listed has no
    matches.

    Args:
        pattern: as it is written, absolute.
        look: is told of each folder before it is listed, and of each path before it is tried.
    """
    *folders, last = to_bytes(pattern).split(b"/")
    found = [b""]
    for part in folders:
        found = [
            b"%s%s/" % (folder, name) for folder in found for name in _names(folder, part, look)
        ]
    found = [folder + name for folder in found for name in _names(folder, last, look)]
    if look is not None and not _WILD.search(last):
        for path in found:
            look(to_text(path))
    return [to_text(path) for path in sorted(found) if os.path.lexists(path)]


def _names(folder: bytes, part: bytes, look: Callable[[str], object] | None = None) -> list[bytes]:
    """The names in a folder that match one part of a pattern; the part itself if it is plain."""
    if not _WILD.search(part):
        return [part]
    if look is not None:
        look(to_text(folder))
    try:
        names = os.listdir(folder or b".")
    except OSError:
        return []
    matches = re.compile(b"".join(map(_expression, _PIECE.finditer(part))), re.DOTALL).fullmatch
    if part.startswith((b".", rb"\.")):
        return [name for name in (b".", b"..", *names) if matches(name)]
    return [name for name in names if not name.startswith(b".") and matches(name)]


def _expression(piece: re.Match[bytes]) -> bytes:
    """The regular expression for one piece of a pattern."""
    if piece["many"]:
        return b".*"
    if piece["one"]:
        return b"."
    if piece["never"]:
        return b"(?!)"
    if piece["members"] is None:
        return re.escape(piece["literal"])
    members = b"".join(map(_set, _MEMBER.finditer(piece["members"])))
    if not members:
        return b"." if piece["other"] else b"(?!)"
    return b"[%s%s]" % (b"^" if piece["other"] else b"", members)


def _set(member: re.Match[bytes]) -> bytes:
    """One member of a bracket expression, as it is written in a regular expression."""
    if member["kind"]:
        return _KINDS.get(member["kind"], b"")
    first = member["first"]
    last = member["escaped"] or member["last"] or first
    return b"%s-%s" % (_hex(first), _hex(last)) if first <= last else b""


def _hex(byte: bytes) -> bytes:
    return rb"\x%02x" % ord(byte)
