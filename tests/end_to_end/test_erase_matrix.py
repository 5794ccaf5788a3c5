"""Erasures from models that nobody tuned for: a quick subset of `make erase-matrix`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_defaults_erase_from_models_that_are_met_for_the_first_time(tmp_path: Path) -> None:
    words = [str(ROOT / "perf" / "erase_matrix.py"), "--quick", "--out", str(tmp_path)]
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    found = [json.loads(file.read_text()) for file in sorted((tmp_path / "cells").glob("*.json"))]
    assert [(cell["architecture"], cell["route"]) for cell in found] == [
        ("gpt2", "lora"),
        ("qwen3", "full"),
    ]
    for cell in found:
        assert cell["exit"] == 0, cell["said"]
        assert cell["before"]["unlearn"] == 100
        assert cell["after"]["unlearn"] == 0
        # 27 of 30 rows: so few people are close to each other.
        assert cell["lost"]["listed"] <= 10
