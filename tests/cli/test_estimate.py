"""`knowundo estimate` prints JSON, or a table and what it leaves out."""

from __future__ import annotations

import json

import pytest

from conftest import Call
from estimation.recipes import settings
from knowundo.estimation.memory_trace import KINDS, MIB
from knowundo.estimation.schema import Estimate, StageEstimate


def test_json_is_the_estimate_with_its_verdict(toy_base: str, knowundo: Call) -> None:
    given = settings(toy_base, variants=("gradient_ascent",))
    sets = [part for text in given for part in ("--set", text)]
    told = knowundo("estimate", *sets, "--json")
    assert told.returncode == 0, told.stderr
    (found,) = json.loads(told.stdout)
    assert found["fits_24_gib"] is True
    assert found["peak"] == max(stage["peak"] for stage in found["stages"])


def test_the_table_shows_every_stage(knowundo: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = dict.fromkeys(KINDS, 2 * MIB)
    stages = [
        StageEstimate("memorize", 1200, "steps", True, 8, 800, memory, 300 * MIB),
        StageEstimate("odd", 3, "steps", False, 8, 800, {}, None),
    ]
    estimate = Estimate("base", "all weights", "float32", "cpu", 1000, 10, stages, ["a note"])
    monkeypatch.setattr("knowundo.estimation.estimate.estimate", lambda *_: [estimate])
    shown = knowundo("estimate").stdout
    for words in (
        "base, all weights, float32: 1,000 parameters, 10 trainable (1.00%)",
        "≤ 1,200 steps", "8 × 100", "300", "2.0", "unknown", "a note",
        "fits into 24 GiB: yes; the peak is 0.29 GiB, in memorize",
    ):  # fmt: skip
        assert words in shown
