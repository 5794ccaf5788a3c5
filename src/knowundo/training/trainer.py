"""train(): gradient descent on named loss parts, inside a region, resumable to the same bits.

Training can be killed at any moment and resumes from its checkpoint to the same bits; it ends where
numbers are no longer finite; and it continues with halved micro-batches where memory runs out.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from transformers import get_scheduler

from knowundo.distributed.group import group
from knowundo.errors import Diverged
from knowundo.modeling.fast.microbatches import micro_batches
from knowundo.modeling.fast.oom import halved
from knowundo.modeling.model import Model
from knowundo.modeling.step import Parts
from knowundo.storage.job import Job
from knowundo.training.bfloat16 import rounded_gradients
from knowundo.training.loop import StepCallback, run_steps
from knowundo.training.masks import GradientMasks
from knowundo.training.optimizer import make_optimizer, warmup_steps
from knowundo.training.separate_gradients import SeparateGradients
from knowundo.training.settings import Split, TrainingHooks, TrainingSettings
from knowundo.training.state import Curve, TrainingState


def train(
    model: Model,
    batches: Sequence[Any],
    loss: Callable[[Any], Parts],
    region: Iterable[str],
    settings: TrainingSettings,
    *,
    hooks: TrainingHooks = TrainingHooks(),
    job: Job = Job(),
) -> Curve:
    """Train the parameters of a region on the batches, once each, in their order.

    No copy of the weights is held to go back to: a caller that wants the last good weights of a
    training that diverged trains once more, up to `Diverged.step`. As a training resumes to the
    same bits, it repeats itself to the same bits too.

    Args:
        model: Changed in place; nothing outside the region moves by a bit.
        batches: What `loss` takes; `settings.accumulation` of them make an optimizer step.
        loss: Batch → named scalar parts, each a mean over the whole batch (`Half.mean`), or for a
            micro-batch its share of it. Their sum is minimised, or what `hooks.combination` makes
            of their gradients. It is a function of batch and
            weights: what else it depends on must be in `hooks.resumable`.
        region: Names of the parameters that may change.
        settings: Rate, schedule, optimizer and the like.
        hooks: What the calling stage adds to the loop.
        job: Progress and checkpoint.

    Returns:
        One row per optimizer step: `{"step": n, "parts": {name: mean over its batches}}`.

    Raises:
        BadInput: The optimizer cannot run here, or the checkpoint is damaged.
        Diverged: A part of the loss, a gradient or a weight is no longer finite. Its `step` is the
            last one whose weights had a finite loss and finite gradients, its `curve` what there is
            until then; the model is left as it diverged.
    """
    region, steps = list(region), -(-len(batches) // settings.accumulation)
    model.copy_initial(region)  # so that `Model.reset` finds its way back
    chosen = model.train_only(region)
    state = _begin(model, region, chosen, steps, settings, hooks)
    if (held := job.resumed()) is not None:
        state.load_state_dict(held)
    callback = StepCallback(state, steps, hooks, job)
    in_bfloat16 = settings.optimizer == "adamw_bfloat16"
    rounding = rounded_gradients(chosen) if in_bfloat16 else nullcontext()
    try:
        with rounding:
            _train_rest(batches, loss, hooks.split or _by_tokens(model), callback, settings)
        state.share_random()
        # The last update was applied after the last check of a loss.
        if not all(bool(parameter.isfinite().all()) for parameter in chosen):
            raise Diverged("a weight is no longer finite after training")
    except Diverged as error:
        error.step, error.curve = state.good_step, state.curve
        raise
    finally:
        # Whatever comes next (scoring, another method) finds no dropout and no gradients.
        model.net.eval()
        model.train_only([])
    return state.curve


def _begin(
    model: Model,
    region: Sequence[str],
    chosen: Sequence[torch.nn.Parameter],
    steps: int,
    settings: TrainingSettings,
    hooks: TrainingHooks,
) -> TrainingState:
    """The state before the first of so many optimizer steps."""
    optimizer = make_optimizer(
        settings.optimizer, chosen, lr=settings.lr, weight_decay=settings.weight_decay
    )
    scheduler = get_scheduler(
        settings.schedule,
        optimizer,
        num_warmup_steps=warmup_steps(settings.warmup, steps),
        num_training_steps=steps,
    )
    state = TrainingState(model, region, optimizer, scheduler, hooks.resumable)
    if hooks.masks:
        state.masks = GradientMasks(model.parameters(), hooks.masks, settings)
    if hooks.combination is not None:
        clear = None if state.masks is None else state.masks.apply
        state.separate = SeparateGradients(hooks.combination, chosen, clear)
        state.resumable = [*state.resumable, state.separate]
    return state


def _by_tokens(model: Model) -> Split:
    """Split batches into micro-batches of as many tokens as the model takes at a time."""
    return lambda batch, rows: micro_batches(
        batch, tokens=model.tokens, rows=rows, shared=model.capabilities.shared_prefixes
    )


def _train_rest(
    batches: Sequence[Any],
    loss: Callable[[Any], Parts],
    split: Split,
    callback: StepCallback,
    settings: TrainingSettings,
) -> None:
    """Make the steps that are left, with smaller micro-batches each time that memory runs out."""
    state = callback.state
    while state.step < callback.steps:
        left = batches[state.step * settings.accumulation :]
        try:
            run_steps(left, loss, split, callback, settings)
            return
        except RuntimeError as error:
            # Half of the weights may have moved, or the other processes wait for this one.
            if state.updating or (state.exchanging and group().size > 1):
                raise
            state.row_limit = halved(state.most_rows, error, state.model.notes.add, "training")
        # The step that did not fit: its parts refer to each other, so that only collecting frees
        # them, and they must be gone before the next attempt.
        gc.collect()
        state.most_rows, state.exchanging = 0, False
        state.rollback()
