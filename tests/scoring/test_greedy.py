"""Scores equal a plain loop over single rows."""

from __future__ import annotations

import pytest
import torch

from conftest import naive_log_probs, score
from knowundo.data.encoded import Encoded
from knowundo.modeling.model import Model
from knowundo.scoring.answers import generate
from knowundo.scoring.columns import columns
from knowundo.scoring.teacher_forcing import teacher_forced


def test_teacher_forced_equals_a_loop(toy: Model, toy_rows: dict[str, list[Encoded]]) -> None:
    for row, scored in zip(
        toy_rows["unlearn"],
        (teacher_forced(toy, toy_rows["unlearn"])[r.record.id] for r in toy_rows["unlearn"]),
        strict=True,
    ):
        log_probs = naive_log_probs(toy, row)
        truth = torch.tensor(row.ids[row.answer_from :])
        right = log_probs.argmax(-1) == truth
        assert scored["token_accuracy"] == pytest.approx(float(right[:-1].double().mean()))
        nll = -log_probs[torch.arange(len(truth)), truth].mean()
        assert scored["mean_nll"] == pytest.approx(nll.item(), rel=1e-6)


def test_generation_is_greedy_and_does_not_depend_on_the_batch(
    toy: Model, toy_rows: dict[str, list[Encoded]]
) -> None:
    rows = toy_rows["unlearn"]
    together = generate(toy, rows)
    for row in rows:
        ids = list(row.prompt)
        for _ in range(row.answer_length):
            logits = toy.net(input_ids=torch.tensor([ids])).logits[0, -1]
            ids.append(int(logits.argmax()))
            if ids[-1] == toy.tokenizer.eos_token_id:
                break
        alone = toy.tokenizer.decode(ids[len(row.prompt) :], skip_special_tokens=True)
        assert together[row.record.id] == alone


def test_rows_not_asked_are_missing_not_zero(
    toy: Model, toy_rows: dict[str, list[Encoded]]
) -> None:
    rows = score(toy, toy_rows["unlearn"], generated_splits=["val"])
    assert list(rows.columns) == list(columns())
    assert rows["exact_match"].isna().all()
    assert rows["said"].isna().all()
    assert rows["token_accuracy"].notna().all()
