"""The training loop: transformers' Trainer over ready-made batches."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, TrainerControl, TrainerState

from knowundo.data.batches import rows_of
from knowundo.distributed.sums import sum_gradients
from knowundo.modeling.fast.oom import TRIMMED_FROM, Freed
from knowundo.modeling.model import Model
from knowundo.modeling.step import Parts
from knowundo.storage.job import Job
from knowundo.training.settings import Split, TrainingHooks, TrainingSettings
from knowundo.training.sharing import own_parts
from knowundo.training.state import TrainingState


class _Wrapped(torch.nn.Module):
    """The module that the Trainer wants; the losses want the `Model`."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.net = model.net

    def train(self, mode: bool = True) -> _Wrapped:
        # The Trainer calls this for every micro-batch, and it visits thousands of modules.
        return self if self.training == self.net.training == mode else super().train(mode)


class _PartsTrainer(Trainer):
    """Minimises the sum of the parts of a loss, one micro-batch at a time."""

    # The Trainer divides a custom loss by the accumulation steps only when this is False.
    model_accepts_loss_kwargs = False

    def __init__(
        self,
        loss: Callable[[Any], Parts],
        batches: Sequence[Any],
        progress: TrainingState,
        split: Split,
        **rest: Any,
    ) -> None:
        super().__init__(**rest)
        self.model_accepts_loss_kwargs = False  # the Trainer's own __init__ sets it again
        self.loss, self.batches, self.progress, self.split = loss, batches, progress, split
        self.freed = Freed(_count(progress.model))

    def get_train_dataloader(self) -> DataLoader[Any]:
        # Batches are made already: batch_size=None hands them on one by one, unchanged.
        rows = [{"batch": batch} for batch in self.batches]
        return DataLoader(rows, batch_size=None, shuffle=False)  # type: ignore[arg-type]

    def training_step(self, model: Any, inputs: Any, *rest: Any) -> torch.Tensor:
        """One backward pass per micro-batch, so that no other's activations are held."""
        progress = self.progress
        losses = [torch.zeros((), device=progress.model.device)]  # a process may get no rows
        for part in own_parts(self.split, inputs["batch"], progress.row_limit):
            progress.most_rows = max(progress.most_rows, rows_of(part))
            self.freed.give_back()
            losses.append(super().training_step(model, {"batch": part}, *rest))
        # After the last batch of the optimizer step, and before the Trainer clips its gradient.
        if self.accelerator.sync_gradients:
            progress.exchanging = True
            sum_gradients(progress.chosen)
        if progress.separate is not None and self.accelerator.sync_gradients:
            progress.separate.combine(self.loss)
        if progress.masks is not None and self.accelerator.sync_gradients:
            progress.masks.apply()
        return torch.stack(losses).sum()

    def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
        # Kept as tensors on the device: a number of each micro-batch would wait for each of them.
        parts, sums = self.loss(inputs["batch"]), self.progress.parts
        share = 1 / self.current_gradient_accumulation_steps
        for name, part in parts.items():
            sums[name] = sums.get(name, 0.0) + share * part.detach()
        separate = self.progress.separate
        if separate is not None:
            return separate.backward_but_last(parts, share, inputs["batch"])
        return torch.stack(list(parts.values())).sum()

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # nobody reads the Trainer's estimate, and it costs a pass over all modules


class StepCallback(TrainerCallback):
    """Keeps the training state, reports progress, writes checkpoints, and stops when told to."""

    def __init__(self, state: TrainingState, steps: int, hooks: TrainingHooks, job: Job) -> None:
        """Run nothing yet.

        Args:
            state: Of the training.
            steps: Optimizer steps of the whole training, for progress.
            hooks: What is called and asked after each step.
            job: Progress and checkpoint.
        """
        self.state, self.steps, self.hooks, self.job = state, steps, hooks, job

    def on_step_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Remember the random numbers of the step."""
        self.state.before_step()

    def on_pre_optimizer_step(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Check the step's loss and gradients."""
        self.state.before_update()

    def on_optimizer_step(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Note that all weights have moved."""
        self.state.updating = False

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Count the step, report it, and stop or write a checkpoint if it is time."""
        self.state.after_step()
        if self.hooks.after_step is not None:
            self.hooks.after_step(self.state.means)
        self.job.report(self.state.step, self.steps)
        # `stop` comes first: what it records (an evaluation, a kept step) belongs to this step's
        # checkpoint.
        if self.hooks.stop and self.hooks.stop():
            control.should_training_stop = True
        elif self.job.due():
            self.job.write(self.state.state_dict())
        return control


def run_steps(
    batches: Sequence[Any],
    loss: Callable[[Any], Parts],
    split: Split,
    callback: StepCallback,
    settings: TrainingSettings,
) -> None:
    """Train on batches until they, or memory, or the callback's patience end.

    Args:
        batches: What `loss` takes, in their order.
        loss: Batch → named scalar parts, whose sum is minimised.
        split: Splits a batch into micro-batches.
        callback: Holds the training state, which this changes.
        settings: Of the training.

    Raises:
        Diverged: A part of the loss or a gradient is not finite.
        RuntimeError: Memory ran out, among others; the weights are those of a whole step unless
            the state says that they are being updated.
    """
    state = callback.state
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            max_steps=-(-len(batches) // settings.accumulation),
            gradient_accumulation_steps=settings.accumulation,
            max_grad_norm=settings.max_grad_norm,
            seed=settings.seed,
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            use_cpu=state.model.device.type == "cpu",
        )
        trainer = _PartsTrainer(
            loss,
            batches,
            state,
            split,
            model=_Wrapped(state.model),
            args=arguments,
            optimizers=(state.optimizer.optimizer, state.scheduler),
            callbacks=[callback],
        )
        trainer.remove_callback(PrinterCallback)  # it writes to stdout
        with _short_collection() if _count(state.model) < TRIMMED_FROM else nullcontext():
            trainer.train()


def _count(model: Model) -> int:
    return sum(parameter.numel() for parameter in model.net.parameters())


@contextmanager
def _short_collection() -> Iterator[None]:
    """Leave out what exists already when garbage is collected.

    The Trainer collects once per training, which takes a third of a second: much for a small model,
    whose garbage is small too.
    """
    if gc.get_freeze_count():  # somebody else froze objects, and unfreezes them
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
