"""How the LoRA of one model relates to that of another: switched off, or the same at another scale.

The change that a LoRA makes to a weight is scale · B A, which two different pairs of matrices may
give. So changes are compared by inner products, for which no matrix of the weight's size is made:
⟨B₁A₁, B₂A₂⟩ = Σ (B₁ᵀB₂) ∘ (A₁A₂ᵀ).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from knowundo.errors import BadInput, first_line
from knowundo.storage.files import read_json

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
# Cosine from which two changes count as one at another scale. Rounding to 16 bits costs 1e-5.
PARALLEL = 1 - 1e-4


@dataclass(frozen=True)
class Change:
    """What a LoRA changes of one weight: `scale` · B A.

    Attributes:
        a: [rank, in].
        b: [out, rank].
        scale: alpha / rank, or alpha / √rank.
    """

    a: torch.Tensor
    b: torch.Tensor
    scale: float

    def dot(self, other: Change) -> float:
        """Inner product of two changes of the same weight."""
        inner = ((self.b.T @ other.b) * (self.a @ other.a.T)).sum()
        return self.scale * other.scale * float(inner)


def is_adapter(folder: Path) -> bool:
    """True if a folder holds a LoRA."""
    return (folder / WEIGHTS).is_file() and (folder / CONFIG).is_file()


def read_changes(folder: Path) -> dict[str, Change] | None:
    """What a LoRA in a folder changes, by the name of the module.

    Returns:
        `None` if it holds other tensors than pairs of matrices, so that this is not all of it.

    Raises:
        BadInput: A file of it cannot be read.
    """
    config = read_json(folder / CONFIG)
    try:
        tensors = {name: t.double() for name, t in load_file(folder / WEIGHTS).items()}
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{folder / WEIGHTS}: {first_line(error)}; make the model again") from None
    found = {}
    for name in [name for name in tensors if ".lora_A." in name]:
        other = name.replace(".lora_A.", ".lora_B.")
        if other not in tensors:
            return None
        a, b = tensors.pop(name), tensors.pop(other)
        found[name.split(".lora_A.")[0]] = Change(a, b, _scale(config, name, len(a)))
    return None if tensors or not found else found


def _scale(config: Mapping[str, Any], name: str, rank: int) -> float:
    """Factor of a module's matrices: peft's `lora_alpha`, with its exceptions by pattern."""
    patterns = config.get("alpha_pattern") or {}
    alpha = next((v for key, v in patterns.items() if key in name), config.get("lora_alpha", rank))
    return float(alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank)


def norm(changes: Mapping[str, Change]) -> float:
    """Frobenius norm of all changes together."""
    return math.sqrt(max(0.0, sum(one.dot(one) for one in changes.values())))


def scale_of(changes: Mapping[str, Change], others: Mapping[str, Change]) -> float | None:
    """By which factor one model's changes are another's; `None` if they are not parallel."""
    if set(changes) != set(others):
        return None
    lengths = norm(changes), norm(others)
    if 0.0 in lengths:
        return None
    dot = sum(one.dot(others[name]) for name, one in changes.items())
    return lengths[0] / lengths[1] if dot / (lengths[0] * lengths[1]) >= PARALLEL else None
