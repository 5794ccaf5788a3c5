"""Peak memory of each stage of a run."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
)
from torch.nn.utils import clip_grad_norm_
from transformers import Cache

from knowundo.data.batches import Batch, PairedBatch, by_length, shuffled
from knowundo.data.encoded import Encoded
from knowundo.estimation.ledger import GIB, KINDS, Ledger
from knowundo.estimation.outline import (
    Outline,
    PagedOptimizer,
    Unchecked,
    UncheckedOriginal,
    group_files,
)
from knowundo.localization.gradients import mean_gradients
from knowundo.modeling.adapters import Adaptation, adaptation_of
from knowundo.modeling.capabilities import shares
from knowundo.modeling.fast.chunked_logits import portion
from knowundo.modeling.fast.microbatches import pieces
from knowundo.modeling.forward import answer_logits, answer_states, hidden_states
from knowundo.modeling.half import Half
from knowundo.modeling.head import live_head
from knowundo.modeling.model import Model
from knowundo.modeling.step import Parts
from knowundo.progress import Reporter
from knowundo.recipes.schema import Recipe, Variant
from knowundo.registry import get
from knowundo.runs.run import BOTH, TRAIN_VAL, Run
from knowundo.scoring.answers import generate
from knowundo.training.optimizer import make_optimizer
from knowundo.unlearning.original.losses import OneSided
from knowundo.unlearning.original.rows import whole_steps
from knowundo.unlearning.rates import ATTEMPTS

# The card of the paper's users, and what CUDA takes of it before the first tensor: an assumption,
# half of it is usual.
CARD, RESERVE = 24 * GIB, GIB


# Rows of one forward pass without gradients, and of one batch of generation.
SCORED, GENERATED = (
    int(inspect.signature(function).parameters[name].default)
    for function, name in ((answer_states, "size"), (generate, "batch_size"))
)


@dataclass
class Stage:
    """What one stage takes.

    `count` is of `unit` (optimizer steps, backward passes or rows), an upper bound if `at_most`;
    `rows` and `tokens` are the heaviest batch's, padding included; `memory` holds the most bytes of
    each of `KINDS`, and `peak` the most at one time, None where a loss cannot be followed.
    """

    name: str
    count: int
    unit: str
    at_most: bool
    rows: int
    tokens: int
    memory: dict[str, int]
    peak: int | None


@dataclass
class Estimate:
    """What a recipe takes with one adaptation."""

    base: str
    adaptation: str
    dtype: str
    device: str
    parameters: int
    trainable: int
    stages: list[Stage]
    notes: list[str] = field(default_factory=list)

    @property
    def highest(self) -> Stage:
        """The stage with the highest peak."""
        return max(self.stages, key=lambda stage: stage.peak or 0)

    @property
    def fits(self) -> bool:
        """True if the highest peak leaves a card of 24 GiB what CUDA itself takes."""
        return (self.highest.peak or 0) + RESERVE <= CARD


class Estimator:
    """Runs the steps of one recipe on an outline of its base."""

    def __init__(self, run: Run, model: Outline, device: str) -> None:
        """All rows are encoded here.

        Args:
            run: of the recipe; nothing is written.
            model: the outline.
            device: where the recipe wants the model; a GPU leaves copies of weights to the host.
        """
        self.run, self.model, self.device = run, model, device
        self._encoded: dict[Any, list[Encoded]] = {}
        self._unlearned: dict[str, Stage] = {}

    def _rows(self, scope: str, split: Any, *, end: bool = True) -> list[Encoded]:
        key = scope, split, end
        if key not in self._encoded:
            self._encoded[key] = self.run.encoded(scope, split, model=self.model, end=end)
        return self._encoded[key]

    def _bulk(self, batch: Batch | PairedBatch) -> int:
        """About how much a batch holds, to find the heaviest."""
        config = self.model.causal_lm().config.get_text_config()  # type: ignore[union-attr,operator]
        held = 1 if self.run.recipe.model.gradient_checkpointing else 16
        _, tokens, answers = _extent(batch)
        layers = tokens * config.hidden_size * config.num_hidden_layers * held
        vocabulary = self.model.vocabulary
        return layers + 3 * min(answers, portion(vocabulary)) * vocabulary

    def _piece(self, batch: Any, halves: Collection[str] = ()) -> Any:
        """The heaviest of the pieces that a batch is trained in."""
        made = pieces(batch, tokens=self.model.tokens, halves=halves, shared=shares(self.model))
        return max(made, key=self._bulk)

    def _stage(
        self,
        name: str,
        count: int,
        batch: Batch | PairedBatch,
        work: Callable[[Ledger], int],
        *,
        copies: int,
        unit: str = "steps",
        at_most: bool = False,
    ) -> Stage:
        """Watch a stage's work.

        Args:
            name: of the stage.
            count: of units in the whole stage.
            batch: the heaviest.
            work: returns bytes that the real stage holds besides, all the time.
            copies: of the trainable tensors, held to go back to.
            unit: of the count.
            at_most: the stage may stop earlier.
        """
        ledger = Ledger(self.model.vocabulary)
        ledger.hold("weights", [*self.model.net.parameters(), *self.model.net.buffers()])
        state = sum(value.nbytes for value in self.model.parameters().values()) * copies
        rows, tokens, _ = _extent(batch)
        try:
            with ledger, warnings.catch_warnings():
                # A copy of a head asks where its numbers lie.
                warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
                besides = work(ledger)
        except (DataDependentOutputException, DynamicOutputShapeException):
            return Stage(name, count, unit, at_most, rows, tokens, {}, None)
        finally:
            self.model.net.eval()
            self.model.train_only([])
        memory = {kind: ledger.most[kind] for kind in KINDS}
        memory["activations"] += besides
        memory["copies"] = state
        peak = ledger.peak + besides + (state if self.device == "cpu" else 0)
        return Stage(name, count, unit, at_most, rows, tokens, memory, peak)

    def _optimizer(self, chosen: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        name = self.run.recipe.model.optimizer
        if name == "paged_adamw_32bit":
            return PagedOptimizer(chosen)
        optimizer = make_optimizer(name, chosen, lr=1e-4, weight_decay=0.0)
        if self.device != "cpu":  # there all parameters are updated at once
            optimizer.param_groups[0]["foreach"] = True
        return optimizer

    def _train(self, ledger: Ledger, loss: Callable[[], Parts], accumulation: int) -> None:
        """An optimizer step as all but the first are: its state is there already."""
        chosen = self.model.train_only(self.model.parameters())
        hooks = group_files(chosen, ledger)
        optimizer = self._optimizer(chosen)
        for parameter in chosen:
            parameter.grad = torch.zeros_like(parameter)
            ledger.hold("gradients", [parameter.grad])
        with ledger.counting("optimizer"):
            optimizer.step()
        if accumulation == 1:  # else those of the micro-steps before are there
            optimizer.zero_grad()
        self.model.net.train()
        total = torch.stack(list(loss().values())).sum() / accumulation
        total.backward()
        clip_grad_norm_(chosen, 1.0)
        with ledger.counting("optimizer"):
            optimizer.step()
        optimizer.zero_grad()
        for hook in hooks:
            hook.remove()

    def memorize(self, name: str, scopes: Sequence[str]) -> Stage:
        """Finetuning on some scopes."""
        section, model = self.run.recipe.memorize, self.model
        rows = [row for scope in scopes for row in self._rows(scope, TRAIN_VAL)]
        rows += self._rows("general", "train") if section.general else []
        seed = self.run.recipe.seed
        batches = shuffled(rows, section.batch_size, section.epochs, seed, model.pad)
        batch = max(batches, key=self._bulk)
        piece = self._piece(batch)

        def loss() -> Parts:
            half = Half(piece, hidden_states(model, piece), live_head(model))
            return {"memorize": half.mean(half.mean_nll)}

        def work(ledger: Ledger) -> int:
            self._train(ledger, loss, section.accumulation)
            return 0

        steps = -(-len(batches) // section.accumulation)
        early = section.known is not None
        return self._stage(name, steps, batch, work, copies=1, at_most=early)

    def localize(self) -> Stage:
        """Gradients of noisy copies of both scopes."""
        section, model = self.run.recipe.localize, self.model
        batches = []
        for scope in BOTH:
            copies = self._rows(scope, section.splits) * section.copies
            batches += by_length(copies, section.batch_size, model.pad)
        batch = max(batches, key=self._bulk)

        def work(ledger: Ledger) -> int:
            hooks = group_files(model.train_only(model.parameters()), ledger)
            other_scope = [torch.zeros_like(p) for p in model.parameters().values()]
            ledger.hold("gradients", other_scope)
            mean_gradients(model, [*batch.encoded, *batch.encoded], batch_size=len(batch))
            for hook in hooks:
                hook.remove()
            return 0

        return self._stage("localize", len(batches), batch, work, copies=1, unit="backward passes")

    def unlearn(self, variant: Variant) -> Stage:
        """One variant; they are alike where only names and regions differ."""
        alike = variant.model_dump_json(exclude={"name", "region", "guess"})
        if alike not in self._unlearned:
            self._unlearned[alike] = self._unlearn(variant)
        return replace(self._unlearned[alike], name=variant.name)

    def _unlearn(self, variant: Variant) -> Stage:
        """One variant, with the whole adaptation as its region."""
        recipe = self.run.recipe
        settings = recipe.unlearn.settings(variant)
        auto = settings.pop("lr") == "auto"
        settings["size"] = settings.pop("batch_size")
        entry = get("method", variant.method)
        bound = entry.bind(variant.arguments)
        asked = entry, bound, variant.retain_on
        rows = self._rows("unlearn", "train", end=False)
        kept = {s: self._rows(s, "train", end=False) for s in ("retention", "general")}
        every = [*rows, *kept["retention"], *kept["general"]]
        of_all, kept_rows = len(rows), kept[variant.retain_on]
        if recipe.quirks:  # their batches run the model on every row: the longest stand for all
            rows = _longest(rows, settings["size"])
            kept = {scope: _longest(found, settings["size"]) for scope, found in kept.items()}
        batches, accumulation = self._start(rows, kept).batches(*asked, **settings)
        micro_steps = -(-len(batches) * of_all // len(rows))
        heaviest = {getattr(b, "side", ""): b for b in sorted(batches, key=self._bulk)}
        if not recipe.quirks:
            rows = heaviest[""].unlearn.encoded
            retention = heaviest[""].retention.encoded
            kept = {variant.retain_on: retention, "longest": _longest(every, SCORED)}
        start = self._start(rows, kept)

        def work(ledger: Ledger) -> int:
            start.columns(entry, bound)
            start.batches(*asked, **settings)
            read: set[str] = set()
            for batch in heaviest.values():
                for _ in range(2):  # from the second step on, one forward gives all that is read
                    piece = self._piece(batch, read)
                    self._train(
                        ledger,
                        lambda one=piece: start.parts(entry, bound, one, read),  # type: ignore[misc]
                        accumulation,
                    )
                    if len(read) < 2 or recipe.quirks:
                        break
            return start.unshown(every, kept_rows)

        steps = -(-micro_steps // accumulation)
        if "whole_steps" in recipe.quirks:
            steps = whole_steps(micro_steps, settings["epochs"], accumulation)[0]
        steps *= ATTEMPTS if auto else 1
        copies = 2 + (ATTEMPTS - 1 if auto else 0)  # of the base, of the start, of attempts
        if (apart := recipe.unlearn.keeps(variant)) is not None:
            copies += (steps - 1) // apart
        batch = max(heaviest.values(), key=self._bulk)
        return self._stage(variant.name, steps, batch, work, copies=copies, at_most=auto)

    def _start(self, rows: list[Encoded], kept: dict[str, list[Encoded]]) -> Unchecked:
        recipe = self.run.recipe
        encode = partial(self.run.encode, model=self.model)
        options: dict[str, Any] = {"seed": recipe.seed, "encode": encode}
        if recipe.quirks:
            # Of these few rows none may be left out; the steps of all are counted in `_unlearn`.
            quirks = [name for name in recipe.quirks if name != "whole_steps"]
            return UncheckedOriginal(self.model, rows, kept, quirks=quirks, **options)
        return Unchecked(self.model, rows, kept, **options)

    def evaluate(self) -> Stage:
        """Scoring the longest rows, and the answers that end with the largest cache."""
        model = self.model
        rows = self.run.encoded(model=model)
        scored = max(by_length(rows, SCORED, model.pad), key=self._bulk)
        splits = self.run.recipe.evaluate.generate
        asked = [r for r in rows if r.record.kind == "qa" and r.record.split in splits]
        asked.sort(key=lambda row: (row.answer_length, len(row.prompt)))
        groups = [asked[i : i + GENERATED] for i in range(0, len(asked), GENERATED)]
        shapes = [
            (len(g), max(len(r.prompt) for r in g), max(r.answer_length for r in g)) for g in groups
        ]

        def work(ledger: Ledger) -> int:
            for _, logits in answer_logits(model, scored.encoded):
                logits.double()
            if shapes:
                _answer(model, *max(shapes, key=lambda shape: shape[0] * (shape[1] + shape[2])))
            return 0

        return self._stage("evaluate", len(rows), scored, work, copies=1, unit="rows")

    def stages(self, reporter: Reporter) -> list[Stage]:
        """All stages of the recipe, in order."""
        recipe = self.run.recipe
        work: list[Callable[[], Stage]] = []
        if recipe.memorize.adopt is None:
            work.append(lambda: self.memorize("memorize", BOTH))
        if recipe.memorize.retain_model:
            work.append(lambda: self.memorize("retain model", ("retention",)))
        if recipe.localize.adopt is None:
            work.append(self.localize)
        for variant in recipe.unlearn.variants:
            work.append(lambda variant=variant: self.unlearn(variant))  # type: ignore[misc]
        work.append(self.evaluate)
        found = []
        with reporter.task("estimate") as progress:
            for number, stage in enumerate(work, start=1):
                found.append(stage())
                progress(number, len(work))
        return found


@torch.no_grad()
def _answer(model: Model, rows: int, prompt: int, answer: int) -> None:
    """Read prompts, then grow the cache by the answers, layer after layer as each token does."""
    ids = torch.zeros((rows, prompt), dtype=torch.long)
    output = model.net(
        input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True, logits_to_keep=1
    )
    (cache,) = (value for value in output.values() if isinstance(value, Cache))
    del output
    for layer in cache.layers:
        for name in ("keys", "values"):
            held = getattr(layer, name)
            shape = [*held.shape[:2], answer, held.shape[3]]
            setattr(layer, name, torch.cat([held, held.new_empty(shape)], dim=2))


def _extent(batch: Batch | PairedBatch) -> tuple[int, int, int]:
    """Rows, tokens with padding, and answer tokens; a pair is padded to one length."""
    if isinstance(batch, OneSided):
        batch = batch.unlearn if batch.side == "unlearn" else batch.retention
    halves = [batch] if isinstance(batch, Batch) else [batch.unlearn, batch.retention]
    rows = sum(len(half) for half in halves)
    longest = max(half.ids.shape[1] for half in halves)
    return rows, rows * longest, sum(len(half.targets) for half in halves)


def _longest(rows: Sequence[Encoded], count: int) -> list[Encoded]:
    return sorted(rows, key=lambda row: len(row.ids))[-count:]


def planned_adaptations(recipe: Recipe) -> list[Adaptation]:
    """The adaptation of a recipe, or both where it is chosen by what the base knows."""
    section = recipe.model
    if recipe.memorize.adopt is not None:
        return [adaptation_of(Path(recipe.memorize.adopt))]
    lora = Adaptation("lora", section.rank, section.alpha, dropout=section.dropout)
    full = Adaptation("full")
    if section.adaptation == "auto":
        return [lora] if section.quantization else [lora, full]
    return [lora if section.adaptation == "lora" else full]
