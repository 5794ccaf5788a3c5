"""What is searched, and where."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from knowundo.errors import BadInput
from knowundo.localization.gradients import Measured
from knowundo.modeling import regions
from knowundo.registry import get
from knowundo.sweeps.space import derive_space, nearest_size, read_ranges, region_of_size, weights


def test_derived_space() -> None:
    npo = get("method", "npo")
    assert weights(npo) == ["beta", "retention", "divergence"]
    assert weights(get("method", "dpo")) == ["beta", "retention", "divergence"]
    space = derive_space(npo, npo.bind({"beta": 0.2}), rate=1e-3)
    assert list(space) == ["lr", "beta", "retention"]
    assert (space["lr"].low, space["lr"].high) == pytest.approx((1e-4, 1e-2))
    assert (space["beta"].low, space["beta"].high, space["beta"].own) == (0.05, 0.8, 0.2)
    ranges = {"divergence": (0.1, 1.0), "lr": (1e-5, 1e-4)}
    given = derive_space(npo, npo.bind({}), rate=1e-3, size=0.4, ranges=ranges)
    assert list(given) == ["lr", "beta", "retention", "divergence", "region"]
    assert (given["divergence"].low, given["divergence"].high) == (0.1, 1.0)
    assert (given["lr"].low, given["lr"].high, given["lr"].own) == (1e-5, 1e-4, 1e-3)
    assert (given["region"].low, given["region"].high, given["region"].log) == (0.1, 0.9, False)


def test_regions_of_all_sizes_are_nested() -> None:
    names = [f"m.{n}.lora_{kind}.weight" for n in range(12) for kind in "AB"]
    measured = Measured(
        {name: (7 * n % 24) / 24 for n, name in enumerate(names)},
        {name: (5 * n % 24) / 24 for n, name in enumerate(names)},
    )
    memflex = get("localizer", "memflex")
    rest = {"localizer": memflex, "measured": measured, "known": names, "whole_modules": False}
    made = [
        set(region_of_size(size, arguments={"mu": -2.0, "sigma": 1.0}, **rest))
        for size in (0.3, 0.5, 0.7, 0.9)
    ]
    assert all(one < other for one, other in pairwise(made))
    assert made[1] == memflex(measured)
    whole = region_of_size(0.5, **(rest | {"arguments": {}, "whole_modules": True}))
    assert whole == regions.with_whole_modules(made[1], names)
    sizes = dict.fromkeys(names, 10)

    def region(size: float) -> list[str]:
        return region_of_size(size, arguments={}, **rest)

    assert nearest_size(region, sizes, 10 * len(made[1])) == 0.5
    assert set(region(nearest_size(region, sizes, 10 * len(made[2])))) == made[2]


@pytest.mark.parametrize("text", ["[1]", "lr: 3", "lr: [1]", "lr: [1, 2, 3]", "lr: [a, 2]", "1: ["])
def test_ranges_that_are_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(text)
    with pytest.raises(BadInput, match=r"space\.yaml"):
        read_ranges(file)


def test_ranges_are_read(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text("{lr: [1e-5, 1e-3], beta: [1, 2]}")
    assert read_ranges(tmp_path / "space.yaml") == {"lr": (1e-5, 1e-3), "beta": (1.0, 2.0)}
