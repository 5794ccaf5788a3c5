"""The plain forward: rows padded to one length, as transformers computes them."""

from __future__ import annotations

from typing import Any

import torch

from knowundo.data.batches import Batch
from knowundo.modeling.head import own_head
from knowundo.modeling.model import Model


def of_each(model: Model, places: torch.Tensor, size: int) -> torch.Tensor:
    """Places in a batch of this size, and in its repetitions for adapters abreast, flat."""
    first = size * torch.arange(model.abreast, device=places.device)
    return (first[:, None] + places).flatten()


def all_hidden_states(model: Model, batch: Batch) -> torch.Tensor:
    """Final hidden states at every position, padding too, [rows, tokens, hidden].

    Logits, [rows, tokens, vocabulary], of a model whose head is not computed apart (`own_head`). Of
    a batched multi-adapter forward: [adapters · rows, tokens, …].
    """
    module: Any = model.causal_lm()
    ids, mask = (value.repeat(model.abreast, 1) for value in (batch.ids, batch.mask))
    if not own_head(model):
        logits: torch.Tensor = module(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return logits
    output = module.get_decoder()(input_ids=ids, attention_mask=mask, use_cache=False)
    states: torch.Tensor = output.last_hidden_state
    return states
