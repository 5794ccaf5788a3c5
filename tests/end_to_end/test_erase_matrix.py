"""Erasures from models that nobody tuned for: a quick subset of `make erase-matrix`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["gpt2", pytest.param("qwen3", marks=pytest.mark.slow)])
def test_defaults_erase_from_a_model_that_is_met_for_the_first_time(
    name: str, tmp_path: Path
) -> None:
    words = ["--quick", "--only", name, "--out", str(tmp_path)]
    command = [sys.executable, str(ROOT / "perf" / "erase_matrix.py"), *words]
    subprocess.run(command, check=True, capture_output=True)
    (file,) = (tmp_path / "cells").glob("*.json")
    cell = json.loads(file.read_text())
    assert cell["architecture"] == name
    assert cell["exit"] == 0, cell["said"]
    assert cell["before"]["unlearn"] == 100
    assert cell["after"]["unlearn"] == 0
    # 27 of 30 rows: so few people are close to each other.
    assert cell["lost"]["listed"] <= 10
