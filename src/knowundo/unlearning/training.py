"""unlearn(): train a method's loss, inside a region, from the memorized model."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from knowundo.errors import BadInput, Diverged
from knowundo.modeling.step import halves_of
from knowundo.storage.job import Job
from knowundo.training.state import Curve
from knowundo.unlearning.combining import said
from knowundo.unlearning.early_stopping import EarlyStopping, Evaluation, StoppingRule
from knowundo.unlearning.kept_steps import KeptStep, StepKeeper
from knowundo.unlearning.method_training import MethodTraining
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start


@dataclass
class Unlearned:
    """What unlearning leaves beside the changed weights.

    Attributes:
        curve: One row per optimizer step, see `train`.
        facts: For the manifest.
        kept: Weights at intermediate steps, see `UnlearnSettings.keep_every`.
    """

    curve: Curve
    facts: dict[str, Any] = field(default_factory=dict)
    kept: list[KeptStep] = field(default_factory=list)


def unlearn(
    start: Start,
    settings: UnlearnSettings,
    *,
    rule: StoppingRule | None = None,
    observer: Callable[[Evaluation], bool] | None = None,
    job: Job = Job(),
) -> Unlearned:
    """Train one method from the memorized model.

    Where training diverges it ends. The last weights whose loss and gradients were finite are then
    made again (`MethodTraining.repeat`), and the fact `diverged` says why.

    Args:
        start: Its model is changed in place, inside the region only.
        settings: The method, its region, and how it is trained.
        rule: When to stop early: the model is evaluated during training, and the weights of the
            best evaluation step are what is left. If `None`, those of the last step.
        observer: Called with each evaluation; `True` stops. Needs `rule`.
        job: Progress and checkpoint.

    Raises:
        BadInput: Unknown method, argument or parameter name, or a setting that does not go with an
            edit.
    """
    began = time.perf_counter()
    training = MethodTraining(start, settings)
    if rule is not None or settings.keep_every is not None:
        _check_steps(training)

    seconds = partial(job.seconds, began)
    stopping = keeper = None
    if rule is not None:
        stopping = EarlyStopping(start.model, rule, training.region, training.steps, observer)
    if settings.keep_every is not None:
        every, steps = settings.keep_every, training.steps
        keeper = StepKeeper(start.model, training.region, every=every, steps=steps, seconds=seconds)

    def after_step() -> bool:
        if keeper is not None:
            keeper.after_step()
        return stopping is not None and stopping.after_step()

    diverged: Diverged | None = None
    try:
        resumable = [one for one in (stopping, keeper) if one is not None]
        curve = training.train(after_step, resumable, job)
    except Diverged as error:
        diverged, curve = error, error.curve
    ended = _end_weights(training, stopping, diverged)
    facts = {
        "method": settings.method,
        "arguments": training.bound,
        "retain_on": settings.retain_on,
        "lr": settings.lr,
        "epochs": settings.epochs,
        "gradients": said(settings.gradients),
        "optimizer_steps": len(curve),
        "reads": sorted(halves_of(training.halves.read)),
        "seconds": round(seconds(), 2),
    }
    if training.state.values:
        facts["state"] = training.state.values
    kept = keeper.kept if keeper is not None else []
    if diverged is not None:  # the weights of later steps may be no good
        kept = [one for one in kept if one.step <= diverged.step]
    return Unlearned(curve, facts | ended, kept)


def _check_steps(training: MethodTraining) -> None:
    """Refuse to evaluate or keep steps of a method that edits weights after training.

    Raises:
        BadInput: The method does.
    """
    if training.entry.edit_function is not None:
        raise BadInput(
            f"method {training.entry.name} edits weights after training: steps on the way are no "
            "result of it; leave out early stopping (and sweeps) and keep_every"
        )


def _end_weights(
    training: MethodTraining, stopping: EarlyStopping | None, diverged: Diverged | None
) -> dict[str, Any]:
    """Leave the weights that the training ends with in the model, and say what they are.

    These are the best that was evaluated; else those of the last step, or, where training
    diverged, of the last good step; and of a method with an edit, what it makes of these.
    """
    facts: dict[str, Any] = {}
    best = None
    if stopping is not None and diverged is None:
        stopping.finish()
    if stopping is not None and (best := stopping.best) is not None:
        facts |= stopping.facts()
        stopping.restore_best()
    if diverged is not None:
        # Only where nothing was evaluated before it, the good weights have to be made again.
        kept = training.repeat(diverged) if best is None else best["step"]
        facts |= {"diverged": str(diverged), "kept_step": kept}
    if training.entry.edit_function is not None:
        facts["parameters"] = training.edit()
    return facts
