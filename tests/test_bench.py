"""The benchmarks run, and their arithmetic is right; what they find is nothing to be tested."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.bench.__main__ import PARTS
from tests.bench.figures import Figure, Table, figure, on_top, ratio, to_json, to_text
from tests.bench.turns import in_turn
from tests.servers import ROOT, environment

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.figures import Row


def test_a_ratio_is_that_of_neighbours() -> None:
    """The median of the ratios, whatever the machine did in between: not the ratio of medians."""
    assert ratio([1.1, 22, 3.3], [1, 20, 3]).median == 1.1
    assert on_top([3, 50, 7], [1, 10, 1], [1, 20, 3]).values == (2, 2, 2)


def test_a_table_shows_median_spread_and_target() -> None:
    """With a cross where the target is missed; a lone value has no spread but itself."""
    met = Figure((1.0, 1.0, 3.0), 1, most=2, spread=True)
    missed = Figure((0.5,), 2, least=0.99, spread=True)
    rows: list[Row] = [
        {"servers": 1, "start_s": met, "kept": missed},
        {"servers": 10_000, "start_s": figure([2]), "kept": ""},
    ]
    assert to_text(Table("warm", "A title", rows)).splitlines() == [
        "A title",
        "servers            start s                       kept",
        "      1  1.0 (1.0-2.0) ≤ 2  0.50 (0.50-0.50) < 0.99 ✗",
        "  10000               2.00                           ",
    ]


def test_json_has_every_value() -> None:
    """And says which targets are missed."""
    rows: list[Row] = [{"servers": 1, "ratio": Figure((1.0, 2.0, 9.0), most=1)}]
    (row,) = to_json(Table("warm", "A title", rows))["rows"]
    assert row["servers"] == 1
    assert row["ratio"] == {
        "median": 2.0,
        "middle": [1.5, 5.5],
        "most": 1,
        "least": None,
        "missed": True,
        "values": [1.0, 2.0, 9.0],
    }


def test_turns_alternate() -> None:
    """Who is first in one round is last in the next."""
    order: list[str] = []
    found = in_turn(3, ours=lambda: order.append("ours"), nginx=lambda: order.append("nginx"))
    assert order == ["ours", "nginx", "nginx", "ours", "ours", "nginx"]
    assert [len(each) for each in found.values()] == [3, 3]


@pytest.mark.timeout(600)
def test_bench(newer_pebble: str, tmp_path: Path) -> None:
    """Each part measures something at its smallest size; of the CA no more is asked than must be."""
    report = tmp_path / "bench.json"
    options = ["--servers=1", "--certificates=1", "--retry-after=0", "--rounds=1"]
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.bench",
            *options,
            "--report",
            report,
            "--pebble",
            newer_pebble,
        ],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    tables = {table["part"]: table["rows"] for table in json.loads(report.read_text())["tables"]}
    assert tables.keys() == (PARTS.keys() if shutil.which("wrk") else PARTS.keys() - {"serving"})
    rows = {part: rows[0] for part, rows in tables.items()}
    assert 10 <= rows["first"]["requests"]["median"] <= 12
    assert rows["warm"]["CPU_s"]["median"] > 0
    assert 5 < rows["generation"]["MiB"]["median"] < 100
    assert rows["reload"]["files_read"]["median"] == 1
    assert 5 < rows["beside"]["agent_MiB"]["median"] < 50
