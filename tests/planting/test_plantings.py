"""Where scopes are planted."""

from __future__ import annotations

from knowundo.planting.plantings import CHOSEN_ON, plantings

MODULES = ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")
NAMES = [
    f"model.layers.{layer}.{module}.lora_{x}.default.weight"
    for layer in range(4) for module in MODULES for x in "AB"
]  # fmt: skip


def test_each_scope_has_modules_of_its_own() -> None:
    found = plantings(NAMES, seed=0)
    assert set(CHOSEN_ON) < set(found)
    for planting in found.values():
        assert planting.unlearn | planting.retention == set(NAMES)
        assert bool(planting.unlearn & planting.retention) == (planting.name == "overlap")
        pairs = {name.split(".lora_")[0] for name in planting.unlearn}
        assert len(planting.unlearn) == 2 * len(pairs)  # A and B together


def test_places() -> None:
    found = plantings(NAMES, seed=0)
    assert {name.split(".")[2] for name in found["early"].unlearn} == {"0", "1"}
    assert found["late"].unlearn == found["early"].retention
    assert all("self_attn" in name for name in found["attention"].unlearn)
    assert found["mlp"].unlearn == found["attention"].retention
    assert (len(found["spread"].unlearn), len(found["few"].unlearn)) == (16, 8)
    overlap = found["overlap"]
    assert (
        len(overlap.unlearn - overlap.retention) == len(overlap.retention - overlap.unlearn) == 10
    )


def test_random_plantings_depend_on_the_seed() -> None:
    spread = {plantings(NAMES, seed)["spread"].unlearn for seed in range(4)}
    assert len(spread) > 1
    assert plantings(NAMES, 1) == plantings(NAMES, 1)
