"""Whether it is our nginx that runs, and somebody looks after its certificates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nginx_acme.doctor.nginx import (
    Care,
    Program,
    Running,
    judge_care,
    judge_program,
    judge_running,
    unit_of,
)

PROGRAM = Program("/usr/sbin/nginx", "nginx", (1, 22, 1), frozenset())
RUNNING = Running(pid=7, begun=True, ours=True, conf="/x", sheltered=False, unknown=())
CARE = Care(wanted=True, alive=True, timer=False, unit=None, memory=None)


@pytest.mark.parametrize(
    ("change", "verdicts"),
    [
        pytest.param({}, ["ok"], id="well"),
        pytest.param({"version": (1, 16, 1)}, ["warning"], id="old"),
        pytest.param(
            {"lacks": frozenset({"ngx_http_map_module"})}, ["ok", "warning"], id="crippled"
        ),
    ],
)
def test_program(change: dict[str, Any], verdicts: list[str]) -> None:
    """A build that can't serve what is generated is told."""
    assert [one.verdict.value for one in judge_program(replace(PROGRAM, **change))] == verdicts


def test_relative() -> None:
    """A relative of nginx is told with the nginx that it is."""
    (finding,) = judge_program(replace(PROGRAM, name="angie", version=(1, 29, 3)))
    assert finding.words == "angie (nginx 1.29.3)"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({}, [("ok", "runs with what")], id="ours"),
        pytest.param(
            {"pid": None, "begun": False}, [("ok", "not started yet")], id="never started"
        ),
        pytest.param({"pid": None}, [("warning", "does not run")], id="ended"),
        pytest.param({"ours": False}, [("error", 'runs with "/x"')], id="another configuration"),
        pytest.param(
            {"ours": False, "conf": None}, [("error", "without nginx-acme")], id="plain nginx"
        ),
        pytest.param({"sheltered": True}, [("error", "could not be written")], id="sheltered"),
        pytest.param(
            {"unknown": ("a", "b", "c", "d", "e")},
            [("ok", "runs"), ("warning", "doesn't know a, b, c and 2 more yet")],
            id="not reloaded",
        ),
    ],
)
def test_running(change: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    """What runs is compared with what is configured."""
    found = list(judge_running(replace(RUNNING, **change)))
    assert [one.verdict.value for one in found] == [verdict for verdict, _ in expected]
    assert all(words in one.words for one, (_, words) in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({}, [("ok", "is there")], id="agent"),
        pytest.param({"alive": False}, [("error", "nothing is renewed")], id="no agent"),
        pytest.param(
            {"alive": False, "timer": True}, [("error", "is not there")], id="a timer alone"
        ),
        pytest.param({"wanted": False, "timer": True}, [("ok", "a timer renews")], id="off, timer"),
        pytest.param({"wanted": False}, [("warning", "is off")], id="off, nobody"),
        pytest.param(
            {"unit": "nginx.service", "memory": "stop"},
            [("ok", "is there"), ("warning", "OOMPolicy=stop")],
            id="out of memory",
        ),
        pytest.param({"unit": "a.service", "memory": "continue"}, [("ok", "is there")], id="kept"),
    ],
)
def test_care(change: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    """Somebody must renew, and not take nginx along when memory ends."""
    found = list(judge_care(replace(CARE, **change)))
    assert [one.verdict.value for one in found] == [verdict for verdict, _ in expected]
    assert all(words in one.words for one, (_, words) in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("cgroups", "unit"),
    [
        pytest.param("0::/system.slice/nginx.service\n", "nginx.service", id="v2"),
        pytest.param(
            "4:memory:/x.service\n1:name=systemd:/system.slice/angie.service\n0::/\n",
            "angie.service",
            id="v1",
        ),
        pytest.param("0::/user.slice/session-1.scope\n", None, id="of a person"),
        pytest.param("0::/\n", None, id="a container"),
        pytest.param("", None, id="no cgroups"),
    ],
)
def test_unit(cgroups: str, unit: str | None) -> None:
    """The unit that nginx was started by is known by its cgroup, whatever its name."""
    assert unit_of(cgroups) == unit


def test_a_timer_renews() -> None:
    """Without the agent a timer still renews, and only a HUP from elsewhere means less."""
    (found,) = judge_care(replace(CARE, alive=False, timer=True))
    assert "renewed" not in found.words
