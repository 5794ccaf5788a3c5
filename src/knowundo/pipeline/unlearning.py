"""The stage unlearn: every variant trained from the memorized model."""

from __future__ import annotations

import glob
import re
import shutil
from collections.abc import Iterable, Sequence
from typing import Any

from knowundo.errors import unknown
from knowundo.modeling.weights import save_state
from knowundo.pipeline.aims import Aim, prepare_unlearning
from knowundo.pipeline.facts import common_facts
from knowundo.recipes.schema import Plan
from knowundo.runs.run import Run
from knowundo.storage.artifacts import kept_name, new_folder, read_manifest
from knowundo.storage.files import write_json
from knowundo.storage.integrity import unseal
from knowundo.storage.locks import alone
from knowundo.unlearning.early_stopping import Watch
from knowundo.unlearning.rates import unlearn_at_chosen_rate, unlearn_watched
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import Unlearned
from knowundo.unlearning.training import unlearn as train_method


@alone
def unlearn(run: Run, only: Iterable[str] | None = None) -> list[str]:
    """Train every variant (or some) from the memorized model.

    Returns:
        Names of the variants that diverged.

    Raises:
        BadInput: a name in `only` that is not a variant of the recipe.
    """
    run.check_current()
    planned = {plan.name: plan for plan in run.recipe.unlearn.variants}
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


def _other_steps(run: Run, plan: Plan) -> str:
    """A sentence, if a finished variant kept other steps than the recipe now asks for."""
    every, held = run.recipe.unlearn.keeps(plan), read_manifest(run.unlearned(plan.name))
    steps = held.get("kept_steps", [])
    same = steps[0] == every if steps else every is None or held["optimizer_steps"] <= every
    if same or "diverged" in held:  # which keeps fewer
        return ""
    kept = f"the steps {steps}" if steps else "its end only"
    folder = run.unlearned(plan.name)
    return f"; it kept {kept}, not what keep_every={every} asks for: remove {folder} and run again"


def _unlearn_waiting(run: Run, waiting: Sequence[Plan]) -> None:
    start, aim, watch = prepare_unlearning(run, run.recipe.unlearn.stop)
    if any(run.recipe.unlearn.settings(plan)["lr"] == "auto" for plan in waiting):
        run.reporter.say(
            f"lr: auto aims at a token accuracy of {aim.accuracy:.1%} on unlearn/train rows, that "
            f"of {aim.name}"
        )
    for plan in waiting:
        _unlearn_one(run, start, plan, aim, watch)
    start.restore()


def _unlearn_one(run: Run, start: Start, plan: Plan, aim: Aim, watch: Watch | None) -> None:
    """Train one variant and write it; of one that diverged, its last good weights."""
    settings = run.recipe.unlearn.settings(plan)
    lr = settings.pop("lr")
    region = run.region(plan.region)
    settings |= {
        "method": plan.method,
        "arguments": plan.arguments,
        "region": region,
        "retain_on": plan.retain_on,
        "optimizer": run.recipe.model.optimizer,
    }
    folder, inputs = run.unlearned(plan.name), run.unlearn_inputs(plan)
    keep_every = run.recipe.unlearn.keeps(plan)
    kept = [] if keep_every is None else ["keep_every", keep_every]
    settings["checkpoint"] = checkpoint = run.checkpoint(folder, [*inputs, *kept])
    with run.reporter.task(plan.name) as progress:
        settings["progress"] = progress
        if lr == "auto" and watch is not None:
            done = unlearn_watched(start, watch, lr=plan.guess, **settings)
        elif lr == "auto":
            done = unlearn_at_chosen_rate(start, aim.accuracy, guess=plan.guess, **settings)
        else:
            done = train_method(start, lr=lr, watch=watch, keep_every=keep_every, **settings)
    if "diverged" in done.facts:
        run.reporter.say(
            f"{plan.name}: diverged ({done.facts['diverged']}); kept as it was after step "
            f"{done.facts['kept_step']}"
        )
    sizes = {name: parameter.numel() for name, parameter in run.model.parameters().items()}
    facts = done.facts | {
        "region": plan.region,
        "parameters": sum(sizes[name] for name in region),
        "target": aim.name,
        "target_accuracy": aim.accuracy,
        **common_facts(run, run.model),
    }
    _write_kept(run, plan.name, done, inputs, facts)
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
