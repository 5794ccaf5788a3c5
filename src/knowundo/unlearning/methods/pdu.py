"""Primal-dual unlearning: forgetting under a constraint on retention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat

from knowundo.modeling.step import Parts, Step
from knowundo.registry import method


@method(reads=("unlearn", "retention"))
def pdu(
    step: Step,
    *,
    epsilon: PositiveFloat = 0.3,
    unlearn: PositiveFloat = 1.0,
    multiplier: NonNegativeFloat = 1.0,
    dual_rate: NonNegativeFloat = 1.0,
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.5,
) -> Parts:
    """unlearn·mean (max logit − mean logit)² of unlearn answers; CE(retention) ≤ epsilon.

    The first flattens the logits of unlearn answers, the second is a constraint. It is in the loss
    with a multiplier λ as λ·(CE(retention) − epsilon), and after each optimizer step λ ← max(0, λ +
    dual_rate·(CE − epsilon)). Entesari et al. 2025, arXiv:2506.05314; defaults of OpenUnlearning.
    The part `constraint` is CE − epsilon; it is logged, and has no gradient.

    Args:
        step: The step.
        epsilon: Cross-entropy on retention (or general) rows up to which the constraint holds, per
            answer token. 0.3 is the authors' for TOFU.
        unlearn: Weight of the flattening.
        multiplier: λ at the start. The authors' runs on TOFU begin with 100.
        dual_rate: How fast λ follows the violation; 0 keeps it as it is.
        warmup: Share of the optimizer steps in which λ stays as it is.
    """
    flat = step.unlearn.per_row(step.unlearn.by_token(_squared_margin)[0])
    excess = step.retention.mean(step.retention.mean_nll - epsilon)
    return {
        "unlearn": unlearn * step.unlearn.mean(flat),
        "retention": step.state["multiplier"] * excess,
        "constraint": excess.detach(),
    }


@pdu.state
def dual_update(
    before: Mapping[str, float] | None,
    parts: Mapping[str, float],
    done: float,
    *,
    multiplier: float,
    dual_rate: float,
    warmup: float,
) -> dict[str, float]:
    """The multiplier of the next step, from the violation of the constraint in the last one."""
    if before is None:
        return {"multiplier": multiplier}
    if done <= warmup:
        return dict(before)
    return {"multiplier": max(0.0, before["multiplier"] + dual_rate * parts["constraint"])}


def _squared_margin(logits: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """(max − mean)² of each token's logits."""
    return ((logits.amax(-1) - logits.mean(-1)).square(),)
