"""The five stages over one output directory, each reading artifacts and writing one.

    run = Run(recipe, Path("runs/demo"))
    memorize(run); localize(run); unlearn(run); evaluate(run); report(run)

A stage whose artifact was made of the same inputs is skipped, so a run can be interrupted at any
moment and continued by the same call.
"""

from __future__ import annotations

import glob
import re
import shutil
import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from knowundo import regions
from knowundo.artifacts import (
    kept_name,
    new_folder,
    read_json,
    read_manifest,
    surroundings,
    write_json,
    write_text,
)
from knowundo.checkpoints import Checkpoint
from knowundo.encoding import Encoded, count_cut, fitting
from knowundo.errors import BadInput, MethodsFailed, unknown
from knowundo.evaluation import Evaluation
from knowundo.evaluation.collapse import collapsed
from knowundo.evaluation.lm_eval_tasks import general_rows
from knowundo.forwards import go_abreast
from knowundo.localization import localize as find_regions
from knowundo.localization import with_controls
from knowundo.locks import alone
from knowundo.memorization import memorize as finetune
from knowundo.memory import ran_out
from knowundo.models import Adaptation, Model, Variant, adaptation_of, describe, save_state
from knowundo.neighbours import unknowable
from knowundo.original import OriginalStart
from knowundo.progress import Progress
from knowundo.recipe import Stop, differing_keys, load_recipe, presets
from knowundo.recipe import Variant as Planned
from knowundo.records import data_hash
from knowundo.reporting import Material, write_report
from knowundo.reporting.comparison import Difference, differences
from knowundo.reporting.paper import ENDINGS, paper_table
from knowundo.results import Results, Row, VariantFacts, read_results, write_results
from knowundo.runs import BOTH, CHECKPOINTS, TRAIN_VAL, Run, effective
from knowundo.scoring import (
    fill_a_batch,
    read_scores,
    score_abreast,
    teacher_forced,
    token_accuracy,
    write_scores,
)
from knowundo.seals import check_seal, unseal
from knowundo.unlearning import Start, Unlearned
from knowundo.unlearning import unlearn as train_method
from knowundo.unlearning.rates import unlearn_at_chosen_rate, unlearn_watched
from knowundo.unlearning.watching import Watch, set_aside

# The checkpoint of scoring the records as they are.
AS_IS = "as-is"


class Scored(NamedTuple):
    """What evaluation knows of one variant."""

    table: pd.DataFrame  # rows of scoring.score, and how the question was altered: `attack`
    tasks: list[Row]  # of general tasks


def _finetuned(run: Run, folder: Path, title: str, scopes: Sequence[str]) -> None:
    settings = run.recipe.memorize.model_dump(exclude={"general", "retain_model", "adopt"})
    inputs = run.memorize_inputs(scopes)
    if run.done(folder, inputs):
        run.seal(folder)
        run.reporter.say(f"{folder.name}: already there, skipped")
        return
    rows = [row for scope in scopes for row in run.encoded(scope, TRAIN_VAL)]
    general = run.encoded("general", "train") if run.recipe.memorize.general else []
    model, checkpoint = run.model, run.checkpoint(folder, inputs)
    model.reset()
    with run.reporter.task(title) as progress:
        curve, facts = finetune(
            model,
            rows,
            general,
            **settings,
            optimizer=run.recipe.model.optimizer,
            seed=run.recipe.seed,
            progress=progress,
            checkpoint=checkpoint,
        )
    if settings["known"] is not None and facts["known_share"] < settings["known"]:
        run.reporter.say(
            f"{folder.name}: only {facts['known_share']:.0%} of the rows are known after "
            f"{facts['optimizer_steps']} steps; raise memorize.epochs or memorize.lr"
        )
    facts |= {"seconds": round(checkpoint.seconds, 2), "model": describe(model)}
    facts |= _noted(run, model)
    with new_folder(folder, inputs, **facts) as aside:
        save_state(model, aside)
        write_json(aside / "curve.json", curve)
    run.seal(folder)
    run.clear(checkpoint)


def _noted(run: Run, model: Model) -> dict[str, Any]:
    """What stands in every manifest, and what happened on the way, which is told as well."""
    model.tell(run.reporter.say)
    notes = model.take_notes()
    said = {"notes": notes} if notes else {}
    return {"seed": run.recipe.seed, **said, **surroundings()}


def _adopted(run: Run, source: Path) -> None:
    """Write the adapter or full model that is in use now as the memorized one."""
    inputs = run.memorize_inputs(BOTH)
    if run.done(run.memorized, inputs):
        run.seal(run.memorized)
        run.reporter.say("memorized: already there, skipped")
        return
    rows = teacher_forced(run.model, [r for s in BOTH for r in run.encoded(s, TRAIN_VAL)])
    known = sum(row["token_accuracy"] == 1 for row in rows.values()) / len(rows)
    run.reporter.say(f"memorized: {source} is taken as it is; it knows {known:.0%} of the rows")
    facts = {
        "adopted": str(source),
        "known_share": round(known, 4),
        "optimizer_steps": 0,
        "seconds": 0.0,
        "model": describe(run.model),
        **_noted(run, run.model),
    }
    with new_folder(run.memorized, inputs, **facts) as aside:
        if run.start.folder is not None:
            save_state(run.model, aside)
        write_json(aside / "curve.json", [])
    run.seal(run.memorized)


@alone
def memorize(run: Run) -> None:
    """Finetune the base until it knows both scopes; also the retain model, if the recipe asks."""
    run.encoded()  # the base and every row, checked before the first byte is written
    if (adopted := run.recipe.memorize.adopt) is None:
        run.claim()
        _finetuned(run, run.memorized, "memorize", BOTH)
    else:
        folder = None if run.start.folder is None else Path(adopted)
        run.model.use(Variant("memorized", "memorized", folder))  # checked likewise
        run.claim()
        _adopted(run, Path(adopted))
    if run.recipe.memorize.retain_model:
        _finetuned(run, run.retain, "memorize (retain model)", ("retention",))


@alone
def localize(run: Run) -> None:
    """Find the region by gradients, or take a given one; and draw the control regions."""
    inputs = run.localize_inputs()
    run.claim()
    if run.done(run.regions, inputs):
        run.seal(run.regions)
        run.reporter.say("regions: already there, skipped")
        return
    run.model.use(run.start)
    checkpoint, adopted = run.checkpoint(run.regions, inputs), run.recipe.localize.adopt
    with run.reporter.task("localize") as progress:
        if adopted is None:
            found = _located(run, progress, checkpoint)
        else:
            found = _given_region(run, Path(adopted))
    facts = {"seconds": round(checkpoint.seconds, 2), **_noted(run, run.model)}
    with new_folder(run.regions, inputs, parameters=found["parameters"], **facts) as aside:
        write_json(aside / "tensors.json", found["tensors"])
        for name, region in found["regions"].items():
            write_json(aside / f"{name}.json", region)
    run.seal(run.regions)
    run.clear(checkpoint)


def _located(run: Run, progress: Progress, checkpoint: Checkpoint) -> dict[str, Any]:
    """Regions, controls and every tensor's gradients, from the recipe's localizers."""
    splits = run.recipe.localize.splits
    return find_regions(
        run.model,
        run.encoded("unlearn", splits),
        run.encoded("retention", splits),
        **run.recipe.localize.model_dump(exclude={"splits", "adopt"}),
        seed=run.recipe.seed,
        progress=progress,
        checkpoint=checkpoint,
    )


def _given_region(run: Run, file: Path) -> dict[str, Any]:
    """A region from a file under the localizer's name, with its controls; no gradients."""
    parameters = run.model.parameters()
    name = next(iter(run.recipe.localize.localizers))
    sizes = {tensor: parameter.numel() for tensor, parameter in parameters.items()}
    draws, seed = run.recipe.localize.draws, run.recipe.seed
    located = {name: regions.read_region(file, parameters)}
    return {"tensors": [], **with_controls(located, sizes, draws=draws, seed=seed)}


@alone
def unlearn(run: Run, only: Iterable[str] | None = None) -> list[str]:
    """Train every variant (or some) from the memorized model.

    Returns:
        Names of the variants that diverged.

    Raises:
        BadInput: a name in `only` that is not a variant of the recipe.
    """
    run.check_current()
    planned = {variant.name: variant for variant in run.recipe.unlearn.variants}
    chosen = list(planned if only is None else only)
    for name in chosen:
        if name not in planned:
            raise unknown("variant", name, planned)
    run.made(run.regions, "localize")
    waiting = [
        planned[n] for n in chosen if not run.done(run.unlearned(n), run.unlearn_inputs(planned[n]))
    ]
    for name in chosen:
        if planned[name] not in waiting:
            run.seal(run.unlearned(name))
            run.reporter.say(f"{name}: already there, skipped{_other_steps(run, planned[name])}")
    if waiting:
        _unlearn_waiting(run, waiting)
    return [name for name in chosen if "diverged" in read_manifest(run.unlearned(name))]


def _other_steps(run: Run, variant: Planned) -> str:
    """A sentence, if a finished variant kept other steps than the recipe now asks for."""
    every, held = run.recipe.unlearn.keeps(variant), read_manifest(run.unlearned(variant.name))
    steps = held.get("kept_steps", [])
    same = steps[0] == every if steps else every is None or held["optimizer_steps"] <= every
    if same or "diverged" in held:  # which keeps fewer
        return ""
    kept = f"the steps {steps}" if steps else "its end only"
    folder = run.unlearned(variant.name)
    return f"; it kept {kept}, not what keep_every={every} asks for: remove {folder} and run again"


def _unlearn_waiting(run: Run, waiting: Sequence[Planned]) -> None:
    start, aim, watch = prepare_unlearning(run, run.recipe.unlearn.stop)
    if any(run.recipe.unlearn.settings(variant)["lr"] == "auto" for variant in waiting):
        run.reporter.say(
            f"lr: auto aims at a token accuracy of {aim.accuracy:.1%} on unlearn/train rows, that "
            f"of {aim.name}"
        )
    for variant in waiting:
        _unlearn_one(run, start, variant, aim, watch)
    start.restore()


def prepare_unlearning(run: Run, stop: Stop | None) -> tuple[Start, Aim, Watch | None]:
    """The memorized model with its rows, what unlearning aims at, and what is looked at.

    Args:
        run: memorized already; its model is the memorized one afterwards.
        stop: of the recipe, or another; none: nothing is set aside for looking.
    """
    rows = run.encoded("unlearn", "train", end=False)
    kept = {scope: run.encoded(scope, "train", end=False) for scope in ("retention", "general")}
    aim, watch = _aim(run, rows, stop), None
    run.model.use(run.start)
    if stop is not None:
        rows, kept["retention"], watch = _watched(run, stop, rows, kept["retention"], aim)
    begin = partial(OriginalStart, quirks=run.recipe.quirks) if run.recipe.quirks else Start
    start = begin(run.model, rows, kept, seed=run.recipe.seed, encode=run.encode)
    return start, aim, watch


def _watched(
    run: Run, stop: Stop, rows: list[Encoded], retention: list[Encoded], aim: Aim
) -> tuple[list[Encoded], list[Encoded], Watch]:
    """Unlearn and retention rows to train on, and what is looked at meanwhile."""
    trained, kept, *seen = set_aside(
        rows, retention, share=stop.share, both=stop.aside == "both", seed=run.recipe.seed
    )
    first, second = seen
    watch = Watch(first, second, aim.accuracy, stop.floor, stop.looks, stop.patience)
    return trained, kept, watch


class Aim(NamedTuple):
    """How well a model does on unlearn/train rows that does not know them."""

    name: str
    accuracy: float  # of tokens, in [0, 1]


def _aim(run: Run, rows: Sequence[Encoded], stop: Stop | None) -> Aim:
    """What unlearning aims at: the stop's own number, or the model that never saw the rows."""
    if stop is not None and stop.target != "unknown":
        return Aim("unlearn.stop.target", stop.target)
    if stop is not None:
        run.model.use(run.start)
        strangers = unknowable([row.record for row in rows], run.records, run.recipe.seed)
        if not (encoded := fitting(strangers, run.encode)):
            raise BadInput(
                "unlearn.stop.target unknown: rows about invented people are longer than "
                "data.max_length; raise it, or give a token accuracy such as 0.5"
            )
        return Aim("rows that it cannot know", token_accuracy(run.model, encoded))
    never_saw = run.never_saw()
    run.model.use(never_saw)
    return Aim(f"the {never_saw.name} model", token_accuracy(run.model, rows))


def _unlearn_one(run: Run, start: Start, variant: Planned, aim: Aim, watch: Watch | None) -> None:
    """Train one variant and write it; of one that diverged, its last good weights."""
    settings = run.recipe.unlearn.settings(variant)
    lr = settings.pop("lr")
    region = run.region(variant.region)
    settings |= {
        "method": variant.method,
        "arguments": variant.arguments,
        "region": region,
        "retain_on": variant.retain_on,
        "optimizer": run.recipe.model.optimizer,
    }
    folder, inputs = run.unlearned(variant.name), run.unlearn_inputs(variant)
    keep_every = run.recipe.unlearn.keeps(variant)
    kept = [] if keep_every is None else ["keep_every", keep_every]
    settings["checkpoint"] = checkpoint = run.checkpoint(folder, [*inputs, *kept])
    with run.reporter.task(variant.name) as progress:
        settings["progress"] = progress
        if lr == "auto" and watch is not None:
            done = unlearn_watched(start, watch, lr=variant.guess, **settings)
        elif lr == "auto":
            done = unlearn_at_chosen_rate(start, aim.accuracy, guess=variant.guess, **settings)
        else:
            done = train_method(start, lr=lr, watch=watch, keep_every=keep_every, **settings)
    if "diverged" in done.facts:
        run.reporter.say(
            f"{variant.name}: diverged ({done.facts['diverged']}); kept as it was after step "
            f"{done.facts['kept_step']}"
        )
    sizes = {name: parameter.numel() for name, parameter in run.model.parameters().items()}
    facts = done.facts | {
        "region": variant.region,
        "parameters": sum(sizes[name] for name in region),
        "target": aim.name,
        "target_accuracy": aim.accuracy,
        **_noted(run, run.model),
    }
    _write_kept(run, variant.name, done, inputs, facts)
    facts["kept_steps"] = [one.step for one in done.kept]
    with new_folder(folder, inputs, **facts) as aside:
        save_state(run.model, aside)
        write_json(aside / "curve.json", done.curve)
    run.seal(folder)
    run.clear(checkpoint)


# Facts of a whole training that are not facts of a step on its way.
_OF_THE_END = ("trajectory", "best", "stopped", "diverged", "notes")


def _write_kept(
    run: Run, name: str, done: Unlearned, inputs: Sequence[Any], facts: dict[str, Any]
) -> None:
    """Write what a variant was on the way: before its end, which says that all of it is there."""
    step = re.compile(re.escape(name) + r"\.step-[1-9][0-9]*")  # not a variant named so
    for old in (run.out / "unlearned").glob(f"{glob.escape(name)}.step-*"):
        if not step.fullmatch(old.name):
            continue
        unseal(run.out, str(old.relative_to(run.out)))
        shutil.rmtree(old)
    if not done.kept:
        return
    end = run.model.state(done.kept[0].state)
    shared = {key: value for key, value in facts.items() if key not in _OF_THE_END}
    for one in done.kept:
        run.model.overwrite(one.state)
        folder = run.unlearned(kept_name(name, one.step))
        own = {"optimizer_steps": one.step, "kept_step": one.step, "seconds": one.seconds}
        with new_folder(folder, [*inputs, one.step], **shared | own) as aside:
            save_state(run.model, aside)
            write_json(aside / "curve.json", done.curve[: one.step])
        run.seal(folder)
    run.model.overwrite(end)


@alone
def evaluate(run: Run) -> Results:
    """Score every variant on every record, one base in memory, and write results.json."""
    run.encoded()  # the base and every row, checked before the first byte is written
    if not run.recipe.evaluate.models or (run.memorized / "manifest.json").exists():
        run.check_current()
    model = describe(run.model)
    _check_given(run)
    run.claim()
    scored: dict[str, Scored] = {}
    for group in _groups(run):
        scored |= _score_group(run, group)
    with run.reporter.task("evaluate: intervals") as progress:
        results = _results(run, model, scored, progress)
    write_results(results, run.out / "results.json")
    run.seal(run.out / "results.json")
    return results


def _check_given(run: Run) -> None:
    """Refuse given adapters that cannot be put on this run's model, before anything is scored.

    Each is put there once, so that a damaged one does not end the scoring of the others.
    """
    for variant in run.given_models():
        if not _is_whole(run, variant) and run.model.adaptation.kind == "full":
            raise BadInput(
                f"{variant.folder}: an adapter, but this run trains all weights; score it with "
                "`knowundo evaluate` in another directory"
            )
        if not _is_whole(run, variant):
            run.model.use(variant)
    run.model.tell(run.reporter.say)


def _in_order(run: Run) -> list[Variant]:
    """The variants, whole models last: the base makes room for them."""
    return sorted(run.variants(), key=lambda variant: _is_whole(run, variant))


def _is_whole(run: Run, variant: Variant) -> bool:
    """True for a given model that cannot be put on the base as a LoRA."""
    return (
        variant.role == "given"
        and variant.folder is not None
        and adaptation_of(variant.folder).kind == "full"
    )


def _groups(run: Run) -> list[list[Variant]]:
    """The variants in the order of scoring; those together that may go abreast.

    So many that their answers fill a batch. What is scored already plays no part: a run that is
    gone on with has the groups that it began with, and so the same bits.
    """
    most = fill_a_batch(run.encoded(), run.recipe.evaluate.generate)
    groups, shapes = list[list[Variant]](), set[Adaptation]()
    for variant in _in_order(run):
        own = set() if variant.folder is None else {adaptation_of(variant.folder)}
        kinds = {run.model.adaptation.kind, *(shape.kind for shape in own)}
        joins = kinds == {"lora"} and len(shapes | own) <= 1
        if groups and joins and len(groups[-1]) < most:
            groups[-1].append(variant)
            shapes |= own
        else:
            groups.append([variant])
            shapes = own
    return groups


def _scores(run: Run, variant: Variant) -> Path:
    return run.out / "scores" / variant.name


def _score_group(run: Run, group: Sequence[Variant]) -> dict[str, Scored]:
    """Score variants, or read what an earlier call made of the same inputs."""
    made = [run.done(_scores(run, variant), run.score_inputs(variant)) for variant in group]
    waiting = [variant for variant, there in zip(group, made, strict=True) if not there]
    if waiting:
        _score(run, group, waiting)
    return {variant.name: _scored(run, variant) for variant in group}


def _scored(run: Run, variant: Variant) -> Scored:
    folder = _scores(run, variant)
    run.seal(folder)
    tasks = [Row.model_validate(row) for row in read_json(folder / "tasks.json")]
    return Scored(read_scores(folder / "rows.parquet"), tasks)


def _score(run: Run, group: Sequence[Variant], waiting: Sequence[Variant]) -> None:
    """Score a group abreast, and write those of it that wait; one by one where it must be."""
    inputs = [run.score_inputs(variant) for variant in group]
    checkpoint = run.checkpoint(_scores(run, group[0]), inputs)
    if len(waiting) < len(group) and checkpoint.within(AS_IS).read() is None:
        _score(run, waiting, waiting)
        return
    model = run.whole_model(group[0]) if _is_whole(run, group[0]) else run.model
    if (tables := _tables(run, model, group, checkpoint)) is None:
        run.clear(checkpoint)
        for variant in waiting:
            _score(run, [variant], [variant])
        return
    facts = {"seconds": checkpoint.seconds / len(group), **_noted(run, model)}
    for variant, own, rows in zip(group, inputs, tables, strict=True):
        if variant in waiting:
            _write_scores(run, model, variant, own, rows, facts)
    run.clear(checkpoint)


def _tables(
    run: Run, model: Model, group: Sequence[Variant], checkpoint: Checkpoint
) -> list[pd.DataFrame] | None:
    """Rows of each of a group; None where they cannot go abreast, or memory runs out so."""
    if len(group) > 1 and not go_abreast(model, group):
        return None
    title = "evaluate " + ", ".join(variant.name for variant in group)
    used = nullcontext() if _is_whole(run, group[0]) else model.all_of(group)
    try:
        with run.reporter.task(title) as progress, used:
            return _score_rows(run, model, progress, checkpoint)
    except RuntimeError as error:
        if len(group) == 1 or not ran_out(error):
            raise
    many = f"{len(group)} adapters in a forward"
    model.notes.append(f"scoring: memory ran out with {many}, went on with one")
    return None


def _write_scores(
    run: Run,
    model: Model,
    variant: Variant,
    inputs: Sequence[Any],
    rows: pd.DataFrame,
    facts: dict[str, Any],
) -> None:
    """Rows of a variant, and how it does at general tasks."""
    began = time.monotonic()
    if run.recipe.evaluate.general_tasks and not _is_whole(run, variant):
        model.use(variant)
    tasks = _score_tasks(run, model, variant.name)
    seconds = facts["seconds"] + time.monotonic() - began
    with new_folder(
        _scores(run, variant), inputs, **facts | {"seconds": round(seconds, 2)}
    ) as aside:
        write_scores(rows, aside / "rows.parquet")
        write_json(aside / "tasks.json", [row.model_dump(mode="json") for row in tasks])
    run.seal(_scores(run, variant))


def _score_rows(
    run: Run, model: Model, progress: Progress, checkpoint: Checkpoint
) -> list[pd.DataFrame]:
    """By adapter abreast, every record as it is, and val rows once more behind each prefix."""
    section = run.recipe.evaluate
    encoded = run.encoded(model=model, end=False)
    how: dict[str, Any] = {"generated_splits": section.generate, "progress": progress}
    tables = score_abreast(model, encoded, **how, checkpoint=checkpoint.within(AS_IS))
    parts = [[table.assign(attack="")] for table in tables]
    for number, prefix in enumerate(section.prefixes):
        rows = [
            row
            for scope in BOTH
            for row in run.encoded(scope, "val", model=model, prefix=prefix, end=False)
        ]
        tables = score_abreast(model, rows, **how, checkpoint=checkpoint.within(f"prefix-{number}"))
        for part, table in zip(parts, tables, strict=True):
            part.append(table.assign(attack=f"{prefix} prompt"))
    return [pd.concat(part, ignore_index=True) for part in parts]


def _score_tasks(run: Run, model: Model, name: str) -> list[Row]:
    section = run.recipe.evaluate
    if not section.general_tasks:
        return []
    with run.reporter.task(f"evaluate {name}: general tasks") as progress:
        return general_rows(
            model,
            name,
            tasks=section.general_tasks,
            folder=section.general_folder,
            limit=section.general_limit,
            shots=section.general_shots,
            seed=run.recipe.seed,
            progress=progress,
            say=run.reporter.say,
        )


def _evaluated(run: Run, scored: dict[str, Scored], progress: Progress) -> tuple[list[Row], Any]:
    """All rows of results.json, and the evaluation of the records as they are."""
    target = "retain" if "retain" in scored else None
    settings = {"draws": run.recipe.evaluate.resamples, "seed": run.recipe.seed}
    plain = Evaluation(
        {name: _plain(one.table) for name, one in scored.items()},
        target=target,
        **settings,
    )
    rows = plain.rows(progress)
    for attack in next(iter(scored.values())).table["attack"].unique():
        if attack:
            tables = {
                name: one.table[one.table["attack"] == attack] for name, one in scored.items()
            }
            under = Evaluation(tables, target=target, **settings).rows()
            rows += [row.model_copy(update={"attack": attack}) for row in under]
    return rows + [row for one in scored.values() for row in one.tasks], plain


def _results(
    run: Run, model: dict[str, Any], scored: dict[str, Scored], progress: Progress
) -> Results:
    rows, evaluation = _evaluated(run, scored, progress)
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
        data_cut=count_cut(run.encoded()),
        data_commits=run.commits,
        model=model,
        variants=[_facts(variant, evaluation.tables) for variant in run.variants()],
        rows=rows,
        comparisons=[c for pair in _controlled(run, scored) for c in evaluation.compare(*pair)],
        **around,
    )


def _facts(variant: Variant, tables: dict[str, pd.DataFrame]) -> VariantFacts:
    before = tables.get("memorized", tables.get("base"))
    facts = VariantFacts(name=variant.name, role=variant.role)
    if variant.role in ("unlearned", "given"):
        facts.collapsed = collapsed(tables[variant.name], before)
    if variant.role != "unlearned" or variant.folder is None:
        return facts
    manifest = read_manifest(variant.folder)
    names = ("method", "region", "parameters", "lr", "optimizer_steps")
    watched = ("attempts", "trajectory", "stopped")
    ends = ("diverged", "kept_step")
    taken = {name: manifest[name] for name in (*names, *watched, *ends) if name in manifest}
    kept = {"kept_step": manifest["best"]["step"]} if "best" in manifest else {}
    return facts.model_copy(update=taken | kept)


def _controlled(run: Run, scored: dict[str, Scored]) -> list[tuple[str, str]]:
    """Pairs that differ in their region only: a located one against every control of it."""
    variants = [v for v in run.recipe.unlearn.variants if v.name in scored]

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


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """Rows whose question was not altered."""
    return table[table["attack"] == ""]


def _results_of(run: Run) -> Results:
    file = run.out / "results.json"
    if not file.exists():
        raise BadInput(f"{file}: not there yet; run `knowundo evaluate --out {run.out}` first")
    check_seal(run.out, file)
    return read_results(file)


@alone
def report(run: Run, *, redact: bool = False) -> Path:
    """Write report.html from results.json and the other artifacts.

    Args:
        run: evaluated.
        redact: show hash and length in place of what is said of the unlearn scope.
    """
    results = _results_of(run)
    folders = {v.name: v.folder for v in run.variants() if v.folder and v.role != "given"}
    region = next(iter(run.recipe.localize.localizers))
    located = (run.regions / "tensors.json").exists()
    material = Material(
        scores={
            variant.name: _plain(read_scores(run.out / "scores" / variant.name / "rows.parquet"))
            for variant in results.variants
        },
        curves={
            name: curve
            for name, folder in folders.items()
            if (curve := read_json(folder / "curve.json"))
        },
        tensors=read_json(run.regions / "tensors.json") if located else [],
        region=region,
        located=set(read_json(run.regions / f"{region}.json")) if located else set(),
        seconds={name: read_manifest(folder)["seconds"] for name, folder in folders.items()},
    )
    path = run.out / "report.html"
    write_report(path, results, material, redact=redact)
    run.seal(path)
    return path


@alone
def paper_report(run: Run) -> dict[str, Path]:
    """Write the paper's table with our rows in it; a file per format."""
    results = _results_of(run)
    seconds: dict[str, float | None] = {}
    for variant in results.variants:
        if variant.role == "unlearned":
            made = read_manifest(run.unlearned(variant.name))
            steps = made["optimizer_steps"]
            seconds[variant.name] = made["seconds"] / steps if steps else None
    changed, written = _changed(results), {}
    for form, ending in ENDINGS.items():
        written[str(form)] = run.out / f"paper-table.{ending}"
        table = paper_table(results, seconds, format=form, changed=changed)
        write_text(written[form], table)
    run.seal(*written.values())
    return written


# Where things lie and how they are held, not what is computed.
_ASIDE = (
    "data.source", "data.general", "data.revision", "data.general_revision", "model.base",
    "model.device", "model.attention", "model.gradient_checkpointing", "model.optimizer",
    "memorize.adopt", "localize.adopt", "evaluate.models",
)  # fmt: skip


def _changed(results: Results) -> list[str]:
    """Keys in which a run differs from the paper's preset that it is named after."""
    name = results.recipe_effective["name"]
    if name not in presets("recipes"):
        return []
    wanted = effective(load_recipe(name)[0])
    found = differing_keys(wanted, results.recipe_effective)
    return [key for key, *_ in found if key not in _ASIDE]


def compare(first: Path, second: Path) -> tuple[list[tuple[str, Any, Any]], list[Difference]]:
    """Two runs' directories: the keys in which they differ, and how the scores do.

    Raises:
        BadInput: one of them holds no results.
    """
    for folder in (first, second):
        if (folder / "results.json").is_file():
            check_seal(folder, folder / "results.json")
    one, other = (read_results(folder / "results.json") for folder in (first, second))
    keys = list(differing_keys(one.recipe_effective, other.recipe_effective))
    tables = {}
    for variant in one.variants:
        files = [out / "scores" / variant.name / "rows.parquet" for out in (first, second)]
        if all(file.is_file() for file in files):
            tables[variant.name] = (_plain(read_scores(files[0])), _plain(read_scores(files[1])))
    return keys, differences(one, other, tables)


# What each stage leaves in a run's directory, in the order of the pipeline.
_LEFT = {
    "memorize": ("memorized", "retain"),
    "localize": ("regions",),
    "unlearn": ("unlearned",),
    "evaluate": ("scores", "results.json"),
    "report": ("report.html", *(f"paper-table.{ending}" for ending in ENDINGS.values())),
}


@alone
def restart(run: Run, stage: str) -> list[str]:
    """Remove what a stage and all later ones left, so that they are done again.

    Returns:
        Names of what was removed.

    Raises:
        BadInput: no such stage.
    """
    if stage not in _LEFT:
        raise unknown("stage", stage, _LEFT)
    stages = list(_LEFT)
    names = [name for later in stages[stages.index(stage) :] for name in _LEFT[later]]
    removed = []
    for name in names:
        for path in (run.out / name, run.out / CHECKPOINTS / name):
            if path.exists():
                removed.append(str(path.relative_to(run.out)))
                unseal(run.out, name)
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    return removed


@alone
def run_all(run: Run, *, redact: bool = False) -> Results:
    """All stages in order.

    Args:
        run: whatever of it is done is skipped.
        redact: of the report.

    Raises:
        MethodsFailed: at the end, if some variants diverged; everything else is complete.
    """
    memorize(run)
    localize(run)
    failed = unlearn(run)
    results = evaluate(run)
    report(run, redact=redact)
    if failed:
        raise MethodsFailed(
            f"diverged: {', '.join(failed)}, scored as they were before that; the other variants "
            "are complete"
        )
    return results
