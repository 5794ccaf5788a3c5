"""What the memorized model would say without what training further on the unlearn rows adds.

Training further on the rows raises the logits of what belongs to them. Where it does, the memorized
model's logits are lowered; elsewhere they stay (Eldan and Russinovich 2023, arXiv:2310.02238).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from knowundo.data.encoded import Encoded
from knowundo.modeling.fast.chunked_logits import full_precision
from knowundo.modeling.half import Columns
from knowundo.modeling.step import Step
from knowundo.unlearning.scorer import Scorer


def reinforced(encoded: Sequence[Encoded], scorer: Scorer, *, epochs: int, rate: float) -> Columns:
    """The column `reinforced`: hidden states of the model after it was trained further.

    Args:
        encoded: The unlearn rows.
        scorer: Of the memorized model.
        epochs: Passes over the rows.
        rate: Peak learning rate.

    Raises:
        BadInput: The adaptation is not LoRA, or trains the head.
    """
    return {"reinforced": scorer.reinforced(encoded, epochs=epochs, lr=rate)}


def against_generic(
    step: Step,
    strength: float,
    function: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, ...]],
) -> torch.Tensor:
    """A function of current and generic logits, mean over each unlearn row's tokens, [rows].

    Args:
        step: The step, with the column `reinforced`.
        strength: α of the generic logits z − α·ReLU(z_reinforced − z), z of the memorized model.
        function: Current and generic logits, [tokens, vocabulary] both → numbers, [tokens].
    """
    half, reference = step.unlearn, step.reference.unlearn
    column = step.columns["reinforced"]
    states = torch.cat([column[row.record.id] for row in half.batch.encoded])

    def both(
        logits: torch.Tensor, before: torch.Tensor, states: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            gained = (full_precision(reference.head(states)) - before).relu()
        return function(logits, before - strength * gained)

    return half.per_row(half.against(reference, both, states.to(half.states.device))[0])
