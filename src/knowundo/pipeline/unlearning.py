"""The stage unlearn: every variant trained from the memorized model."""

from __future__ import annotations

import glob
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

from knowundo.distributed.group import group
from knowundo.errors import unknown
from knowundo.localization.controls import Region
from knowundo.modeling.region_masks import read_masks
from knowundo.modeling.snapshots import END
from knowundo.modeling.weights import save_state
from knowundo.pipeline.aims import Prepared, prepare_unlearning
from knowundo.pipeline.guarding import make_guard
from knowundo.recipes.schema import Plan
from knowundo.registry import planned_entry
from knowundo.runs.artifact import ArtifactJob
from knowundo.runs.run import Run
from knowundo.storage.artifacts import MANIFEST, kept_name, read_manifest
from knowundo.storage.checkpoints import Checkpoint
from knowundo.storage.files import write_json
from knowundo.storage.integrity import unseal
from knowundo.storage.job import Job
from knowundo.storage.locks import alone
from knowundo.unlearning.rates import unlearn_at_chosen_rate, unlearn_with_early_stopping
from knowundo.unlearning.sequence import unlearn_in_sequence
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.training import Unlearned
from knowundo.unlearning.training import unlearn as train_method


@alone
def unlearn(run: Run, only: Iterable[str] | None = None) -> list[str]:
    """Train every variant (or some) from the memorized model.

    Args:
        run: Memorized and localized already.
        only: Names of the variants. If `None`, all.

    Returns:
        Names of the variants that diverged.

    Raises:
        BadInput: A name in `only` is no variant of the recipe, or an earlier artifact is missing or
            outdated.
    """
    run.check_current()
    planned = {plan.name: plan for plan in run.recipe.unlearn.variants}
    chosen = list(planned if only is None else only)
    for name in chosen:
        if name not in planned:
            raise unknown("variant", name, planned)
    run.made(run.regions, "localize")
    # All jobs first: if every variant is there, the memorized model is not prepared at all.
    jobs = [(planned[name], _job(run, planned[name])) for name in chosen]
    if waiting := [(plan, job) for plan, job in jobs if not job.done]:
        _unlearn_waiting(run, waiting)
    return [name for name in chosen if "diverged" in read_manifest(run.unlearned(name))]


def _job(run: Run, plan: Plan) -> ArtifactJob:
    """The job of a variant.

    Which steps are kept is no input: it does not change the end of training. A checkpoint holds the
    steps that were kept so far, so it belongs to one choice of them.
    """
    every = run.recipe.unlearn.keeps(plan)
    return run.artifact(
        run.unlearned(plan.name),
        run.unlearn_inputs(plan),
        way=[] if every is None else ["keep_every", every],
        skipped=f"already there, skipped{_other_steps(run, plan)}",
    )


def _other_steps(run: Run, plan: Plan) -> str:
    """A clause, if a finished variant kept other steps than the recipe now asks for."""
    folder, every = run.unlearned(plan.name), run.recipe.unlearn.keeps(plan)
    if not (folder / MANIFEST).exists():
        return ""
    held = read_manifest(folder)
    steps = held.get("kept_steps", [])
    same = steps[0] == every if steps else every is None or held["optimizer_steps"] <= every
    if same or "diverged" in held:  # a diverged variant kept fewer steps than asked for
        return ""
    kept = f"the steps {steps}" if steps else "its end only"
    return f"; it kept {kept}, not what keep_every={every} asks for: remove {folder} and run again"


def _unlearn_waiting(run: Run, waiting: Sequence[tuple[Plan, ArtifactJob]]) -> None:
    guards = [(plan, job) for plan, job in waiting if planned_entry(plan.method).kind == "guard"]
    for plan, job in guards:
        with job:
            make_guard(run, plan, job)
    if methods := [one for one in waiting if one not in guards]:
        _train_waiting(run, methods)


def _train_waiting(run: Run, waiting: Sequence[tuple[Plan, ArtifactJob]]) -> None:
    prepared = prepare_unlearning(run, run.recipe.unlearn.stop)
    if any(run.recipe.unlearn.settings(plan)["lr"] == "auto" for plan, _ in waiting):
        run.reporter.say(
            f"lr: auto aims at a token accuracy of {prepared.aim.accuracy:.1%} on unlearn/train "
            f"rows, that of {prepared.aim.name}"
        )
    for plan, job in waiting:
        with job:
            _unlearn_one(run, prepared, plan, job)
    # Whoever uses the run's model next finds the memorized one, as if nothing had been waiting.
    prepared.start.restore()


def _unlearn_one(run: Run, prepared: Prepared, plan: Plan, job: ArtifactJob) -> None:
    """Train one variant and write it; of one that diverged, its last good weights."""
    done = _trained(run, prepared, plan, job.checkpoint)
    if "diverged" in done.facts:
        run.reporter.say(
            f"{plan.name}: diverged ({done.facts['diverged']}); kept as it was after step "
            f"{done.facts['kept_step']}"
        )
    shapes = {name: parameter.shape for name, parameter in run.model.parameters().items()}
    parameters = region_of(run, plan.region).parameters(shapes)
    job.facts |= (
        {"parameters": parameters}
        | done.facts
        | {
            "region": plan.region,
            "target": prepared.aim.name,
            "target_accuracy": prepared.aim.accuracy,
            "total_seconds": round(job.checkpoint.seconds, 2),  # `seconds` is the kept attempt's
        }
    )
    _write_kept(run, plan.name, done, job)
    job.facts["kept_steps"] = [one.step for one in done.kept]
    save_state(run.model, job.aside)
    write_json(job.aside / "curve.json", done.curve)


def _trained(run: Run, prepared: Prepared, plan: Plan, checkpoint: Checkpoint) -> Unlearned:
    """The model unlearned as planned, by one method or by several one after another."""
    further = [_settings(run, one) for one in plan.further]
    with run.reporter.task(plan.name) as progress:
        job = Job(progress, checkpoint)
        first = partial(_first_trained, run, prepared, plan)
        return unlearn_in_sequence(prepared.start, first, further, job)


def _first_trained(run: Run, prepared: Prepared, plan: Plan, job: Job) -> Unlearned:
    """The model unlearned by the first method: at the plan's rate, or at a searched one."""
    (start, aim, rule), settings = prepared, _settings(run, plan)
    if run.recipe.unlearn.settings(plan)["lr"] != "auto":
        settings = replace(settings, keep_every=run.recipe.unlearn.keeps(plan))
        return train_method(start, settings, rule=rule, job=job)
    if rule is not None:
        return unlearn_with_early_stopping(start, rule, replace(settings, lr=plan.guess), job=job)
    return unlearn_at_chosen_rate(start, aim.accuracy, settings, guess=plan.guess, job=job)


def region_of(run: Run, name: str) -> Region:
    """A region that localize found, or that a JSON file names, with its masks if it has some."""
    return Region(run.region(name), read_masks(run.region_file(name), run.model.parameters()))


def _settings(run: Run, plan: Plan) -> UnlearnSettings:
    """Settings of one method; of one whose rate is searched for, without a rate."""
    planned, region = run.recipe.unlearn.settings(plan), region_of(run, plan.region)
    rate = planned.pop("lr")
    return UnlearnSettings(
        **planned,
        lr=None if rate == "auto" else rate,
        method=plan.method,
        arguments=plan.arguments,
        region=region.names,
        masks=region.masks,
        retain_on=plan.retain_on,
        gradients=plan.gradients,
        optimizer=run.recipe.model.optimizer,
    )


# Facts of a whole training that are not facts of a step on its way.
_OF_THE_END = ("trajectory", "best", "stopped", "diverged", "notes", "state")


def _write_kept(run: Run, name: str, done: Unlearned, whole: ArtifactJob) -> None:
    """Write the steps that were kept of an unlearning.

    They come before the variant itself, whose manifest lists them: after a kill in between, the
    variant is not there and is trained, or resumed, again.
    """
    _remove_kept(run, name)
    if not done.kept:
        return
    end = run.model.snapshot(END, done.kept[0].state)
    common = {key: value for key, value in whole.facts.items() if key not in _OF_THE_END}
    for one in done.kept:
        run.model.overwrite(one.state)
        path, inputs = run.unlearned(kept_name(name, one.step)), [*whole.inputs, one.step]
        with run.artifact(path, inputs, shared=whole.checkpoint) as job:
            own = {"optimizer_steps": one.step, "kept_step": one.step, "seconds": one.seconds}
            job.facts |= common | own
            save_state(run.model, job.aside)
            write_json(job.aside / "curve.json", done.curve[: one.step])
    run.model.overwrite(end.tensors)


def _remove_kept(run: Run, name: str) -> None:
    """Remove the steps that were kept of an earlier training of a variant."""
    step = re.compile(re.escape(name) + r"\.step-[1-9][0-9]*")
    # The pattern decides: another variant may be named `<name>.step-one`.
    if not group().main:
        return
    for old in (run.out / "unlearned").glob(f"{glob.escape(name)}.step-*"):
        if step.fullmatch(old.name):
            unseal(run.out, str(old.relative_to(run.out)))
            shutil.rmtree(old)
