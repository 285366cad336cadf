"""What of the files that an `include` finds is ours: a state directory may lie among the user's.

A generation has none in it, so nginx never finds there what is kept.
"""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

from nginx_acme.encoding import to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

_OF_A_STORE = (b"layout", b"locks")


def without_own(paths: Iterable[str]) -> list[str]:
    """Those of these absolute paths that are no state directory and lead into none.

    Of ten thousand files in one folder none is looked at.
    """
    stores_in = cache(_stores_in)

    @cache
    def is_inside(folder: bytes) -> bool:
        above = os.path.dirname(folder)
        return _is_store(folder) or (above != folder and is_inside(above))

    def is_own(path: bytes) -> bool:
        folder, name = os.path.split(path)
        return name in stores_in(folder) or is_inside(folder)

    return [path for path in paths if not is_own(to_bytes(path))]


def _stores_in(folder: bytes) -> frozenset[bytes]:
    """The names of those in a folder that can be listed."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(x.name for x in entries if x.is_dir() and _is_store(x.path))
    except OSError:
        return frozenset()


def _is_store(path: bytes) -> bool:
    return all(os.path.exists(os.path.join(path, name)) for name in _OF_A_STORE)
