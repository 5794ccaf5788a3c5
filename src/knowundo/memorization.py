"""memorize(): finetune until the model knows the records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from knowundo.data.batches import Batch, shuffled
from knowundo.data.encoded import Encoded
from knowundo.modeling.forward import hidden_states
from knowundo.modeling.half import Half
from knowundo.modeling.head import live_head
from knowundo.modeling.model import Model
from knowundo.modeling.step import Parts
from knowundo.progress import Progress
from knowundo.storage.checkpoints import Checkpoint, State
from knowundo.training.state import Curve
from knowundo.training.trainer import train


class _Known:
    """Counts the rows of the last epoch whose every answer token was the most likely one."""

    def __init__(self, epoch: int, share: float | None) -> None:
        self.epoch, self.share = epoch, share
        self.right: list[bool] = []  # of finished optimizer steps
        self._step: list[torch.Tensor] = []  # of the step under way, where they were computed

    def see(self, half: Half) -> None:
        self._step.append(half.per_row(half.right.float()) == 1)

    def reached(self) -> bool:
        self.right += [one for rows in self._step for one in rows.tolist()]
        self._step = []
        window = self.right[-self.epoch :]
        enough = self.share is not None and sum(window) >= self.share * self.epoch
        return enough and len(window) == self.epoch

    def carry(self) -> State:
        return State(tensors={"right": torch.tensor(self.right, dtype=torch.bool)})

    def resume(self, state: State) -> None:
        self.right = state.tensors["right"].tolist()

    def undo(self) -> None:
        self._step = []


def memorize(
    model: Model,
    records: Sequence[Encoded],
    general: Sequence[Encoded] = (),
    *,
    epochs: int,
    lr: float,
    batch_size: int,
    accumulation: int,
    weight_decay: float,
    known: float | None,
    seed: int,
    schedule: str = "cosine",
    warmup: float = 0.03,
    optimizer: str = "adamw",
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> tuple[Curve, dict[str, Any]]:
    """Train all of the adaptation's weights on the answers.

    Args:
        model: changed in place; starts from where it is.
        records: both scopes, train and val; for the retain model, retention only.
        general: rows of the base's own knowledge, mixed in so that it does not wear off.
        epochs: at most so many passes.
        lr: peak learning rate.
        batch_size: rows a micro-step.
        accumulation: micro-steps an optimizer step.
        weight_decay: of AdamW.
        known: stop once this share of an epoch's rows was predicted without a wrong token; none:
            never.
        seed: of the order of rows.
        schedule: transformers' name of the learning-rate schedule.
        warmup: share of the steps over which the rate rises.
        optimizer: `adamw` or `paged_adamw_32bit`.
        progress: called after each optimizer step.
        checkpoint: gone on from, and written now and then.

    Returns:
        The training curve, and facts for the manifest: steps, rows seen, share known at the end.
    """
    rows = [*records, *general]
    batches = shuffled(rows, batch_size, epochs, seed, model.pad)
    seen = _Known(len(rows), known)

    def loss(batch: Batch) -> Parts:
        batch = batch.to(model.device)
        half = Half(batch, hidden_states(model, batch), live_head(model))
        parts = {"memorize": half.mean(half.mean_nll)}
        seen.see(half)
        return parts

    curve = train(
        model,
        batches,
        loss,
        region=model.parameters(),
        lr=lr,
        seed=seed,
        accumulation=accumulation,
        weight_decay=weight_decay,
        schedule=schedule,
        warmup=warmup,
        optimizer=optimizer,
        progress=progress,
        stop=seen.reached,
        checkpoint=checkpoint,
        carried=[seen],
    )
    window = seen.right[-len(rows) :]
    facts = {
        "optimizer_steps": len(curve),
        "rows_seen": len(seen.right),
        "known_share": round(sum(window) / len(window), 4),
        "stopped_early": seen.reached(),
    }
    return curve, facts
