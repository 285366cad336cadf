"""What of the files that an `include` finds is ours: a state directory may lie among the user's.

A generation has none in it, so nginx never finds there what is kept.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_OF_A_STORE = ("layout", "locks")


def without_kept(paths: Iterable[str]) -> list[str]:
    """Those of these absolute paths that are no state directory and lead into none."""
    known: dict[bytes, bool] = {}

    def is_kept(path: bytes) -> bool:
        if len(path) <= 1:
            return False
        if path not in known:
            known[path] = _is_store(path) or is_kept(os.path.dirname(path))
        return known[path]

    return [path for path in paths if not is_kept(path.encode("utf-8", "surrogateescape"))]


def _is_store(path: bytes) -> bool:
    return all(os.path.exists(os.path.join(path, os.fsencode(name))) for name in _OF_A_STORE)
