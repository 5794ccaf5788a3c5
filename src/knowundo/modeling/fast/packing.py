"""Rows of many lengths in one forward without padding: each token passes the layers once.

So do tokens that several rows begin with: a template's, or a question's with many answers. All
tokens of a batch form one row; only attention, which must not reach from one row into another,
sees them row by row. Padding on the right costs it little, and needs no mask: attention is causal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from knowundo.data.batches import Batch
from knowundo.modeling.fast.chunked_logits import full_precision

NAME = "packed_sdpa"


@dataclass
class Packing:
    """Where the tokens of a batch are, handed through a model to its attention layers."""

    filled: torch.Tensor  # [tokens], their cells
    packed: torch.Tensor  # [rows, longest], the token of each cell
    again: torch.Tensor  # [repetitions], cells whose token is another cell's
    used: int = 0  # attention layers that took note
    windows: set[int] = field(default_factory=set)  # sliding windows that they were told of

    def by_row(self, value: torch.Tensor) -> torch.Tensor:
        """[1, heads, tokens, size] → [rows, heads, longest, size]."""
        rows: torch.Tensor = _ByRow.apply(
            value[0].transpose(0, 1), self.packed, self.filled, self.again
        )
        return rows.transpose(1, 2)

    def in_one(self, value: torch.Tensor) -> torch.Tensor:
        """[rows, longest, heads, size] → [1, tokens, heads, size]."""
        one: torch.Tensor = _InOne.apply(value, self.filled)
        return one[None]


class _ByRow(torch.autograd.Function):
    """[tokens, …] → [rows, longest, …]; cells of padding repeat a token, and get no gradient.

    Nothing that is read comes from them. Without that, gradients would be summed by cell: they are
    only where a token is in several rows.
    """

    @staticmethod
    def forward(
        ctx: Any,
        value: torch.Tensor,
        packed: torch.Tensor,
        filled: torch.Tensor,
        again: torch.Tensor,
    ) -> torch.Tensor:
        ctx.save_for_backward(packed, filled, again)
        return value[packed]

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        packed, filled, again = ctx.saved_tensors
        cells = gradients[0].flatten(0, 1)
        tokens = cells[filled]
        if len(again):  # a token may be in many rows: not summed in half precision
            sums = full_precision(tokens)
            sums.index_add_(0, packed.flatten()[again], full_precision(cells[again]))
            tokens = sums.to(tokens.dtype)
        return tokens, None, None, None


class _InOne(torch.autograd.Function):
    """[rows, longest, …] → [tokens, …]; cells of padding get a gradient of zero."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, filled: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(filled)
        ctx.shape = value.shape
        return value.flatten(0, 1)[filled]

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (filled,) = ctx.saved_tensors
        into = gradients[0].new_zeros(ctx.shape)
        into.view(-1, *ctx.shape[2:])[filled] = gradients[0]
        return into, None


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # transformers' name: some models pass it by keyword
    *,
    packing: Packing | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' SDPA; on packed tokens, row by row."""
    if packing is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    packing.used += 1  # how a caller finds out that attention is not replaced by code of its own
    window, longest = options.get("sliding_window"), packing.packed.shape[1]
    if window is not None:
        packing.windows.add(int(window))
    seen = None
    if window is not None and window < longest:
        # SDPA's `is_causal` knows no window, so a mask says both: causal, and not further back.
        ones = torch.ones(longest, longest, dtype=torch.bool, device=query.device)
        seen = ones.tril().triu(1 - window)[None, None]
    dtype = query.dtype
    parts = [packing.by_row(part) for part in (query, key, value)]
    if query.device.type == "cpu":  # its kernel takes several times as long in half precision
        parts = [full_precision(part) for part in parts]
    said, _ = sdpa_attention_forward(module, parts[0], parts[1], parts[2], seen, **options)
    return packing.in_one(said).to(dtype), None


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def prepare(model: Any) -> bool:
    """Let a model's attention see packed tokens, if it is SDPA; nothing else about it changes."""
    if model.config._attn_implementation == "sdpa" and model._supports_attention_backend:
        model.set_attn_implementation(NAME)
    return bool(model.config._attn_implementation == NAME)


def packed_states(decoder: Any, batch: Batch, times: int = 1) -> tuple[torch.Tensor, Packing]:
    """Final hidden states of a batch's tokens, in the order of its `filled`, [tokens, hidden].

    And the packing, which tells whether any attention layer took note of it: others see one long
    row. The batch may be there several times, in a batched multi-adapter forward:
    [times · tokens, hidden].
    """
    first = torch.arange(times, device=batch.ids.device)[:, None]
    filled = (batch.filled + first * batch.ids.numel()).flatten()
    packed = batch.packed + first[:, None] * len(batch.filled)
    again = (batch.again + first * batch.ids.numel()).flatten()
    packing = Packing(filled, packed.flatten(0, 1), again)
    # Positions count within a row, as if each row had a forward of its own.
    cells = torch.arange(batch.ids.shape[1], device=batch.ids.device).expand_as(batch.ids)
    output = decoder(
        input_ids=batch.ids.flatten()[batch.filled].repeat(times)[None],
        position_ids=cells.flatten()[batch.filled].repeat(times)[None],
        # A mask of four dimensions is handed on as it is: none is made, and ours is not read.
        attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=batch.ids.device),
        use_cache=False,
        packing=packing,
    )
    states: torch.Tensor = output.last_hidden_state[0]
    return states, packing


# What configs call the number of earlier tokens that a local layer attends to.
_WINDOWS = ("sliding_window", "attention_chunk_size", "attention_window_size", "window_size")


def unseen_window(config: Any, packing: Packing) -> float:
    """Tokens up to which a row may be packed: the shortest window that attention is not told of.

    Some models (PhiMoE, Qwen2-MoE) put their window into the mask alone, which packing does not
    read. Infinity if attention is told of every window that the config names.
    """
    named = (getattr(config, name, None) for name in _WINDOWS)
    windows = {size for size in named if isinstance(size, int) and size > 0}
    return min(windows - packing.windows, default=float("inf"))
