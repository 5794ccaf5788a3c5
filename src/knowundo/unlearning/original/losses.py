"""Losses as the public KnowUnDo code computes them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from knowundo.data.batches import PairedBatch
from knowundo.modeling.half import Half
from knowundo.modeling.head import live_head
from knowundo.modeling.step import Step


def soft_cross_entropy(current: torch.Tensor, memorized: torch.Tensor) -> torch.Tensor:
    """Return −Σ_v p·log(q + 1e-12), mean over positions; logits are [positions, vocabulary]."""
    return -(memorized.softmax(-1) * (current.softmax(-1) + 1e-12).log()).sum(-1).mean()


def masked_cross_entropy(half: Half, labels: torch.Tensor, pad: int) -> torch.Tensor:
    """Return the mean cross-entropy to labels, without those that are the padding token, [rows].

    A row of nothing but padding counts 0.
    """
    valid = labels != pad

    def by_label(logits: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (cross_entropy(logits, wanted, reduction="none", ignore_index=-100),)

    values = half.by_token(by_label, labels.masked_fill(~valid, -100))[0]
    share = half.per_row(valid.to(values.dtype))
    return half.per_row(values) / share.masked_fill(share == 0, 1.0)


@dataclass
class OneSided(PairedBatch):
    """A batch of one scope, `side`; the other half only fills the place and is never computed."""

    side: str


class OneSidedStep(Step):
    """Runs the model on one half. The other is computed from zeros, and its loss is discarded."""

    def _half(self, name: str) -> Half:
        side = "unlearn" if name == "alternative" else name
        if side == self.batch.side:  # type: ignore[attr-defined]
            return super()._half(name)
        self.used.add(name)
        batch = self.rows(name)
        layer = self.model.causal_lm().get_output_embeddings()  # type: ignore[operator]
        # Zeros and no forward: the loss function may read this half, its value is not used.
        states = torch.zeros(
            len(batch.targets), layer.in_features, device=self.model.device, dtype=_dtype(layer)
        )
        return Half(batch, states, live_head(self.model), self.columns, lambda _: states)


def _dtype(layer: torch.nn.Module) -> torch.dtype:
    return next(layer.parameters()).dtype
