"""Scaling: what unlearning changed, switched off, turned down or up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field

from knowundo.attacked import Attacked
from knowundo.modeling.model import Model
from knowundo.registry import attack


@attack(changes="weights")
def scaling(
    attacked: Attacked,
    *,
    scales: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = (
        0.0,
        0.5,
        2.0,
    ),
    memorized: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (),
) -> None:
    """Scale what was changed of the base, or go part of the way back to the memorized model.

    Whoever holds base and adapter can switch the adapter off (scale 0): knowledge that only the
    adapter suppresses is back then, whereas knowledge that left the weights is not. An adapter that
    was turned down comes back with a scale above 1. Task vectors are scaled so (Ilharco et al.
    2023, arXiv:2212.04089).

    Args:
        attacked: The model.
        scales: Factors of what a LoRA adds to the base, or of what training changed of the base's
            own weights.
        memorized: Shares of the way to the memorized weights, which an attacker hardly has: they
            tell how far away the knowledge is. Of a LoRA, both matrices are moved, as between two
            steps of a training.
    """
    model, start = attacked.model, attacked.model.state()
    of_lora = {name: torch.zeros_like(value) for name, value in start.items() if "lora_B" in name}
    first = of_lora or model.initial.tensors
    for scale in scales:
        _move(model, start, first, 1 - scale)
        attacked.score(f"change x {scale:g}")
    model.overwrite(start)
    if not memorized or attacked.memorized is None:
        return
    target = attacked.memorized()
    for share in memorized:
        _move(model, start, target, share)
        attacked.score(f"{share:g} towards memorized")
    model.overwrite(start)


def _move(
    model: Model,
    start: Mapping[str, torch.Tensor],
    target: Mapping[str, torch.Tensor],
    share: float,
) -> None:
    """Make the weights those at a share of the way from the start to the target."""
    model.overwrite(
        {n: start[n] + share * (value.to(start[n]) - start[n]) for n, value in target.items()}
    )
