"""What a CA's words say beyond the type of a problem: which names they name.

What may live here: how such words are read, nothing of what follows from it. RFC 8555 has fields
for names, in subproblems; the CAs put most of them into sentences.
"""

from __future__ import annotations

import re

_URL = re.compile(r"https?://\S+")
_NAME = re.compile(r"[a-z0-9_*:-]+(?:\.[a-z0-9_-]+)*(?:/[0-9]+)?")
"""What may be a name: without quotes around it and the full stop behind it."""


def without_urls(detail: str) -> str:
    """The words in lower case; a name in a URL is nobody's that is asked for."""
    return _URL.sub("", detail.lower())


def names_in(detail: str) -> frozenset[str]:
    """Every word that may be a name, an address or a network; most are none."""
    return frozenset(_NAME.findall(without_urls(detail)))
