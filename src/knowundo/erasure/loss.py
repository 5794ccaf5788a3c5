"""What an erasure cost: answers, or tokens, of what must stay that are no longer right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from knowundo.data.lists.reading import made_up
from knowundo.erasure.score_pair import EXACT, ScorePair
from knowundo.pipeline.aims import LEAST_KNOWN
from knowundo.runs.run import Run
from knowundo.unlearning.early_stopping import LEAST_RIGHT


@dataclass(frozen=True)
class Loss:
    """What was lost of what must stay.

    Attributes:
        amount: points of token accuracy, or percent of the exact answers; below 0 if more is right.
        counted: `tokens` or `answers`.
    """

    amount: float
    counted: Literal["tokens", "answers"]

    def __str__(self) -> str:
        """The loss as a part of a sentence."""
        amount = max(self.amount, 0.0)
        if self.counted == "answers":
            return f"{amount:.1f} % of the answers that must stay"
        return f"{amount:.1f} points of token accuracy on what must stay"


def loss_of(run: Run) -> Loss | None:
    """The loss on val rows that were given, or that the model demonstrably knew, of a scored run.

    Nothing chose a setting by these rows. What the model makes up does not count: what nobody knows
    cannot be lost.

    Returns:
        `None` if there are fewer than `LEAST_KNOWN` such rows.
    """
    stop = run.recipe.unlearn.stop
    made = {record.id for record in run.records if made_up(record)}
    pair = ScorePair.of(run).rows("retention", "val")
    known = pair.where(~pair.before.index.to_series().isin(made))
    return measured_loss(known, answers=stop is not None and stop.damage == "answers")


def measured_loss(known: ScorePair, *, answers: bool) -> Loss | None:
    """The loss on some rows.

    Args:
        known: Their scores.
        answers: Count exact answers, if at least `LEAST_RIGHT` rows had one; else tokens.
    """
    if len(known.before) < LEAST_KNOWN:
        return None
    right = known.where(known.before[EXACT] == 1)
    if answers and len(right.before) >= LEAST_RIGHT:
        return Loss(100 * float((right.after[EXACT] != 1).mean()), "answers")
    tokens = known.percent("token_accuracy")
    if tokens.before is None or tokens.after is None:
        return None
    return Loss(tokens.before - tokens.after, "tokens")
