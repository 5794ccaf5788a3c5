"""unlearn(): train a method's loss, inside a region, from the memorized model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from knowundo.data.batches import PairedBatch
from knowundo.errors import Diverged
from knowundo.modeling.capabilities import packs, shares
from knowundo.modeling.fast.microbatches import pieces
from knowundo.modeling.fast.prefix_cache import Lower, below
from knowundo.modeling.model import Model
from knowundo.progress import Progress
from knowundo.registry import get
from knowundo.storage.checkpoints import Checkpoint, State
from knowundo.training.state import Curve
from knowundo.training.trainer import train
from knowundo.unlearning.early_stopping import Look, Watch, Watcher
from knowundo.unlearning.kept_steps import Keeper, Kept
from knowundo.unlearning.start import Start


@dataclass
class Unlearned:
    """What unlearning leaves beside the changed weights."""

    curve: Curve
    facts: dict[str, Any] = field(default_factory=dict)
    kept: list[Kept] = field(default_factory=list)


def unlearn(
    start: Start,
    *,
    method: str,
    arguments: dict[str, Any] | None = None,
    region: Sequence[str] | None = None,
    retain_on: str = "retention",
    lr: float,
    epochs: int,
    batch_size: int,
    accumulation: int,
    retained: int | None = None,
    optimizer: str = "adamw",
    watch: Watch | None = None,
    look: Callable[[Look], bool] | None = None,
    keep_every: int | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> Unlearned:
    """Train one method from the memorized model.

    Where training diverges it ends, the last good weights stay, and the fact `diverged` says why.

    Args:
        start: its model is changed in place, inside the region only.
        method: a registered name.
        arguments: its hyper-parameters.
        region: parameter names that may change; None: all of the adaptation.
        retain_on: the scope whose rows fill `step.retention`.
        lr: peak learning rate; warm-up 3 %, then cosine.
        epochs: passes.
        batch_size: unlearn rows a micro-step.
        retained: retention rows a micro-step; none: as many as unlearn rows.
        accumulation: micro-steps an optimizer step.
        optimizer: `adamw` or `paged_adamw_32bit`.
        watch: rows to look at while training: it may stop, and the best moment is kept.
        look: told of every look; True stops. Needs `watch`.
        keep_every: keep what is trained after every so many optimizer steps, beside what there is
            at the end. If `None`, only the end is kept.
        progress: called after each optimizer step.
        checkpoint: gone on from, and written now and then.

    Raises:
        BadInput: unknown method, argument or parameter name.
    """
    entry = get("method", method)
    bound = entry.bind(arguments or {})
    began = time.perf_counter()
    model = start.restore()
    names = list(model.parameters() if region is None else region)
    start.hold(names)
    start.columns(entry, bound)  # of the memorized model, which is the one in memory now
    halves = _Halves()
    batches, accumulation = start.batches(
        entry,
        bound,
        retain_on,
        size=batch_size,
        retained=retained,
        accumulation=accumulation,
        epochs=epochs,
    )
    steps = -(-len(batches) // accumulation)
    watcher = Watcher(model, watch, names, steps, look) if watch else None

    def seconds() -> float:
        return checkpoint.seconds if checkpoint else time.perf_counter() - began

    keeper = (
        Keeper(model, names, every=keep_every, steps=steps, seconds=seconds) if keep_every else None
    )

    def after_step() -> bool:
        if keeper:
            keeper.after_step()
        return watcher is not None and watcher.after_step()

    if checkpoint and checkpoint.read() is not None:
        with torch.no_grad():  # the reference is taken now, while this is the memorized model
            start.parts(entry, bound, batches[0], set())
    diverged: Diverged | None = None
    try:
        model.lower = _below(model, names, batches)
        curve = train(
            model,
            batches,
            lambda batch: start.parts(entry, bound, batch, halves.read),
            region=names,
            lr=lr,
            seed=start.seed,
            accumulation=accumulation,
            optimizer=start.optimizer(optimizer),
            rollback=True,
            progress=progress,
            stop=after_step,
            checkpoint=checkpoint,
            carried=[halves, *(one for one in (watcher, keeper) if one is not None)],
            cut=lambda batch, rows: pieces(
                batch, tokens=model.tokens, rows=rows, halves=halves.read, shared=shares(model)
            ),
        )
    except Diverged as error:
        diverged, curve = error, error.curve
    finally:
        model.lower = None
    facts = {
        "method": method,
        "arguments": bound,
        "retain_on": retain_on,
        "lr": lr,
        "epochs": epochs,
        "optimizer_steps": len(curve),
        "reads": sorted(halves.read),
        "seconds": round(seconds(), 2),
    }
    if diverged is not None:
        facts |= {"diverged": str(diverged), "kept_step": diverged.step}
    if watcher and not (diverged and watcher.best is None):
        facts |= watcher.facts()
        model.overwrite(watcher.best_state)
    kept = keeper.kept if keeper else []
    if diverged is not None:  # the weights of later steps may be no good
        kept = [one for one in kept if one.step <= diverged.step]
    return Unlearned(curve, facts, kept)


def _below(model: Model, region: Sequence[str], batches: Sequence[PairedBatch]) -> Lower | None:
    """What stands in for the layers below the region, if rows come more than once."""
    halves = [[row for batch in batches for row in batch.unlearn.encoded]]
    halves.append([row for batch in batches for row in batch.retention.encoded])
    again = any(len(set(rows)) < len(rows) for rows in halves)
    return below(model, region, halves) if again and packs(model) else None


class _Halves:
    """The halves of a step that a loss has read."""

    def __init__(self) -> None:
        self.read: set[str] = set()

    def carry(self) -> State:
        return State({"read": sorted(self.read)})

    def resume(self, state: State) -> None:
        self.read |= set(state.facts["read"])

    def undo(self) -> None:
        """Nothing: what was read once is read each time."""
