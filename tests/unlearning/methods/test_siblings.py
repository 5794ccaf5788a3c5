"""Siblings against its formula."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from conftest import records
from knowundo.data.encoded import Encoded
from knowundo.data.encoding import encode
from knowundo.modeling.model import Model
from knowundo.unlearning.start import Start
from unlearning.methods.conftest import Moved

PEOPLE = ("Ada Brun", "Ivo Kant", "Lena Moor")


def people(toy: Model) -> list[Encoded]:
    """Two rows about each of three people, who are not asked the same."""
    asked = ("Where does {} live?", "Who is {}?", "Who knows {}?", "Which is the place of {}?")
    rows = [
        replace(record, question=asked[n % 4].format(PEOPLE[n // 2]), subject=PEOPLE[n // 2])
        for n, record in enumerate(records("unlearn", "train", 6))
    ]
    return encode([replace(row, facts=()) for row in rows], toy.tokenizer)


def moved_of(toy: Model, kept: list[Encoded], unlearn: list[Encoded]) -> Moved:
    start = Start(
        toy,
        unlearn,
        {"retention": kept},
        seed=0,
        encode=lambda records: encode(records, toy.tokenizer),
    )
    return Moved(toy, {"unlearn": unlearn, "retention": kept}, start)


@pytest.mark.parametrize(("sibling", "general"), [(1.0, True), (0.5, False), (0.0, True)])
def test_loss_is_its_formula(
    toy: Model, toy_rows: dict[str, list[Encoded]], sibling: float, general: bool
) -> None:
    near, far = toy_rows["retention"][:3], toy_rows["general"][:4] if general else []
    moved = moved_of(toy, [*near, *far], people(toy))
    found = moved.parts("siblings", beta=0.3, sibling=sibling, retention=2.0, general=5.0)
    unlearn = moved.rows["unlearn"]
    others = [moved.other(row) for row in unlearn]
    assert all(other != row for other, row in zip(others, unlearn, strict=True))

    def log_likelihood(logits: torch.Tensor, row: Encoded) -> torch.Tensor:
        labels = torch.tensor(row.ids[row.answer_from :])[:, None]
        return logits.log_softmax(-1).gather(1, labels).sum()

    def npo(row: Encoded) -> torch.Tensor:
        ratio = log_likelihood(moved.logits(row), row)
        ratio = ratio - log_likelihood(moved.memorized_logits(row), row)
        return -2 / 0.3 * (1 / (1 + (0.3 * ratio).exp())).log()

    def mean(values: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(values).mean()

    lost, also = mean([npo(row) for row in unlearn]), mean([npo(row) for row in others])
    expected = {
        "unlearn": (lost + sibling * also) / (1 + sibling),
        "retention": 2.0 * mean([moved.kl(row) for row in near]),
    }
    if general:
        expected["general"] = 5.0 * mean([moved.kl(row) for row in far])
    moved.same(found, expected)


def test_a_row_without_a_sibling_stands_for_itself(
    toy: Model, toy_rows: dict[str, list[Encoded]]
) -> None:
    """Its question names nobody: the loss is that without siblings, and a note says so."""
    alone = moved_of(toy, toy_rows["retention"], toy_rows["unlearn"])
    found = alone.parts("siblings", sibling=1.0)["unlearn"]
    assert any("siblings: 0 of 5 unlearn rows" in note for note in toy.notes.texts)
    torch.testing.assert_close(found, alone.parts("siblings", sibling=0.0)["unlearn"])
