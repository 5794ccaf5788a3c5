"""The original way of doing the same work, for `speed.py` to measure against.

As KnowUnDo's public code does it: one row a micro-batch and 16 of them a step, every row padded to
256 tokens, logits over the whole vocabulary at every position, a second whole model as the
reference, a backward pass through all of the adapter whatever is trained, gradients for
localization row by row, and one load of the base for each adapter that is scored. It computes the
same as our way (rows, effective batch, losses and optimizer), so that the results can be compared;
where the public code computes something else (docs/coming-from-knowundo.md), it is adapted.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import kl_div
from torch.nn.utils import clip_grad_norm_
from transformers import get_scheduler

from knowundo.data.batches import PairedBatch
from knowundo.data.encoded import Encoded
from knowundo.modeling.model import Model
from knowundo.modeling.variant import ModelVariant

LENGTH, IGNORED = 256, -100


def padded(row: Encoded, pad: int, answer: Sequence[int] | None = None) -> dict[str, torch.Tensor]:
    """One row as tensors of full length, [1, 256] each; its labels are its answer, or another."""
    room = LENGTH - len(row.ids)
    own = list(row.ids[row.answer_from :] if answer is None else answer)
    labels = [IGNORED] * row.answer_from + own + [IGNORED] * room
    return {
        "input_ids": torch.tensor([[*row.ids, *[pad] * room]]),
        "attention_mask": torch.tensor([[1] * len(row.ids) + [0] * room]),
        "labels": torch.tensor([labels]),
    }


def row_loss(net: Any, row: Encoded, pad: int, answer: Sequence[int] | None = None) -> torch.Tensor:
    """Mean cross-entropy of a row's answer, from logits at all 256 positions."""
    loss: torch.Tensor = net(**padded(row, pad, answer)).loss
    return loss


def row_divergence(net: Any, reference: Any, row: Encoded, pad: int) -> torch.Tensor:
    """KL(reference ‖ current), mean over the answer's tokens, from both models' full logits."""
    tensors = padded(row, pad)
    del tensors["labels"]
    current = net(**tensors).logits[0].log_softmax(-1)
    with torch.no_grad():
        memorized = reference(**tensors).logits[0].log_softmax(-1)
    each = kl_div(current, memorized, reduction="none", log_target=True).sum(-1)
    return each[row.answer_from - 1 : len(row.ids) - 1].mean()


def descend(
    model: Model, steps: Iterable[Sequence[Callable[[], torch.Tensor]]], total: int, *, lr: float,
    region: Iterable[str] | None = None, weight_decay: float = 0.0,
) -> None:  # fmt: skip
    """AdamW with warm-up 3 % and cosine; a step's loss is the sum of its rows' losses."""
    own = model.parameters()
    model.train_only(own)  # gradients of the whole adapter, although only a region is trained
    chosen = [own[name] for name in (own if region is None else region)]
    optimizer = torch.optim.AdamW(chosen, lr=lr, weight_decay=weight_decay)
    warmup = min(ceil(0.03 * total), total - 1)  # as transformers' warmup_ratio rounds it
    schedule = get_scheduler("cosine", optimizer, num_warmup_steps=warmup, num_training_steps=total)
    model.net.train()
    for losses in steps:
        for loss in losses:
            loss().backward()
        clip_grad_norm_(chosen, 1.0)
        optimizer.step()
        schedule.step()
        model.net.zero_grad()
    model.net.eval()
    model.train_only([])


def memorize(model: Model, batches: Sequence[Any], *, lr: float) -> None:
    """One row a micro-batch."""
    pad = model.pad

    def step(rows: Sequence[Encoded]) -> list[Callable[[], torch.Tensor]]:
        return [lambda r=row: row_loss(model.net, r, pad) / len(rows) for row in rows]  # type: ignore[misc]

    descend(model, (step(batch.encoded) for batch in batches), len(batches), lr=lr)


def unlearn(
    model: Model, batches: Sequence[PairedBatch], weights: Mapping[str, float], *, lr: float,
    region: Sequence[str] | None = None, labels: Mapping[str, torch.Tensor] | None = None,
) -> None:  # fmt: skip
    """Unlearn rows and retention rows one after another; for KL beside a second model.

    Args:
        model: the memorized model.
        batches: unlearn and retention rows of each step.
        weights: of `ascent`, `descent` and `kl`; the loss is their weighted sum.
        lr: learning rate.
        region: names of the trained parameters. If `None`, all.
        labels: record id → token ids that replace the answer of an unlearn row.
    """
    ascent, descent, kl = (weights.get(name, 0.0) for name in ("ascent", "descent", "kl"))
    instead = {} if labels is None else {n: value.tolist() for n, value in labels.items()}
    pad, reference = model.pad, deepcopy(model.net) if kl else None

    def step(batch: PairedBatch) -> list[Callable[[], torch.Tensor]]:
        rows, kept = batch.unlearn.encoded, batch.retention.encoded
        losses: list[Callable[[], torch.Tensor]] = [
            lambda r=row: (  # type: ignore[misc]
                -ascent * row_loss(model.net, r, pad, instead.get(r.record.id)) / len(rows)
            )
            for row in rows
        ]
        for row in kept:
            if descent:
                losses.append(
                    lambda r=row: descent * row_loss(model.net, r, pad) / len(kept)  # type: ignore[misc]
                )
            if kl:
                losses.append(
                    lambda r=row: kl * row_divergence(model.net, reference, r, pad) / len(kept)  # type: ignore[misc]
                )
        return losses

    descend(model, map(step, batches), len(batches), lr=lr, region=region)


def mean_gradients(model: Model, rows: Sequence[Encoded]) -> dict[str, torch.Tensor]:
    """Gradients summed row by row on the side, as the public localization does."""
    own = model.parameters()
    model.train_only(own)
    sums = {name: torch.zeros_like(parameter) for name, parameter in own.items()}
    for row in rows:
        row_loss(model.net, row, model.pad).backward()
        for name, parameter in own.items():
            if parameter.grad is not None:
                sums[name] += parameter.grad.detach().clone()
        model.net.zero_grad()
    model.train_only([])
    return {name: value / len(rows) for name, value in sums.items()}


@torch.no_grad()
def evaluate(
    base: str, adapters: Sequence[Path], rows: Sequence[Encoded], open_base: Callable[[], Model]
) -> list[dict[str, float]]:
    """Token accuracy and a free answer of each row, one at a time, the base loaded each time."""
    found = []
    for adapter in adapters:
        model = open_base()
        model.use(ModelVariant("given", "given", adapter))
        accuracies = {}
        for row in rows:
            tensors = padded(row, model.pad)
            logits = model.net(**tensors).logits[0]
            last = len(row.ids) - row.tail
            said = logits[row.answer_from - 1 : last - 1].argmax(-1)
            truth = torch.tensor(row.ids[row.answer_from : last])
            accuracies[row.record.id] = float((said == truth).float().mean())
            model.net.generate(
                input_ids=torch.tensor([row.prompt]),
                attention_mask=torch.ones(1, len(row.prompt), dtype=torch.long),
                max_new_tokens=row.answer_length, do_sample=False, pad_token_id=model.pad,
                eos_token_id=model.tokenizer.eos_token_id,
            )  # fmt: skip
        found.append(accuracies)
        del model
        gc.collect()  # a reference cycle would keep the base in memory
    return found
