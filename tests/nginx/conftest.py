"""The nginx that the reader of its language is compared with."""

from __future__ import annotations

import pytest

from tests.nginx.oracle import Oracle


@pytest.fixture(scope="session")
def oracle(each_nginx: str, tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    """The installed nginx, then that of the next release, to be asked about configurations."""
    return Oracle(each_nginx, tmp_path_factory.mktemp("oracle"))
