"""Gradients inside a mask only: weights outside keep their bits."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from knowundo.errors import BadInput
from knowundo.training.settings import TrainingSettings


class GradientMasks:
    """Clears the gradients of weights that may not change, once an optimizer step.

    AdamW leaves a weight that never had a gradient as it is, to the bit: its moments stay zero.
    That is not so with weight decay, or where all of a tensor is rounded.
    """

    def __init__(
        self,
        parameters: Mapping[str, torch.nn.Parameter],
        masks: Mapping[str, torch.Tensor],
        settings: TrainingSettings,
    ) -> None:
        """Change nothing yet.

        Args:
            parameters: The model's, by name.
            masks: Booleans in the tensor's shape, by parameter name: true where it may change.
            settings: Of the training.

        Raises:
            BadInput: These settings change weights that have no gradient.
        """
        if masks and (settings.weight_decay or settings.optimizer == "adamw_bfloat16"):
            raise BadInput(
                "region: its masks leave weights out that weight decay and bfloat16 training would "
                "change; take a region of whole tensors"
            )
        self._frozen = [(parameters[n], ~m.to(parameters[n].device)) for n, m in masks.items()]

    @torch.no_grad()
    def apply(self) -> None:
        """Set `.grad` to zero outside the masks."""
        for parameter, frozen in self._frozen:
            if parameter.grad is not None:
                parameter.grad.masked_fill_(frozen, 0.0)
