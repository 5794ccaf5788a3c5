"""The five stages over one output directory, each reading artifacts and writing one.

    run = Run(recipe, Path("runs/demo"))
    memorize(run); localize(run); unlearn(run); evaluate(run); report(run)

A stage whose artifact was made of the same inputs is skipped, so a run can be interrupted at any
moment and continued by the same call.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from knowundo.artifacts import (
    is_done,
    new_folder,
    read_json,
    read_manifest,
    surroundings,
    write_json,
)
from knowundo.errors import BadInput, Diverged, MethodsFailed, unknown
from knowundo.evaluation import Evaluation
from knowundo.localization import localize as find_regions
from knowundo.memorization import memorize as finetune
from knowundo.models import Variant, describe, save_state
from knowundo.progress import Progress
from knowundo.recipe import Variant as Planned
from knowundo.records import data_hash
from knowundo.reporting import Material, write_report
from knowundo.results import Results, VariantFacts, read_results, write_results
from knowundo.runs import BOTH, TRAIN_VAL, Run
from knowundo.scoring import read_scores, score, token_accuracy, write_scores
from knowundo.unlearning import Start, unlearn_at_chosen_rate
from knowundo.unlearning import unlearn as train_method


def _finetuned(run: Run, folder: Path, title: str, scopes: Sequence[str]) -> None:
    settings = run.recipe.memorize.model_dump(exclude={"general", "retain_model"})
    inputs = run.memorize_inputs(scopes)
    if is_done(folder, inputs):
        run.reporter.say(f"{folder.name}: already there, skipped")
        return
    rows = [row for scope in scopes for row in run.encoded(scope, TRAIN_VAL)]
    general = run.encoded("general", "train") if run.recipe.memorize.general else []
    model = run.model
    model.restore(model.fresh)
    began = time.perf_counter()
    with run.reporter.task(title) as progress:
        curve, facts = finetune(
            model, rows, general, **settings, seed=run.recipe.seed, progress=progress
        )
    if facts["known_share"] < settings["known"]:
        run.reporter.say(
            f"{folder.name}: only {facts['known_share']:.0%} of the rows are known after "
            f"{facts['optimizer_steps']} steps; raise memorize.epochs or memorize.lr"
        )
    seconds = round(time.perf_counter() - began, 2)
    facts |= {"seconds": seconds, "model": describe(model), **surroundings()}
    with new_folder(folder, inputs, **facts) as aside:
        save_state(model, aside)
        write_json(aside / "curve.json", curve)


def memorize(run: Run) -> None:
    """Finetune the base until it knows both scopes; also the retain model, if the recipe asks."""
    run.encoded()  # the base and every row, checked before the first byte is written
    run.claim()
    _finetuned(run, run.memorized, "memorize", BOTH)
    if run.recipe.memorize.retain_model:
        _finetuned(run, run.retain, "memorize (retain model)", ("retention",))


def localize(run: Run) -> None:
    """Find the region by gradients, and the control regions."""
    settings = run.recipe.localize.model_dump(exclude={"splits"})
    splits = run.recipe.localize.splits
    inputs = run.localize_inputs()
    if is_done(run.regions, inputs):
        run.reporter.say("regions: already there, skipped")
        return
    model = run.model
    model.use(Variant("memorized", "memorized", run.memorized))
    began = time.perf_counter()
    with run.reporter.task("localize") as progress:
        found = find_regions(
            model,
            run.encoded("unlearn", splits),
            run.encoded("retention", splits),
            **settings,
            seed=run.recipe.seed,
            progress=progress,
        )
    facts = {"seconds": round(time.perf_counter() - began, 2), **surroundings()}
    with new_folder(run.regions, inputs, parameters=found["parameters"], **facts) as aside:
        write_json(aside / "tensors.json", found["tensors"])
        for name, region in found["regions"].items():
            write_json(aside / f"{name}.json", region)


def unlearn(run: Run, only: Iterable[str] | None = None) -> list[str]:
    """Train every variant (or some) from the memorized model.

    Returns:
        Names of the variants that diverged.

    Raises:
        BadInput: a name in `only` that is not a variant of the recipe.
    """
    planned = {variant.name: variant for variant in run.recipe.unlearn.variants}
    chosen = list(planned if only is None else only)
    for name in chosen:
        if name not in planned:
            raise unknown("variant", name, planned)
    run.made(run.memorized, "memorize")
    run.made(run.regions, "localize")
    waiting = [
        planned[n] for n in chosen if not is_done(run.unlearned(n), run.unlearn_inputs(planned[n]))
    ]
    for name in chosen:
        if planned[name] not in waiting:
            run.reporter.say(f"{name}: already there, skipped")
    if not waiting:
        return []
    rows = run.encoded("unlearn", "train")
    never_saw = run.never_saw()
    run.model.use(never_saw)
    target = token_accuracy(run.model, rows)
    if any(run.recipe.unlearn.settings(variant)["lr"] == "auto" for variant in waiting):
        run.reporter.say(
            f"lr: auto aims at a token accuracy of {target:.1%} on unlearn/train rows, the "
            f"{never_saw.name} model's"
        )
    run.model.use(Variant("memorized", "memorized", run.memorized))
    kept = {scope: run.encoded(scope, "train") for scope in ("retention", "general")}
    start = Start(run.model, rows, kept, seed=run.recipe.seed)
    return [variant.name for variant in waiting if not _unlearn_one(run, start, variant, target)]


def _unlearn_one(run: Run, start: Start, variant: Planned, target: float) -> bool:
    """Train one variant and write it; False if it diverged."""
    settings = run.recipe.unlearn.settings(variant)
    lr = settings.pop("lr")
    region = run.region(variant.region)
    settings |= {
        "method": variant.method,
        "arguments": variant.arguments,
        "region": region,
        "retain_on": variant.retain_on,
    }
    try:
        with run.reporter.task(variant.name) as progress:
            settings["progress"] = progress
            if lr == "auto":
                done = unlearn_at_chosen_rate(start, target, guess=variant.guess, **settings)
            else:
                done = train_method(start, lr=lr, **settings)
    except Diverged as error:
        run.reporter.say(f"{variant.name}: diverged ({error})")
        return False
    sizes = {name: parameter.numel() for name, parameter in run.model.parameters().items()}
    facts = done.facts | {
        "region": variant.region,
        "parameters": sum(sizes[name] for name in region),
        "target": run.never_saw().name,
        "target_accuracy": target,
        **surroundings(),
    }
    with new_folder(run.unlearned(variant.name), run.unlearn_inputs(variant), **facts) as aside:
        save_state(run.model, aside)
        write_json(aside / "curve.json", done.curve)
    return True


def evaluate(run: Run) -> Results:
    """Score every variant on every record, one base in memory, and write results.json."""
    run.made(run.memorized, "memorize")
    encoded = run.encoded()
    tables = {}
    for variant in run.variants():
        folder = run.out / "scores" / variant.name
        stage = "unlearn" if variant.role == "unlearned" else "memorize"
        weights = run.made(variant.folder, stage) if variant.folder else None
        splits = run.recipe.evaluate.generate
        inputs = run.inputs("score", weights, splits)
        if not is_done(folder, inputs):
            run.model.use(variant)
            with run.reporter.task(f"evaluate {variant.name}") as progress:
                rows = score(run.model, encoded, generated_splits=splits, progress=progress)
            with new_folder(folder, inputs) as aside:
                write_scores(rows, aside / "rows.parquet")
        tables[variant.name] = read_scores(folder / "rows.parquet")
    with run.reporter.task("evaluate: intervals") as progress:
        results = _results(run, tables, progress)
    write_results(results, run.out / "results.json")
    return results


def _results(run: Run, tables: dict[str, Any], progress: Progress) -> Results:
    target = "retain" if "retain" in tables else None
    evaluation = Evaluation(
        tables, target=target, draws=run.recipe.evaluate.resamples, seed=run.recipe.seed
    )
    around = surroundings()
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
        model=describe(run.model),
        variants=[_facts(run, variant) for variant in run.variants()],
        rows=evaluation.rows(progress),
        comparisons=[c for pair in _controlled(run, tables) for c in evaluation.compare(*pair)],
        **around,
    )


def _facts(run: Run, variant: Variant) -> VariantFacts:
    if variant.role != "unlearned" or variant.folder is None:
        return VariantFacts(name=variant.name, role=variant.role)
    manifest = read_manifest(variant.folder)
    names = ("method", "region", "parameters", "lr", "optimizer_steps")
    taken = {name: manifest[name] for name in names}
    return VariantFacts(
        name=variant.name, role=variant.role, attempts=manifest.get("attempts", []), **taken
    )


def _controlled(run: Run, tables: dict[str, Any]) -> list[tuple[str, str]]:
    """Pairs that differ in their region only: a located one against every control of it."""
    variants = [v for v in run.recipe.unlearn.variants if v.name in tables]

    def all_but_region(variant: Planned) -> Any:
        settings = run.recipe.unlearn.settings(variant)
        return variant.method, variant.arguments, variant.retain_on, settings

    return [
        (located.name, control.name)
        for located in variants
        if located.region in run.recipe.localize.localizers
        for control in variants
        if control.region in run.controls(located.region)
        and all_but_region(control) == all_but_region(located)
    ]


def report(run: Run) -> Path:
    """Write report.html from results.json and the other artifacts."""
    file = run.out / "results.json"
    if not file.exists():
        raise BadInput(f"{file}: not there yet; run `knowundo evaluate --out {run.out}` first")
    results = read_results(file)
    folders = {v.name: v.folder for v in run.variants() if v.folder}
    region = next(iter(run.recipe.localize.localizers))
    material = Material(
        scores={
            variant.name: read_scores(run.out / "scores" / variant.name / "rows.parquet")
            for variant in results.variants
        },
        curves={name: read_json(folder / "curve.json") for name, folder in folders.items()},
        tensors=read_json(run.regions / "tensors.json"),
        region=region,
        located=set(read_json(run.regions / f"{region}.json")),
        seconds={name: read_manifest(folder)["seconds"] for name, folder in folders.items()},
    )
    path = run.out / "report.html"
    write_report(path, results, material)
    return path


def run_all(run: Run) -> Results:
    """All stages in order.

    Raises:
        MethodsFailed: at the end, if some variants diverged; everything else is complete.
    """
    memorize(run)
    localize(run)
    failed = unlearn(run)
    results = evaluate(run)
    report(run)
    if failed:
        raise MethodsFailed(f"diverged: {', '.join(failed)}; the other variants are complete")
    return results
