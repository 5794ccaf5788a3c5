"""Logit lens: what the layers below the last one would answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field

from knowundo.attacked import Attacked
from knowundo.data.batches import Batch
from knowundo.errors import BadInput
from knowundo.modeling.fast.prefix_cache import layers_of
from knowundo.modeling.forward import Forward
from knowundo.modeling.model import Model
from knowundo.registry import attack

# The last norm of a decoder, as transformers names it in its architectures.
_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "norm_f")


@attack(changes="weights")
def logit_lens(
    attacked: Attacked, *, layers: tuple[Annotated[int, Field(ge=0)], ...] | None = None
) -> None:
    """Read answers off the hidden states after inner layers, by the model's own norm and head.

    nostalgebraist 2020; Patil et al. 2023, arXiv:2309.17410, find deleted facts there. Nothing is
    trained, and nothing is generated: the true answer is given as far as each position. The
    weights are not changed, but whoever does this has them, so a guard is no obstacle.

    Args:
        attacked: The model.
        layers: Numbers of the layers, from 0. If null, the upper half but the last.

    Raises:
        BadInput: There is no such layer, or the architecture has no norm and head that are known.
    """
    model, count = attacked.model, len(layers_of(attacked.model))
    norm = _final_norm(model)
    for layer in range((count - 1) // 2, count - 1) if layers is None else layers:
        if layer >= count:
            raise BadInput(
                f"attack logit_lens: no layer {layer}; there are 0 to {count - 1}, choose another"
            )
        attacked.score(f"layer {layer}", forward=_Lens(model, layer=layer, norm=norm))


def _final_norm(model: Model) -> torch.nn.Module:
    decoder: Any = model.causal_lm().get_decoder()  # type: ignore[operator]
    found = [getattr(decoder, name) for name in _NORMS if hasattr(decoder, name)]
    if not found or not model.capabilities.separate_head:
        raise BadInput(
            f"attack logit_lens: base '{model.base}' has no final norm or separate head that is "
            f"known ({', '.join(_NORMS)}); leave this attack out"
        )
    module: torch.nn.Module = found[0]
    return module


@dataclass(frozen=True, kw_only=True)
class _Lens(Forward):
    """A forward that ends after a layer: its states, normed, take the place of the final ones."""

    layer: int
    norm: torch.nn.Module

    def hidden_states(self, batch: Batch) -> torch.Tensor:
        found: torch.Tensor = self.norm(self.layer_states(batch, self.layer))
        return found
