"""The stage evaluate: scores as results.json, with intervals and comparisons."""

from __future__ import annotations

from typing import Any

import pandas as pd

from knowundo.data.encoding import count_cut
from knowundo.data.records import data_hash
from knowundo.erasure_results import ErasureResults
from knowundo.errors import BadInput
from knowundo.evaluation.collapse import collapsed
from knowundo.evaluation.result_rows import Evaluation
from knowundo.evaluation.scope_margin import scope_margin
from knowundo.modeling.regions import EVERYTHING
from knowundo.modeling.variant import ModelVariant
from knowundo.modeling.weights import describe
from knowundo.pipeline.attacks import AttackScores, attacked_variants, score_attacks
from knowundo.pipeline.scores import (
    Scored,
    is_whole_model,
    score_group,
    scoring_groups,
    unaltered_rows,
)
from knowundo.progress import Progress
from knowundo.recipes.schema import Plan, Recipe
from knowundo.results import Results, Row, VariantFacts, read_results, write_results
from knowundo.runs.run import Run
from knowundo.storage.artifacts import read_manifest
from knowundo.storage.environment import surroundings
from knowundo.storage.locks import alone


@alone
def evaluate(run: Run) -> Results:
    """Score every variant on every record, one base in memory, and write results.json."""
    run.encoded()  # the base and every row, checked before the first byte is written
    if not run.recipe.evaluate.models or (run.memorized / "manifest.json").exists():
        run.check_current()
    model = describe(run.model)
    _check_given(run)
    for name in run.recipe.evaluate.attacks:
        attacked_variants(run, name)
    run.claim()
    # Each group is an artifact of its own: a killed evaluation resumes with the group it was in.
    scored: dict[str, Scored] = {}
    for group in scoring_groups(run):
        scored |= score_group(run, group)
    attacks = score_attacks(run)
    with run.reporter.task("evaluate: intervals") as progress:
        results = _results(run, model, scored, progress)
        results.rows += _attack_rows(run, attacks)
    results.erasure = _held_erasure(run, results)
    write_results(results, run.out / "results.json")
    run.seal(run.out / "results.json")
    return results


def _held_erasure(run: Run, results: Results) -> ErasureResults | None:
    """The section of an erasure that results.json holds already, if it speaks of the same scores.

    Only `erase` writes it, and a run of it may be evaluated again.
    """
    file = run.out / "results.json"
    if not file.is_file():
        return None
    try:
        held = read_results(file)
    except BadInput:  # it is damaged or of another version; evaluating again is the remedy
        return None
    if held.erasure is None or _both(held, held.erasure) == _both(results, held.erasure):
        return held.erasure
    run.reporter.say("results.json: other scores than those of the verdict; run `erase` again")
    return None


def _both(results: Results, erasure: ErasureResults) -> tuple[list[Row], list[VariantFacts]]:
    """Scores and facts of the models before and after an erasure.

    Others may stand beside them, and attacks on them, of which the verdict does not speak.
    """
    names = ("memorized", erasure.variant)
    return (
        [row for row in results.rows if row.variant in names and not row.of_attack],
        [variant for variant in results.variants if variant.name in names],
    )


def _check_given(run: Run) -> None:
    """Refuse given adapters that cannot be put on this run's model, before anything is scored.

    Each is put there once, so that a damaged one does not end the scoring of the others.
    """
    for variant in run.given_models():
        if not is_whole_model(run, variant) and run.model.adaptation.kind == "full":
            raise BadInput(
                f"{variant.folder}: an adapter, but this run trains all weights; score it with "
                "`knowundo evaluate` in another directory"
            )
        if not is_whole_model(run, variant):
            run.model.use(variant)
    run.model.notes.tell(run.reporter.say)


def _evaluated(run: Run, scored: dict[str, Scored], progress: Progress) -> tuple[list[Row], Any]:
    """All rows of results.json, and the evaluation of the records as they are."""
    target = "retain" if "retain" in scored else None
    section = run.recipe.evaluate
    settings: dict[str, Any] = {"draws": section.resamples, "seed": run.recipe.seed}
    settings["asked"] = section.metrics
    plain = Evaluation(
        {name: unaltered_rows(one.table) for name, one in scored.items()},
        target=target,
        **settings,
    )
    rows = plain.rows(progress)
    # Altered questions are compared among themselves: their records are the same ones again.
    for attack in next(iter(scored.values())).table["attack"].unique():
        if attack:
            tables = {
                name: one.table[one.table["attack"] == attack] for name, one in scored.items()
            }
            under = Evaluation(tables, target=target, **settings).rows()
            rows += [row.model_copy(update={"attack": attack}) for row in under]
    return rows + [row for one in scored.values() for row in one.tasks], plain


def _attack_rows(run: Run, attacks: AttackScores) -> list[Row]:
    """Rows of results.json under attacks; the reference is the retain model's, attacked as well."""
    rows, section = [], run.recipe.evaluate
    settings: dict[str, Any] = {"draws": section.resamples, "seed": run.recipe.seed}
    settings["asked"] = section.metrics
    for attack, tables in attacks.items():
        target = "retain" if "retain" in tables else None
        for row in Evaluation(tables, target=target, **settings).rows():
            if row.value is not None:  # what an attack does not measure is said by no row
                rows.append(row.model_copy(update={"attack": attack}))
    return rows


def _results(
    run: Run, model: dict[str, Any], scored: dict[str, Scored], progress: Progress
) -> Results:
    rows, evaluation = _evaluated(run, scored, progress)
    around = surroundings()
    around["hardware"]["device"] = run.recipe.model.device
    counts: dict[str, int] = {}
    for record in run.records:
        key = f"{record.scope}/{record.split}"
        counts[key] = counts.get(key, 0) + 1
    return Results(
        name=run.recipe.name,
        recipe_given=run.given,
        recipe_effective=run.effective,
        seeds={"recipe": run.recipe.seed, "data": run.recipe.data_seed},
        data_sha256=data_hash(run.records),
        data_counts=counts,
        data_cut=count_cut(run.encoded()),
        data_commits=run.commits,
        model=model,
        variants=[_facts(variant, evaluation.tables) for variant in run.variants()],
        rows=rows,
        comparisons=[c for pair in _controlled(run, scored) for c in evaluation.compare(*pair)],
        **around,
    )


def _facts(variant: ModelVariant, tables: dict[str, pd.DataFrame]) -> VariantFacts:
    # A run of given models alone has no memorized model.
    before = tables.get("memorized", tables.get("base"))
    facts = VariantFacts(name=variant.name, role=variant.role)
    if variant.role in ("unlearned", "given"):
        facts.collapsed = collapsed(tables[variant.name], before)
    if variant.role != "unlearned" or variant.made is None:
        return facts
    manifest = read_manifest(variant.made)
    names = ("method", "region", "parameters", "lr", "optimizer_steps")
    watched = ("attempts", "trajectory", "stopped")
    ends = ("diverged", "kept_step", "guard")
    taken = {name: manifest[name] for name in (*names, *watched, *ends) if name in manifest}
    kept = {"kept_step": manifest["best"]["step"]} if "best" in manifest else {}
    kept["scope_margin"] = scope_margin(manifest.get("trajectory", ()))
    then = {"then": [one["method"] for one in manifest.get("then", ())]}
    return facts.model_copy(update=taken | kept | then)


def _controlled(run: Run, scored: dict[str, Scored]) -> list[tuple[str, str]]:
    """Pairs that differ in their region only: a located one against every control of it."""
    variants = [v for v in run.recipe.unlearn.variants if v.name in scored]

    def all_but_region(plan: Plan) -> Any:
        settings = run.recipe.unlearn.settings(plan)
        return plan.method, plan.arguments, plan.retain_on, plan.gradients, plan.then, settings

    return [
        (located.name, control.name)
        for located in variants
        if located.region in run.recipe.localize.localizers
        for control in variants
        if control.region in _controls(run.recipe, located.region)
        and all_but_region(control) == all_but_region(located)
    ]


def _controls(recipe: Recipe, located: str) -> list[str]:
    """Names of the regions that a located one is measured against."""
    prefix = "random" if len(recipe.localize.localizers) == 1 else f"random-{located}"
    return [*(f"{prefix}-{n}" for n in range(1, recipe.localize.draws + 1)), EVERYTHING]
