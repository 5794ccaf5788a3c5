"""ULD against its formulas, token by token."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from guarding import Rows, make, prompts
from knowundo.errors import BadInput
from knowundo.modeling.forward import Forward, answer_logits
from knowundo.modeling.guard import Asked
from knowundo.modeling.guard_files import ASSISTANT
from knowundo.modeling.guarded import guarded_forward
from knowundo.modeling.model import Model
from knowundo.modeling.variant import ModelVariant
from knowundo.registry import get
from knowundo.scoring.generation import continue_prompts
from unlearning.methods.conftest import Moved, moved  # noqa: F401 - a fixture


def expected(logits: list[float], known: list[float], weight: float, share: float) -> list[float]:
    """The formula over one token's logits, with lists."""
    size = len(logits)
    total = sum(math.exp(z) for z in logits)
    likely = [math.exp(z) / total for z in logits]
    most = sorted(likely, reverse=True)[max(1, int(share * size)) - 1]
    least = min(share * max(likely), most) if share else 0.0
    other = sum(math.exp(a) for a in known)
    centred = [a - math.log(other) + math.log(size) for a in known]
    return [
        z + (weight * a if p >= least else 0.0)
        for z, a, p in zip(logits, centred, likely, strict=True)
    ]


@pytest.mark.parametrize("weight", [-0.8, -1.5])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3])
def test_logits_are_their_formula(weight: float, share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, known = (
        3 * torch.randn(4, 20, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    entry = get("guard", "uld")
    bound = entry.bind({"weight": weight, "filter": share})
    found = entry(Asked((1, 2), {}, known), logits, **bound)
    wanted = [
        expected(z.tolist(), a.tolist(), weight, share) for z, a in zip(logits, known, strict=True)
    ]
    torch.testing.assert_close(
        found, torch.tensor(wanted, dtype=torch.float64), rtol=1e-9, atol=1e-9
    )
    if share:
        changed = (found != logits).sum(-1)
        assert bool((changed < logits.shape[-1]).any()), "nothing was filtered"


def test_a_uniform_assistant_changes_nothing() -> None:
    logits = torch.randn(3, 11, dtype=torch.float64)
    entry = get("guard", "uld")
    found = entry(Asked((1,), {}, torch.full_like(logits, 5.0)), logits, **entry.bind({}))
    torch.testing.assert_close(found, logits)


def test_the_assistants_loss_is_its_formula(moved: Moved) -> None:  # noqa: F811
    entry = get("guard", "uld").trained
    assert entry is not None

    def uniform(row: Any) -> torch.Tensor:
        return -moved.logits(row).softmax(-1).log().mean(-1).mean()

    found = moved.of(entry, retention=2.0)
    kept = 2.0 * moved.mean(uniform, "retention")
    moved.same(found, {"unlearn": moved.mean(moved.cross_entropy), "retention": kept})


def test_both_models_are_those_of_their_own_adapters(
    toy: Model, toy_rows: Rows, tmp_path: Path
) -> None:
    """The logits of either LoRA alone give those of the guard, and the assistant learned."""
    variant, rows = make(toy, toy_rows, "uld", tmp_path), toy_rows["unlearn"]
    assert variant.guard is not None
    toy.use(ModelVariant("memorized", "memorized", variant.folder))
    memorized = dict(answer_logits(Forward(toy), rows))
    toy.use(ModelVariant("a", "given", variant.guard / ASSISTANT))
    assistant = dict(answer_logits(Forward(toy), rows))
    entry = get("guard", "uld")
    with guarded_forward(toy, variant) as forward:
        for row, logits in answer_logits(forward, rows):
            asked = Asked(row.prompt, {}, assistant[row])
            wanted = entry(asked, memorized[row], **entry.bind({}))
            torch.testing.assert_close(logits, wanted, rtol=1e-6, atol=1e-6)
    for row in rows:
        truth = torch.tensor(row.ids[row.answer_from :])
        before, after = (
            torch.nn.functional.cross_entropy(one[row], truth) for one in (memorized, assistant)
        )
        assert after < before


def test_a_lora_that_cannot_share_a_forward_is_refused(
    toy: Model, toy_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = make(toy, toy_rows, "uld", tmp_path)
    monkeypatch.setattr("knowundo.modeling.guarded.can_batch_adapters", lambda *_: False)
    with pytest.raises(BadInput, match="two LoRAs in one forward"), guarded_forward(toy, variant):
        pass


def test_the_assistant_goes_on_with_the_token_that_was_drawn(
    toy: Model, toy_rows: Rows, tmp_path: Path
) -> None:
    """Second tokens follow the guarded logits after the first one, which differs by row."""
    variant, row = make(toy, toy_rows, "uld", tmp_path), toy_rows["unlearn"][1]
    heat, how = 0.3, {"tokens": 2, "stops": [toy.tokenizer.eos_token_id]}
    with guarded_forward(toy, variant) as forward:
        torch.manual_seed(0)
        drawn = continue_prompts(
            toy, prompts([row]), each=400, temperature=heat, forward=forward, **how
        )
        first = int(drawn[:, 0].mode().values)
        after = replace(row, ids=(*row.prompt, first, 1), fact=(), tail=0)
        ((_, logits),) = answer_logits(forward, [after])
    assert len(set(drawn[:, 0].tolist())) > 5
    seconds = drawn[drawn[:, 0] == first, 1]
    assert len(seconds) > 20
    share = (logits / heat).softmax(-1)
    for place, found in ((0, drawn[:, 0]), (1, seconds)):
        likely = int(share[place].argmax())
        wanted = float(share[place, likely])
        spread = (wanted * (1 - wanted) / len(found)) ** 0.5
        assert abs(float((found == likely).double().mean()) - wanted) < 4 * spread
