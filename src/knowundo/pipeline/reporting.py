"""The stage report: results.json as a page, or as the paper's table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from knowundo.distributed.group import from_main
from knowundo.errors import BadInput
from knowundo.modeling.regions import EVERYTHING
from knowundo.pipeline.scores import unaltered_rows
from knowundo.recipes.command import command_of
from knowundo.recipes.presets import presets
from knowundo.recipes.reading import differing_keys, load_recipe
from knowundo.reporting.erasure import write_erasure_report
from knowundo.reporting.figure_files import Format, write_figures
from knowundo.reporting.paper.rendering import ENDINGS, paper_table
from knowundo.reporting.report import Material, figures_of, write_report
from knowundo.reporting.verdict import verdict
from knowundo.results import Results, read_results
from knowundo.runs.checks import effective
from knowundo.runs.run import Run
from knowundo.scoring.table import read_scores
from knowundo.storage.artifacts import MANIFEST, read_manifest
from knowundo.storage.files import read_json, write_text
from knowundo.storage.integrity import check_seal
from knowundo.storage.locks import alone


def sealed_results(run: Run) -> Results:
    """The results of a run, as it wrote them.

    Raises:
        BadInput: It is not evaluated yet, or its results were changed.
    """
    file = run.out / "results.json"
    if not file.exists():
        raise BadInput(f"{file}: not there yet; run `knowundo evaluate --out {run.out}` first")
    check_seal(run.out, file)
    return read_results(file)


@alone
def report(run: Run, *, redact: bool = False) -> Path:
    """Write report.html from results.json and the other artifacts: of an erasure, or of a run.

    Args:
        run: Evaluated already.
        redact: Show hash and length in place of what is said of the unlearn scope.

    Returns:
        The page.

    Raises:
        BadInput: The run is not evaluated yet, or its results were changed.
    """
    return from_main(lambda: _written(run, redact))


def _written(run: Run, redact: bool) -> Path:
    results = sealed_results(run)
    path, scores = run.out / "report.html", _scores(run, results)
    if results.erasure is not None:
        write_erasure_report(path, results, scores, redact=redact)
    else:
        write_report(path, results, _material(run, scores), redact=redact)
    run.seal(path)
    return path


@alone
def report_figures(run: Run, formats: Sequence[Format]) -> list[Path]:
    """Write the figures of the report as files of their own, into `figures`.

    Args:
        run: Evaluated already.
        formats: PNG needs the extra `figures`.

    Returns:
        The files.

    Raises:
        BadInput: The run is not evaluated yet, or its results were changed; or PNG is asked for
            without its extra.
    """
    results = sealed_results(run)
    material = _material(run, _scores(run, results))
    said = verdict(results, material.scores)
    written = write_figures(run.out / "figures", figures_of(results, material, said).all(), formats)
    run.seal(*written)
    return written


def _scores(run: Run, results: Results) -> dict[str, pd.DataFrame]:
    """Every model's rows whose question was not altered."""
    return {
        variant.name: unaltered_rows(
            read_scores(run.out / "scores" / variant.name / "rows.parquet")
        )
        for variant in results.variants
    }


def _material(run: Run, scores: dict[str, pd.DataFrame]) -> Material:
    """What the report of a run is made of, beside its results."""
    folders = {v.name: v.made for v in run.variants() if v.made and v.role != "given"}
    region = next(iter(run.recipe.localize.localizers))
    located = (run.regions / "tensors.json").exists()
    return Material(
        scores=scores,
        curves={
            name: curve
            for name, folder in folders.items()
            if (curve := read_json(folder / "curve.json"))
        },
        tensors=read_json(run.regions / "tensors.json") if located else [],
        region=region,
        located=set(read_json(run.regions / f"{region}.json")) if located else set(),
        seconds={name: read_manifest(folder)["seconds"] for name, folder in folders.items()},
        regions=_regions(run) if located else {},
        command=command_of(run.given, run.effective, str(run.out)),
    )


def _regions(run: Run) -> dict[str, list[str]]:
    """The regions that localize wrote, but for the one that is everything."""
    files = sorted(run.regions.glob("*.json"))
    aside = (MANIFEST, "tensors.json", f"{EVERYTHING}.json")
    found = {file.stem: read_json(file) for file in files if file.name not in aside}
    return {name: names for name, names in found.items() if isinstance(names, list)}


@alone
def paper_report(run: Run) -> dict[str, Path]:
    """Write the paper's table with this run's rows in it.

    Returns:
        The file of each format.

    Raises:
        BadInput: The run is not evaluated yet, or its results were changed.
    """
    results = sealed_results(run)
    seconds: dict[str, float | None] = {}
    for variant in results.variants:
        if variant.role == "unlearned":
            made = read_manifest(run.unlearned(variant.name))
            steps = made["optimizer_steps"]
            # The paper's table has seconds per step, since methods stop after different numbers.
            seconds[variant.name] = made["seconds"] / steps if steps else None
    changed, written = _changed(results), {}
    for form, ending in ENDINGS.items():
        written[str(form)] = run.out / f"paper-table.{ending}"
        table = paper_table(results, seconds, format=form, changed=changed)
        write_text(written[form], table)
    run.seal(*written.values())
    return written


# Keys that say where files and weights are and how they are stored, not what is computed.
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
