"""Labels in place of an answer's tokens, drawn from the tokens that a model finds likely."""

from __future__ import annotations

import torch


def draw(
    logits: torch.Tensor, *, top_k: int | None, top_p: float, generator: torch.Generator
) -> torch.Tensor:
    """Draw one token per position, out of the likeliest ones, by their probabilities.

    Of the `top_k` likeliest tokens, the fewest whose probability together exceeds `top_p` (nucleus
    sampling, Holtzman et al. 2020, arXiv:1904.09751); KnowUnDo's scripts cut in the same order.

    Args:
        logits: [positions, vocabulary]; −∞ where a token must not be drawn.
        top_k: How many. If `None`, all of the vocabulary; if 1, the likeliest is taken.
        top_p: In (0, 1]; at 1, nothing is cut off.
        generator: On the CPU, so that every device gets the same tokens.

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
        # A token is cut off if those before it exceed the share already.
        chances[chances.cumsum(-1) - chances > top_p] = 0.0
    places = torch.multinomial(chances, 1, generator=generator)
    return tokens.gather(-1, places)[:, 0]
