"""`knowundo localize --score`: planted truth on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import Call
from knowundo.planting import study
from planting.test_summary import result


@pytest.mark.parametrize(
    "words", [["--config", "demo"], ["--set", "seed=1"], ["--region", "mine.json"]]
)
def test_options_of_a_run_are_refused(knowundo: Call, words: list[str]) -> None:
    done = knowundo("localize", "--score", *words)
    assert done.returncode == 2
    assert "--score: plants models of its own" in done.stderr
    assert not Path("runs").exists()


def test_the_tables_or_json_are_printed(knowundo: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def score_localizers(out: Path, reporter: object) -> dict[str, object]:
        asked.append(out)
        return result()

    monkeypatch.setattr(study, "score_localizers", score_localizers)
    printed = knowundo("localize", "--score", "--out", "here").stdout
    assert "AUC of planted tensors" in printed
    assert "reversion" in printed
    assert json.loads(knowundo("localize", "--score", "--json", "--out", "here").stdout) == result()
    assert asked == [Path("here")] * 2
