"""The stage memorize: the base learns the records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from knowundo.memorization import MemorizeSettings
from knowundo.memorization import memorize as finetune
from knowundo.modeling.variant import ModelVariant
from knowundo.modeling.weights import describe, save_state
from knowundo.runs.base import BOTH, TRAIN_VAL
from knowundo.runs.run import Run
from knowundo.scoring.teacher_forcing import teacher_forced
from knowundo.storage.files import write_json
from knowundo.storage.job import Job
from knowundo.storage.locks import alone


def _finetune(run: Run, folder: Path, title: str, scopes: Sequence[str]) -> None:
    with run.artifact(folder, run.memorize_inputs(scopes)) as job:
        if job.done:
            return
        settings = MemorizeSettings(
            **run.recipe.memorize.model_dump(exclude={"general", "retain_model", "adopt"}),
            optimizer=run.recipe.model.optimizer,
            seed=run.recipe.seed,
        )
        rows = [row for scope in scopes for row in run.encoded(scope, TRAIN_VAL)]
        general = run.encoded("general", "train") if run.recipe.memorize.general else []
        # The same model in memory trains both: without its first weights, the retain model would
        # start from the memorized one.
        run.model.reset()
        with run.reporter.task(title) as progress:
            training = Job(progress, job.checkpoint)
            curve, facts = finetune(run.model, rows, general, settings=settings, job=training)
        if settings.known is not None and facts["known_share"] < settings.known:
            run.reporter.say(
                f"{folder.name}: only {facts['known_share']:.0%} of the rows are known after "
                f"{facts['optimizer_steps']} steps; raise memorize.epochs or memorize.lr"
            )
        job.facts |= facts | {"model": describe(run.model)}
        save_state(run.model, job.aside)
        write_json(job.aside / "curve.json", curve)


def _adopt(run: Run, source: Path) -> None:
    """Write the adapter or full model that is in use now as the memorized one."""
    with run.artifact(run.memorized, run.memorize_inputs(BOTH)) as job:
        if job.done:
            return
        # Scored once, so that the report can say how much of the list was known to begin with:
        # what a model never knew cannot be unlearned.
        rows = teacher_forced(run.model, [r for s in BOTH for r in run.encoded(s, TRAIN_VAL)])
        known = sum(row["token_accuracy"] == 1 for row in rows.values()) / len(rows)
        run.reporter.say(f"memorized: {source} is taken as it is; it knows {known:.0%} of the rows")
        job.facts |= {
            "adopted": str(source),
            "known_share": round(known, 4),
            "optimizer_steps": 0,
            "seconds": 0.0,
            "model": describe(run.model),
        }
        # A base that knows the records itself is its own memorized model: no weights are copied.
        if run.start.folder is not None:
            save_state(run.model, job.aside)
        write_json(job.aside / "curve.json", [])


@alone
def memorize(run: Run) -> None:
    """Finetune the base until it knows both scopes; also the retain model, if the recipe asks."""
    run.encoded()  # the base and every row, checked before the first byte is written
    if (adopted := run.recipe.memorize.adopt) is None:
        run.claim()
        _finetune(run, run.memorized, "memorize", BOTH)
    else:
        # Put on the base before the directory is claimed, so that an adapter that does not fit
        # leaves no half-begun run.
        folder = None if run.start.folder is None else Path(adopted)
        run.model.use(ModelVariant("memorized", "memorized", folder))
        run.claim()
        _adopt(run, Path(adopted))
    if run.recipe.memorize.retain_model:
        _finetune(run, run.retain, "memorize (retain model)", ("retention",))
