"""Relearning: a few steps of training, after which what was only hidden returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Annotated, Literal

from pydantic import Field

from knowundo.attacked import Attacked
from knowundo.data.batches import Batch, shuffled
from knowundo.data.encoded import Encoded
from knowundo.errors import BadInput, Diverged
from knowundo.modeling.forward import hidden_states
from knowundo.modeling.half import Half
from knowundo.modeling.head import live_head
from knowundo.modeling.model import Model
from knowundo.modeling.step import Parts
from knowundo.registry import attack
from knowundo.storage.checkpoints import State
from knowundo.training.settings import TrainingHooks, TrainingSettings
from knowundo.training.trainer import train


@attack(changes="weights")
def relearning(
    attacked: Attacked,
    *,
    rows: Literal["unlearn", "retention", "general"] = "unlearn",
    count: Annotated[int, Field(ge=1)] | None = None,
    steps: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (
        0,
        10,
        20,
        50,
    ),
    lr: Annotated[float, Field(gt=0)] | None = None,
    batch_size: Annotated[int, Field(ge=1)] = 8,
) -> None:
    """Train on a few rows, and see whether the others come back with them.

    Hu et al. 2024, arXiv:2406.13356: rows that an attacker holds, or unrelated ones, bring back
    what was not trained on. Rows whose answer was trained on are therefore not scored. All
    weights of the adaptation are trained by AdamW at a constant rate.

    Args:
        attacked: The model.
        rows: Train rows that the attacker holds: of the unlearn scope, or unrelated ones.
        count: How many of them, drawn by the seed. If null, a fifth.
        steps: Optimizer steps after which the model is scored.
        lr: Learning rate. If null, `memorize.lr`.
        batch_size: Rows of a step.

    Raises:
        BadInput: There are no such rows, or with so many none is left to be scored.
    """
    model, held = attacked.model, _held_rows(attacked, rows, count)
    told = {row.record.answer for row in held}
    scored = [row for row in attacked.rows if row.record.answer not in told]
    if not any(row.record.scope == "unlearn" for row in scored):
        raise BadInput("attack relearning: no unlearn row is left to be scored; lower count")
    if 0 in steps:
        attacked.score(_name(0), scored)
    if all(_name(step) in attacked.tables for step in steps):
        return
    epochs = -(-max(steps) * batch_size // len(held))
    batches = shuffled(held, batch_size, epochs, attacked.seed, model.pad)[: max(steps)]
    scorer = _ScoredSteps(attacked, scored, steps)
    settings = TrainingSettings(
        lr=lr or attacked.lr, seed=attacked.seed, schedule="constant", warmup=0.0
    )
    hooks = TrainingHooks(after_step=scorer.after_step, resumable=[scorer])
    try:
        train(
            model,
            batches,
            lambda batch: _loss(model, batch),
            model.parameters(),
            settings,
            hooks=hooks,
            job=attacked.job.part("training"),
        )
    except Diverged as error:
        model.notes.add(f"attack relearning: diverged after step {error.step}; lower its lr")


def _held_rows(attacked: Attacked, rows: str, count: int | None) -> list[Encoded]:
    """The rows that the attacker holds."""
    there = attacked.train[rows]
    if not there:
        raise BadInput(f"attack relearning: there are no {rows}/train rows; choose other `rows`")
    if (wanted := count or max(1, len(there) // 5)) > len(there):
        raise BadInput(
            f"attack relearning: count {wanted}, and there are {len(there)} {rows}/train rows; "
            "lower count"
        )
    return Random(attacked.seed).sample(list(there), wanted)


def _name(step: int) -> str:
    return f"{step} step" if step == 1 else f"{step} steps"


def _loss(model: Model, batch: Batch) -> Parts:
    batch = batch.to(model.device)
    half = Half(batch, hidden_states(model, batch), live_head(model))
    return {"relearn": half.mean(half.mean_nll)}


class _ScoredSteps:
    """Scores the model after some optimizer steps."""

    def __init__(self, attacked: Attacked, rows: Sequence[Encoded], steps: Sequence[int]) -> None:
        self.attacked, self.rows, self.steps, self.step = attacked, rows, steps, 0

    def after_step(self, _: Mapping[str, float]) -> None:
        self.step += 1
        if self.step in self.steps:
            self.attacked.score(_name(self.step), self.rows)

    def state_dict(self) -> State:
        return State({"step": self.step})

    def load_state_dict(self, state: State) -> None:
        self.step = state.facts["step"]

    def rollback(self) -> None:
        pass  # steps are counted after they are complete
