"""Scores of variants under the attacks of a recipe, a part of the stage evaluate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from random import Random

import pandas as pd
import torch

from knowundo.attacked import Attacked
from knowundo.data.encoded import Encoded
from knowundo.errors import BadInput, unknown
from knowundo.modeling.forward import Forward
from knowundo.modeling.guarded import guarded_forward
from knowundo.modeling.variant import ModelVariant
from knowundo.modeling.weights import load_state
from knowundo.pipeline.scores import is_whole_model
from knowundo.recipes.schema import AttackPlan
from knowundo.registry import get
from knowundo.runs.artifact import ArtifactJob
from knowundo.runs.base import BOTH
from knowundo.runs.run import Run
from knowundo.scoring.table import read_scores, write_scores
from knowundo.storage.job import Job

# Attack with its setting → variant → its scores.
AttackScores = dict[str, dict[str, pd.DataFrame]]


def attacked_variants(run: Run, name: str) -> list[ModelVariant]:
    """The variants that an attack of the recipe is tried on.

    Raises:
        BadInput: One that the recipe names is not there, or is no adapter of this base.
    """
    there = {variant.name: variant for variant in run.variants()}
    planned = run.recipe.evaluate.attacks[name]
    if planned.variants is None:
        return [v for v in there.values() if v.role in ("unlearned", "retain")]
    for one in planned.variants:
        if one not in there:
            raise BadInput(f"evaluate.attacks.{name}: {unknown('variant', one, there)}")
        if is_whole_model(run, there[one]):
            raise BadInput(
                f"evaluate.attacks.{name}: {one} is a whole model, not an adapter of this base; "
                "name it as model.base of another run"
            )
    return [there[one] for one in planned.variants]


def score_attacks(run: Run) -> AttackScores:
    """Try every attack of the recipe on its variants, or read what an earlier call made."""
    found = AttackScores()
    for name in run.recipe.evaluate.attacks:
        changes = get("attack", name).facts["changes"]
        for variant in attacked_variants(run, name):
            if variant.guard is not None and changes == "weights":
                run.reporter.say(
                    f"{variant.name}: a guard leaves the weights as they are, so {name} is not "
                    "tried on it: whoever has them has the memorized model"
                )
                continue
            table = _attack(run, name, variant)
            for setting, rows in table.groupby("attack", sort=False):
                found.setdefault(str(setting), {})[variant.name] = rows.reset_index(drop=True)
    return found


def _attack(run: Run, name: str, variant: ModelVariant) -> pd.DataFrame:
    """The rows of a variant under an attack, in all of its settings."""
    folder = run.attack_scores(variant.name, name)
    with run.artifact(folder, run.attack_inputs(variant, name), skipped=None) as job:
        if not job.done:
            tables = _attacked_tables(run, name, variant, job)
            whole = [table.assign(attack=f"{name}: {s}") for s, table in tables.items()]
            job.facts |= {"attack": name, "variant": variant.name}
            write_scores(pd.concat(whole, ignore_index=True), job.aside / "rows.parquet")
    return read_scores(folder / "rows.parquet")


def _attacked_tables(
    run: Run, name: str, variant: ModelVariant, job: ArtifactJob
) -> dict[str, pd.DataFrame]:
    planned, entry = run.recipe.evaluate.attacks[name], get("attack", name)
    with run.reporter.task(f"{name}: {variant.name}") as progress, _forward(run, variant) as used:
        attacked = Attacked(
            forward=used,
            rows=_scored_rows(run, planned),
            train={scope: run.encoded(scope, "train") for scope in (*BOTH, "general")},
            encode=partial(run.encode, end=False),
            memorized=_memorized(run),
            generated_splits=run.recipe.evaluate.generate,
            lr=run.recipe.memorize.lr,
            seed=run.recipe.seed,
            metrics=run.recipe.evaluate.metrics,
            job=Job(progress, job.checkpoint),
        )
        entry(attacked, **entry.bind(planned.arguments))
    if not attacked.tables:
        raise BadInput(f"evaluate.attacks.{name}: it has no setting; correct its arguments")
    return attacked.tables


def _scored_rows(run: Run, planned: AttackPlan) -> list[Encoded]:
    """Rows of both scopes, of each split as many as the recipe says, in their order."""
    found = list[Encoded]()
    for scope in BOTH:
        for split in planned.splits:
            rows = run.encoded(scope, split, end=False)
            if planned.limit is not None and planned.limit < len(rows):
                drawn = Random(run.recipe.seed).sample(range(len(rows)), planned.limit)
                rows = [rows[number] for number in sorted(drawn)]
            found += rows
    return found


@contextmanager
def _forward(run: Run, variant: ModelVariant) -> Iterator[Forward]:
    """The variant in use, behind its guard if it has one."""
    if variant.guard is not None:
        with guarded_forward(run.model, variant) as forward:
            yield forward
        return
    run.model.use(variant)
    yield Forward(run.model)


def _memorized(run: Run) -> Callable[[], Mapping[str, torch.Tensor]] | None:
    """Reads the memorized model's trainable tensors; `None` if it is the base itself."""
    folder = run.start.folder
    return None if folder is None else lambda: load_state(run.model, folder)
