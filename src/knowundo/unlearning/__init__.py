"""unlearn(): train a method's loss, inside a region, from the memorized model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch

from knowundo.batches import PairedBatch, paired
from knowundo.checkpoints import Checkpoint, State
from knowundo.encoding import Encoded
from knowundo.errors import Diverged, KnowUndoError
from knowundo.forwards import Columns, Parts, Reference, Step, answer_logits, packs, shares
from knowundo.lower import Lower, below
from knowundo.models import Model
from knowundo.pieces import pieces
from knowundo.progress import Progress
from knowundo.records import Record
from knowundo.registry import Entry, get
from knowundo.scoring import sample
from knowundo.training import Curve, train
from knowundo.unlearning.keeping import Keeper, Kept
from knowundo.unlearning.watching import Look, Watch, Watcher

Encode = Callable[[list[Record]], list[Encoded]]


class Scorer:
    """What a method's `prepare` may ask of the memorized model."""

    def __init__(self, model: Model, seed: int, encode: Encode | None = None) -> None:
        self._model, self.seed, self._encode = model, seed, encode
        self.special = sorted(model.tokenizer.all_special_ids)

    @property
    def vocabulary(self) -> int:
        """Tokens that the model can emit."""
        return len(self._model.tokenizer)

    @property
    def positions(self) -> int | None:
        """Tokens that the model can hold. If `None`, any number."""
        return self._model.positions

    def logits(self, encoded: Sequence[Encoded]) -> Any:
        """Pairs of row and logits at its answer positions, [answer tokens, vocabulary]."""
        return answer_logits(self._model, encoded)

    def answered(self, row: Encoded, text: str) -> Encoded:
        """The same record with another answer, encoded as the row was.

        Raises:
            KnowUndoError: how rows are encoded was not told.
        """
        return self._encoded(replace(row.record, answer=text, alternatives=(), facts=()))

    def asked(self, row: Encoded, question: str) -> Encoded:
        """The same record with another question, encoded as the row was.

        Raises:
            KnowUndoError: how rows are encoded was not told.
        """
        return self._encoded(replace(row.record, question=question))

    def _encoded(self, record: Record) -> Encoded:
        if self._encode is None:
            raise KnowUndoError("other answers need Start(…, encode=…), which encodes records")
        return self._encode([record])[0]

    def note(self, text: str) -> None:
        """Tell the user, and put it into the manifest."""
        self._model.notes.append(text)

    def sample(
        self, rows: Sequence[Encoded], *, n: int, temperature: float, seed: int
    ) -> dict[str, list[str]]:
        """`n` answers of the memorized model to each row's question, by record id."""
        return sample(self._model, rows, n=n, temperature=temperature, seed=seed)


class Start:
    """The memorized model, where every method starts, and what is computed of it only once."""

    def __init__(
        self,
        model: Model,
        unlearn_rows: Sequence[Encoded],
        kept_rows: Mapping[str, Sequence[Encoded]],
        *,
        seed: int,
        encode: Encode | None = None,
    ) -> None:
        """Remember the model as it is now.

        Args:
            model: the memorized model.
            unlearn_rows: train rows that must go; an epoch is one pass over them.
            kept_rows: by scope, the rows that can fill `step.retention`.
            seed: of the order of rows and of prepared labels; the same for all methods.
            encode: encodes records as the rows were; only other answers need it.
        """
        self.model, self.seed, self._encode = model, seed, encode
        self.unlearn_rows, self.kept_rows = unlearn_rows, kept_rows
        self._state: dict[str, torch.Tensor] = {}
        if model.adaptation.kind == "lora":
            self.hold(model.parameters())
        self._columns: dict[Any, Columns] = {}

    def hold(self, names: Iterable[str]) -> None:
        """Copy what these parameters are in the memorized model, before they change.

        Of all weights only a region's originals are held, never a second model.
        """
        self._state |= self.model.state(name for name in names if name not in self._state)

    @property
    def held(self) -> list[str]:
        """Names of the parameters whose originals are held: all that can have changed."""
        return list(self._state)

    def restore(self) -> Model:
        """Make the model the memorized one again."""
        self.model.overwrite(self._state)
        return self.model

    @cached_property
    def reference(self) -> Reference:
        """The frozen memorized model at every row that a step can hold.

        Computed on first reading, inside the first step: nothing is swapped under a graph.

        Raises:
            KnowUndoError: weights have moved already.
        """
        own = self.model.parameters()
        if not all(torch.equal(own[name].cpu(), value) for name, value in self._state.items()):
            raise KnowUndoError("a loss that reads step.reference must read it in its first step")
        rows = [*self.unlearn_rows, *(row for rows in self.kept_rows.values() for row in rows)]
        return Reference.of(self.model, rows)

    def columns(self, method: Entry, bound: Mapping[str, Any] | None = None) -> Columns:
        """What the method's `prepare` makes of the unlearn rows; call it right after `restore`.

        Args:
            method: its `prepare` is called once for all with equal arguments.
            bound: its hyper-parameters; none: their defaults.
        """
        if method.prepare_function is None:
            return {}
        arguments = method.prepare_arguments(method.bind({}) if bound is None else bound)
        key = method.name, repr(arguments)
        if key not in self._columns:
            made = method.prepare_function(self.unlearn_rows, self._scorer(), **arguments)
            self._columns[key] = made
        return self._columns[key]

    def _scorer(self) -> Scorer:
        return Scorer(self.model, self.seed, self._encode)

    def batches(
        self,
        method: Entry,
        bound: Mapping[str, Any],
        retain_on: str,
        *,
        size: int,
        accumulation: int,
        epochs: int,
        retained: int | None = None,
    ) -> tuple[list[PairedBatch], int]:
        """Micro-batches of all epochs, and how many of them an optimizer step takes."""
        batches = paired(
            self.unlearn_rows,
            self.kept_rows[retain_on],
            size=size,
            retained=retained,
            epochs=epochs,
            seed=self.seed,
            pad=self.model.pad,
        )
        return batches, accumulation

    def optimizer(self, name: str) -> str:
        """The optimizer to train with, where this one is asked for."""
        return name

    def parts(
        self, method: Entry, bound: Mapping[str, Any], batch: PairedBatch, read: set[str]
    ) -> Parts:
        """The method's loss on one micro-batch.

        Args:
            method: its loss is called once.
            bound: its hyper-parameters.
            batch: on any device.
            read: halves that the loss has read before; those that it reads now are added.
        """
        device = self.model.device
        batch = PairedBatch(batch.unlearn.to(device), batch.retention.to(device))
        step = Step(
            self.model,
            batch,
            reference=lambda: self.reference,
            columns=self.columns(method, bound),
            read=frozenset(read),
        )
        parts: Parts = method(step, **bound)
        read.update(step.used)
        return parts


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
