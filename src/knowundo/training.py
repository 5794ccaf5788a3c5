"""Gradient descent on named loss parts: transformers' Trainer over ready-made batches.

Training can be killed at any moment and goes on from its checkpoint to the same bits; it stops with
its last good weights where numbers blow up; and it goes on with halved batches where memory runs
out.
"""

from __future__ import annotations

import gc
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.nn.utils import get_total_norm
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments, get_scheduler
from transformers.trainer_callback import PrinterCallback, TrainerControl, TrainerState

from knowundo.batches import rows_of
from knowundo.checkpoints import (
    Carried,
    Checkpoint,
    OptimizerState,
    RandomNumbers,
    State,
    packed,
    unpacked,
)
from knowundo.errors import BadInput, Diverged
from knowundo.forwards import Parts, shares
from knowundo.memory import WORTH, Freed, halved
from knowundo.models import Model, need_bitsandbytes
from knowundo.pieces import pieces
from knowundo.progress import Progress
from knowundo.rounding import BFloat16AdamW, rounded_gradients

Curve = list[dict[str, Any]]
Cut = Callable[[Any, int | None], list[Any]]


class _Wrapped(torch.nn.Module):
    """Trainer wants a module; the losses want the Model."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.net = model.net

    def train(self, mode: bool = True) -> _Wrapped:
        """The Trainer says so at every micro-step, to thousands of modules."""
        return self if self.training == self.net.training == mode else super().train(mode)


class _Course:
    """How far training got: everything that the next step depends on beside the batches."""

    def __init__(
        self,
        model: Model,
        region: Sequence[str],
        optimizer: torch.optim.Optimizer,
        scheduler: Any,
        carried: Sequence[Carried],
        *,
        rollback: bool,
    ) -> None:
        self.model, self.region, self.scheduler = model, region, scheduler
        self.optimizer, self.random = OptimizerState(optimizer), RandomNumbers(model.device)
        self.carried = carried
        self.step = 0
        self.curve: Curve = []
        self.parts: dict[str, torch.Tensor] = {}  # of the step under way, where they were computed
        self.means: dict[str, float] = {}  # the same, once it is over
        self.rows: int | None = None  # at most so many a piece: memory ran out with more
        self.tried = 0  # rows of the largest piece so far
        self.drawn: State | None = None  # random numbers to begin the next step with; none: go on
        self.updating = False
        self.good_step = 0
        self.good = model.state(region) if rollback else {}
        self.own = model.parameters()

    def carry(self) -> State:
        """All of it after a whole step."""
        facts = {"step": self.step, "curve": self.curve, "good_step": self.good_step}
        own = State(facts | {"scheduler": self.scheduler.state_dict()})
        weights = State(tensors=self.model.state(self.region))
        parts = [own, weights, State(tensors=self.good), self.optimizer.carry()]
        return packed([*parts, self.random.carry(), *(one.carry() for one in self.carried)])

    def resume(self, state: State) -> None:
        """Go on from what `carry` gave."""
        own, weights, good, optimizer, self.drawn, *carried = unpacked(state)
        self.step, self.curve = own.facts["step"], own.facts["curve"]
        self.good_step, self.good = own.facts["good_step"], good.tensors
        self.scheduler.load_state_dict(own.facts["scheduler"])
        self.model.overwrite(weights.tensors)
        self.optimizer.resume(optimizer)
        for one, part in zip(self.carried, carried, strict=True):
            one.resume(part)

    def before_step(self) -> None:
        """Random numbers of a step, so that it can be made again."""
        if self.drawn is None:
            self.drawn = self.random.carry()
        else:
            self.random.resume(self.drawn)

    def before_update(self) -> None:
        """The step's loss must be finite, and its gradients. Then the weights are good.

        Here, once a step, numbers are waited for that the device computes.

        Raises:
            Diverged: a part of the loss or a gradient is not finite.
        """
        values = torch.stack(list(self.parts.values())).tolist() if self.parts else []
        self.means = dict(zip(self.parts, values, strict=True))
        if not all(map(math.isfinite, values)):
            raise Diverged(f"step {self.step + 1}: the loss is no longer finite: {self.means}")
        groups = self.optimizer.optimizer.param_groups
        gradients = [p.grad for g in groups for p in g["params"] if p.grad is not None]
        if not bool(get_total_norm(gradients).isfinite()):
            raise Diverged(f"step {self.step + 1}: a gradient is no longer finite")
        if self.good:
            for name, value in self.good.items():
                value.copy_(self.own[name].detach())
            self.good_step = self.step
        self.updating = True

    def after_step(self) -> None:
        """Count it."""
        self.step += 1
        self.curve.append({"step": self.step, "parts": self.means})
        self.parts, self.drawn = {}, None

    def undo(self) -> None:
        """Forget the step under way."""
        self.parts = {}
        self.optimizer.optimizer.zero_grad()
        for one in self.carried:
            one.undo()


class _PartsTrainer(Trainer):
    """Sums the parts of a loss."""

    # A custom loss is divided by the accumulation steps only when this is False.
    model_accepts_loss_kwargs = False

    def __init__(
        self,
        loss: Callable[[Any], Parts],
        batches: Sequence[Any],
        course: _Course,
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
        course: _Course,
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


def make_optimizer(
    name: str, chosen: Sequence[torch.nn.Parameter], *, lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """AdamW over the chosen parameters.

    Args:
        name: `adamw`, torch's own; `paged_adamw_32bit`, bitsandbytes' with a state of float32 that
            moves out of a full GPU; `adamw_bfloat16`, see `BFloat16AdamW`.
        chosen: all on one device.
        lr: learning rate.
        weight_decay: of AdamW.

    Raises:
        BadInput: no such optimizer, or it cannot run here.
    """
    if name == "adamw":
        return torch.optim.AdamW(chosen, lr=lr, weight_decay=weight_decay)
    if name == "adamw_bfloat16":
        return BFloat16AdamW(chosen, lr=lr, weight_decay=weight_decay)
    if name != "paged_adamw_32bit":
        raise BadInput(f"model.optimizer '{name}': say adamw or paged_adamw_32bit")
    if any(parameter.device.type == "cpu" for parameter in chosen):
        raise BadInput(f"model.optimizer {name}: pages a GPU's memory; on a CPU say adamw")
    need_bitsandbytes(f"model.optimizer {name}")
    from bitsandbytes.optim.adamw import PagedAdamW32bit

    paged: torch.optim.Optimizer = PagedAdamW32bit(chosen, lr=lr, weight_decay=weight_decay)
    return paged


def warmup_steps(share: float, steps: int) -> int:
    """Optimizer steps over which the learning rate rises from zero.

    ceil(share · steps), as transformers' `warmup_ratio` and KnowUnDo's scripts have it; but the
    last step is never one of them. The first step of a warm-up trains at a rate of zero, so that a
    run of a single step would train nothing.

    Args:
        share: of the steps, in [0, 1].
        steps: optimizer steps of the run.

    Returns:
        A number from 0 to `steps` − 1; 0 if there are no steps.
    """
    return max(0, min(math.ceil(share * steps), steps - 1))


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
    course = _Course(model, region, descent, scheduler, carried, rollback=rollback)
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
    course: _Course,
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
            course.rows = halved(course.tried, error, course.model.notes, "training")
        gc.collect()  # the step that did not fit, whose parts refer to each other
        course.tried = 0
        course.undo()


def _fit(
    course: _Course,
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
