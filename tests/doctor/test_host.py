"""Whether certificates can be kept on a host, and challenges answered."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nginx_acme.doctor.host import (
    Folder,
    Port,
    State,
    User,
    judge_clock,
    judge_port,
    judge_state,
)
from nginx_acme.nginx.listen import Address

NOW = datetime(2027, 3, 1, tzinfo=UTC)
WORKERS = User("www-data", 33, frozenset({33}))
OPEN = Folder("/", 0o755, 0, 0)
SECRET = Folder("/state/accounts", 0o700, 0, 0)
STATE = State(
    root="/state",
    exists=True,
    mine=True,
    newer=False,
    unwritable=None,
    file_system="ext4",
    ephemeral=False,
    free_bytes=1 << 30,
    free_files=1 << 20,
    way=(OPEN, Folder("/state", 0o711, 0, 0)),
    secret=(SECRET,),
    workers=WORKERS,
)
WELL = {"state.folder": "ok", "state.space": "ok", "state.workers": "ok"}


@pytest.mark.parametrize(
    ("now", "latest", "verdict"),
    [
        pytest.param(NOW, None, "ok", id="right"),
        pytest.param(NOW, NOW - timedelta(days=1), "ok", id="after what was done"),
        pytest.param(NOW, NOW + timedelta(hours=2), "warning", id="before it"),
        pytest.param(datetime(1970, 1, 2, tzinfo=UTC), None, "error", id="never set"),
    ],
)
def test_clock(now: datetime, latest: datetime | None, verdict: str) -> None:
    """A clock that can't be right is told."""
    assert judge_clock(now, latest).verdict.value == verdict


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({}, WELL, id="well"),
        pytest.param({"exists": False}, WELL, id="not made yet"),
        pytest.param({"unwritable": "no"}, WELL | {"state.folder": "error"}, id="unwritable"),
        pytest.param({"newer": True}, WELL | {"state.folder": "error"}, id="a newer layout"),
        pytest.param({"mine": False}, WELL | {"state.folder": "warning"}, id="somebody else's"),
        pytest.param({"ephemeral": True}, WELL | {"state.kept": "warning"}, id="on tmpfs"),
        pytest.param({"free_bytes": 0}, WELL | {"state.space": "error"}, id="full"),
        pytest.param({"free_bytes": 4 << 20}, WELL | {"state.space": "warning"}, id="almost full"),
        pytest.param({"free_files": 9}, WELL | {"state.space": "warning"}, id="few inodes"),
        pytest.param({"free_files": None}, WELL, id="no limit of inodes"),
        pytest.param(
            {"way": (OPEN, Folder("/root", 0o700, 0, 0))},
            WELL | {"state.workers": "error"},
            id="below a private folder",
        ),
        pytest.param(
            {"way": (Folder("/srv", 0o750, 0, 33),)}, WELL, id="open to the workers' group"
        ),
        pytest.param(
            {"way": (Folder("/srv", 0o701, 0, 33),)},
            WELL | {"state.workers": "error"},
            id="closed to the workers' group",
        ),
        pytest.param({"way": (Folder("/srv", 0o700, 33, 33),)}, WELL, id="the workers' own"),
        pytest.param({"way": (Folder("/srv", 0o700, 0, 0, acl=True),)}, WELL, id="an ACL"),
        pytest.param(
            {"workers": None}, {"state.folder": "ok", "state.space": "ok"}, id="unknown workers"
        ),
        pytest.param(
            {"secret": (SECRET._replace(mode=0o755),)},
            WELL | {"state.private": "error"},
            id="secrets open to workers",
        ),
        pytest.param(
            {"secret": (SECRET._replace(mode=0o770),)},
            WELL | {"state.private": "warning"},
            id="secrets open to root's group",
        ),
        pytest.param(
            {"secret": (SECRET._replace(uid=33),)}, WELL, id="everything runs as one user"
        ),
    ],
)
def test_state(change: dict[str, Any], expected: dict[str, str]) -> None:
    """Each thing that keeps certificates from being kept has its finding."""
    found = list(judge_state(replace(STATE, **change)))
    assert {one.check: one.verdict.value for one in found} == expected
    assert all(one.advice for one in found if one.verdict.value != "ok")


@pytest.mark.parametrize(
    ("port", "running", "verdict", "words"),
    [
        pytest.param({"held": True}, True, "ok", "nginx listens", id="held"),
        pytest.param({}, False, "ok", "free", id="free"),
        pytest.param({}, True, "warning", "doesn't listen there yet", id="free, nginx runs"),
        pytest.param(
            {"refused": "bind() failed", "holder": "apache2 (pid 7)"},
            False,
            "error",
            "apache2 (pid 7) listens there",
            id="taken",
        ),
        pytest.param(
            {"refused": "bind() failed", "added": False},
            False,
            "error",
            "bind() failed",
            id="not ours",
        ),
        pytest.param(
            {"refused": "bind() failed"}, False, "warning", "left out, bind() failed", id="no IPv6"
        ),
    ],
)
def test_port(port: dict[str, Any], running: bool, verdict: str, words: str) -> None:  # noqa: FBT001
    """An address that nginx can't have is told, with who has it."""
    free = {"added": True, "held": False, "refused": None, "holder": None}
    found = judge_port(Port(Address("0.0.0.0", 80), **{**free, **port}), running=running)
    assert (found.verdict.value, words in found.words) == (verdict, True)
