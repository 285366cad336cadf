"""What nginx needs to know to build the hash table of a `map`.

What may live here: nginx's own rules (`ngx_hash_init`, `ngx_http_map_module`), tried on nginx 1.22
and 1.30. A key that is longer than a bucket is refused; where nginx finds no good size for the
table it warns, and serves all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nginx_acme.nginx.edit import quote

if TYPE_CHECKING:
    from collections.abc import Collection

BUCKET_SIZE, MAX_SIZE = "map_hash_bucket_size", "map_hash_max_size"
"""The directives, which hold for all maps of `http`, and are refused after the first of them."""

_SPECIAL = frozenset({"default", "hostnames", "include", "volatile"})
"""Words that are no key of a `map`, unless a backslash stands before them."""

_LONGEST_KEY, _MOST_KEYS = 46, 256
"""What any nginx takes by its defaults: buckets as large as a cache line, 64 bytes, 2048 of them."""
_IN_A_BUCKET = 6
"""Keys for which a bucket should have room; with it a table twice as large as needed is found."""
_LEAST_BUCKET = 128  # bytes; no cache line is larger, so nobody's maps get less than they had
_LEAST_TABLE = 2048
_POINTER = 8  # bytes


def key(text: str) -> str:
    """A key of a `map` as it is written there."""
    return quote(f"\\{text}" if text in _SPECIAL else text)


def sizes(keys: Collection[str]) -> dict[str, int]:
    """What `map_hash_...` directives must at least say for these keys; none where nothing."""
    longest = max(map(len, keys), default=0)
    if longest <= _LONGEST_KEY and len(keys) <= _MOST_KEYS:
        return {}
    aligned = -(-(longest + 2) // _POINTER) * _POINTER
    bucket = _POINTER + _IN_A_BUCKET * (_POINTER + aligned)
    return {
        BUCKET_SIZE: _power_of_two(bucket, _LEAST_BUCKET),
        MAX_SIZE: _power_of_two(2 * len(keys), _LEAST_TABLE),
    }


def _power_of_two(needed: int, least: int) -> int:
    while least < needed:
        least *= 2
    return least
