"""One step of a stage on a fake model, with every tensor counted."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
)
from torch.nn.utils import clip_grad_norm_

from knowundo.data.batches import Batch, PairedBatch
from knowundo.data.encoded import Encoded
from knowundo.estimation.fake_model import FakeModel
from knowundo.estimation.memory_trace import KINDS, MemoryTrace, trace_gradients
from knowundo.estimation.schema import StageEstimate
from knowundo.modeling.fast.chunked_logits import portion
from knowundo.modeling.fast.microbatches import micro_batches
from knowundo.modeling.forward import answer_states
from knowundo.modeling.step import Parts
from knowundo.runs.run import Run
from knowundo.scoring.answers import generate
from knowundo.training.optimizer import make_optimizer
from knowundo.training.separate_gradients import Gradients, SeparateGradients
from knowundo.unlearning.combining import Combined
from knowundo.unlearning.original.losses import OneSided

# Rows of one forward pass without gradients, and of one batch of generation. Read from the
# functions' defaults, where they are kept.
SCORED, GENERATED = (
    int(inspect.signature(function).parameters[name].default)
    for function, name in ((answer_states, "size"), (generate, "batch_size"))
)


@dataclass(frozen=True)
class Planned:
    """What is known of a stage before its heaviest step is traced.

    Attributes:
        name: name of the stage, or of the variant.
        count: number of units in the whole stage.
        batch: the heaviest batch.
        copies: copies of the trainable tensors that the stage holds to go back to.
        unit: what is counted.
        at_most: True if the stage may stop earlier.
    """

    name: str
    count: int
    batch: Batch | PairedBatch
    copies: int
    unit: str = "steps"
    at_most: bool = False


class PagedOptimizer(torch.optim.Optimizer):
    """The size of bitsandbytes' paged AdamW: two float32 numbers for each parameter."""

    def __init__(self, chosen: Sequence[torch.nn.Parameter]) -> None:
        super().__init__(chosen, {})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Make the state of every parameter; nothing is updated."""
        for parameter in self.param_groups[0]["params"]:
            if not self.state[parameter]:
                for name in ("state1", "state2"):
                    self.state[parameter][name] = torch.zeros_like(parameter, dtype=torch.float32)


class Tracer:
    """Runs steps of one recipe on a fake model of its base and counts their memory."""

    def __init__(self, run: Run, model: FakeModel, device: str) -> None:
        """Nothing runs yet, and nothing is written.

        Args:
            run: the run of the recipe.
            model: the fake model.
            device: device that the recipe asks for. On a GPU, copies of weights are kept in the
                host's memory, so they do not count towards the peak.
        """
        self.run, self.model, self.device = run, model, device
        self._encoded: dict[Any, list[Encoded]] = {}

    def rows(self, scope: str, split: Any, *, end: bool = True) -> list[Encoded]:
        """Encoded rows of a scope and split, encoded once."""
        key = scope, split, end
        if key not in self._encoded:
            self._encoded[key] = self.run.encoded(scope, split, model=self.model, end=end)
        return self._encoded[key]

    def weight(self, batch: Batch | PairedBatch) -> int:
        """About how many numbers a batch keeps for the backward pass, to find the heaviest."""
        config = self.model.causal_lm().config.get_text_config()  # type: ignore[union-attr,operator]
        # Activations of a layer in hidden sizes: its input alone with checkpointing; otherwise
        # about 16, with queries, keys, values, both MLP branches and the norms' inputs.
        saved = 1 if self.run.recipe.model.gradient_checkpointing else 16
        _, tokens, answers = extent(batch)
        layers = tokens * config.hidden_size * config.num_hidden_layers * saved
        vocabulary = self.model.vocabulary
        return layers + 3 * min(answers, portion(vocabulary)) * vocabulary

    def micro_batch(self, batch: Any, halves: Collection[str] = (), rows: int | None = None) -> Any:
        """The heaviest of the micro-batches that a batch is trained in.

        Args:
            batch: is split.
            halves: those that count, because they are read. If empty, both.
            rows: of a half, at most. If `None`, any number.
        """
        made = micro_batches(
            batch,
            tokens=self.model.tokens,
            rows=rows,
            halves=halves,
            shared=self.model.capabilities.shared_prefixes,
        )
        return max(made, key=self.weight)

    def trace(self, planned: Planned, work: Callable[[MemoryTrace], int]) -> StageEstimate:
        """Count the memory of a stage's heaviest step.

        Args:
            planned: what is known of the stage.
            work: runs the step. It returns the bytes that the real stage holds on top all the
                time, and that the step on a few rows does not show.
        """
        trace = MemoryTrace(self.model.vocabulary)
        trace.attribute("weights", [*self.model.net.parameters(), *self.model.net.buffers()])
        state = sum(value.nbytes for value in self.model.parameters().values()) * planned.copies
        rows, tokens, _ = extent(planned.batch)
        length = planned.name, planned.count, planned.unit, planned.at_most, rows, tokens
        try:
            with trace, warnings.catch_warnings():
                # A copied head compares data pointers to find out whether it is tied.
                warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
                besides = work(trace)
        except (DataDependentOutputException, DynamicOutputShapeException):
            return StageEstimate(*length, {}, None)
        finally:
            self.model.net.eval()
            self.model.train_only([])
        memory = {kind: trace.most[kind] for kind in KINDS}
        memory["activations"] += besides
        memory["copies"] = state
        peak = trace.peak + besides + (state if self.device == "cpu" else 0)
        return StageEstimate(*length, memory, peak)

    def _optimizer(self, chosen: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        name = self.run.recipe.model.optimizer
        if name == "paged_adamw_32bit":
            return PagedOptimizer(chosen)
        optimizer = make_optimizer(name, chosen, lr=1e-4, weight_decay=0.0)
        # On a GPU torch updates all parameters at once (foreach), which needs more room than the
        # loop over parameters that it chooses for CPU tensors.
        if self.device != "cpu":
            optimizer.param_groups[0]["foreach"] = True
        return optimizer

    def training_step(
        self,
        trace: MemoryTrace,
        loss: Callable[[], Parts],
        accumulation: int,
        combination: Combined | None = None,
        rows: int = 1,
    ) -> None:
        """Run an optimizer step as all but the first are: with the optimizer's state in place.

        Args:
            trace: what counts.
            loss: named parts of the loss of one micro-batch.
            accumulation: gradient accumulation steps. With more than one, the gradients of the
                steps before are there while the loss is computed.
            combination: makes one gradient of those of several losses. If `None`, they are added.
            rows: micro-batches of the step, where a combination keeps the gradient of each.
        """
        chosen = self.model.train_only(self.model.parameters())
        hooks = trace_gradients(chosen, trace)
        optimizer = self._optimizer(chosen)
        for parameter in chosen:
            parameter.grad = torch.zeros_like(parameter)
            trace.attribute("gradients", [parameter.grad])
        with trace.counting("optimizer"):
            optimizer.step()
        if accumulation == 1:
            optimizer.zero_grad()
        self.model.net.train()
        if combination is None:
            (torch.stack(list(loss().values())).sum() / accumulation).backward()
        else:
            separate = SeparateGradients(combination, chosen)
            with trace.counting("gradients"):
                _hold(separate, combination, rows)
            first = separate.backward_but_last(loss(), 1 / accumulation, None)
            (first / accumulation).backward()
            with trace.counting("gradients"):
                separate.combine(partial(_again, trace, loss))
        clip_grad_norm_(chosen, 1.0)
        with trace.counting("optimizer"):
            optimizer.step()
        optimizer.zero_grad()
        for hook in hooks:
            hook.remove()


def _hold(separate: SeparateGradients, combination: Combined, rows: int) -> None:
    """What is there of earlier steps, and of the step's other micro-batches."""

    def gradient() -> Gradients:
        return [torch.zeros_like(parameter) for parameter in separate.chosen]

    separate.held = {name: gradient() for name in combination.holds}
    separate.retentions = [gradient() for _ in range(rows - 1 if combination.by_row else 0)]


def _again(trace: MemoryTrace, loss: Callable[[], Parts], _: Any) -> Parts:
    with trace.counting("activations"):
        return loss()


def extent(batch: Batch | PairedBatch) -> tuple[int, int, int]:
    """Rows, tokens with padding, and answer tokens of a batch; a pair is padded to one length."""
    if isinstance(batch, OneSided):
        batch = batch.unlearn if batch.side == "unlearn" else batch.retention
    halves = [batch] if isinstance(batch, Batch) else [batch.unlearn, batch.retention]
    rows = sum(len(half) for half in halves)
    longest = max(half.ids.shape[1] for half in halves)
    return rows, rows * longest, sum(len(half.targets) for half in halves)


def longest_rows(rows: Sequence[Encoded], count: int) -> list[Encoded]:
    """The rows with the most tokens, shortest of them first."""
    return sorted(rows, key=lambda row: len(row.ids))[-count:]
