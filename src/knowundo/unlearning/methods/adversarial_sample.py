"""Descent on the likeliest wrong tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field, PositiveInt

from knowundo.data.encoded import Encoded
from knowundo.modeling.half import Columns
from knowundo.modeling.step import Parts, Step
from knowundo.registry import method
from knowundo.unlearning.labels import draw
from knowundo.unlearning.scorer import Scorer


@method(reads=("unlearn",))
def adversarial_sample(
    step: Step,
    *,
    top_k: PositiveInt | None = 1,
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0,
    keep_truth: bool = False,
) -> Parts:
    """CE(the memorized model's likeliest wrong tokens in place of the answer).

    Yao et al. 2024, arXiv:2402.15159.

    Args:
        step: The step.
        top_k: Draw each label from so many of the likeliest tokens. If `None`, from all of them;
            if 1, the likeliest is taken.
        top_p: Draw it from the fewest of these whose probability together exceeds this share.
        keep_truth: The true token may be drawn, too: KnowUnDo's `random_label` without
            `--rm_groundtruth`.
    """
    return {"unlearn": step.unlearn.mean(step.unlearn.cross_entropy("adversarial"))}


@adversarial_sample.prepare
def wrong_tokens(
    records: Sequence[Encoded],
    scorer: Scorer,
    *,
    top_k: int | None,
    top_p: float,
    keep_truth: bool,
) -> Columns:
    """Draw, once for each answer position, a likely token other than the true one."""
    column, generator = {}, torch.Generator().manual_seed(scorer.seed)
    for row, logits in scorer.logits(records):
        if not keep_truth:
            truth = torch.tensor(row.ids[row.answer_from :], device=logits.device)
            logits = logits.scatter(1, truth[:, None], float("-inf"))
        column[row.record.id] = draw(logits, top_k=top_k, top_p=top_p, generator=generator)
    return {"adversarial": column}
