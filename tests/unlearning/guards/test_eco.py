"""ECO: what a flagged prompt's embeddings become, and what its classifier says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from conftest import records
from guarding import Rows, guarded, start_of
from knowundo.data.encoding import encode
from knowundo.errors import BadInput
from knowundo.modeling.forward import Forward, answer_logits
from knowundo.modeling.model import Model
from knowundo.registry import get
from knowundo.unlearning.guarding import prepare_guard
from knowundo.unlearning.prompt_classifier import probability, train_classifier


def test_flagged_prompts_get_noise_and_others_none(
    toy: Model, toy_rows: Rows, tmp_path: Path
) -> None:
    rows = [*toy_rows["unlearn"], *toy_rows["retention"]]
    alone = dict(answer_logits(Forward(toy), rows))
    layer = toy.causal_lm().get_input_embeddings()
    with guarded(toy, toy_rows, "eco", tmp_path, dims=3, strength=2.0) as (forward, guard):
        assert guard.measured["classifier_accuracy"] == 1.0
        for row, logits in answer_logits(forward, rows):
            if row.record.scope == "retention":
                torch.testing.assert_close(logits, alone[row], rtol=1e-6, atol=1e-6)
                continue
            with torch.no_grad():
                plain = layer(torch.tensor([row.ids]))[0]
            end = len(row.prompt)
            changed = plain.clone()
            changed[:end] = guard.embeddings(row.prompt, plain[:end])
            moved = (changed - plain).abs()
            assert bool((moved[: end - 1, :3] > 0).all())
            assert not bool(moved[:, 3:].any())
            assert not bool(moved[end - 1 :].any())
            again = guard.embeddings(row.prompt, plain[:end])
            assert torch.equal(again, changed[:end])
            naive = toy.net(inputs_embeds=changed[None]).logits[0, end - 1 : -1]
            torch.testing.assert_close(logits, naive, rtol=1e-5, atol=1e-5)


def test_the_noise_has_its_strength() -> None:
    entry = get("guard", "eco")
    from knowundo.modeling.guard import Guard

    learned = {"weight": torch.zeros(500), "bias": torch.ones(1), "seed": 0}
    values = torch.zeros(400, 500, dtype=torch.float64)
    one, other = (
        Guard(entry, entry.bind({"dims": 400, "strength": 3.0}), learned | {"seed": seed})
        .embeddings(range(400), values)[:-1, :400]
        for seed in (0, 1)
    )  # fmt: skip
    assert float(one.std()) == pytest.approx(3.0, rel=0.02)
    assert abs(float(one.mean())) < 0.05
    assert not torch.equal(one, other)


def test_only_train_rows_are_read(toy: Model, toy_rows: Rows) -> None:
    start, entry = start_of(toy, toy_rows), get("guard", "eco")
    guard = prepare_guard(start, entry, {})
    again = train_classifier(
        *(
            [start.scorer().embeddings(r.prompt) for r in toy_rows[s]]
            for s in ("unlearn", "retention")
        )
    )
    assert torch.equal(guard.learned["weight"], again["weight"])
    texts = encode(records("unlearn", "train", 2, kind="text"), toy.tokenizer)
    with pytest.raises(BadInput, match="guard eco: a scope has no question"):
        prepare_guard(start_of(toy, toy_rows | {"unlearn": texts}), entry, {})


def test_the_classifier_separates_what_can_be_separated() -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(count: int, shift: float) -> list[torch.Tensor]:
        made = [torch.randn(5, 8, generator=generator) for _ in range(count)]
        return [one + shift * torch.tensor([1.0] + [0.0] * 7) for one in made]

    unlearn, others = draw(60, 3.0), draw(90, 0.0)
    learned = train_classifier(unlearn, others)
    assert learned["measured"]["classifier_accuracy"] > 0.97
    assert learned["measured"]["classifier_accuracy_unseen"] > 0.95
    new = [
        (probability(learned, one) > 0.5) is flag
        for flag, shift in ((True, 3.0), (False, 0.0))
        for one in draw(50, shift)
    ]
    assert sum(new) / len(new) > 0.95
    # Labels that have nothing to do with the prompts: unseen ones are guessed.
    noise = train_classifier(draw(60, 0.0), draw(60, 0.0))
    assert noise["measured"]["classifier_accuracy_unseen"] < 0.7
