"""Gradient descent on named loss parts: transformers' Trainer over ready-made batches.

Training can be killed at any moment and goes on from its checkpoint to the same bits; it stops with
its last good weights where numbers blow up; and it goes on with halved batches where memory runs
out.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments, get_scheduler
from transformers.trainer_callback import PrinterCallback, TrainerControl, TrainerState

from knowundo.data.batches import rows_of
from knowundo.errors import Diverged
from knowundo.modeling.capabilities import shares
from knowundo.modeling.fast.microbatches import pieces
from knowundo.modeling.fast.oom import WORTH, Freed, halved
from knowundo.modeling.model import Model
from knowundo.modeling.step import Parts
from knowundo.progress import Progress
from knowundo.storage.checkpoints import (
    Carried,
    Checkpoint,
)
from knowundo.training.bfloat16 import rounded_gradients
from knowundo.training.optimizer import make_optimizer, warmup_steps
from knowundo.training.state import Curve, TrainingState

Cut = Callable[[Any, int | None], list[Any]]


class _Wrapped(torch.nn.Module):
    """Trainer wants a module; the losses want the Model."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.net = model.net

    def train(self, mode: bool = True) -> _Wrapped:
        """The Trainer says so at every micro-step, to thousands of modules."""
        return self if self.training == self.net.training == mode else super().train(mode)


class _PartsTrainer(Trainer):
    """Sums the parts of a loss."""

    # A custom loss is divided by the accumulation steps only when this is False.
    model_accepts_loss_kwargs = False

    def __init__(
        self,
        loss: Callable[[Any], Parts],
        batches: Sequence[Any],
        course: TrainingState,
        cut: Cut,
        **rest: Any,
    ) -> None:
        super().__init__(**rest)
        self.model_accepts_loss_kwargs = False
        self.loss, self.batches, self.course, self.cut = loss, batches, course, cut
        self.freed = Freed(_numbers(course.model))

    def get_train_dataloader(self) -> DataLoader[Any]:
        rows = [{"batch": batch} for batch in self.batches]
        return DataLoader(rows, batch_size=None, shuffle=False)  # type: ignore[arg-type]

    def training_step(self, model: Any, inputs: Any, *rest: Any) -> torch.Tensor:
        """A backward pass a piece: no more than a piece's activations are held at a time."""
        losses = []
        for piece in self.cut(inputs["batch"], self.course.rows):
            self.course.tried = max(self.course.tried, rows_of(piece))
            self.freed.give_back()
            losses.append(super().training_step(model, {"batch": piece}, *rest))
        return torch.stack(losses).sum()

    def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
        parts, held = self.loss(inputs["batch"]), self.course.parts
        share = 1 / self.current_gradient_accumulation_steps
        for name, part in parts.items():
            held[name] = held.get(name, 0.0) + share * part.detach()
        return torch.stack(list(parts.values())).sum()

    def floating_point_ops(self, inputs: Any) -> int:
        return 0


class _Watch(TrainerCallback):
    """Keeps the course, reports progress, writes checkpoints, and stops when told to."""

    def __init__(
        self,
        course: TrainingState,
        steps: int,
        progress: Progress | None,
        stop: Callable[[], bool] | None,
        checkpoint: Checkpoint | None,
    ) -> None:
        self.course, self.steps, self.progress = course, steps, progress
        self.stop, self.checkpoint = stop, checkpoint

    def on_step_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.course.before_step()

    def on_pre_optimizer_step(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.course.before_update()

    def on_optimizer_step(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.course.updating = False

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        course = self.course
        course.after_step()
        if self.progress:
            self.progress(course.step, self.steps)
        if self.stop and self.stop():
            control.should_training_stop = True
        elif self.checkpoint and self.checkpoint.due():
            state_now = course.carry()
            self.checkpoint.write(state_now.facts, state_now.tensors)
        return control


def train(
    model: Model,
    batches: Sequence[Any],
    loss: Callable[[Any], Parts],
    *,
    region: Iterable[str],
    lr: float,
    seed: int,
    accumulation: int = 1,
    schedule: str = "cosine",
    warmup: float = 0.03,
    weight_decay: float = 0.0,
    max_grad_norm: float = 1.0,
    optimizer: str = "adamw",
    rollback: bool = False,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
    checkpoint: Checkpoint | None = None,
    carried: Sequence[Carried] = (),
    cut: Cut | None = None,
) -> Curve:
    """Train the parameters of `region` on the batches, once each, in their order.

    Args:
        model: changed in place; nothing outside the region moves by a bit.
        batches: what `loss` takes, one a micro-step.
        loss: batch → named scalar parts, each a mean over the whole batch (`Half.mean`), or of a
            piece its share of it; their sum is minimised.
        region: names of the parameters that may change.
        lr: peak learning rate.
        seed: of everything random inside the Trainer.
        accumulation: micro-steps an optimizer step; the mean gradient is applied.
        schedule: transformers' name of the learning-rate schedule.
        warmup: share of the steps over which the rate rises, see `warmup_steps`.
        weight_decay: of AdamW.
        max_grad_norm: gradients are clipped to this norm.
        optimizer: `adamw`, `paged_adamw_32bit` or `adamw_bfloat16`.
        rollback: where training diverges, leave the last weights whose loss and gradients were
            finite; costs a copy of the region.
        progress: called after each optimizer step.
        stop: asked after each optimizer step.
        checkpoint: gone on from, and written now and then.
        carried: what else a checkpoint must hold for `loss` and `stop` to go on as they would have.
        cut: batch, and rows that a piece may have → its pieces, whose losses add up to the batch's.
            If `None`, pieces of as many tokens as the model takes at a time.

    Returns:
        One row an optimizer step: `{"step": n, "parts": {name: mean over its micro-steps}}`.

    Raises:
        BadInput: the optimizer cannot run here, or the checkpoint is damaged.
        Diverged: a part of the loss, a gradient or a weight is no longer finite.
    """
    region = list(region)
    model.hold(region)
    chosen = model.train_only(region)
    descent = make_optimizer(optimizer, chosen, lr=lr, weight_decay=weight_decay)
    steps = -(-len(batches) // accumulation)
    scheduler = get_scheduler(
        schedule,
        descent,
        num_warmup_steps=warmup_steps(warmup, steps),
        num_training_steps=steps,
    )
    course = TrainingState(model, region, descent, scheduler, carried, rollback=rollback)
    if checkpoint and (held := checkpoint.read()) is not None:
        course.resume(held)
    watch = _Watch(course, steps, progress, stop, checkpoint)
    cut = cut or (
        lambda batch, rows: pieces(batch, tokens=model.tokens, rows=rows, shared=shares(model))
    )
    options: dict[str, Any] = {"seed": seed, "max_grad_norm": max_grad_norm}
    rounding = rounded_gradients(chosen) if optimizer == "adamw_bfloat16" else nullcontext()
    try:
        with rounding:
            _descend(course, batches, loss, watch, cut, accumulation=accumulation, **options)
        if not all(bool(parameter.isfinite().all()) for parameter in chosen):
            raise Diverged("a weight is no longer finite after training")
    except Diverged as error:
        error.step, error.curve = course.good_step, course.curve
        model.overwrite(course.good)
        raise
    finally:
        model.net.eval()
        model.train_only([])
    return course.curve


def _descend(
    course: TrainingState,
    batches: Sequence[Any],
    loss: Callable[[Any], Parts],
    watch: _Watch,
    cut: Cut,
    *,
    accumulation: int,
    **options: Any,
) -> None:
    """The steps that are left, each batch in pieces that fit into memory."""
    while course.step < watch.steps:
        left = batches[course.step * accumulation :]
        try:
            _fit(course, left, loss, watch, cut, accumulation=accumulation, **options)
            return
        except RuntimeError as error:
            if course.updating:  # half of the weights may have moved
                raise
            course.rows = halved(course.tried, error, course.model.notes.add, "training")
        gc.collect()  # the step that did not fit, whose parts refer to each other
        course.tried = 0
        course.undo()


def _fit(
    course: TrainingState,
    batches: Sequence[Any],
    loss: Callable[[Any], Parts],
    watch: _Watch,
    cut: Cut,
    *,
    accumulation: int,
    seed: int,
    max_grad_norm: float,
) -> None:
    """transformers' Trainer on micro-batches."""
    model = course.model
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            max_steps=-(-len(batches) // accumulation),
            gradient_accumulation_steps=accumulation,
            max_grad_norm=max_grad_norm,
            seed=seed,
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            use_cpu=model.device.type == "cpu",
        )
        trainer = _PartsTrainer(
            loss,
            batches,
            course,
            cut,
            model=_Wrapped(model),
            args=arguments,
            optimizers=(course.optimizer.optimizer, course.scheduler),
            callbacks=[watch],
        )
        trainer.remove_callback(PrinterCallback)  # it writes to stdout
        with _spared() if _numbers(model) < WORTH else nullcontext():
            trainer.train()


def _numbers(model: Model) -> int:
    return sum(parameter.numel() for parameter in model.net.parameters())


@contextmanager
def _spared() -> Iterator[None]:
    """What is there already is left out when garbage is collected.

    The Trainer collects once a training, which takes a third of a second: much for a small model,
    whose garbage is small too.
    """
    if gc.get_freeze_count():  # somebody else's
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
