"""What the tests of the state directory have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nginx_acme.store import Store

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store, open for writing."""
    made = Store(str(tmp_path / "state"))
    made.open_for_writing()
    return made
