"""The benchmark's two ways compute the same, or their times could not be compared."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_ours_and_the_original_way_end_in_the_same_weights(tmp_path: Path) -> None:
    jobs = ["memorize", "localize", "unlearn: memflex"]
    command = [sys.executable, str(ROOT / "perf" / "speed.py"), "--model", "embedded"]
    command += ["--pairs", "1", "--out", str(tmp_path), "--jobs", *jobs]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "speed.json").read_text())["rows"]
    assert [row["job"] for row in rows] == jobs
    for row in rows:
        assert row["ours"]["apart"] < 1e-3, row["job"]
