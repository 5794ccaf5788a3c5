"""Settings of one unlearning training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from knowundo.modeling.snapshots import BEST_RATE, BEST_STEP, END, INITIAL, MEMORIZED

# The scope of rows that no list holds: what else the model knows of the subjects of retention rows.
SIBLINGS = "siblings"


@dataclass(frozen=True)
class UnlearnSettings:
    """One method, where it may change weights, and how it is trained.

    Attributes:
        method: Name of a registered method.
        epochs: Passes over the unlearn rows.
        batch_size: Unlearn rows per batch.
        accumulation: Batches per optimizer step.
        lr: Peak learning rate, after a warm-up of 3 % of the steps and before a cosine decay. If
            `None`, a search has to choose it (`unlearning.rates`).
        arguments: The method's hyper-parameters.
        region: Names of the parameters that may change. If `None`, all of the adaptation.
        masks: Which weights of a tensor of the region may change, by name; of others all may.
        retain_on: The scope, or scopes, whose rows are `step.retention`: `retention`, `general` or
            `siblings`, what else the model knows of the subjects of retention rows.
        retained: Retention rows per batch. If `None`, as many as unlearn rows.
        optimizer: `adamw` or `paged_adamw_32bit`.
        gradients: How the gradients of the parts `unlearn` and retention become one: `sum`, or a
            file of `unlearning.gradients` with its hyper-parameters, see `unlearning.combining`.
        keep_every: Keep the weights after every so many optimizer steps, beside those at the end.
            If `None`, only the end is kept.
    """

    method: str
    epochs: int
    batch_size: int
    accumulation: int
    lr: float | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    region: Sequence[str] | None = None
    masks: Mapping[str, torch.Tensor] = field(default_factory=dict)
    retain_on: str | Sequence[str] = "retention"
    retained: int | None = None
    optimizer: str = "adamw"
    gradients: str | Mapping[str, Any] = "sum"
    keep_every: int | None = None


def retained_scopes(retain_on: str | Sequence[str]) -> tuple[str, ...]:
    """Return the scopes whose rows fill the retention half, a row of each in turn."""
    return (retain_on,) if isinstance(retain_on, str) else tuple(retain_on)


def copies_held(
    settings: UnlearnSettings, steps: int, *, stopping: bool, searching: bool, further: bool = False
) -> dict[str, int]:
    """Return how many copies of the region the stage unlearn holds at most, by holder.

    What `Snapshots` counts as it runs, told before anything runs.

    Args:
        settings: Of the training.
        steps: Optimizer steps of one training.
        stopping: Whether it stops early, so that the best evaluation step is held.
        searching: Whether its rate is searched, so that the best attempt is held.
        further: Whether it follows another method, so that its start is a copy too.
    """
    held = {INITIAL: 1, MEMORIZED: 1 + further, BEST_STEP: int(stopping), BEST_RATE: int(searching)}
    if settings.keep_every is not None:
        numbers = range(settings.keep_every, steps, settings.keep_every)
        held |= {f"step {number}": 1 for number in numbers}
        # The end is copied while the steps are written, after the best step was dropped: at most
        # one of the two is held at a time.
        held[END] = int(bool(numbers) and not stopping)
    return {holder: count for holder, count in held.items() if count}
