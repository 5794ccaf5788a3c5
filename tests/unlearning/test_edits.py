"""Methods that edit weights after training: the negated task vector."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from knowundo.data.batches import collate
from knowundo.data.encoded import Encoded
from knowundo.errors import BadInput
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.forward import hidden_states
from knowundo.modeling.half import Half
from knowundo.modeling.head import live_head
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from knowundo.recipes.reading import load_recipe
from knowundo.runs.checks import check
from knowundo.unlearning.early_stopping import StoppingRule, token_accuracy
from knowundo.unlearning.method_training import MethodTraining
from knowundo.unlearning.rates import unlearn_at_chosen_rate
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import unlearn

Rows = dict[str, list[Encoded]]


def settings(**more: Any) -> UnlearnSettings:
    options: dict[str, Any] = {"epochs": 4, "batch_size": 5, "accumulation": 1, "lr": 1e-2}
    return UnlearnSettings("task_vector", **options | more)


def loss_of(model: Model, rows: list[Encoded]) -> float:
    with torch.no_grad():
        batch = collate(rows, model.pad)
        half = Half(batch, hidden_states(model, batch), live_head(model))
        return float(half.mean(half.mean_nll))


def effective(model: Model) -> dict[str, torch.Tensor]:
    """The weights that the layers apply: with a LoRA, base + scale·B·A."""
    found = {}
    for name, module in model.net.named_modules():
        if hasattr(module, "get_delta_weight"):
            base = module.get_base_layer().weight
            found[name] = (base + module.get_delta_weight("default")).detach().clone()
    return found or {n: p.detach().clone() for n, p in model.net.named_parameters()}


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_the_weights_move_by_the_negated_difference(
    toy_base: str, toy_rows: Rows, kind: str
) -> None:
    """Of the weights themselves, to rounding: of a LoRA, not of its factors only."""
    model = Model(toy_base, Adaptation(kind, 2, 4), options=LoadingOptions(dtype="float64"))
    if kind == "lora":
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in model.parameters().values():
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.copy_(0.3 * noise)
    start = Start(model, toy_rows["unlearn"], {"retention": toy_rows["retention"]}, seed=0)
    before, loss = effective(model), loss_of(model, toy_rows["unlearn"])
    curve = MethodTraining(start, settings()).train()
    trained = effective(model)
    assert loss_of(model, toy_rows["unlearn"]) < loss
    done = unlearn(start, settings(arguments={"alpha": 2.5}))
    assert done.curve == curve
    after = effective(model)
    for name, value in before.items():
        wanted = value - 2.5 * (trained[name] - value)
        torch.testing.assert_close(after[name], wanted, rtol=1e-9, atol=1e-12)
    assert any(not torch.equal(after[name], before[name]) for name in before)
    assert loss_of(model, toy_rows["unlearn"]) > loss
    sizes = {name: p.numel() for name, p in model.parameters().items() if "lora_A" not in name}
    assert done.facts["parameters"] == sum(sizes.values())


def test_a_region_stays_a_region(toy: Model, toy_rows: Rows) -> None:
    start = Start(toy, toy_rows["unlearn"], {"retention": toy_rows["retention"]}, seed=0)
    region, before = [n for n in toy.parameters() if "layers.1." in n], toy.state()
    unlearn(start, settings(region=region))
    moved = {n for n, value in toy.state().items() if not torch.equal(value, before[n])}
    assert moved == {n for n in region if "lora_B" in n}
    with pytest.raises(BadInput, match="no B matrix of a LoRA"):
        unlearn(start, settings(region=[n for n in region if "lora_A" in n]))


def test_a_rate_is_chosen_by_the_edited_weights(toy: Model, toy_rows: Rows) -> None:
    start = Start(toy, toy_rows["unlearn"], {"retention": toy_rows["retention"]}, seed=0)
    done = unlearn_at_chosen_rate(start, 1.0, settings(lr=None, epochs=2))
    attempts = done.facts["attempts"]
    assert len(attempts) > 1
    for attempt in attempts:
        unlearn(start, settings(lr=attempt["lr"], epochs=2))
        assert token_accuracy(toy, toy_rows["unlearn"]) == pytest.approx(attempt["unlearn"])
    sizes = {name: p.numel() for name, p in toy.parameters().items() if "lora_A" not in name}
    assert done.facts["parameters"] == sum(sizes.values())


@pytest.mark.parametrize("stops", [True, False])
def test_steps_on_the_way_are_refused(toy: Model, toy_rows: Rows, stops: bool) -> None:
    start = Start(toy, toy_rows["unlearn"], {"retention": toy_rows["retention"]}, seed=0)
    rule = StoppingRule(toy_rows["unlearn"], toy_rows["retention"], 0.0, 50.0, 4, 3)
    given = settings(keep_every=None if stops else 1)
    with pytest.raises(BadInput, match="steps on the way are no result"):
        unlearn(start, given, rule=rule if stops else None)


@pytest.mark.parametrize("more", ["unlearn.stop={}", "unlearn.keep_every=2"])
def test_a_recipe_with_steps_on_the_way_is_refused(more: str) -> None:
    variants = "unlearn.variants=[{preset: task_vector}]"
    check(load_recipe(None, [variants])[0])
    with pytest.raises(BadInput, match="edits weights after training"):
        check(load_recipe(None, [variants, more])[0])
