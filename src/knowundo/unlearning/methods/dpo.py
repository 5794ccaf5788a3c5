"""Direct preference optimization: another answer is preferred to the one that must go."""

from __future__ import annotations

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch.nn.functional import logsigmoid

from knowundo.modeling.step import Parts, Step
from knowundo.registry import method
from knowundo.unlearning.answers import AnswerSource, several_alternatives
from knowundo.unlearning.retention_terms import retention_part


@method(reads=("unlearn", "alternative", "retention", "reference"))
def dpo(
    step: Step,
    *,
    answers: AnswerSource = "unknown",
    others: PositiveInt = 1,
    beta: PositiveFloat = 0.1,
    retention: NonNegativeFloat = 1.0,
    divergence: NonNegativeFloat = 0.0,
) -> Parts:
    """−(2/β)·log σ(β·(log ratio of the alternative − log ratio of the unlearn answer)).

    A log ratio is log(current / memorized). Rafailov et al. 2023, arXiv:2305.18290; with answers
    that know nothing, IdkDPO (Maini et al. 2024, arXiv:2401.06121); with the model's own, AltPO
    (Mekala et al. 2024, arXiv:2409.13474).

    Args:
        step: The step.
        answers: `unknown`, `refusal`, `model` (sampled from the memorized model), `instructed`
            (sampled likewise, after it is shown the answer and asked for another one, as AltPO
            does), `given` (the `alternatives` of the rows) or a file with one answer a line.
        others: Answers of each row, as far as there are so many; epochs take them in turn.
        beta: Inverse temperature.
        retention: Weight of the mean cross-entropy on retention (or general) rows.
        divergence: Weight of KL(memorized ‖ current) on the same rows, mean per answer token.
    """
    memorized = step.reference
    gained = memorized.alternative.nll - step.alternative.nll
    remains = memorized.unlearn.nll - step.unlearn.nll
    preferred = logsigmoid(beta * (gained - remains))  # [rows]
    unlearn = -2 / beta * step.unlearn.mean(preferred)
    return {"unlearn": unlearn} | retention_part(step, retention, divergence)


dpo.prepare(several_alternatives)
