"""What each artifact of a run depends on: the inputs whose fingerprint decides whether it is done.

Everything that can change an artifact's bytes has to be among its inputs, and nothing else: what is
left out gives stale results, and what is too much makes finished work again.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowundo.data.records import data_hash
from knowundo.data.templates import find_template
from knowundo.errors import BadInput
from knowundo.modeling import regions
from knowundo.modeling.base import base_files
from knowundo.modeling.region_masks import mask_file
from knowundo.modeling.variant import ModelVariant
from knowundo.recipes.schema import Plan
from knowundo.registry import get, planned_entry
from knowundo.runs.base import BOTH, base_knows
from knowundo.runs.file_hashes import input_hash, named_files
from knowundo.scoring import columns
from knowundo.storage.artifacts import MANIFEST
from knowundo.storage.files import file_hash
from knowundo.unlearning.combining import chosen

if TYPE_CHECKING:
    from knowundo.runs.run import Run

# The stage that makes a model of a role.
_STAGES = {"memorized": "memorize", "retain": "memorize", "unlearned": "unlearn"}


def common_inputs(run: Run) -> list[Any]:
    """What every artifact depends on: seed, base, records, and how they are read."""
    section = run.recipe.model.model_dump()
    # Which rows there are is in their hash; the rest is how they are encoded.
    reading = run.recipe.data.model_dump(include={"max_length", "encoding", "prefix", "truncate"})
    if run.recipe.data.encoding == "chat":  # elsewhere nothing asks for it
        reading["date"] = run.recipe.data.date
    # Only if there are any: runs made before these have the fingerprints that they had.
    if run.recipe.data.template is not None:
        template = find_template(run.recipe.data.template)
        reading["template"] = [template.text, template.system]
    if run.recipe.data.system is not None:
        reading["system"] = run.recipe.data.system
    return [run.recipe.seed, section, run.base.identity(), data_hash(run.records), reading]


def memorize_inputs(run: Run, scopes: Sequence[str]) -> list[Any]:
    """What the memorized model (both scopes) or the retain model (retention) is made of."""
    section = run.recipe.memorize
    # The hash of the base is among the common inputs already.
    if base_knows(run.recipe) and list(scopes) == list(BOTH):
        return run.inputs("adopt", "base")
    if section.adopt is not None and list(scopes) == list(BOTH):
        return run.inputs("adopt", [input_hash(file) for file in base_files(section.adopt)])
    # Whether a retain model is trained beside it changes nothing in the memorized one.
    settings = section.model_dump(exclude={"retain_model", "adopt"})
    return run.inputs("memorize", settings, list(scopes))


def localize_inputs(run: Run) -> list[Any]:
    """What the regions are made of; the localizers' source code too, as it may be a user's own."""
    section = run.effective["localize"]
    code: list[Any] = [get("localizer", name).source for name in section["localizers"]]
    # A given region is an input by its names: where the file is, and how it is formatted, is not.
    if section["adopt"] is not None:
        adopted = Path(section["adopt"])
        code = [regions.read_names(adopted), *mask_hash(adopted)]
    return run.inputs("localize", section, code, run.made(run.memorized, "memorize"))


def unlearn_inputs(run: Run, plan: Plan) -> list[Any]:
    """What an unlearned variant is made of."""
    settings = _plan_inputs(run, plan)
    if run.recipe.unlearn.stop is not None:
        settings["stop"] = run.recipe.unlearn.stop.model_dump()
    start = run.made(run.memorized, "memorize")
    aim = run.never_saw().folder
    # Only a search for the rate reads the model that never saw the rows.
    target = run.made(aim, "memorize") if aim and settings["lr"] == "auto" else None
    # Only if there are any: runs made before this key have the fingerprints that they had.
    if plan.then:
        settings["then"] = [
            [_plan_inputs(run, one), planned_entry(one.method).source, _region_inputs(run, one)]
            for one in plan.further
        ]
    quirks = sorted(run.recipe.quirks)
    source, region = planned_entry(plan.method).source, _region_inputs(run, plan)
    return run.inputs("unlearn", settings, source, region, start, target, quirks)


def _region_inputs(run: Run, plan: Plan) -> Any:
    """The names of a region, with its masks if it has some."""
    names = run.region(plan.region)
    masks = mask_hash(run.region_file(plan.region))
    return [names, *masks] if masks else names


def _plan_inputs(run: Run, plan: Plan) -> dict[str, Any]:
    """Settings and arguments of one method, with what the files that these name hold."""
    # What is kept on the way does not change the way.
    settings = plan.model_dump(exclude={"name", "keep_every", "then"})
    settings |= run.recipe.unlearn.settings(plan)
    if (combined := chosen(plan.gradients)) is None:
        del settings["gradients"]  # runs made before this key have no such input, and stay current
    else:
        entry, bound = combined
        settings["gradients"] = entry.name, bound, entry.source
    settings["arguments"] = planned_entry(plan.method).bind(plan.arguments)
    # A string argument may name a file, such as one of answers: its content counts, not its name.
    texts = [v for v in settings["arguments"].values() if isinstance(v, str)]
    settings["files"] = [file_hash(Path(text)) for text in texts if Path(text).is_file()]
    return settings


def mask_hash(region: Path) -> list[str]:
    """The hash of the masks beside a region's file; empty if there are none."""
    file = mask_file(region)
    return [file_hash(file)] if file.is_file() else []


def score_inputs(run: Run, variant: ModelVariant) -> list[Any]:
    """What a variant's scores are made of."""
    section = run.recipe.evaluate
    weights: dict[str, Any] | None = None
    # A given model has no manifest of this run, so its files are hashed as they are.
    if variant.role == "given" and variant.folder is not None:
        weights = {file.name: file_hash(file) for file in base_files(str(variant.folder))}
    elif variant.made is not None:
        weights = run.made(variant.made, _STAGES[variant.role])
    if variant.guard is not None and variant.folder is not None:  # the model behind the guard
        weights = {**(weights or {}), "model": run.made(variant.folder, "memorize")}
    tasks = None
    if section.general_folder:
        tasks = [file_hash(file) for file in sorted(Path(section.general_folder).rglob("*.*"))]
    general = [section.general_tasks, tasks, section.general_limit, section.general_shots]
    quirks = "end_masked" in run.recipe.quirks
    asked = section.generate, section.prefixes
    # The columns too: scores of an older version lack the one that a new metric reads.
    schema = columns.identity(section.metrics)
    return run.inputs("score", schema, weights, *asked, general, quirks)


def attack_inputs(run: Run, variant: ModelVariant, name: str) -> list[Any]:
    """What the scores of a variant under an attack are made of."""
    planned, entry = run.recipe.evaluate.attacks[name], get("attack", name)
    bound = entry.bind(planned.arguments)
    # A string argument may name a file or a folder: its content counts, not its name.
    places = [Path(value) for value in bound.values() if isinstance(value, str)]
    files = [
        input_hash(file)
        for place in places
        if place.exists()
        for file in ([place] if place.is_file() else base_files(str(place)))
    ]
    there = (run.memorized / MANIFEST).exists()
    memorized = run.made(run.memorized, "memorize") if there else None
    # Its functions beside the registered one count too.
    source = Path(inspect.getfile(entry.function)).read_text(encoding="utf-8")
    how = planned.splits, planned.limit, run.recipe.memorize.lr
    return [*run.score_inputs(variant), "attack", name, bound, source, files, memorized, *how]


def check_current(run: Run) -> None:
    """Refuse artifacts that were made of other rows, settings or weights than there are now.

    Raises:
        BadInput: Names the artifact and the stage that makes it again.
    """
    checks = [(run.memorized, "memorize", lambda: memorize_inputs(run, BOTH))]
    if run.recipe.memorize.retain_model:
        checks.append((run.retain, "memorize", lambda: memorize_inputs(run, ("retention",))))
    # Models can be scored before any region is located.
    if (run.regions / MANIFEST).exists():
        checks.append((run.regions, "localize", lambda: localize_inputs(run)))
    for folder, stage, inputs in checks:
        run.made(folder, stage)
        if not run.done(folder, inputs()):
            raise BadInput(
                f"{folder}: made of other inputs than are there now; run "
                f"`knowundo {stage} --out {run.out}` again"
            )


def input_files(run: Run) -> dict[str, str]:
    """Local files that a run reads, the base's among them, by their sha256."""
    found = run.base.files()
    if (adopted := run.recipe.memorize.adopt) is not None:
        found += named_files(adopted)
    if (source := run.recipe.data.source) is not None and Path(source).exists():
        place = Path(source)
        found += [place] if place.is_file() else sorted(place.rglob("*"))
    # What is inside the run's own directory is made by it and sealed as an artifact.
    own = run.out.resolve()
    files = {file.resolve() for file in found if file.is_file()}
    return {str(f): input_hash(f) for f in sorted(files) if own not in f.parents}
