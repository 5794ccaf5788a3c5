"""What an erasure cost: answers, or tokens, of what must stay that are no longer right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from knowundo.data.lists.reading import REWORDED, made_up
from knowundo.erasure.score_pair import EXACT, ScorePair
from knowundo.pipeline.aims import LEAST_KNOWN
from knowundo.runs.run import Run
from knowundo.unlearning.retained_answers import LEAST_RIGHT


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
    """The loss on rows that were given, or that the model demonstrably knew, of a scored run.

    What the model makes up does not count: what nobody knows cannot be lost. Answers count in the
    wording in which the model knew them, so also those of rows that were trained on: an answer to
    other words, which nobody taught, comes and goes. Tokens count on val rows, by which nothing
    chose a setting.

    Returns:
        The greater of the two, of which answers count only with `unlearn.stop.damage: answers`.
        `None` if too few rows are known for either.
    """
    stop = run.recipe.unlearn.stop
    made = {record.id for record in run.records if made_up(record)}
    pair = ScorePair.of(run).rows("retention")
    known = pair.where(~pair.before.index.to_series().isin(made))
    found = [tokens_lost(known.rows("retention", "val"))]
    if stop is not None and stop.damage == "answers":
        found.append(answers_lost(known.where(~known.subsets().str.startswith(REWORDED))))
    return max(filter(None, found), key=lambda loss: loss.amount, default=None)


def answers_lost(known: ScorePair) -> Loss | None:
    """Percent of the exact answers that no longer are; `None` of fewer than `LEAST_RIGHT`."""
    right = known.where(known.before[EXACT] == 1)
    if len(right.before) < LEAST_RIGHT:
        return None
    return Loss(100 * float((right.after[EXACT] != 1).mean()), "answers")


def tokens_lost(known: ScorePair) -> Loss | None:
    """Points of token accuracy; `None` if there are fewer than `LEAST_KNOWN` rows."""
    tokens = known.percent("token_accuracy")
    if tokens.records < LEAST_KNOWN or tokens.before is None or tokens.after is None:
        return None
    return Loss(tokens.before - tokens.after, "tokens")
