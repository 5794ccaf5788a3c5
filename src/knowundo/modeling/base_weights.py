"""The weights beside which an adapter stands, changed for a while and put back to the same bits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel

from knowundo.errors import BadInput
from knowundo.modeling.head import trained_head
from knowundo.modeling.model import Model
from knowundo.modeling.snapshots import BASE

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def base_parameters(model: Model) -> dict[str, torch.nn.Parameter]:
    """All weights but those of a LoRA, by the names that transformers gives them.

    Raises:
        BadInput: They are stored in 4 bits, which cannot be changed in place.
    """
    found = {}
    for name, parameter in model.causal_lm().named_parameters():
        if "lora_" in name:
            continue
        if parameter.dtype not in _FLOATS:
            raise BadInput(
                f"model.base '{model.base}': {name} is stored in {parameter.dtype}, which cannot "
                "be changed in place; load it without quantization"
            )
        found[name.replace(".base_layer.", ".")] = parameter
    return found


@dataclass(frozen=True)
class MergedBase:
    """The base's weights with the variant's change in them, and without it, by name."""

    weights: Mapping[str, torch.nn.Parameter]
    before: Mapping[str, torch.Tensor]


@contextmanager
def merged_base(model: Model) -> Iterator[MergedBase]:
    """Within it, a LoRA is merged into the base's weights, which may be changed in place.

    They are copied in the host's memory; afterwards each has the bits that it had before. Weights
    of a model without a LoRA are put back too.

    Args:
        model: With the variant in use.

    Yields:
        The weights, and what they were without a LoRA; of a model whose own weights are trained,
        what they were before any training.

    Raises:
        BadInput: The weights cannot be changed in place, or the LoRA changes a head that is tied to
            the embeddings.
    """
    own = base_parameters(model)
    lora: Any = model.net if isinstance(model.net, PeftModel) else None
    if lora is not None and trained_head(model) and model.config.tie_word_embeddings:
        raise BadInput(
            f"model.base '{model.base}': the adapter changes the head, which is tied to the "
            "embeddings; merging would change both"
        )
    before = model.snapshots.take(BASE, own)
    if lora is not None:
        lora.merge_adapter()
    try:
        first = model.initial.tensors if lora is None else {}
        yield MergedBase(own, {**before.tensors, **first})
    finally:
        if lora is not None:
            lora.unmerge_adapter()
        with torch.no_grad():
            for name, value in before.tensors.items():
                own[name].copy_(value)  # unmerging leaves rounding behind
