"""Names of parameters as places of a model, and regions of them."""

from __future__ import annotations

from knowundo.modeling import regions


def test_place_of_a_lora_tensor() -> None:
    name = "base_model.model.model.layers.3.mlp.down_proj.lora_A.default.weight"
    assert regions.place(name) == {"layer": 3, "module": "down_proj", "tensor": "lora_A"}
    assert regions.place("transformer.h.0.attn.c_attn.lora_B.default.weight")["module"] == "c_attn"
    assert regions.place("model.layers.0.input_layernorm.weight")["module"] == "input_layernorm"


def test_random_region_matches_kind_and_size() -> None:
    sizes = {f"{module}.lora_{x}.weight": 8 for module in "abcdef" for x in "AB"}
    region = [name for name in sizes if "lora_B" in name][:3]
    for seed in range(5):
        drawn = regions.random_like(region, sizes, seed)
        assert len(drawn) == 3
        assert all("lora_B" in name for name in drawn)


def test_overlap_of_two_regions() -> None:
    layers, weight = "base_model.model.model.layers", "lora_A.default.weight"
    one = [f"{layers}.{n}.mlp.up_proj.{weight}" for n in (0, 1)]
    other = [one[0], f"{layers}.1.self_attn.q_proj.{weight}"]
    assert regions.overlap(one, other) == {
        "all": {"all": 1 / 3},
        "module": {"up_proj": 1 / 2, "q_proj": 0.0},
        "layer": {"0": 1.0, "1": 0.0},
    }
