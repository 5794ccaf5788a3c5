"""The plain forward: rows padded to one length, as transformers computes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from knowundo.data.batches import Batch

if TYPE_CHECKING:
    from knowundo.modeling.model import Model


def all_hidden_states(model: Model, batch: Batch, adapters: int = 1) -> torch.Tensor:
    """Final hidden states at every position, padding too, [adapters · rows, tokens, hidden].

    Args:
        model: If its head cannot be separated, logits take the place of hidden states,
            [adapters · rows, tokens, vocabulary].
        batch: Rows on the model's device.
        adapters: How many are batched (multi_adapter.py); each gets all rows.
    """
    module: Any = model.causal_lm()
    ids, mask = (value.repeat(adapters, 1) for value in (batch.ids, batch.mask))
    if not model.capabilities.separate_head:
        logits: torch.Tensor = module(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return logits
    output = module.get_decoder()(input_ids=ids, attention_mask=mask, use_cache=False)
    states: torch.Tensor = output.last_hidden_state
    return states
