"""Memory of unlearning one variant, with the whole adaptation as its region."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from knowundo.data.encoded import Encoded
from knowundo.entry import Entry, taken
from knowundo.estimation.fake_start import FakeOriginalStart, FakeStart
from knowundo.estimation.memory_trace import MemoryTrace
from knowundo.estimation.schema import StageEstimate
from knowundo.estimation.tracer import SCORED, Planned, Tracer, longest_rows
from knowundo.modeling.step import halves_of
from knowundo.recipes.schema import Plan, Recipe
from knowundo.registry import planned_entry, trained_entry
from knowundo.unlearning.combining import Combined, combination
from knowundo.unlearning.original.rows import whole_steps
from knowundo.unlearning.rates import ATTEMPTS
from knowundo.unlearning.settings import SIBLINGS, UnlearnSettings, copies_held, retained_scopes

Retained = Mapping[str, list[Encoded]]  # scope → rows that can fill the retention half


@dataclass(frozen=True)
class _Steps:
    """The batches of a variant: the heaviest ones, and how many there are in all."""

    heaviest: dict[str, Any]  # by the half that a batch holds; "" for both
    batches: int
    accumulation: int
    combination: Combined | None = None


def estimate_unlearning(tracer: Tracer, plan: Plan, *, further: bool = False) -> StageEstimate:
    """Trace the heaviest step of a variant.

    Args:
        tracer: of the recipe.
        plan: one of the recipe's planned variants, or of the methods that follow one.
        further: whether it follows one.
    """
    recipe = tracer.run.recipe
    settings, auto = _settings(recipe, plan)
    entry = trained_entry(plan.method)
    # Of a guard's settings, its assistant's loss takes some.
    bound = taken(entry.function, planned_entry(plan.method).bind(plan.arguments))
    rows = tracer.rows("unlearn", "train", end=False)
    retained = {s: tracer.rows(s, "train", end=False) for s in ("retention", "general")}
    every = [*rows, *retained["retention"], *retained["general"]]
    of_all, scopes, given = len(rows), retained_scopes(plan.retain_on), dict(retained)
    if recipe.quirks:
        # The original batches run the model on every row, so the longest rows stand for all.
        rows = longest_rows(rows, settings.batch_size)
        retained = {s: longest_rows(found, settings.batch_size) for s, found in retained.items()}
    asked = entry, bound, settings
    whole = _start(tracer, rows, retained)
    steps = _heaviest(tracer, whole.batches(*asked))
    given |= {SIBLINGS: list(vars(whole).get(SIBLINGS, ()))}
    every = [*every, *given[SIBLINGS]]
    retained_rows = [row for scope in scopes for row in given[scope]]
    steps = replace(steps, combination=combination(settings.gradients, plan.method))
    micro_batches = -(-steps.batches * of_all // len(rows))
    if not recipe.quirks:
        rows = steps.heaviest[""].unlearn.encoded
        retention = steps.heaviest[""].retention.encoded
        own = {s: [row for row in retention if row.record.scope == s] for s in scopes}
        retained = own | {"longest": longest_rows(every, SCORED)}
    start = _start(tracer, rows, retained)

    def work(trace: MemoryTrace) -> int:
        start.columns(entry, bound)
        start.batches(*asked)
        _train(tracer, trace, start, (entry, bound), steps)
        return start.unseen_bytes(every, retained_rows)

    count = -(-micro_batches // steps.accumulation)
    if "whole_steps" in recipe.quirks:
        count = whole_steps(micro_batches, settings.epochs, steps.accumulation)[0]
    held = copies_held(
        settings,
        count,
        stopping=recipe.unlearn.stop is not None and not further,
        searching=auto,
        further=further,
    )
    count *= ATTEMPTS if auto else 1
    batch = max(steps.heaviest.values(), key=tracer.weight)
    return tracer.trace(Planned(plan.name, count, batch, sum(held.values()), at_most=auto), work)


def _settings(recipe: Recipe, plan: Plan) -> tuple[UnlearnSettings, bool]:
    """Settings of a variant without a rate, and whether its rate is searched."""
    planned = recipe.unlearn.settings(plan)
    auto = planned["lr"] == "auto"
    settings = UnlearnSettings(
        **planned | {"lr": None},
        method=plan.method,
        retain_on=plan.retain_on,
        gradients=plan.gradients,
        keep_every=None if auto else recipe.unlearn.keeps(plan),
    )
    return settings, auto


def _heaviest(tracer: Tracer, made: tuple[list[Any], int]) -> _Steps:
    """The heaviest batch of each half: one-sided batches hold either half, others both."""
    batches, accumulation = made
    ordered = sorted(batches, key=tracer.weight)
    return _Steps({getattr(b, "side", ""): b for b in ordered}, len(batches), accumulation)


def _train(
    tracer: Tracer,
    trace: MemoryTrace,
    start: FakeStart,
    method: tuple[Entry, dict[str, Any]],
    steps: _Steps,
) -> None:
    """Train on the heaviest batches, each twice.

    The first step finds out which halves the loss reads, each in a forward of its own. From the
    second step on, one forward computes all halves that are read, which takes more memory.
    """
    read: set[str] = set()
    combination = steps.combination
    most = 1 if combination is not None and combination.by_row else None
    for batch in steps.heaviest.values():
        rows = steps.accumulation * min(map(len, (batch.unlearn, batch.retention))) if most else 1
        for _ in range(2):
            micro_batch = tracer.micro_batch(batch, halves_of(read), most)
            loss = partial(start.parts, *method, micro_batch, read)
            tracer.training_step(trace, loss, steps.accumulation, combination, rows)
            if len(read) < 2 or tracer.run.recipe.quirks:
                break


def _start(tracer: Tracer, rows: list[Encoded], retained: Retained) -> FakeStart:
    recipe = tracer.run.recipe
    encode = partial(tracer.run.encode, model=tracer.model)
    options: dict[str, Any] = {"seed": recipe.seed, "encode": encode}
    if recipe.quirks:
        # None of these few rows may be left out; the steps of all rows are counted above.
        quirks = [name for name in recipe.quirks if name != "whole_steps"]
        return FakeOriginalStart(tracer.model, rows, retained, quirks=quirks, **options)
    return FakeStart(tracer.model, rows, retained, **options)
