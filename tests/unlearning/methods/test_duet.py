"""DUET against its formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from unlearning.methods.conftest import Moved
from unlearning.methods.test_elm import asked

WORDS = "You have forgotten all of it."


def huber(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """½·d², and |d| − ½ from |d| = 1 on."""
    distance = (one - other).abs()
    return torch.where(distance < 1, distance**2 / 2, distance - 0.5)


@pytest.mark.parametrize(("top", "tokens", "weight"), [(5, 2, 0.5), (10**6, 100, 0.0)])
def test_loss_is_its_formula(moved: Moved, top: int, tokens: int, weight: float) -> None:
    given = {"instruction": WORDS, "top": top, "tokens": tokens, "retention": weight}
    moved.parts("duet", **given)
    others = {row: moved.other(row) for row in moved.rows["unlearn"]}
    moved.model.restore(moved.memorized)
    with torch.no_grad():
        teacher = {row: moved.logits(asked(moved, other, WORDS)) for row, other in others.items()}
    found = moved.parts("duet", **given)  # where the model has moved again

    def distance(now: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        places = before.argsort(-1, descending=True)[:, :top]
        return huber(now.gather(1, places), before.gather(1, places)).sum(-1)

    def one(row: Any) -> Any:
        return distance(moved.logits(others[row]), teacher[row])[:tokens].mean()

    def kept(row: Any) -> Any:
        return distance(moved.logits(row), moved.memorized_logits(row)).mean()

    expected = {"unlearn": moved.mean(one)}
    if weight:
        expected["retention"] = weight * moved.mean(kept, "retention")
    moved.same(found, expected)


def test_the_teacher_answers_as_it_would_after_the_instruction(moved: Moved) -> None:
    """Token by token its likeliest one, at least as far as the row's own answer is long."""
    moved.parts("duet", instruction=WORDS)
    moved.model.restore(moved.memorized)
    for row in moved.rows["unlearn"][:2]:
        ids = list(asked(moved, row, WORDS).prompt)
        for _ in range(row.answer_length - row.tail):
            with torch.no_grad():
                ids.append(
                    int(moved.model.net(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
                )
        said = moved.model.tokenizer.decode(ids[len(asked(moved, row, WORDS).prompt) :])
        assert moved.other(row).record.answer.startswith(said.strip())


def test_of_a_teacher_that_says_nothing_the_first_token_counts(
    moved: Moved, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "knowundo.unlearning.scorer.generate",
        lambda model, rows: {row.record.id: " " for row in rows},
    )
    moved.parts("duet", instruction=WORDS)
    for row in moved.rows["unlearn"]:
        assert moved.other(row) == row
        counted = moved.columns["counted"][row.record.id]
        assert counted.tolist() == [True] + [False] * (row.answer_length - 1)
