"""Where tokens end in an answer, and how probable they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import records
from knowundo.data.encoding import encode
from knowundo.modeling.forward import Forward
from knowundo.modeling.model import Model
from knowundo.scoring.table import score_adapters
from knowundo.scoring.token_probabilities import (
    MOST_TOKENS,
    digits,
    token_ends,
    token_probabilities,
)


def test_probabilities_are_whole_percent_of_the_true_tokens() -> None:
    log_probs = torch.tensor([[0.25, 0.75], [0.004, 0.996], [1.0, 0.0]]).log()
    assert token_probabilities(log_probs, torch.tensor([1, 0, 1])) == [75, 0, 0]
    broken = torch.full((1, 2), float("nan"))
    assert token_probabilities(broken, torch.tensor([0])) == [-1]


def test_many_tokens_are_cut() -> None:
    log_probs = torch.zeros(MOST_TOKENS + 5, 2)
    kept = token_probabilities(log_probs, torch.zeros(MOST_TOKENS + 5, dtype=torch.long))
    assert len(kept) == MOST_TOKENS


@pytest.mark.parametrize(
    ("given", "shown"),
    [([0, 9, 10, 99, 100, -1], "00199-"), (np.array([55]), "5"), (None, ""), (float("nan"), "")],
)
def test_digits(given: object, shown: str) -> None:
    assert digits(given) == shown


@pytest.mark.parametrize("answer", ["Clara lives in Dorinford.", "Zoë's naïve café, 東京 🎉!"])
def test_tokens_end_where_their_text_does(toy: Model, answer: str) -> None:
    record = replace(records("unlearn", "val", 1)[0], answer=answer, facts=())
    (row,) = encode([record], toy.tokenizer)
    ends = token_ends(toy.tokenizer, row)
    assert ends is not None
    assert len(ends) == row.answer_length - row.tail
    assert ends == sorted(ends)
    assert ends[-1] == len(answer)


def test_an_answer_that_its_tokens_do_not_spell_has_no_ends(toy: Model) -> None:
    (row,) = encode(records("unlearn", "val", 1), toy.tokenizer)
    other = replace(row, record=replace(row.record, answer="Something else.", facts=()))
    assert token_ends(toy.tokenizer, other) is None


def test_only_rows_that_are_asked_keep_their_tokens(toy: Model) -> None:
    rows = encode([*records("unlearn", "val", 1), *records("unlearn", "train", 1)], toy.tokenizer)
    (table,) = score_adapters(Forward(toy), rows, generated_splits=["val"])
    asked, other = table.to_dict("records")
    assert len(asked["token_ends"]) == len(asked["token_probabilities"]) == asked["tokens"]
    assert all(0 <= p <= 100 for p in asked["token_probabilities"])
    assert other["token_ends"] is None
    assert other["token_probabilities"] is None
