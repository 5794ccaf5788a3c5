"""Masks beside a region's file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from knowundo.errors import BadInput
from knowundo.modeling.region_masks import read_masks, write_masks
from knowundo.storage.files import write_json

KNOWN = {"a": torch.zeros(2, 3), "b": torch.zeros(3)}


@pytest.fixture
def region(tmp_path: Path) -> Path:
    write_json(tmp_path / "snip.json", ["a"])
    return tmp_path / "snip.json"


def test_written_masks_are_read(region: Path) -> None:
    assert read_masks(region, KNOWN) == {}
    mask = torch.tensor([[True, False, True], [False, False, True]])
    write_masks(region, {"a": mask})
    assert torch.equal(read_masks(region, KNOWN)["a"], mask)


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("b", torch.ones(3, dtype=torch.bool)),  # not of the region
        ("a", torch.ones(3, 2, dtype=torch.bool)),
        ("a", torch.ones(2, 3)),
    ],
)
def test_masks_of_something_else_are_refused(region: Path, name: str, mask: torch.Tensor) -> None:
    save_file({name: mask}, region.with_suffix(".safetensors"))
    with pytest.raises(BadInput, match=f"the mask of '{name}' does not fit"):
        read_masks(region, KNOWN)


def test_a_damaged_file_is_named(region: Path) -> None:
    region.with_suffix(".safetensors").write_bytes(b"half")
    with pytest.raises(BadInput, match=r"snip\.safetensors: cannot be read"):
        read_masks(region, KNOWN)
