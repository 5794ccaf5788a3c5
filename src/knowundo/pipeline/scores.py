"""Scores of each variant, several adapters in one forward where that is possible."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import pandas as pd

from knowundo.data.encoded import Encoded
from knowundo.evaluation.lm_eval_tasks import TaskSettings, task_rows
from knowundo.modeling.adapters import Adaptation, adaptation_of
from knowundo.modeling.fast.oom import ran_out
from knowundo.modeling.forward import Forward
from knowundo.modeling.guarded import guarded_forward
from knowundo.modeling.model import Model
from knowundo.modeling.multi_adapter import batched_adapters, can_batch_adapters
from knowundo.modeling.variant import ModelVariant
from knowundo.progress import Progress
from knowundo.results import Row
from knowundo.runs.artifact import ArtifactJob, shared_checkpoint
from knowundo.runs.base import BOTH
from knowundo.runs.run import Run
from knowundo.scoring.alternatives import needed_answers
from knowundo.scoring.table import fill_a_batch, read_scores, score_adapters, write_scores
from knowundo.storage.checkpoints import Checkpoint
from knowundo.storage.files import read_json, write_json

# The checkpoint of scoring the records as they are.
AS_IS = "as-is"


class Scored(NamedTuple):
    """What evaluation knows of one variant."""

    table: pd.DataFrame  # the columns of scoring.table, and how the question was altered: `attack`
    tasks: list[Row]  # of general tasks


def _in_order(run: Run) -> list[ModelVariant]:
    """The variants, whole models last: the base makes room for them."""
    return sorted(run.variants(), key=lambda variant: is_whole_model(run, variant))


def is_whole_model(run: Run, variant: ModelVariant) -> bool:
    """True for a given model that cannot be put on the base as a LoRA."""
    return (
        variant.role == "given"
        and variant.folder is not None
        and adaptation_of(variant.folder).kind == "full"
    )


def scoring_groups(run: Run) -> list[list[ModelVariant]]:
    """The variants in the order of scoring, grouped by what one forward may score.

    A group has as many adapters as fill a batch with their answers; a guard is alone in its group.
    What is scored already plays no part: the groups of a resumed run have to be those that it began
    with, because a row's bits depend on the rows beside it.
    """
    # Adapters of one shape only: their matrices are stacked.
    most = fill_a_batch(run.encoded(), run.recipe.evaluate.generate)
    groups, shapes = list[list[ModelVariant]](), set[Adaptation]()
    for variant in _in_order(run):
        own = set() if variant.folder is None else {adaptation_of(variant.folder)}
        kinds = {run.model.adaptation.kind, *(shape.kind for shape in own)}
        joins = kinds == {"lora"} and len(shapes | own) <= 1 and variant.guard is None
        joins &= not (groups and groups[-1][-1].guard)
        if groups and joins and len(groups[-1]) < most:
            groups[-1].append(variant)
            shapes |= own
        else:
            groups.append([variant])
            shapes = own
    return groups


def score_group(run: Run, group: Sequence[ModelVariant]) -> dict[str, Scored]:
    """Score variants, or read what an earlier call made of the same inputs."""
    # Once: the inputs hold hashes of every file of a variant's weights.
    inputs = {variant.name: run.score_inputs(variant) for variant in group}
    waiting = [variant for variant in group if not _job(run, variant, inputs).done]
    if waiting:
        _score(run, group, waiting, inputs)
    return {variant.name: _scored(run, variant) for variant in group}


# What the scores of each variant depend on, by its name.
Inputs = Mapping[str, Sequence[Any]]


def _job(
    run: Run, variant: ModelVariant, inputs: Inputs, shared: Checkpoint | None = None
) -> ArtifactJob:
    path, own = run.scores(variant.name), inputs[variant.name]
    return run.artifact(path, own, shared=shared, skipped=None)


def _scored(run: Run, variant: ModelVariant) -> Scored:
    folder = run.scores(variant.name)
    tasks = [Row.model_validate(row) for row in read_json(folder / "tasks.json")]
    return Scored(read_scores(folder / "rows.parquet"), tasks)


def _score(
    run: Run, group: Sequence[ModelVariant], waiting: Sequence[ModelVariant], inputs: Inputs
) -> None:
    """Score a group in one forward, and write those of it that wait; one by one where needed."""
    path, together = run.scores(group[0].name), [inputs[variant.name] for variant in group]
    if len(waiting) < len(group) and run.checkpoint(path, together).within(AS_IS).read() is None:
        # The others were finished before, and no interrupted pass over the whole group is there
        # to be resumed: nothing is gained by scoring them again.
        _score(run, waiting, waiting, inputs)
        return
    model = run.whole_model(group[0]) if is_whole_model(run, group[0]) else run.model
    with shared_checkpoint(run, path, together) as checkpoint:
        tables = _tables(run, model, group, checkpoint)
        if tables is not None:
            facts = run.common_facts(model) | {"seconds": checkpoint.seconds / len(group)}
            for variant, rows in zip(group, tables, strict=True):
                with _job(run, variant, inputs, checkpoint) as job:
                    if not job.done:
                        job.facts |= facts
                        _write_scores(run, model, variant, rows, job)
    # Outside the block above: each of them has a checkpoint in the place of the group's.
    if tables is None:
        for variant in waiting:
            _score(run, [variant], [variant], inputs)


def _tables(
    run: Run, model: Model, group: Sequence[ModelVariant], checkpoint: Checkpoint
) -> list[pd.DataFrame] | None:
    """Rows of each of a group; `None` if they cannot be batched, or memory runs out so."""
    if len(group) > 1 and not can_batch_adapters(model, group):
        return None
    title = "evaluate " + ", ".join(variant.name for variant in group)
    used: AbstractContextManager[Forward]
    if group[0].guard is not None:
        used = guarded_forward(model, group[0])
    elif is_whole_model(run, group[0]):
        used = nullcontext(Forward(model))
    else:
        used = batched_adapters(model, group)
    try:
        with run.reporter.task(title) as progress, used as forward:
            return _score_rows(run, forward, progress, checkpoint)
    except RuntimeError as error:
        if len(group) == 1 or not ran_out(error):
            raise
    many = f"{len(group)} adapters in a forward"
    model.notes.add(f"scoring: memory ran out with {many}, continued with one")
    return None


def _write_scores(
    run: Run, model: Model, variant: ModelVariant, rows: pd.DataFrame, job: ArtifactJob
) -> None:
    """Rows of a variant, and how it does at general tasks."""
    began = time.monotonic()
    if run.recipe.evaluate.general_tasks and not is_whole_model(run, variant):
        model.use(variant)
    tasks = _score_tasks(run, model, variant.name)
    job.facts["seconds"] = round(job.facts["seconds"] + time.monotonic() - began, 2)
    write_scores(rows, job.aside / "rows.parquet")
    write_json(job.aside / "tasks.json", [row.model_dump(mode="json") for row in tasks])


def _score_rows(
    run: Run, forward: Forward, progress: Progress, checkpoint: Checkpoint
) -> list[pd.DataFrame]:
    """A table for each adapter: every record as it is, and val rows again with each prefix."""
    section, model = run.recipe.evaluate, forward.model
    encoded = run.encoded(model=model, end=False)
    how: dict[str, Any] = {"generated_splits": section.generate, "progress": progress}
    how |= {"metrics": section.metrics}
    others = _other_answers(run, model, encoded)
    own = checkpoint.within(AS_IS)
    tables = score_adapters(forward, encoded, **how, alternatives=others, checkpoint=own)
    parts = [[table.assign(attack="")] for table in tables]
    for number, prefix in enumerate(section.prefixes):
        rows = [
            row
            for scope in BOTH
            for row in run.encoded(scope, "val", model=model, prefix=prefix, end=False)
        ]
        others = _other_answers(run, model, rows, prefix)
        own = checkpoint.within(f"prefix-{number}")
        tables = score_adapters(forward, rows, **how, alternatives=others, checkpoint=own)
        for part, table in zip(parts, tables, strict=True):
            part.append(table.assign(attack=f"{prefix} prompt"))
    return [pd.concat(part, ignore_index=True) for part in parts]


def _other_answers(
    run: Run, model: Model, encoded: Sequence[Encoded], prefix: str | None = None
) -> list[Encoded]:
    encode = partial(run.encode, model=model, prefix=prefix, end=False)
    return needed_answers(encoded, encode, run.recipe.evaluate.metrics)


def _score_tasks(run: Run, model: Model, name: str) -> list[Row]:
    section = run.recipe.evaluate
    if not section.general_tasks:
        return []
    settings = TaskSettings(
        section.general_tasks,
        section.general_folder,
        section.general_limit,
        section.general_shots,
        seed=run.recipe.seed,
    )
    with run.reporter.task(f"evaluate {name}: general tasks") as progress:
        return task_rows(model, name, settings, progress=progress, say=run.reporter.say)


def unaltered_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Rows whose question was not altered."""
    return table[table["attack"] == ""]
