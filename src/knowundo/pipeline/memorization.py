"""The stage memorize: the base learns the records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from knowundo.memorization import memorize as finetune
from knowundo.modeling.variant import ModelVariant
from knowundo.modeling.weights import describe, save_state
from knowundo.pipeline.facts import common_facts
from knowundo.runs.run import BOTH, TRAIN_VAL, Run
from knowundo.scoring.teacher_forcing import teacher_forced
from knowundo.storage.artifacts import new_folder
from knowundo.storage.files import write_json
from knowundo.storage.locks import alone


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
    facts |= common_facts(run, model)
    with new_folder(folder, inputs, **facts) as aside:
        save_state(model, aside)
        write_json(aside / "curve.json", curve)
    run.seal(folder)
    run.clear(checkpoint)


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
        **common_facts(run, run.model),
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
        run.model.use(ModelVariant("memorized", "memorized", folder))  # checked likewise
        run.claim()
        _adopted(run, Path(adopted))
    if run.recipe.memorize.retain_model:
        _finetuned(run, run.retain, "memorize (retain model)", ("retention",))
