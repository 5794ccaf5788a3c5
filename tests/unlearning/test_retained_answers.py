"""Answers that must stay are counted if they were right and sure."""

from __future__ import annotations

import math
from typing import Any

import pytest

from knowundo.data.encoded import Encoded
from knowundo.modeling.model import Model
from knowundo.scoring.teacher_forcing import SURE
from knowundo.unlearning import retained_answers as module
from knowundo.unlearning.retained_answers import RetainedAnswers


def test_a_right_answer_is_sure_by_its_whole_probability(
    toy: Model, toy_rows: dict[str, list[Encoded]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sure, thin, wrong = toy_rows["retention"][:3]
    probability = {sure.record.id: SURE + 0.01, thin.record.id: SURE - 0.01}

    def forced(_: Model, rows: list[Encoded]) -> dict[str, dict[str, Any]]:
        return {
            row.record.id: {
                "token_accuracy": 0.5 if row is wrong else 1.0,
                "mean_nll": -math.log(probability.get(row.record.id, 0.9)) / row.answer_length,
            }
            for row in rows
        }

    monkeypatch.setattr(module, "teacher_forced", forced)
    found = RetainedAnswers.of(toy, [sure, thin, wrong])
    assert found.right == {sure.record.id, thin.record.id}
    assert found.sure == {sure.record.id}
    assert found.token_accuracy == pytest.approx(2.5 / 3)


def test_lost_are_known_rows_that_are_no_longer_right() -> None:
    known = frozenset("abcdefghijk")
    assert RetainedAnswers(0.5, frozenset("abcdefghijxyz"), frozenset()).lost(known) == 100 / 11
    assert RetainedAnswers(0.5, known, frozenset()).lost(frozenset("abcdefghi")) is None
