"""Scaling: between the memorized model, the unlearned one, and beyond."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from knowundo.attacked import Attacked
from knowundo.registry import attack


@attack(changes="weights")
def scaling(
    attacked: Attacked,
    *,
    scales: tuple[Annotated[float, Field(ge=0)], ...] = (0.0, 0.5, 2.0),
    memorized: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (0.25, 0.5),
) -> None:
    """Scale the adapter, or move the weights part of the way back to the memorized model.

    Whoever holds base and adapter can switch the adapter off (scale 0): knowledge that only the
    adapter suppresses is back then, whereas knowledge that left the weights is not. An adapter that
    was turned down comes back with a scale above 1. Task vectors say that models between two
    finetuned ones behave in between (Ilharco et al. 2023, arXiv:2212.04089), so that steps towards
    the memorized model show how far away the knowledge is.

    Args:
        attacked: The model.
        scales: Factors of what the LoRA adds to the base; there are none of a model whose own
            weights were trained.
        memorized: Shares of the way to the memorized weights. Of a LoRA, its two matrices are
            moved, as between two steps of a training.
    """
    model = attacked.model
    start = model.state()
    up = [name for name in start if "lora_B" in name]
    if up:
        for scale in scales:
            model.overwrite({name: scale * start[name] for name in up})
            attacked.score(f"adapter x {scale:g}")
        model.overwrite(start)
    if attacked.memorized is None:
        return
    target = attacked.memorized()
    for share in memorized:
        pairs = {name: (start[name], target[name].to(start[name])) for name in start}
        model.overwrite({n: (1 - share) * a + share * b for n, (a, b) in pairs.items()})
        attacked.score(f"{share:g} towards memorized")
    model.overwrite(start)
