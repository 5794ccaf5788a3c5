"""SURE: only the neurons that unlearn rows concern most are changed."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from knowundo.modeling.fast.chunked_logits import full_precision
from knowundo.registry import combination
from knowundo.training.separate_gradients import Gradients, StepGradients
from knowundo.unlearning.vectors import added


@combination(retention=False)
def sure(step: StepGradients, *, share: Annotated[float, Field(gt=0, le=1)] = 0.1) -> Gradients:
    """The sum of both gradients, in the neurons with the longest unlearn gradients; 0 elsewhere.

    A neuron is a row of a matrix, or a number of a vector; they are ranked over the whole region,
    in each step anew. Few neurons that change much, at a higher rate, are said to stay unlearned
    when the weights are quantized. Zhang et al. 2024, arXiv:2410.16454. AdamW's moments still move
    neurons that were chosen before.

    Args:
        step: Both gradients.
        share: Share of the neurons that change. The authors take those from the 90th percentile on.
    """
    retention = step.retention
    norms = [_norms(one, other) for one, other in zip(step.unlearn, retention, strict=True)]
    every = torch.cat([one for one in norms if one is not None])
    # A share of n neurons begins at the neuron of this rank, from the shortest.
    rank = min(len(every) - round(share * len(every)) + 1, len(every))
    least = every.kthvalue(rank).values
    whole = added(step.unlearn, retention)
    return [_kept(one, own, least) for one, own in zip(whole, norms, strict=True)]


def _norms(unlearn: torch.Tensor | None, retention: torch.Tensor | None) -> torch.Tensor | None:
    """Length of each neuron's unlearn gradient, [rows]; `None` where it has neither gradient."""
    if unlearn is None:
        return None if retention is None else full_precision(retention.new_zeros(len(retention)))
    return full_precision(unlearn).reshape(len(unlearn), -1).norm(dim=1)


def _kept(
    gradient: torch.Tensor | None, norms: torch.Tensor | None, least: torch.Tensor
) -> torch.Tensor | None:
    if gradient is None or norms is None:
        return None
    kept = (norms >= least).reshape(-1, *[1] * (gradient.ndim - 1))
    return torch.where(kept, gradient, torch.zeros_like(gradient))
