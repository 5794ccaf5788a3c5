"""RR: representation rerouting, the loss of circuit breakers."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import NonNegativeInt, PositiveFloat
from torch.nn.functional import cosine_similarity

from knowundo.modeling.fast.chunked_logits import full_precision
from knowundo.modeling.step import Parts, Step
from knowundo.registry import method
from knowundo.unlearning.hidden_states import chosen_layer


@method(reads=("unlearn", "retention", "reference"))
def rr(step: Step, *, layer: NonNegativeInt | None = None, alpha: PositiveFloat = 10.0) -> Parts:
    """α·(1 − t/2T)·max(0, cos(h, memorized h)) on unlearn rows; α·t/2T·‖h − memorized h‖ on others.

    h are the hidden states after one decoder layer at the answers, t is the step of T. Those of
    unlearn rows become orthogonal to what they were, those of retention rows stay. Only the
    parameters up to this layer get a gradient. Zou et al. 2024, arXiv:2406.04313, who take two
    layers, 10 and 20 of 32, and a LoRA. At the memorized model the cosine is 1, where its gradient
    is 0 but for rounding: the first steps go wherever AdamW makes of that, and the seed counts.

    Args:
        step: The step.
        layer: Number of the decoder layer, from 0. If `None`, a quarter of the way up.
        alpha: Weight of both terms. The authors take 10 for Llama-3-8B, 5 for Mistral-7B.
    """
    number, half = chosen_layer(step, layer), step.state["half"]
    now, before = step.unlearn.layer(number), step.reference.unlearn.layer(number)
    cosines = cosine_similarity(full_precision(now), full_precision(before), dim=-1).relu()
    moved = full_precision(step.retention.layer(number))
    distances = (moved - full_precision(step.reference.retention.layer(number))).norm(dim=-1)
    unlearn = step.unlearn.mean(step.unlearn.per_row(cosines))
    retention = step.retention.mean(step.retention.per_row(distances))
    return {"unlearn": alpha * (1 - half) * unlearn, "retention": alpha * half * retention}


@rr.state
def schedule(
    before: Mapping[str, float] | None, parts: Mapping[str, float], done: float
) -> dict[str, float]:
    """Half of the share of the training that is done."""
    return {"half": done / 2}
