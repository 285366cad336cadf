"""The benchmarks run; what they find is nothing to be tested."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.servers import ROOT, environment

if TYPE_CHECKING:
    from pathlib import Path


def test_bench(newer_pebble: str, tmp_path: Path) -> None:
    """One certificate is measured from start to answer, with ten requests, beside bare nginx."""
    report = tmp_path / "bench.json"
    options = ["--certificates", "1", "--retry-after", "0", "--runs", "1", "--report", str(report)]
    ran = subprocess.run(
        [sys.executable, "-m", "tests.bench", *options, "--pebble", newer_pebble],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    (row,) = json.loads(report.read_text())["rows"]
    (first,) = row["first"]
    assert 10 <= first["requests"] <= 12
    assert all(each["start"]["seconds"] > each["python"]["seconds"] for each in row["rounds"])
