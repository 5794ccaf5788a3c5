"""One trial of a sweep: a training from the memorized model, and what is written down of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from knowundo.errors import BadInput
from knowundo.sweeps.setup import StudySetup
from knowundo.sweeps.space import (
    four_digits,
)
from knowundo.unlearning.early_stopping import Evaluation, StoppingRule
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import unlearn

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Trial:
    """One training and its best evaluation step.

    Figures are `None` if the trial ended before its first evaluation step.

    Attributes:
        number: of the trial, from 0.
        state: complete, pruned or failed.
        params: what was searched, by name.
        lr: peak learning rate.
        arguments: all arguments of the method.
        parameters: number of parameters in the region.
        step: optimizer step of the best evaluation.
        unlearn: token accuracy on the evaluated unlearn rows, in [0, 1].
        retention: token accuracy on the evaluated retention rows, in [0, 1].
        forgotten: share of the way from knowing to not knowing, in [0, 1].
        lost: points of retention accuracy that were lost.
        score: harmonic mean of the shares unlearned and retained.
        seconds: how long the trial took.
        reason: why it was pruned.
    """

    number: int
    state: str
    params: dict[str, float]
    lr: float | None
    arguments: dict[str, Any]
    parameters: int | None
    step: int | None
    unlearn: float | None
    retention: float | None
    forgotten: float | None
    lost: float | None
    score: float | None
    seconds: float | None
    reason: str | None


def run_trial(
    start: Start, rule: StoppingRule, setup: StudySetup, study: optuna.Study, trial: optuna.Trial
) -> None:
    """Train with a trial's settings, and tell the study how it went.

    Args:
        start: the memorized model; it is changed in place.
        rule: what is evaluated while training, and what ends it.
        setup: what all trials have in common.
        study: gets the trial's score, or that it was pruned.
        trial: its suggested settings.
    """
    from optuna.trial import TrialState

    began = time.perf_counter()
    evaluations: list[Evaluation] = []

    def observe(found: Evaluation) -> bool:
        evaluations.append(found)
        # Trials differ in steps, but not in how many evaluations they have.
        trial.report(found["score"], len(evaluations))
        return trial.should_prune()

    facts: dict[str, Any] = {}
    try:
        training = setup.training(_rounded(trial.params))
    except BadInput as error:
        facts["reason"] = str(error)
    else:
        sizes = {name: parameter.numel() for name, parameter in start.model.parameters().items()}
        facts |= {"lr": training["lr"], "arguments": training["arguments"]}
        facts["parameters"] = sum(sizes[name] for name in training["region"])
        settings = replace(setup.settings, **training)
        done = unlearn(start, settings, rule=rule, observer=observe)
        if "diverged" in done.facts:
            facts["reason"] = f"diverged: {done.facts['diverged']}"
        elif done.facts["stopped"] == "pruned":
            facts["reason"] = f"below the median at evaluation {len(evaluations)}"
    if evaluations:
        facts["best"] = max(evaluations, key=lambda found: found["score"])
    facts["seconds"] = round(time.perf_counter() - began, 2)
    for key, value in facts.items():
        trial.set_user_attr(key, value)
    if "reason" in facts:
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, facts["best"]["score"])


def _rounded(params: Mapping[str, float]) -> dict[str, float]:
    return {name: four_digits(value) for name, value in params.items()}


def read_trials(study: optuna.Study) -> list[Trial]:
    """All trials that ended, in the order of their numbers."""
    from optuna.trial import TrialState

    states = {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed",
    }
    found = []
    for trial in study.get_trials(deepcopy=False, states=tuple(states)):
        facts, best = trial.user_attrs, trial.user_attrs.get("best", {})
        seen = ("step", "unlearn", "retention", "forgotten", "lost", "score")
        found.append(
            Trial(
                number=trial.number,
                state=states[trial.state],
                params=_rounded(trial.params),
                arguments=facts.get("arguments", {}),
                **{key: facts.get(key) for key in ("lr", "parameters", "seconds", "reason")},
                **{key: best.get(key) for key in seen},
            )
        )
    return sorted(found, key=lambda trial: trial.number)
