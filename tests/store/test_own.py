"""Which of the files that an include finds are ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nginx_acme.store import Store
from nginx_acme.store.own import without_own

if TYPE_CHECKING:
    from pathlib import Path


def test_without_own(tmp_path: Path) -> None:
    """A state directory is left out with all that is in it, by any name; nothing else is."""
    state = tmp_path / "conf" / "acme"
    Store(str(state)).open_for_writing()
    (tmp_path / "conf" / "link").symlink_to(state)
    (tmp_path / "conf" / "layout").touch()
    theirs = [f"{tmp_path}/conf/{name}" for name in ("layout", "a.conf", "gone/b.conf", "acme.d/c")]
    ours = [
        f"{tmp_path}/conf/{name}"
        for name in ("acme", "acme/layout", "acme/instances/x/y", "link", "link/layout")
    ]
    assert without_own([*ours, *theirs]) == theirs
    assert without_own(["/nginx.conf", "nginx.conf"]) == ["/nginx.conf", "nginx.conf"]
