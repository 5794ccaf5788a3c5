"""ULD: the logits of an assistant that remembers only the unlearn rows are subtracted."""

from __future__ import annotations

from math import log
from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, NonPositiveFloat

from knowundo.modeling.guard import Asked
from knowundo.modeling.step import Parts, Step
from knowundo.registry import guard


@guard(changes="logits")
def uld(
    asked: Asked,
    logits: torch.Tensor,
    *,
    weight: NonPositiveFloat = -0.8,
    filter: Annotated[float, Field(ge=0, lt=1)] = 0.01,
    retention: NonNegativeFloat = 5.0,
) -> torch.Tensor:
    """z + weight·log(p_assistant·V) for likely tokens; the assistant knows the unlearn rows only.

    Ji et al. 2024, arXiv:2406.08607. The assistant is a second LoRA beside the same base, trained
    from the memorized one with CE(unlearn) + retention·CE(uniform) on retention rows. The authors
    take the first eight layers of the model and the assistant's logits as they are; here it has all
    layers, and its logits are those whose mean probability 1/V is 0.

    Args:
        asked: The prompt, and the assistant's logits.
        logits: Of the memorized model.
        weight: Of the assistant; the authors' runs on TOFU take −0.8.
        filter: Tokens less likely than this share of the likeliest one keep their logits, but this
            share of the vocabulary is always changed.
        retention: Weight of the cross-entropy to the uniform distribution, in training.
    """
    assert asked.assistant is not None  # it has a loss, so that it has an assistant
    known = asked.assistant.log_softmax(-1) + log(logits.shape[-1])
    if filter > 0:
        likely = logits.log_softmax(-1)
        most = likely.topk(max(1, int(filter * logits.shape[-1]))).values
        least = torch.minimum(most[..., :1] + log(filter), most[..., -1:])
        known = known.masked_fill(likely < least, 0.0)
    return logits + weight * known


@uld.loss
def assistant(step: Step, *, retention: float) -> Parts:
    """CE(unlearn) + retention·CE(uniform, retention)."""
    (values,) = step.retention.by_token(from_uniform)
    uniform = retention * step.retention.mean(step.retention.per_row(values))
    return {"unlearn": step.unlearn.mean(step.unlearn.mean_nll), "retention": uniform}


def from_uniform(logits: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Cross-entropy to the uniform distribution of each token, [tokens]."""
    return (-logits.log_softmax(-1).mean(-1),)
