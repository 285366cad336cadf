"""Names from a configuration as names of folders and variables, and the name of an instance.

A `server_name` may hold anything that nginx's quotes can hold: path separators, NUL, newlines,
three hundred characters. What comes out here is one component of a path, visible, harmless to a
shell and without meaning to nginx, which expands variables in `ssl_certificate` and globs in
`include`. Two names may come out the same; whoever makes a folder deals with that.

Imported at every start: `re` and hashlib would take as long as all of the rest of it.
"""

from __future__ import annotations

import zlib

from nginx_acme.encoding import to_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

_LONGEST_LABEL = 100
_LONGEST_VARIABLE = 40
_IN_VARIABLES = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")
_IN_LABELS = _IN_VARIABLES | frozenset(".-")
_HEX = frozenset("0123456789abcdef")
_DIGEST = 8


def label_of(name: str) -> str:
    """A name as a folder's: at most 100 characters, lower case, "*" spelt out."""
    label = _only(_IN_LABELS, name.lower().replace("*", "_wildcard"))[:_LONGEST_LABEL]
    return label if label[:1] not in {"", ".", "-"} else "_" + label[1:]


def variable_of(name: str) -> str:
    """A name as a part of one of nginx's variables: letters, digits, underscore."""
    return _only(_IN_VARIABLES, name.lower())[:_LONGEST_VARIABLE]


def instance_name(conf: str, prefix: str, host: str) -> str:
    """The name of an instance's folder: of the main file, and a checksum of what makes it this one.

    Args:
        conf: absolute path of the user's main file.
        prefix: nginx's prefix, absolute.
        host: the name of this machine.
    """
    whole = f"{conf}\0{prefix}\0{host}"
    return f"{label_of(conf.rpartition('/')[2])}-{zlib.crc32(to_bytes(whole)):0{_DIGEST}x}"


def family_name(conf: str, prefix: str) -> str:
    """What instances have in common that differ in their hosts alone, as containers made anew do."""
    return instance_name(conf, prefix, "")


def is_instance_name(name: str) -> bool:
    """Whether `instance_name` may have given it."""
    label, _, digest = name.rpartition("-")
    return bool(label) and len(digest) == _DIGEST and _HEX.issuperset(digest)


def instance_path(root: str, name: str) -> str:
    """The folder of an instance in a state directory."""
    return f"{root}/instances/{name}"


def start_lock_path(root: str, name: str) -> str:
    """The lock of an instance's start."""
    return f"{root}/locks/start-{name}.lock"


def _only(allowed: Container[str], name: str) -> str:
    return "".join(character if character in allowed else "_" for character in name)
