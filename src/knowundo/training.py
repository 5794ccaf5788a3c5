"""Gradient descent on named loss parts: transformers' Trainer over ready-made batches."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, TrainerControl, TrainerState

from knowundo.errors import BadInput, Diverged
from knowundo.forwards import Parts
from knowundo.models import Model, need_bitsandbytes
from knowundo.progress import Progress

Curve = list[dict[str, Any]]


class _Wrapped(torch.nn.Module):
    """Trainer wants a module; the losses want the Model."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.net = model.net


class _PartsTrainer(Trainer):
    """Sums the parts of a loss and keeps the curve of each."""

    # A custom loss is divided by the accumulation steps only when this is False.
    model_accepts_loss_kwargs = False

    def __init__(self, loss: Callable[[Any], Parts], batches: Sequence[Any], **rest: Any) -> None:
        super().__init__(**rest)
        self.model_accepts_loss_kwargs = False
        self.loss, self.batches = loss, batches
        self.parts: list[dict[str, float]] = []

    def get_train_dataloader(self) -> DataLoader[Any]:
        rows = [{"batch": batch} for batch in self.batches]
        return DataLoader(rows, batch_size=None, shuffle=False)  # type: ignore[arg-type]

    def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
        parts = self.loss(inputs["batch"])
        values = {name: float(part.detach()) for name, part in parts.items()}
        if not all(map(math.isfinite, values.values())):
            raise Diverged(f"step {len(self.parts) + 1}: the loss is no longer finite: {values}")
        self.parts.append(values)
        return torch.stack(list(parts.values())).sum()

    def floating_point_ops(self, inputs: Any) -> int:
        return 0


class _Watch(TrainerCallback):
    """Reports progress, and stops when told to."""

    def __init__(self, progress: Progress | None, stop: Callable[[], bool] | None) -> None:
        self.progress, self.stop = progress, stop

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        if self.progress:
            self.progress(state.global_step, state.max_steps)
        if self.stop and self.stop():
            control.should_training_stop = True
        return control


def make_optimizer(
    name: str, chosen: Sequence[torch.nn.Parameter], *, lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """AdamW over the chosen parameters.

    Args:
        name: `adamw`, torch's own; `paged_adamw_32bit`, bitsandbytes' with a state of float32 that
            moves out of a full GPU.
        chosen: all on one device.
        lr: learning rate.
        weight_decay: of AdamW.

    Raises:
        BadInput: no such optimizer, or it cannot run here.
    """
    if name == "adamw":
        return torch.optim.AdamW(chosen, lr=lr, weight_decay=weight_decay)
    if name != "paged_adamw_32bit":
        raise BadInput(f"model.optimizer '{name}': say adamw or paged_adamw_32bit")
    if any(parameter.device.type == "cpu" for parameter in chosen):
        raise BadInput(f"model.optimizer {name}: pages a GPU's memory; on a CPU say adamw")
    need_bitsandbytes(f"model.optimizer {name}")
    from bitsandbytes.optim.adamw import PagedAdamW32bit

    paged: torch.optim.Optimizer = PagedAdamW32bit(chosen, lr=lr, weight_decay=weight_decay)
    return paged


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
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
) -> Curve:
    """Train the parameters of `region` on the batches, once each, in their order.

    Args:
        model: changed in place; nothing outside the region moves by a bit.
        batches: what `loss` takes, one a micro-step.
        loss: batch → named scalar parts; their sum is minimised.
        region: names of the parameters that may change.
        lr: peak learning rate.
        seed: of everything random inside the Trainer.
        accumulation: micro-steps an optimizer step; the mean gradient is applied.
        schedule: transformers' name of the learning-rate schedule.
        warmup: share of the steps over which the rate rises.
        weight_decay: of AdamW.
        max_grad_norm: gradients are clipped to this norm.
        optimizer: `adamw` or `paged_adamw_32bit`.
        progress: called after each optimizer step.
        stop: asked after each optimizer step.

    Returns:
        One row an optimizer step: `{"step": n, "parts": {name: mean over its micro-steps}}`.

    Raises:
        BadInput: the optimizer cannot run here.
        Diverged: a part of the loss, or a weight, is no longer finite.
    """
    region = list(region)
    model.hold(region)
    chosen = model.train_only(region)
    descent = make_optimizer(optimizer, chosen, lr=lr, weight_decay=weight_decay)
    steps = -(-len(batches) // accumulation)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            max_steps=steps,
            gradient_accumulation_steps=accumulation,
            learning_rate=lr,
            lr_scheduler_type=schedule,
            warmup_steps=round(warmup * steps),
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
            model=_Wrapped(model),
            args=arguments,
            optimizers=(descent, None),
            callbacks=[_Watch(progress, stop)],
        )
        trainer.remove_callback(PrinterCallback)  # it writes to stdout
        try:
            trainer.train()
        finally:
            model.net.eval()
            model.train_only([])
    if not all(bool(parameter.isfinite().all()) for parameter in chosen):
        raise Diverged("a weight is no longer finite after training")
    return _curve(trainer.parts, accumulation)


def _curve(parts: list[dict[str, float]], accumulation: int) -> Curve:
    groups = [parts[i : i + accumulation] for i in range(0, len(parts), accumulation)]
    return [
        {
            "step": number,
            "parts": {name: sum(row[name] for row in group) / len(group) for name in group[0]},
        }
        for number, group in enumerate(groups, start=1)
    ]
