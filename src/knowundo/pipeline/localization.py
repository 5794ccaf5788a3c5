"""The stage localize: regions found by gradients, and their controls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from knowundo.localization.controls import Region, with_controls
from knowundo.localization.search import LocalizeSettings
from knowundo.localization.search import localize as find_regions
from knowundo.modeling import regions
from knowundo.modeling.region_masks import read_masks, write_masks
from knowundo.progress import Progress
from knowundo.runs.run import Run
from knowundo.storage.checkpoints import Checkpoint
from knowundo.storage.files import write_json
from knowundo.storage.job import Job
from knowundo.storage.locks import alone


@alone
def localize(run: Run) -> None:
    """Find the region by gradients, or take a given one; and draw the control regions."""
    inputs = run.localize_inputs()  # refuses a missing memorized model before anything is written
    run.claim()
    with run.artifact(run.regions, inputs) as job:
        if job.done:
            return
        # Gradients at the memorized weights: there the knowledge is that is to be located.
        run.model.use(run.start)
        adopted = run.recipe.localize.adopt
        with run.reporter.task("localize") as progress:
            if adopted is None:
                found = _located(run, progress, job.checkpoint)
            else:
                found = _given_region(run, Path(adopted))
        job.facts["parameters"] = found["parameters"]
        write_json(job.aside / "tensors.json", found["tensors"])
        for name, region in found["regions"].items():
            write_json(job.aside / f"{name}.json", region)
        for name, masks in found["masks"].items():
            write_masks(job.aside / f"{name}.json", masks)


def _located(run: Run, progress: Progress, checkpoint: Checkpoint) -> dict[str, Any]:
    """Regions, controls and every tensor's gradients, from the recipe's localizers."""
    splits = run.recipe.localize.splits
    settings = LocalizeSettings(
        **run.recipe.localize.model_dump(exclude={"splits", "adopt"}), seed=run.recipe.seed
    )
    return find_regions(
        run.model,
        run.encoded("unlearn", splits),
        run.encoded("retention", splits),
        settings,
        Job(progress, checkpoint),
    )


def _given_region(run: Run, file: Path) -> dict[str, Any]:
    """A region from a file under the localizer's name, with its controls; no gradients."""
    parameters = run.model.parameters()
    name = next(iter(run.recipe.localize.localizers))
    shapes = {tensor: parameter.shape for tensor, parameter in parameters.items()}
    draws, seed = run.recipe.localize.draws, run.recipe.seed
    # Variants name their region by its localizer. Under that name they need not know that it was
    # given, and the controls are drawn for it as for a located one.
    masks = read_masks(file, parameters)
    located = {name: Region(regions.read_region(file, parameters), masks, "weight")}
    return {"tensors": [], **with_controls(located, shapes, draws=draws, seed=seed)}
