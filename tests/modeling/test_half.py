"""Numbers of one half of a step, against unpadded rows in float64."""

from __future__ import annotations

import pytest
import torch

from conftest import naive_ce, naive_log_probs
from knowundo.data.batches import collate
from knowundo.data.encoded import Encoded
from knowundo.modeling.fast import chunked_logits
from knowundo.modeling.forward import Forward
from knowundo.modeling.half import Half
from knowundo.modeling.head import live_head
from knowundo.modeling.model import Model

Rows = dict[str, list[Encoded]]


def half_of(model: Model, rows: list[Encoded], whole: list[Encoded] | None = None) -> Half:
    batch = collate(rows, model.pad, whole=whole)
    return Half(batch, Forward(model).hidden_states(batch), live_head(model))


def near(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


def test_likelihoods_are_those_of_each_row_alone(toy: Model, toy_rows: Rows) -> None:
    rows = toy_rows["unlearn"]
    half = half_of(toy, rows)
    ce = torch.stack([naive_ce(toy, row) for row in rows])
    lengths = torch.tensor([row.answer_length for row in rows])
    near(half.mean_nll, ce)
    near(half.nll, ce * lengths)
    near(half.logits.log_softmax(-1), torch.cat([naive_log_probs(toy, row) for row in rows]))
    likeliest = torch.cat([naive_log_probs(toy, row).argmax(-1) for row in rows])
    assert torch.equal(half.right, likeliest == half.batch.targets)


def test_means_are_over_rows_or_over_tokens(toy: Model, toy_rows: Rows) -> None:
    rows = toy_rows["unlearn"]
    half = half_of(toy, rows)
    lengths = [row.answer_length for row in rows]
    assert len(set(lengths)) > 1  # or both means would be the same
    near(half.mean(half.mean_nll), half.mean_nll.mean())
    near(half.mean(half.nll, over="tokens"), half.nll.sum() / sum(lengths))


@pytest.mark.parametrize("cut", [1, 2, 4])
def test_unequal_parts_add_up_to_the_batch(toy: Model, toy_rows: Rows, cut: int) -> None:
    rows = toy_rows["unlearn"]
    whole = half_of(toy, rows)
    parts = [half_of(toy, part, whole=rows) for part in (rows[:cut], rows[cut:])]
    near(sum(p.mean(p.mean_nll) for p in parts), whole.mean(whole.mean_nll))  # type: ignore[arg-type]
    by_tokens = [p.mean(p.nll, over="tokens") for p in parts]
    near(sum(by_tokens), whole.mean(whole.nll, over="tokens"))  # type: ignore[arg-type]


def test_other_labels_take_the_place_of_the_answer(toy: Model, toy_rows: Rows) -> None:
    rows = toy_rows["unlearn"]
    labels = {row.record.id: torch.arange(3, 3 + row.answer_length) for row in rows}
    half = half_of(toy, rows)
    half.columns = {"other": labels}
    wanted = [naive_ce(toy, row, labels[row.record.id]) for row in rows]
    near(half.cross_entropy("other"), torch.stack(wanted))


def test_the_divergence_is_that_of_the_memorized_model_from_the_current(
    toy: Model, toy_rows: Rows
) -> None:
    rows = toy_rows["retention"]
    before = [naive_log_probs(toy, row).detach() for row in rows]
    with torch.no_grad():
        memorized = half_of(toy, rows)
        near(half_of(toy, rows).divergence_from(memorized), torch.zeros(len(rows)).double())
        for parameter in toy.parameters().values():
            parameter.mul_(1.5)
        now = [naive_log_probs(toy, row) for row in rows]
        pairs = zip(before, now, strict=True)
        wanted = [(old.exp() * (old - new)).sum(-1).mean() for old, new in pairs]
        found = half_of(toy, rows).divergence_from(memorized)
    assert min(wanted) > 0
    near(found, torch.stack(wanted))


@pytest.mark.parametrize("portion", [2**22, 1], ids=["all at once", "token by token"])
def test_a_function_of_both_models_logits_is_that_of_each_token(
    toy: Model, toy_rows: Rows, portion: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values and gradients, in portions of one token, too."""
    monkeypatch.setattr(chunked_logits, "PORTION", portion)
    monkeypatch.setattr(chunked_logits, "LEAST", 1)
    rows = toy_rows["unlearn"]
    weights = torch.arange(1.0, 1 + sum(row.answer_length for row in rows)).double()
    seen = list[int]()

    def product(
        now: torch.Tensor, before: torch.Tensor, weight: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        seen.append(len(now))
        assert not before.requires_grad
        return (weight * (now.softmax(-1) * before).sum(-1),)

    with torch.no_grad():
        memorized = half_of(toy, rows)
        held = torch.cat(
            [
                toy.net(input_ids=torch.tensor([r.ids])).logits[0][r.answer_from - 1 : -1]
                for r in rows
            ]
        )
        for parameter in toy.parameters().values():
            parameter.mul_(1.5)
    chosen = toy.train_only(toy.parameters())
    (found,) = half_of(toy, rows).against(memorized, product, weights)
    assert max(seen) == (len(weights) if portion > 1 else 1)
    now = torch.cat([naive_log_probs(toy, row).exp() for row in rows])
    wanted = weights * (now * held).sum(-1)
    near(found, wanted)
    pairs = [torch.autograd.grad((value**2).sum(), chosen) for value in (found, wanted)]
    for one, other in zip(*pairs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
