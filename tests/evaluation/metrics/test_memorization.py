"""Memorization of the true answer, computed by hand."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch

from knowundo.data.encoded import Encoded
from knowundo.data.records import Record
from knowundo.evaluation.groups import Scores
from knowundo.registry import get
from knowundo.scoring.seen import Generated, Tokens


def record(answer: str, subset: str | None = None) -> Record:
    return Record("a", "Who?", answer, "unlearn", "train", subset=subset)


def predicted(right: list[bool]) -> Tokens:
    """Answer tokens 1, 1, …, of a vocabulary of two, and an end; some are the likeliest."""
    ids = (0, *[1] * len(right), 0)
    row = Encoded(record("x"), ids, answer_from=1, fact=tuple([False] * len(ids)))
    likely = torch.tensor([[0.1, 0.9] if hit else [0.9, 0.1] for hit in [*right, True]])
    return Tokens(row, likely.log(), right)


@pytest.mark.parametrize(
    ("right", "strength"),
    [
        ([True, True, True, True], 1.0),
        ([False, True, True, True], 0.75),
        ([True, False, True, True], 0.5),
        ([True, True, True, False], 0.0),
        ([False, False], 0.0),
    ],
)
def test_extraction_strength(right: list[bool], strength: float) -> None:
    """The share of the answer after the last wrong token; 0 if that is the last."""
    assert get("scorer", "extraction_strength")(predicted(right)) == pytest.approx(strength)


def test_an_answer_without_tokens_has_no_extraction_strength() -> None:
    assert get("scorer", "extraction_strength")(predicted([])) is None


def test_rouge_f1_with_and_without_stems() -> None:
    """Of "she lives there", "she lived" repeats 1 word, or 2 stems; precision 1/2, or 1."""
    answer = Generated(record("She lives there."), "She lived")
    assert get("scorer", "rouge_l_f1")(answer) == pytest.approx(2 * 1 * (2 / 3) / (1 + 2 / 3))
    plain = 2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3)
    assert get("scorer", "knowledge_memorization")(answer) == pytest.approx(plain)
    assert get("scorer", "verbatim_memorization")(answer) is None
    of_text = Generated(record("She lives there.", "verbmem"), "She lived")
    assert get("scorer", "verbatim_memorization")(of_text) == pytest.approx(plain)
    assert get("scorer", "rouge_l_f1")(Generated(record("…"), "…")) is None


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("extraction_strength", "extraction_strength"),
        ("rouge_l_f1", "rouge_l_f1"),
        ("knowledge_memorization", "knowledge_memorization"),
        ("exact_memorization", "token_accuracy"),
    ],
)
def test_metrics_are_means_in_percent(name: str, column: str) -> None:
    values = cast("dict[str, Any]", {column: np.array([1.0, 0.5, np.nan])})
    assert get("metric", name)(Scores(values)) == pytest.approx(75)
