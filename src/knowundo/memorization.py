"""memorize(): finetune until the model knows the records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from knowundo.data.batches import Batch, shuffled
from knowundo.data.encoded import Encoded
from knowundo.distributed.group import gathered
from knowundo.modeling.forward import hidden_states
from knowundo.modeling.half import Half
from knowundo.modeling.head import live_head
from knowundo.modeling.model import Model
from knowundo.modeling.step import Parts
from knowundo.storage.checkpoints import State
from knowundo.storage.job import Job
from knowundo.training.settings import TrainingHooks, TrainingSettings
from knowundo.training.state import Curve
from knowundo.training.trainer import train


@dataclass(frozen=True)
class MemorizeSettings:
    """How the records are learned.

    Attributes:
        epochs: At most so many passes over the rows.
        lr: Peak learning rate.
        batch_size: Rows per batch.
        accumulation: Batches per optimizer step.
        weight_decay: Decoupled weight decay of AdamW.
        known: Stop once this share of an epoch's rows was predicted without a wrong token. If
            `None`, all epochs are trained.
        seed: Seed of the order of rows.
        schedule: transformers' name of the learning-rate schedule.
        warmup: Share of the optimizer steps over which the rate rises.
        optimizer: `adamw` or `paged_adamw_32bit`.
    """

    epochs: int
    lr: float
    batch_size: int
    accumulation: int
    weight_decay: float
    known: float | None
    seed: int
    schedule: str = "cosine"
    warmup: float = 0.03
    optimizer: str = "adamw"

    def training(self) -> TrainingSettings:
        """Return the settings of the training loop."""
        return TrainingSettings(
            lr=self.lr,
            seed=self.seed,
            accumulation=self.accumulation,
            schedule=self.schedule,
            warmup=self.warmup,
            weight_decay=self.weight_decay,
            optimizer=self.optimizer,
        )


class _KnownRows:
    """Counts the rows of the last epoch whose every answer token was the most likely one."""

    def __init__(self, rows_per_epoch: int, share: float | None) -> None:
        self.rows_per_epoch, self.share = rows_per_epoch, share
        self.right: list[bool] = []  # of complete optimizer steps
        self._step: list[torch.Tensor] = []  # of the step in progress, on the device

    def see(self, half: Half) -> None:
        self._step.append(half.per_row(half.right.float()) == 1)

    def reached(self) -> bool:
        # Only here numbers are waited for that the device computes: once per optimizer step.
        own = [one for rows in self._step for one in rows.tolist()]
        self.right += [one for each in gathered(own) for one in each]
        self._step = []
        window = self.right[-self.rows_per_epoch :]
        enough = self.share is not None and sum(window) >= self.share * self.rows_per_epoch
        return enough and len(window) == self.rows_per_epoch

    def state_dict(self) -> State:
        return State(tensors={"right": torch.tensor(self.right, dtype=torch.bool)})

    def load_state_dict(self, state: State) -> None:
        self.right = state.tensors["right"].tolist()

    def rollback(self) -> None:
        self._step = []


def memorize(
    model: Model,
    records: Sequence[Encoded],
    general: Sequence[Encoded] = (),
    *,
    settings: MemorizeSettings,
    job: Job = Job(),
) -> tuple[Curve, dict[str, Any]]:
    """Train all of the adaptation's weights on the answers.

    Args:
        model: Changed in place; training starts from its present weights.
        records: Rows of both scopes, train and val; for the retain model, retention only.
        general: Rows of the base's own knowledge, mixed in so that it does not wear off.
        settings: How the records are learned.
        job: Progress and checkpoint.

    Returns:
        The training curve, and facts for the manifest: steps, rows seen, share known at the end.

    Raises:
        BadInput: The optimizer cannot run here, or the checkpoint is damaged.
        Diverged: A loss, a gradient or a weight is no longer finite.
    """
    rows = [*records, *general]
    batches = shuffled(rows, settings.batch_size, settings.epochs, settings.seed, model.pad)
    known = _KnownRows(len(rows), settings.known)

    def loss(batch: Batch) -> Parts:
        batch = batch.to(model.device)
        half = Half(batch, hidden_states(model, batch), live_head(model))
        # What is known is read off the training forward itself, so that it costs no forward of its
        # own; it lags behind by the steps of an epoch.
        parts = {"memorize": half.mean(half.mean_nll)}
        known.see(half)
        return parts

    hooks = TrainingHooks(stop=known.reached, resumable=[known])
    curve = train(
        model, batches, loss, model.parameters(), settings.training(), hooks=hooks, job=job
    )
    window = known.right[-len(rows) :]
    facts = {
        "optimizer_steps": len(curve),
        "rows_seen": len(known.right),
        "known_share": round(sum(window) / len(window), 4),
        "stopped_early": known.reached(),
    }
    return curve, facts
