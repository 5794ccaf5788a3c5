"""Weights outside a mask keep their bits; those inside are trained as if there were none."""

from __future__ import annotations

import pytest
import torch

from knowundo.data.batches import collate
from knowundo.data.encoded import Encoded
from knowundo.errors import BadInput
from knowundo.modeling.forward import hidden_states
from knowundo.modeling.half import Half
from knowundo.modeling.head import live_head
from knowundo.modeling.model import Model
from knowundo.training.masks import GradientMasks
from knowundo.training.settings import TrainingHooks, TrainingSettings
from knowundo.training.trainer import train
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import unlearn

Rows = dict[str, list[Encoded]]


def random_masks(model: Model) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    own = model.parameters().items()
    return {name: torch.rand(p.shape, generator=generator) < 0.3 for name, p in own}


def test_outside_the_mask_no_bit_moves(toy: Model, toy_rows: Rows) -> None:
    before, masks = toy.state(), random_masks(toy)
    start = Start(toy, toy_rows["unlearn"], {"retention": toy_rows["retention"]}, seed=0)
    settings = UnlearnSettings(
        "ascent_plus_descent", epochs=2, batch_size=2, accumulation=2, lr=1e-2, masks=masks
    )
    unlearn(start, settings)
    for name, now in toy.state().items():
        assert torch.equal(now[~masks[name]], before[name][~masks[name]]), name
        assert bool((now[masks[name]] != before[name][masks[name]]).all()), name


def test_the_norm_that_is_clipped_is_that_of_the_mask(toy: Model, toy_rows: Rows) -> None:
    """With accumulation, of which only the sum is masked."""
    masks, seen = random_masks(toy), []
    batches = [collate(toy_rows["unlearn"][i : i + 2], toy.pad) for i in (0, 2)]

    def loss(batch):  # type: ignore[no-untyped-def]
        half = Half(batch, hidden_states(toy, batch), live_head(toy))
        return {"loss": 1e3 * half.mean(half.mean_nll)}

    def look(_: object) -> None:
        seen.extend((name, p.grad.clone()) for name, p in toy.parameters().items())

    whole = {}
    toy.train_only(toy.parameters())
    (sum(loss(batch)["loss"] for batch in batches) / 2).backward()
    for name, parameter in toy.parameters().items():
        whole[name] = parameter.grad * masks[name]
        parameter.grad = None
    settings = TrainingSettings(lr=0.0, seed=0, accumulation=2, max_grad_norm=1.0)
    original = torch.optim.AdamW.step

    def step(self, *rest):  # type: ignore[no-untyped-def]
        look(None)
        return original(self, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        train(toy, batches, loss, toy.parameters(), settings, hooks=TrainingHooks(masks=masks))
    norm = torch.stack([g.norm() for g in whole.values()]).norm()
    assert norm > 1
    for name, gradient in seen:
        torch.testing.assert_close(gradient, whole[name] / norm, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("given", [{"weight_decay": 0.1}, {"optimizer": "adamw_bfloat16"}])
def test_what_moves_weights_without_gradients_is_refused(given: dict[str, object]) -> None:
    parameters = {"w": torch.nn.Parameter(torch.ones(2))}
    settings = TrainingSettings(lr=1.0, seed=0, **given)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="masks leave weights out"):
        GradientMasks(parameters, {"w": torch.tensor([True, False])}, settings)
