"""leak@k by hand, and against all choices of k answers."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from attacks.attacking import Rows, Taught, under_attack
from knowundo.attacks.sampling import expected_best, leak, sampling
from knowundo.errors import BadInput
from knowundo.modeling.model import Model
from knowundo.storage.checkpoints import Checkpoint
from knowundo.storage.job import Job


def test_leak_by_hand() -> None:
    """Of 4 samples one is right: 2 of them hold it in 3 of 6 choices; all of them do."""
    assert leak(4, 1, 1) == 1 / 4
    assert leak(4, 1, 2) == 1 / 2
    assert leak(4, 1, 4) == 1
    assert leak(4, 0, 4) == 0
    assert leak(4, 3, 2) == 1  # two wrong ones cannot be drawn


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_the_best_of_k_is_the_mean_over_all_choices(k: int) -> None:
    values = [0.2, 0.9, 0.0, 0.9, 0.4]
    choices = [max(some) for some in combinations(values, k)]
    assert expected_best(values, k) == pytest.approx(sum(choices) / len(choices))


def test_drawn_answers_are_scored(taught: Taught, tmp_path: Path) -> None:
    taught.model.restore(taught.known)
    attacked = under_attack(taught.model, taught.rows, generated_splits=("train",))
    sampling(attacked, samples=4, k=(1, 4), temperature=0.5)
    assert list(attacked.tables) == ["k=1, temperature=0.5", "k=4, temperature=0.5"]
    one, four = attacked.tables.values()
    assert set(one["scope"]) == {"unlearn"}
    assert one["exact_match"].mean() > 0.5
    assert (one["exact_match"] <= four["exact_match"]).all()
    assert (one["rouge_l"] <= four["rouge_l"]).all()
    assert four["token_accuracy"].isna().all()  # drawn answers say nothing of it
    # The same seed draws the same answers, also in an attack that was interrupted in between.
    checkpoint = Checkpoint(tmp_path / "c", ["inputs"])
    for _ in range(2):
        again = under_attack(
            taught.model, taught.rows, generated_splits=("train",), job=Job(checkpoint=checkpoint)
        )
        sampling(again, samples=4, k=(1, 4), temperature=0.5)
        assert again.tables["k=1, temperature=0.5"].equals(one)


def test_bad_arguments_are_refused(toy: Model, toy_rows: Rows) -> None:
    attacked = under_attack(toy, toy_rows)
    with pytest.raises(BadInput, match="k 3 of 2 samples"):
        sampling(attacked, samples=2, k=(3,))
    with pytest.raises(BadInput, match=r"evaluate\.generate"):
        sampling(attacked, samples=2, k=(2,))
