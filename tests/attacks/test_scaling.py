"""An adapter that only covers what the base knows, or was turned down, is told from forgetting."""

from __future__ import annotations

import pandas as pd
import torch

from attacks.attacking import Rows, Taught, accuracy, under_attack
from knowundo.attacks.scaling import scaling
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.model import Model


def test_the_settings_are_what_they_say(toy: Model, toy_rows: Rows) -> None:
    start = toy.state()
    target = {name: torch.zeros_like(value) for name, value in start.items()}
    attacked = under_attack(toy, toy_rows, memorized=lambda: target)
    scaling(attacked, scales=(1.0, 0.0), memorized=(1.0,))
    attacked.score("as it is")
    toy.restore(target)
    attacked.score("base")
    tables = attacked.tables
    torch.testing.assert_close(losses(tables["change x 1"]), losses(tables["as it is"]))
    # Both are the base: with a B of zero, and with all of zero.
    torch.testing.assert_close(losses(tables["change x 0"]), losses(tables["base"]))
    torch.testing.assert_close(losses(tables["1 towards memorized"]), losses(tables["base"]))


def losses(table: pd.DataFrame) -> torch.Tensor:
    return torch.tensor(table["mean_nll"])


def test_without_a_lora_the_change_of_the_weights_is_scaled(toy_base: str, toy_rows: Rows) -> None:
    model = Model(toy_base, Adaptation("full"))
    attacked = under_attack(model, toy_rows)
    attacked.score("base")
    name = "model.layers.0.mlp.down_proj.weight"
    model.copy_initial([name])
    with torch.no_grad():
        model.parameters()[name].mul_(3.0)
    scaling(attacked, scales=(0.0, 0.5, 1.0))
    torch.testing.assert_close(
        losses(attacked.tables["change x 0"]), losses(attacked.tables["base"])
    )
    attacked.score("after")
    assert losses(attacked.tables["after"]).equal(losses(attacked.tables["change x 1"]))
    with torch.no_grad():
        model.parameters()[name].mul_(2 / 3)
    attacked.score("half")
    torch.testing.assert_close(
        losses(attacked.tables["change x 0.5"]), losses(attacked.tables["half"])
    )


def test_an_adapter_that_was_turned_down_comes_back(taught: Taught) -> None:
    """Scaled to a tenth, it answers nothing, as if it had forgotten; scaled up, all is back."""
    up = {name for name in taught.known if "lora_B" in name}
    found = {}
    models = {
        "turned down": {n: 0.1 * v if n in up else v for n, v in taught.known.items()},
        "never": taught.model.initial.tensors,
    }
    for name, state in models.items():
        taught.model.restore(state)
        attacked = under_attack(taught.model, taught.rows, memorized=None)
        scaling(attacked, scales=(1.0, 10.0))
        found[name] = [accuracy(attacked, f"change x {scale}") for scale in (1, 10)]
    assert found["turned down"][0] < 0.3
    assert found["turned down"][1] > 0.9
    assert found["never"][1] < 0.3


def test_halfway_back_an_unlearned_model_knows_more(taught: Taught) -> None:
    taught.model.restore(taught.hidden)
    attacked = under_attack(taught.model, taught.rows, memorized=lambda: taught.known)
    scaling(attacked, scales=(1.0,), memorized=(0.5,))
    assert accuracy(attacked, "0.5 towards memorized") > accuracy(attacked, "change x 1") + 0.3
    assert all(torch.equal(v, taught.hidden[n]) for n, v in taught.model.state().items())
