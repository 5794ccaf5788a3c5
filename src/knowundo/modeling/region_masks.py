"""Regions that hold parts of tensors: boolean masks, in safetensors beside the region's names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from knowundo.errors import BadInput
from knowundo.modeling.regions import read_region


def mask_file(path: Path) -> Path:
    """The file beside a region's that says which weights of its tensors are in it."""
    return path.with_suffix(".safetensors")


def write_masks(path: Path, masks: Mapping[str, torch.Tensor]) -> None:
    """Write which weights of each tensor are in a region, beside the region's file.

    Args:
        path: Of the region.
        masks: Booleans in the tensor's shape, by parameter name.
    """
    save_file(dict(masks), mask_file(path))


def read_masks(path: Path, known: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Read the masks beside a region's file.

    Args:
        path: Of the region.
        known: The model's parameters, by name.

    Returns:
        Booleans in the tensor's shape, by parameter name; empty if all weights are in the region.

    Raises:
        BadInput: A mask is damaged, not of booleans, or not of a tensor of this model's region.
    """
    file = mask_file(path)
    if not file.is_file():
        return {}
    names = set(read_region(path, known))
    try:
        masks = load_file(file)
    except SafetensorError as error:
        raise BadInput(f"{file}: cannot be read ({error}); localize again") from None
    for name, mask in masks.items():
        if name not in names or mask.shape != known[name].shape or mask.dtype != torch.bool:
            raise BadInput(
                f"{file}: the mask of '{name}' does not fit a tensor of the region; take region "
                "and masks of this model, or localize it"
            )
    return masks
