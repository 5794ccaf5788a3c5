"""BLADE: entropy up to a bound on what must go, under a constraint on what must stay."""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat

from knowundo.modeling.step import Parts, Step
from knowundo.registry import method


@method(reads=("unlearn", "retention"))
def blade(
    step: Step,
    *,
    tau: Annotated[float, Field(gt=0, le=1)] = 0.7,
    margin: PositiveFloat = 3.2,
    epsilon: PositiveFloat | None = None,
    multiplier: NonNegativeFloat = 1.0,
    rho: PositiveFloat = 0.1,
) -> Parts:
    """mean over tokens of max(0, tau·ln |V| − entropy) on unlearn rows; CE(retention) ≤ epsilon.

    With the violation c = CE − epsilon, the loss has (λ + rho·max(0, c of the last step))·c, and
    after each optimizer step λ ← max(0, λ + rho·c), a tenth as fast where the constraint holds.
    Toufikuzzaman et al. 2026, arXiv:2608.22557. Left out are the authors' three steps of descent on
    retention rows before each step (without them they lose 4 % of retention), and their rules for
    rate and end of a training; the penalty is of the last step's c, so that micro-batches add up.
    The part `constraint` is c; it is logged, and has no gradient.

    Args:
        step: The step.
        tau: Share of the greatest entropy that is enough. The authors try 0.5 to 0.9.
        margin: Without an epsilon, it is so many times the cross-entropy in the first step.
        epsilon: Cross-entropy on retention (or general) rows up to which the constraint holds, per
            answer token.
        multiplier: λ at the start.
        rho: How much a violation weighs, and how fast λ follows it.
    """

    def lacking(logits: torch.Tensor) -> tuple[torch.Tensor, ...]:
        shares = logits.log_softmax(-1)
        entropy = -(shares.exp() * shares).sum(-1)
        return ((tau * log(logits.shape[-1]) - entropy).clamp_min(0.0),)

    flat = step.unlearn.per_row(step.unlearn.by_token(lacking)[0])
    excess = step.retention.mean(step.retention.mean_nll - step.state["epsilon"])
    return {
        "unlearn": step.unlearn.mean(flat),
        "retention": (step.state["multiplier"] + step.state["penalty"]) * excess,
        "constraint": excess.detach(),
    }


@blade.state
def dual_update(
    before: Mapping[str, float] | None,
    parts: Mapping[str, float],
    done: float,
    *,
    margin: float,
    epsilon: float | None,
    multiplier: float,
    rho: float,
) -> dict[str, float]:
    """Multiplier, penalty and epsilon of the next step, from the violation in the last one."""
    if before is None:
        return {"multiplier": multiplier, "penalty": 0.0, "epsilon": epsilon or 0.0}
    violation = parts["constraint"]
    if not before["epsilon"]:  # the first step, whose violation is the cross-entropy itself
        return dict(before) | {"epsilon": margin * violation}
    rate = rho if violation > 0 else 0.1 * rho
    return dict(before) | {
        "multiplier": max(0.0, before["multiplier"] + rate * violation),
        "penalty": rho * max(0.0, violation),
    }
