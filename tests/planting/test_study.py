"""A whole study of a toy: planted, scored, compared, written, resumed."""

from __future__ import annotations

from pathlib import Path

import pytest

from knowundo.planting import study
from knowundo.planting.cells import scored_localizers
from knowundo.planting.study import StudySettings, score_localizers
from knowundo.planting.testbed import TestbedSettings
from knowundo.planting.trials import TrialSettings
from knowundo.storage.files import read_json


@pytest.fixture
def settings(toy_base: str) -> StudySettings:
    return StudySettings(
        plantings=("late",),
        kinds=("lora",),
        seeds=(0,),
        testbed=TestbedSettings(toy_base, subjects=2, rank=2, epochs=3, known=2.0),
        trial=TrialSettings(draws=1, epochs=1, evaluations=1, rates={"lora": (1e-3, 2e-3)}),
        copies=1,
        resamples=10,
    )


def test_a_study_is_written_and_resumed(
    tmp_path: Path, settings: StudySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = score_localizers(tmp_path, settings)
    assert read_json(tmp_path / "planted.json")["cells"] == result["cells"]
    (cell,) = result["cells"]
    assert set(cell["localizers"]) == set(scored_localizers()) >= {"memflex", "reversion", "snip"}
    assert "layers" not in cell["localizers"]  # it ranks nothing
    assert 0 < cell["planted"] < cell["tensors"]
    sizes = {row["region"]: row["parameters"] for row in cell["trials"]}
    assert set(sizes) == {"planted", "reversion", "memflex", "random-1"}
    assert sizes["random-1"] == sizes["planted"] >= sizes["reversion"] > 0
    assert set(result["summary"]) == {"reported", "reported, lora"}

    def planted_again(*_: object) -> None:
        raise AssertionError("planted again")

    monkeypatch.setattr(study, "plant", planted_again)
    assert score_localizers(tmp_path, settings)["cells"] == result["cells"]
