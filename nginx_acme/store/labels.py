"""Names from a configuration as names of folders and variables.

A `server_name` may hold anything that nginx's quotes can hold: path separators, NUL, newlines,
three hundred characters. What comes out here is one component of a path, visible, harmless to a
shell and without meaning to nginx, which expands variables in `ssl_certificate` and globs in
`include`. Two names may come out the same; whoever makes a folder deals with that.
"""

from __future__ import annotations

import re

_LONGEST_LABEL = 100
_LONGEST_VARIABLE = 40
_NOT_IN_LABELS = re.compile(r"[^a-z0-9._-]")
_NOT_IN_VARIABLES = re.compile(r"[^a-z0-9_]")


def label_of(name: str) -> str:
    """A name as a folder's: at most 100 characters, lower case, "*" spelt out."""
    label = _NOT_IN_LABELS.sub("_", name.lower().replace("*", "_wildcard"))[:_LONGEST_LABEL]
    return label if label[:1] not in {"", ".", "-"} else "_" + label[1:]


def variable_of(name: str) -> str:
    """A name as a part of one of nginx's variables: letters, digits, underscore."""
    return _NOT_IN_VARIABLES.sub("_", name.lower())[:_LONGEST_VARIABLE]
