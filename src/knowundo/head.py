"""A model's map from hidden states to logits."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch

from knowundo.lora import plain
from knowundo.models import Model

# Words of the vocabulary whose logits one product makes on a CPU.
STRIPE = 2048


class _Striped(torch.autograd.Function):
    """x·Wᵀ in stripes of its columns; W gets no gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight)
        output = x.new_empty(len(x), len(weight))
        for into, part in zip(output.split(STRIPE, dim=1), weight.split(STRIPE), strict=True):
            torch.mm(x, part.T, out=into)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (weight,) = ctx.saved_tensors
        return gradients[0] @ weight, None


def _product(layer: Any, states: torch.Tensor) -> torch.Tensor:
    """What the layer makes of hidden states, [tokens, hidden] → [tokens, vocabulary].

    On a CPU, BLAS makes a wide matrix of few rows at two thirds of the rate of a narrow one
    (measured: float32, 32,000 columns, 65 to 131 rows; with bfloat16 they are the same).
    """
    made: torch.Tensor
    if states.device.type == "cpu" and states.dtype == torch.float32 and plain(layer):
        weight = layer.weight
        if layer.bias is None and weight.dtype == states.dtype and not weight.requires_grad:
            made = _Striped.apply(states, weight)
            return made
    made = layer(states)
    return made


@dataclass(frozen=True)
class Head:
    """A model's map from hidden states to logits."""

    layer: torch.nn.Module
    config: Any

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        cap = getattr(self.config, "final_logit_softcapping", None)  # Gemma
        times = getattr(self.config, "logit_scale", None)  # Cohere
        over = getattr(self.config, "logits_scaling", None)  # Granite
        logits = _product(self.layer, states)
        logits = logits * times if times else logits
        logits = logits / over if over else logits
        return cap * torch.tanh(logits / cap) if cap else logits

    @property
    def vocabulary(self) -> int:
        """Logits of a token."""
        return int(self.layer.out_features)  # type: ignore[arg-type]

    @property
    def frozen(self) -> bool:
        """True if nothing of it is trained."""
        return not any(parameter.requires_grad for parameter in self.layer.parameters())


def live_head(model: Model) -> Head:
    """The model's map from hidden states to logits."""
    module = model.causal_lm()
    return Head(module.get_output_embeddings(), module.config)  # type: ignore[operator]


def _lies_on_head(model: Model) -> bool:
    head = model.causal_lm().get_output_embeddings()  # type: ignore[operator]
    return any("lora_" in name for name, _ in head.named_parameters())


def frozen_head(model: Model) -> Head:
    """The same map as it is now, unmoved by later training."""
    if model.adaptation.kind == "lora" and not _lies_on_head(model):
        return live_head(model)
    module = model.causal_lm()
    layer = deepcopy(module.get_output_embeddings()).requires_grad_(False)  # type: ignore[operator]
    return Head(layer, module.config)
