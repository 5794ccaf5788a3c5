"""Labels in place of an answer's tokens, drawn from what a model finds likely there."""

from __future__ import annotations

import torch


def draw(
    logits: torch.Tensor, *, top_k: int | None, top_p: float, generator: torch.Generator
) -> torch.Tensor:
    """One token a position, out of the likeliest ones, by their probabilities.

    First the `top_k` likeliest tokens are kept, then of those the fewest whose probability together
    exceeds `top_p` (nucleus sampling, Holtzman et al. 2020, arXiv:1904.09751); KnowUnDo's scripts
    do it in the same order.

    Args:
        logits: [positions, vocabulary]; −∞ where a token must not be drawn.
        top_k: how many. If `None`, all of the vocabulary; if 1, nothing is drawn.
        top_p: in (0, 1]; at 1, nothing is cut off.
        generator: on the CPU, as the same bits are wanted on every device.

    Returns:
        Token ids, [positions], on the CPU.
    """
    if top_k == 1:
        return logits.argmax(-1).cpu()
    ordered, tokens = logits.float().cpu().sort(dim=-1, descending=True, stable=True)
    if top_k is not None:
        ordered[:, top_k:] = float("-inf")
    chances = ordered.softmax(-1)
    if top_p < 1:
        chances[chances.cumsum(-1) - chances > top_p] = 0.0
    places = torch.multinomial(chances, 1, generator=generator)
    return tokens.gather(-1, places)[:, 0]
