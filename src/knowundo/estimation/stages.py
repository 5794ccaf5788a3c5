"""Peak memory of each stage of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from transformers import Cache

from knowundo.data.batches import by_length, shuffled
from knowundo.data.encoded import Encoded
from knowundo.data.records import ASKED
from knowundo.estimation.memory_trace import MemoryTrace, trace_gradients
from knowundo.estimation.schema import StageEstimate
from knowundo.estimation.tracer import GENERATED, SCORED, Planned, Tracer
from knowundo.estimation.unlearning import estimate_unlearning
from knowundo.localization.gradients import mean_gradients
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.forward import Forward, answer_logits, hidden_states
from knowundo.modeling.half import Half
from knowundo.modeling.head import live_head
from knowundo.modeling.model import Model
from knowundo.modeling.step import Parts
from knowundo.progress import Reporter
from knowundo.recipes.schema import Plan, Recipe
from knowundo.registry import get, planned_entry
from knowundo.runs.base import BOTH, TRAIN_VAL, adopted_adaptation
from knowundo.scoring.table import fill_a_batch


def estimate_stages(tracer: Tracer, reporter: Reporter) -> list[StageEstimate]:
    """Estimate all stages of the recipe, in the order of the pipeline.

    Args:
        tracer: of the recipe.
        reporter: tells the user how far it is.
    """
    recipe = tracer.run.recipe
    work: list[Callable[[], StageEstimate]] = []
    if recipe.memorize.adopt is None:
        work.append(partial(estimate_memorization, tracer, "memorize", BOTH))
    if recipe.memorize.retain_model:
        work.append(partial(estimate_memorization, tracer, "retain model", ("retention",)))
    if recipe.localize.adopt is None:
        work.append(partial(estimate_localization, tracer))
    known: dict[str, StageEstimate] = {}
    # A guard without an assistant trains nothing; what it costs is the evaluation.
    trained = [v for v in recipe.unlearn.variants if planned_entry(v.method).trained is not None]
    for plan in trained:
        work.append(partial(_estimate_variant, tracer, known, plan))
        work += [partial(_estimate_variant, tracer, known, v, further=True) for v in plan.further]
    work.append(partial(estimate_evaluation, tracer))
    found = []
    with reporter.task("estimate") as progress:
        for number, stage in enumerate(work, start=1):
            found.append(stage())
            progress(number, len(work))
    return found


def _estimate_variant(
    tracer: Tracer, known: dict[str, StageEstimate], plan: Plan, further: bool = False
) -> StageEstimate:
    """A variant's estimate; variants that differ in name, region and guess have the same."""
    own = plan.model_dump_json(exclude={"name", "region", "guess", "then"})
    settings = f"then {own}" if further else own
    if settings not in known:
        known[settings] = estimate_unlearning(tracer, plan, further=further)
    return replace(known[settings], name=plan.name)


def estimate_memorization(tracer: Tracer, name: str, scopes: Sequence[str]) -> StageEstimate:
    """Estimate finetuning.

    Args:
        tracer: of the recipe.
        name: name of the stage.
        scopes: scopes that are learned, beside general rows if the recipe says so.
    """
    recipe, model = tracer.run.recipe, tracer.model
    section = recipe.memorize
    rows = [row for scope in scopes for row in tracer.rows(scope, TRAIN_VAL)]
    rows += tracer.rows("general", "train") if section.general else []
    batches = shuffled(rows, section.batch_size, section.epochs, recipe.seed, model.pad)
    batch = max(batches, key=tracer.weight)
    micro_batch = tracer.micro_batch(batch)

    def loss() -> Parts:
        half = Half(micro_batch, hidden_states(model, micro_batch), live_head(model))
        return {"memorize": half.mean(half.mean_nll)}

    def work(trace: MemoryTrace) -> int:
        tracer.training_step(trace, loss, section.accumulation)
        return 0

    steps = -(-len(batches) // section.accumulation)
    early = section.known is not None
    return tracer.trace(Planned(name, steps, batch, copies=1, at_most=early), work)


def estimate_localization(tracer: Tracer) -> StageEstimate:
    """Estimate the mean gradients of noisy copies of both scopes, and their squares if needed."""
    section, model = tracer.run.recipe.localize, tracer.model
    needs = [get("localizer", name).facts["needs"] or () for name in section.localizers]
    squared = any("squares" in needed for needed in needs)
    batches, rows = [], 0
    for scope in BOTH:
        copies = tracer.rows(scope, section.splits) * section.copies
        batches += by_length(copies, section.batch_size, model.pad)
        rows += len(copies)
    batch = max(batches, key=tracer.weight)

    def work(trace: MemoryTrace) -> int:
        hooks = trace_gradients(model.train_only(model.parameters()), trace)
        # The mean gradients of the scope that came first stay while the second is measured. Of
        # squares there are those of both scopes, beside the gradient of a row.
        held = 3 if squared else 1
        other_scope = [torch.zeros_like(p) for p in [*model.parameters().values()] * held]
        trace.attribute("gradients", other_scope)
        mean_gradients(model, [*batch.encoded, *batch.encoded], batch_size=len(batch))
        for hook in hooks:
            hook.remove()
        return 0

    # Squares are of single rows, each with a backward pass of its own.
    count = len(batches) + (rows if squared else 0)
    planned = Planned("localize", count, batch, copies=1, unit="backward passes")
    return tracer.trace(planned, work)


def estimate_evaluation(tracer: Tracer) -> StageEstimate:
    """Estimate scoring of the longest rows, and the answers that end with the largest cache.

    Beside the LoRA itself there are those that are scored in the same forward: copies in the
    host's memory at first, then stacked on the device.
    """
    model = tracer.model
    rows = tracer.run.encoded(model=model)
    batched = _batched_adapters(tracer, rows)
    lora = sum(parameter.nbytes for parameter in model.parameters().values())
    scored = max(by_length(rows, SCORED, model.pad), key=tracer.weight)
    splits = tracer.run.recipe.evaluate.generate
    asked = [r for r in rows if r.record.kind in ASKED and r.record.split in splits]
    asked.sort(key=lambda row: (row.answer_length, len(row.prompt)))
    groups = [asked[i : i + GENERATED] for i in range(0, len(asked), GENERATED)]
    shapes = [
        (len(g), max(len(r.prompt) for r in g), max(r.answer_length for r in g)) for g in groups
    ]

    def work(trace: MemoryTrace) -> int:
        for _, logits in answer_logits(Forward(model), scored.encoded):
            logits.double()
        if shapes:
            _answer(model, *max(shapes, key=lambda shape: shape[0] * (shape[1] + shape[2])))
        return batched * lora

    planned = Planned("evaluate", len(rows), scored, copies=1 + batched, unit="rows")
    return tracer.trace(planned, work)


def _batched_adapters(tracer: Tracer, rows: Sequence[Encoded]) -> int:
    """How many LoRAs one forward scores; 0 if each model is scored by itself."""
    recipe = tracer.run.recipe
    if tracer.model.adaptation.kind != "lora":
        return 0
    # The base, which has a LoRA of zeros then, and the memorized model. Kept steps may come on top,
    # so a recipe with any of them is counted as if it filled the forward.
    models = 2 + int(recipe.memorize.retain_model) + len(recipe.evaluate.models)
    models += len(recipe.unlearn.variants)
    most = fill_a_batch(rows, recipe.evaluate.generate)
    if any(recipe.unlearn.keeps(plan) is not None for plan in recipe.unlearn.variants):
        models = most
    together = min(models, most)
    return together if together > 1 else 0


@torch.no_grad()
def _answer(model: Model, rows: int, prompt: int, answer: int) -> None:
    """Read prompts, then grow the cache by the answers, layer by layer as each token does.

    Args:
        model: the fake model.
        rows: number of prompts.
        prompt: tokens of each prompt.
        answer: tokens of each answer.
    """
    ids = torch.zeros((rows, prompt), dtype=torch.long)
    output = model.net(
        input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True, logits_to_keep=1
    )
    (cache,) = (value for value in output.values() if isinstance(value, Cache))
    del output
    for layer in cache.layers:
        for name in ("keys", "values"):
            states = getattr(layer, name)
            shape = [*states.shape[:2], answer, states.shape[3]]
            setattr(layer, name, torch.cat([states, states.new_empty(shape)], dim=2))


def planned_adaptations(recipe: Recipe) -> list[Adaptation]:
    """The adaptation of a recipe, or both where it is chosen by what the base knows.

    Args:
        recipe: its `model.adaptation` may be auto.
    """
    section = recipe.model
    if recipe.memorize.adopt is not None:
        return [adopted_adaptation(recipe)]
    lora = Adaptation("lora", section.rank, section.alpha, dropout=section.dropout)
    full = Adaptation("full")
    if section.adaptation == "auto":
        return [lora] if section.quantization else [lora, full]
    return [lora if section.adaptation == "lora" else full]
