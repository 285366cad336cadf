"""Bytes of a configuration as text: none is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nginx_acme.encoding import to_bytes, to_text


@given(st.binary())
def test_round_trip(data: bytes) -> None:
    """Any bytes come back, whatever they are."""
    assert to_bytes(to_text(data)) == data


def test_names() -> None:
    """What is UTF-8 is read as that, whatever the locale says."""
    assert to_text("Zürich".encode()) == "Zürich"
    assert to_bytes("Zürich") == "Zürich".encode()
