"""Positions of tokens: how many a model has, and those that it scales by a batch's longest row.

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


def scaled_embeddings(net: torch.nn.Module) -> tuple[tuple[Any, str, str], ...]:
    """Rotary embeddings that depend on the length: module, its buffers' prefix and its type."""
    return tuple(
        (module, prefix, kind)
        for module in net.modules()
        for prefix, kind in _kinds(module).items()
        if "dynamic" in kind or kind == "longrope"
    )


def _limit(module: Any, prefix: str, kind: str) -> int:
    """Tokens up to which nothing is scaled."""
    if kind != "longrope":
        return int(module.original_max_seq_len)
    settings = module.config.rope_parameters
    own = settings[prefix.removesuffix("_")] if prefix else settings
    return int(own["original_max_position_embeddings"])


def unscaled(model: Model) -> float:
    """Tokens up to which rows of any lengths may share a batch; infinity if of any length."""
    return min((_limit(*one) for one in model.capabilities.scaled_positions), default=float("inf"))


def scaling(model: Model, length: int) -> Hashable:
    """What rows of a length have in common with those that may share their batch."""

    def one(module: Any, prefix: str, kind: str) -> int:
        beyond = length > _limit(module, prefix, kind)
        return (1 if kind == "longrope" else length) if beyond else 0

    return tuple(one(*each) for each in model.capabilities.scaled_positions)


def reset(model: Model) -> None:
    """Forget the longest row so far, which "dynamic" would go on scaling by."""
    for module, prefix, kind in model.capabilities.scaled_positions:
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


def position_limit(model: Any) -> int | None:
    """Positions that a row of this model may have, where more would have no embedding.

    `max_position_embeddings` is a limit where the model holds something for each position: a
    learned embedding (GPT-2; OPT's has two rows more), a table of sines (GPT-J), a mask (GPT-Neo).
    Rotary angles are computed for any position, so there it only tells what the model was trained
    for.

    Args:
        model: A causal LM of transformers, without peft's wrapper.
    """
    config = model.config.get_text_config()
    count, words = getattr(config, "max_position_embeddings", None), model.get_input_embeddings()
    if not isinstance(count, int):
        most = getattr(config, "max_seq_len", None)  # MPT makes its biases for so many
        return most if isinstance(most, int) else None
    tables = [m for m in model.modules() if isinstance(m, torch.nn.Embedding) and m is not words]
    for table in tables:
        if count <= table.num_embeddings <= count + 2:
            # RoBERTa's positions begin behind the padding's; OPT's table is that much longer.
            first = 0 if table.padding_idx is None else table.padding_idx + 1
            return count - first if table.num_embeddings == count else count
    for module in model.modules():
        held = [*module._buffers.values(), *vars(module).values()]
        shapes = (one.shape for one in held if isinstance(one, torch.Tensor) and one.ndim > 1)
        if not isinstance(module, torch.nn.Embedding) and any(count in shape for shape in shapes):
            return count
    return None
