"""A method in the training loop: its loss, batches and region, from the memorized model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch

from knowundo.data.batches import PairedBatch
from knowundo.distributed.group import gathered
from knowundo.errors import Diverged
from knowundo.modeling.fast.microbatches import micro_batches
from knowundo.modeling.fast.prefix_cache import PrefixCache, make_prefix_cache
from knowundo.modeling.forward import Forward
from knowundo.modeling.model import Model
from knowundo.modeling.step import halves_of
from knowundo.registry import trained_entry
from knowundo.storage.checkpoints import State
from knowundo.storage.job import Job
from knowundo.training.resumable import Resumable
from knowundo.training.settings import TrainingHooks, TrainingSettings
from knowundo.training.state import Curve
from knowundo.training.trainer import train
from knowundo.unlearning.combining import combination
from knowundo.unlearning.edits import apply_beginning, apply_edit, editable
from knowundo.unlearning.method_state import MethodState
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start


class MethodTraining:
    """One method with its settings, ready to be trained from the memorized model.

    Attributes:
        bound: The method's hyper-parameters, defaults included.
        region: Names of the parameters that change.
        masks: Which weights of a tensor of the region change, where not all do.
        combination: Makes one gradient of those of the parts. If `None`, they are added.
        steps: Optimizer steps of the whole training.
        halves: What of a step the loss reads.
        state: Numbers that the method carries from step to step.
    """

    def __init__(self, start: Start, settings: UnlearnSettings) -> None:
        """Prepare batches and columns; the model is the memorized one afterwards.

        Args:
            start: The memorized model, with its rows.
            settings: Of the method; the rate is there.

        Raises:
            BadInput: Unknown method, argument, parameter name or way of combining gradients, or a
                region that the method cannot edit.
            ValueError: `settings.lr` is `None`.
        """
        if settings.lr is None:
            raise ValueError("UnlearnSettings.lr is None; give a rate or search one")
        self.start, self.entry = start, trained_entry(settings.method)
        self.bound = self.entry.bind(settings.arguments)
        self.model = start.restore()
        self.region = list(self.model.parameters() if settings.region is None else settings.region)
        if self.entry.edit_function is not None:
            self.region = editable(self.model, self.region, self.entry.name)
        self.masks = {name: mask for name, mask in settings.masks.items() if name in self.region}
        start.copy_memorized(self.region)
        start.columns(self.entry, self.bound)  # of the memorized model, which is in memory now
        self.batches, accumulation = start.batches(self.entry, self.bound, settings)
        self.settings = TrainingSettings(
            lr=settings.lr,
            seed=start.seed,
            accumulation=accumulation,
            optimizer=start.optimizer(settings.optimizer),
        )
        self.combination = combination(settings.gradients, settings.method)
        self.steps = -(-len(self.batches) // accumulation)
        self.halves = _HalvesRead()
        self.state = MethodState(self.entry, self.bound, self.steps)

    def train(
        self,
        stop: Callable[[], bool] | None = None,
        resumable: Sequence[Resumable] = (),
        job: Job = Job(),
    ) -> Curve:
        """Train, or resume training, until the batches end or `stop` says so.

        Args:
            stop: Asked after each optimizer step.
            resumable: What `stop` depends on.
            job: Progress and checkpoint.

        Raises:
            Diverged: See `train`; the last good weights are to be had from `repeat`.
        """
        # Of each training anew: the first step of every one computes its halves apart, and a
        # repeated training has to round as the first one did.
        self.halves = _HalvesRead()
        self.state = MethodState(self.entry, self.bound, self.steps)
        forward = Forward(self.model, _prefix_cache(self.model, self.region, self.batches))
        resumed = job.resumed() is not None
        if resumed or self.entry.begin_function is not None:
            # The reference is of the memorized model, which is about to be replaced.
            with torch.no_grad():
                self.start.parts(self.entry, self.bound, self.batches[0], set(), forward)
        if not resumed:
            self._begin()
        hooks = TrainingHooks(
            stop,
            [self.halves, *([self.state] if self.state.values else []), *resumable],
            self._split,
            self.combination,
            self._after_step,
            self.masks,
        )
        return train(
            self.model,
            self.batches,
            lambda batch: self.start.parts(
                self.entry, self.bound, batch, self.halves.read, forward, self.state.values
            ),
            self.region,
            self.settings,
            hooks=hooks,
            job=job,
        )

    def _after_step(self, means: Mapping[str, float]) -> None:
        """Every process splits batches by the same halves, even one that got no rows yet."""
        self.halves.read = set().union(*gathered(self.halves.read))
        self.state.after_step(means)

    def _begin(self) -> None:
        """Make the weights those that the method's training begins with."""
        self.model.copy_initial(self.region)  # before they change
        before = {name: self.start.memorized[name].cpu() for name in self.region}
        columns, method = self.start.columns(self.entry, self.bound), (self.entry, self.bound)
        apply_beginning(self.model, before, self.masks, columns, self.start.seed, method)

    def edit(self) -> int:
        """Apply the method's edit to the trained weights.

        Returns:
            The number of parameters that were trained.

        Raises:
            BadInput: A weight is no longer finite.
        """
        apply_edit(self.model, self.start.memorized, self.region, (self.entry, self.bound))
        sizes = self.model.parameters()
        return sum(sizes[name].numel() for name in self.region)

    def repeat(self, diverged: Diverged) -> int:
        """Train once more, up to the last step whose weights were good.

        Training holds no copy of good weights: a training that diverged is rare, and a copy of
        the region at every step is not cheap. A loss is a function of weights and batch, so the
        same steps give the same bits, as they do where a killed training resumes. If they do not
        (the loss has a state of its own, or a GPU adds in another order), a note says so.

        Args:
            diverged: What ended the first training.

        Returns:
            The step whose weights the model has now; 0 is the memorized model.
        """
        step, curve = diverged.step, diverged.curve
        while step:
            self.start.restore()
            try:
                again = self.train(stop=_after(step))
            except Diverged as earlier:
                step = min(earlier.step, step - 1)
                self.model.notes.add("training: repeated, it diverged earlier than before")
                continue
            if not _close(again, curve):
                self.model.notes.add(
                    f"training: the first {step} steps, repeated, had other losses; is the loss a "
                    "function of weights and batch only?"
                )
            return step
        self.start.restore()
        return 0

    def _split(self, batch: PairedBatch, rows: int | None) -> list[PairedBatch]:
        model = self.model
        if self.combination is not None and self.combination.by_row:
            rows = 1
        return micro_batches(
            batch,
            tokens=model.tokens,
            rows=rows,
            halves=halves_of(self.halves.read),
            shared=model.capabilities.shared_prefixes,
        )


def _after(steps: int) -> Callable[[], bool]:
    """A stop that says so when it is asked for that many times."""
    left = iter(range(steps - 1, -1, -1))
    return lambda: next(left) == 0


def _close(curve: Curve, other: Curve) -> bool:
    """Whether the parts of the loss are the same but for rounding, as far as the shorter goes."""
    return all(
        math.isclose(value, two["parts"].get(name, math.nan), rel_tol=1e-3, abs_tol=1e-3)
        for one, two in zip(curve, other, strict=False)
        for name, value in one["parts"].items()
    )


def _prefix_cache(
    model: Model, region: Sequence[str], batches: Sequence[PairedBatch]
) -> PrefixCache | None:
    """The cache of what the layers below the region compute, if rows come more than once."""
    halves = [[row for batch in batches for row in batch.unlearn.encoded]]
    halves.append([row for batch in batches for row in batch.retention.encoded])
    again = any(len(set(rows)) < len(rows) for rows in halves)
    able = again and model.capabilities.packing
    return make_prefix_cache(model, region, halves) if able else None


class _HalvesRead:
    """What a loss has read of a step, see `Step.used`."""

    def __init__(self) -> None:
        self.read: set[str] = set()

    def state_dict(self) -> State:
        return State({"read": sorted(self.read)})

    def load_state_dict(self, state: State) -> None:
        self.read |= set(state.facts["read"])

    def rollback(self) -> None:
        """Do nothing: what was read once is read in each step."""
