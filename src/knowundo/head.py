"""A model's map from hidden states to logits."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch

from knowundo.models import Model


@dataclass(frozen=True)
class Head:
    """A model's map from hidden states to logits."""

    layer: torch.nn.Module
    config: Any

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        cap = getattr(self.config, "final_logit_softcapping", None)  # Gemma
        times = getattr(self.config, "logit_scale", None)  # Cohere
        over = getattr(self.config, "logits_scaling", None)  # Granite
        logits: torch.Tensor = self.layer(states)
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
