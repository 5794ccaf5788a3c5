"""SSD: weights that matter for what must go, and little for what must stay, are dampened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from knowundo.data.encoded import Encoded
from knowundo.modeling.half import Columns
from knowundo.modeling.step import Parts, Step
from knowundo.registry import method
from knowundo.unlearning.retention_terms import retention_part
from knowundo.unlearning.scorer import Scorer


@method(reads=("retention",))
def ssd(
    step: Step,
    *,
    alpha: PositiveFloat = 10.0,
    dampening: PositiveFloat = 1.0,
    rows: PositiveInt = 256,
    retention: PositiveFloat = 1.0,
    divergence: NonNegativeFloat = 0.0,
) -> Parts:
    """CE(retention), from weights w·min(1, dampening·F_r/F_u) wherever F_u > alpha·F_r.

    F_u and F_r are the mean squared gradients of unlearn and retention rows in the memorized model.
    Selective synaptic dampening: Foster et al. 2023, arXiv:2308.07707, who measure F_r over all
    training rows, and do not train afterwards; here descent on retention rows repairs what was
    lost. With a small dampening the chosen weights are pruned. Of a LoRA its matrices are dampened.

    Args:
        step: The step.
        alpha: How much more a weight has to matter for unlearn rows. The lower, the more weights
            are dampened; the authors take 10 for images.
        dampening: λ, how little is left of them.
        rows: Rows of each scope, drawn by the seed, that importance is measured on: a backward pass
            each.
        retention: Weight of the mean cross-entropy on retention (or general) rows.
        divergence: Weight of KL(memorized ‖ current) on the same rows, mean per answer token.
    """
    return retention_part(step, retention, divergence)


@ssd.prepare
def importance(records: Sequence[Encoded], scorer: Scorer, *, rows: int) -> Columns:
    """Mean squared gradients by parameter name, in the columns `unlearn` and `retention`."""
    rng = Random(scorer.seed)
    both = {"unlearn": list(records), "retention": list(scorer.retention)}
    drawn = {name: rng.sample(some, min(rows, len(some))) for name, some in both.items()}
    return {name: scorer.squared_gradients(some) for name, some in drawn.items()}


@ssd.begin
def dampened(
    weights: Mapping[str, torch.Tensor],
    columns: Columns,
    seed: int,
    *,
    alpha: float,
    dampening: float,
) -> dict[str, torch.Tensor]:
    """Weights to begin with, by name."""
    found = {}
    for name, value in weights.items():
        unlearn, retention = columns["unlearn"][name], columns["retention"][name]
        left = (dampening * retention / unlearn).clamp_max(1.0)
        found[name] = torch.where(unlearn > alpha * retention, left * value, value)
    return found
