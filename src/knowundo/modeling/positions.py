"""Positions that a model scales by the longest row of a batch, so that neighbours change a row.

"longrope" (Phi-3) takes other frequencies in a batch that has a row beyond the original length,
"dynamic" those of the longest length seen so far (transformers' `dynamic_rope_update`). A row must
be computed as it would be alone, so rows that are not scaled alike never share a batch.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from knowundo.modeling.model import Model


def _kinds(module: Any) -> dict[str, str]:
    """RoPE types of a rotary embedding, by the prefix of its buffers (one for each layer type)."""
    found = getattr(module, "rope_type", None)
    if isinstance(found, str):
        return {"": found}
    if isinstance(found, dict):
        return {f"{layer}_": kind for layer, kind in found.items() if isinstance(kind, str)}
    return {}


def _scaled(model: Model) -> list[tuple[Any, str, str]]:
    """Rotary embeddings that look at the length: the module, its buffers' prefix and its type."""
    if model.scaled is None:
        model.scaled = [
            (module, prefix, kind)
            for module in model.causal_lm().modules()
            for prefix, kind in _kinds(module).items()
            if "dynamic" in kind or kind == "longrope"
        ]
    return model.scaled


def _limit(module: Any, prefix: str, kind: str) -> int:
    """Tokens up to which nothing is scaled."""
    if kind != "longrope":
        return int(module.original_max_seq_len)
    settings = module.config.rope_parameters
    own = settings[prefix.removesuffix("_")] if prefix else settings
    return int(own["original_max_position_embeddings"])


def unscaled(model: Model) -> float:
    """Tokens up to which rows of any lengths may share a batch; infinity if of any length."""
    return min((_limit(*one) for one in _scaled(model)), default=float("inf"))


def scaling(model: Model, length: int) -> Hashable:
    """What rows of a length have in common with those that may share their batch."""

    def one(module: Any, prefix: str, kind: str) -> int:
        beyond = length > _limit(module, prefix, kind)
        return (1 if kind == "longrope" else length) if beyond else 0

    return tuple(one(*each) for each in _scaled(model))


def reset(model: Model) -> None:
    """Forget the longest row so far, which "dynamic" would go on scaling by."""
    for module, prefix, kind in _scaled(model):
        if "dynamic" not in kind:
            continue
        first = getattr(module, f"{prefix}original_inv_freq")
        now: torch.Tensor = getattr(module, f"{prefix}inv_freq")
        module.register_buffer(f"{prefix}inv_freq", first.to(now.device), persistent=False)
        setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)


def together(model: Model, lengths: list[int], *, equal: bool = False) -> list[list[int]]:
    """Numbers of rows in groups that may share a batch, in the order of their first rows.

    Args:
        model: whose positions.
        lengths: tokens of each row.
        equal: rows of a group have one length, for a model that takes no padding.
    """
    groups: dict[Hashable, list[int]] = {}
    for number, length in enumerate(lengths):
        groups.setdefault(length if equal else scaling(model, length), []).append(number)
    return list(groups.values())
