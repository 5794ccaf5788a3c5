"""Adversarial samples."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from knowundo.encoding import Encoded
from knowundo.forwards import Columns, Parts, Step
from knowundo.registry import method
from knowundo.unlearning import Scorer


@method
def adversarial_sample(step: Step) -> Parts:
    """Descend to the memorized model's likeliest wrong tokens.

    Yao et al. 2024, arXiv:2402.15159.
    """
    return {"unlearn": step.unlearn.cross_entropy("adversarial").mean()}


@adversarial_sample.prepare
def wrong_tokens(records: Sequence[Encoded], scorer: Scorer) -> Columns:
    """At each answer position the most likely token other than the true one, computed once."""
    column = {}
    for row, logits in scorer.logits(records):
        truth = torch.tensor(row.ids[row.answer_from :], device=logits.device)
        without = logits.scatter(1, truth[:, None], float("-inf"))
        column[row.record.id] = without.argmax(-1).cpu()
    return {"adversarial": column}
