"""Which adaptation a run trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from knowundo.modeling.model import Model
from knowundo.runs import adaptation
from knowundo.runs.adaptation import needed_bits
from tiny_run import Said, tiny_run


@pytest.mark.parametrize(("bits", "kind"), [(1e9, "full"), (0.1, "lora")])
def test_a_lora_where_the_records_fit(
    toy_base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: float, kind: str
) -> None:
    said = Said()
    run = tiny_run(tmp_path, toy_base, "model.adaptation=auto", reporter=said)
    monkeypatch.setattr(adaptation, "needed_bits", lambda *_: bits)
    assert run.model.adaptation.kind == kind
    wanted = "training a LoRA" if kind == "lora" else "training all weights"
    assert any(wanted in line for line in said.lines)


def test_bits_are_the_surprise_of_the_answers(toy: Model, toy_base: str, tmp_path: Path) -> None:
    run = tiny_run(tmp_path, toy_base)
    rows = run.encoded("unlearn", "train", model=toy)
    one, both = needed_bits(toy, rows[:1]), needed_bits(toy, rows[:2])
    assert 0 < one < both
    assert both == pytest.approx(one + needed_bits(toy, rows[1:2]))
