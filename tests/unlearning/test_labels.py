"""Labels that are drawn from what a model finds likely."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from conftest import naive_log_probs, records
from knowundo.data.encoded import Encoded
from knowundo.data.encoding import encode
from knowundo.errors import BadInput
from knowundo.modeling.model import Model
from knowundo.registry import get
from knowundo.unlearning.labels import draw
from knowundo.unlearning.original.start import OriginalStart
from knowundo.unlearning.start import Start

# Tokens 1, 3, 0, 2 in this order, with these chances.
CHANCES = torch.tensor([0.2, 0.5, 0.05, 0.25])


def drawn(count: int = 4000, **options: Any) -> list[float]:
    """Shares of the four tokens among many draws."""
    settings: dict[str, Any] = {"top_k": None, "top_p": 1.0} | options
    generator = torch.Generator().manual_seed(0)
    found = draw(CHANCES.log().repeat(count, 1), **settings, generator=generator)
    assert found.dtype == torch.long
    return (torch.bincount(found, minlength=4) / count).tolist()


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, [0.2, 0.5, 0.05, 0.25]),
        ({"top_k": 1}, [0, 1, 0, 0]),
        ({"top_k": 2}, [0, 2 / 3, 0, 1 / 3]),
        ({"top_k": 9}, [0.2, 0.5, 0.05, 0.25]),
        ({"top_p": 0.4}, [0, 1, 0, 0]),
        ({"top_p": 0.6}, [0, 2 / 3, 0, 1 / 3]),  # the token that goes past the share is in
        ({"top_p": 0.9}, [0.2 / 0.95, 0.5 / 0.95, 0, 0.25 / 0.95]),
        # Of the two likeliest the first has two thirds: the share is of what top_k left.
        ({"top_k": 2, "top_p": 0.6}, [0, 1, 0, 0]),
    ],
)
def test_shares_of_the_tokens(options: dict[str, Any], wanted: list[float]) -> None:
    assert drawn(**options) == pytest.approx(wanted, abs=0.03)
    assert [share == 0 for share in drawn(**options)] == [share == 0 for share in wanted]


def labels_of(toy: Model, rows: dict[str, list[Encoded]], seed: int = 0, **arguments: Any) -> Any:
    entry = get("method", "adversarial_sample")
    start = Start(toy, rows["unlearn"], {"retention": rows["retention"]}, seed=seed)
    return start.columns(entry, entry.bind(arguments))["adversarial"]


def test_adversarial_labels_are_of_the_likeliest_without_the_truth(
    toy: Model, toy_rows: dict[str, list[Encoded]]
) -> None:
    first, several = labels_of(toy, toy_rows), labels_of(toy, toy_rows, top_k=3)
    differ = False
    for row in toy_rows["unlearn"]:
        truth = torch.tensor(row.ids[row.answer_from :])
        chances = naive_log_probs(toy, row).scatter(1, truth[:, None], float("-inf"))
        best = chances.topk(3).indices
        assert torch.equal(first[row.record.id], best[:, 0])
        assert bool((several[row.record.id][:, None] == best).any(-1).all())
        differ |= not torch.equal(first[row.record.id], several[row.record.id])
    assert differ


def test_drawn_labels_are_seeded(toy: Model, toy_rows: dict[str, list[Encoded]]) -> None:
    made = [labels_of(toy, toy_rows, seed=seed, top_k=None, top_p=0.9) for seed in (0, 0, 1)]
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    assert any(not torch.equal(made[0][name], made[2][name]) for name in made[0])


def test_the_truth_may_be_kept(toy: Model, toy_rows: dict[str, list[Encoded]]) -> None:
    found = labels_of(toy, toy_rows, keep_truth=True)
    for row in toy_rows["unlearn"]:
        assert torch.equal(found[row.record.id], naive_log_probs(toy, row).argmax(-1))


@pytest.mark.parametrize("wrong", [{"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_arguments_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(BadInput, match=f"adversarial_sample: {next(iter(wrong))}"):
        get("method", "adversarial_sample").bind(wrong)


@pytest.mark.parametrize("keep_truth", [False, True])
def test_labels_of_the_base_are_drawn_likewise(toy: Model, keep_truth: bool) -> None:
    rows = {s: encode(records(s, "train", 4), toy.tokenizer) for s in ("unlearn", "retention")}
    start = OriginalStart(
        toy, rows["unlearn"], {"retention": rows["retention"]}, seed=0, quirks=["base_labels"]
    )
    entry = get("method", "adversarial_sample")
    found = {
        k: start.columns(entry, entry.bind({"top_k": k, "keep_truth": keep_truth}))["adversarial"]
        for k in (1, 3)
    }
    differ = False
    for row in rows["unlearn"]:
        logits = toy.net(input_ids=torch.tensor([row.ids])).logits[0].detach()
        logits[:, -1] = float("-inf")
        if not keep_truth:
            logits.scatter_(1, torch.tensor(row.ids)[:, None], float("-inf"))
        best = logits.topk(3).indices[1:]
        assert torch.equal(found[1][row.record.id], best[:, 0])
        assert bool((found[3][row.record.id][:, None] == best).any(-1).all())
        differ |= not torch.equal(found[1][row.record.id], found[3][row.record.id])
    assert differ
