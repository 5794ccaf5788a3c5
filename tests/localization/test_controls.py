"""Random controls of located regions."""

from __future__ import annotations

import pytest
import torch

from knowundo.localization.controls import Region, with_controls
from knowundo.region_rule import Granularity

SHAPES = {f"{m}.lora_{x}.weight": torch.Size((4, 3) if x == "A" else (3, 4))
          for m in "abcdef" for x in "AB"}  # fmt: skip


@pytest.mark.parametrize("granularity", ["row", "column", "weight"])
def test_random_masks_have_as_many_weights(granularity: Granularity) -> None:
    mask = torch.zeros(4, 3, dtype=torch.bool)
    mask[{"row": [1], "column": (slice(None), [1]), "weight": ([0, 2], [1, 1])}[granularity]] = True
    located = Region(["a.lora_A.weight", "b.lora_B.weight"], {"a.lora_A.weight": mask}, granularity)
    found = with_controls({"snip": located}, SHAPES, draws=6, seed=0)
    controls = [found["masks"][f"random-{n}"] for n in range(1, 7)]
    for names, masks in zip(found["regions"].values(), found["masks"].values(), strict=False):
        assert set(masks) <= set(names)
    for masks in controls:
        by_shape = {m.shape: m for m in masks.values()}
        assert int(by_shape[torch.Size((4, 3))].sum()) == int(mask.sum())
        assert bool(by_shape[torch.Size((3, 4))].all())  # b is in the region as a whole
        moved = by_shape[torch.Size((4, 3))]
        if granularity == "row":
            assert bool((moved.sum(1) % 3 == 0).all())
        if granularity == "column":
            assert bool((moved.sum(0) % 4 == 0).all())
    assert len({tuple(sorted(masks)) for masks in controls}) > 1
    sizes = found["parameters"]
    assert {sizes[f"random-{n}"] for n in range(1, 7)} == {sizes["snip"]} == {int(mask.sum()) + 12}
    assert sizes["everything"] == 12 * 12


def test_regions_of_whole_tensors_have_no_masks() -> None:
    found = with_controls({"snip": Region(["a.lora_A.weight"])}, SHAPES, draws=1, seed=0)
    assert found["masks"] == {}
    assert found["parameters"] == {"snip": 12, "random-1": 12, "everything": 144}
