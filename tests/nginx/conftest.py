"""The nginx that the reader of its language is compared with."""

from __future__ import annotations

import pytest

from tests.nginx.oracle import Oracle


@pytest.fixture(scope="session")
def oracle(nginx: str, tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    """The installed nginx, to be asked about configurations."""
    return Oracle(nginx, tmp_path_factory.mktemp("oracle"))
