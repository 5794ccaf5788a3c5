"""Trials of a sweep with optuna, kept in a database so that they resume."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowundo.errors import BadInput, unknown
from knowundo.localization.gradients import Measured
from knowundo.modeling import regions
from knowundo.recipes.schema import Plan, Recipe, Stop
from knowundo.registry import get
from knowundo.runs.run import Run
from knowundo.storage.files import fingerprint, read_json
from knowundo.unlearning.early_stopping import Look, Watch
from knowundo.unlearning.rates import first_rate
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import unlearn

if TYPE_CHECKING:
    import optuna
from knowundo.sweeps.space import (
    LR,
    REGION,
    Range,
    derive_space,
    four_digits,
    is_sized,
    nearest_size,
    region_of_size,
)

# No trial is pruned before so many are complete, nor before this share of its looks.
STARTUP, WARMUP = 4, 0.25


@dataclass(frozen=True)
class Trial:
    """One training and its best look; numbers are None where it ended before its first."""

    number: int
    state: str  # complete, pruned or failed
    params: dict[str, float]  # what was searched
    lr: float | None
    arguments: dict[str, Any]  # of the method, all of them
    parameters: int | None  # of the region
    step: int | None
    unlearn: float | None  # token accuracy on the rows looked at, in [0, 1]
    retention: float | None
    forgotten: float | None  # share of the way from knowing to not knowing, in [0, 1]
    lost: float | None  # points of retention accuracy
    score: float | None  # harmonic mean of forgotten and kept
    seconds: float | None
    reason: str | None  # why it was pruned


@dataclass(frozen=True)
class StudySetup:
    """What all trials have in common."""

    plan: Plan
    arguments: dict[str, Any]  # of the method, bound
    space: dict[str, Range]
    region: Callable[[float], list[str]]  # of a size; where it is fixed, the same for all
    settings: dict[str, Any]  # of unlearn, beside those that are searched

    def training(self, params: Mapping[str, float]) -> dict[str, Any]:
        """Rate, arguments and region of a trial.

        Raises:
            BadInput: no tensor is in a region of that size.
        """
        searched = {name: value for name, value in params.items() if name in self.arguments}
        return {
            "lr": params[LR],
            "arguments": self.arguments | searched,
            "region": self.region(params.get(REGION, 0.0)),
        }


def need_optuna() -> None:
    """Refuse to go on without it.

    Raises:
        BadInput: optuna is not installed.
    """
    if find_spec("optuna") is None:
        raise BadInput("sweep needs optuna; pip install 'knowundo[sweep]'")


def chosen_plan(recipe: Recipe, name: str | None) -> Plan:
    planned = {plan.name: plan for plan in recipe.unlearn.variants}
    if name is None and len(planned) == 1:
        return next(iter(planned.values()))
    if name is None:
        raise BadInput(
            f"sweep: one variant at a time; name it with --variant: {', '.join(planned)}"
        )
    if name not in planned:
        raise unknown("variant", name, planned)
    return planned[name]


def set_up_study(run: Run, plan: Plan, ranges: Mapping[str, tuple[float, float]]) -> StudySetup:
    """Everything that is settled before the first trial; the model is the memorized one."""
    settings = run.recipe.unlearn.settings(plan)
    rate = settings.pop("lr")
    if rate == "auto":
        rate = plan.guess or first_rate(run.model)
    method = get("method", plan.method)
    arguments = method.bind(plan.arguments)
    own, size = run.region(plan.region), None

    def fixed(_: float) -> list[str]:
        return own

    region: Callable[[float], list[str]] = fixed
    if is_sized(run.recipe, plan):
        region = partial(region_of_size, **_measured(run, plan.region))
        sizes = {name: parameter.numel() for name, parameter in run.model.parameters().items()}
        size = nearest_size(region, sizes, sum(sizes[name] for name in own))
    space = derive_space(method, arguments, rate=rate, size=size, ranges=ranges)
    settings |= {
        "method": plan.method,
        "retain_on": plan.retain_on,
        "optimizer": run.recipe.model.optimizer,
    }
    return StudySetup(plan, arguments, space, region, settings)


def _measured(run: Run, localizer: str) -> dict[str, Any]:
    """What `region_of_size` needs, from what localize wrote."""
    tensors = read_json(run.regions / "tensors.json")
    return {
        "localizer": get("localizer", localizer),
        "arguments": run.recipe.localize.localizers[localizer],
        "measured": Measured(
            {tensor["name"]: tensor["cosine"] for tensor in tensors},
            {tensor["name"]: tensor["magnitude"] for tensor in tensors},
        ),
        "known": list(run.model.parameters()),
        "whole_modules": run.model.is_fresh,
    }


def sweep_inputs(run: Run, setup: StudySetup, stop: Stop) -> list[Any]:
    """What trials are made of, beside what is searched: others are not mixed with them."""
    lows = {name: where.low for name, where in setup.space.items() if name in setup.arguments}
    settled = {
        "lr": 1.0,
        "guess": None,
        "arguments": setup.arguments | lows,
        "region": regions.EVERYTHING,
    }
    made = run.unlearn_inputs(setup.plan.model_copy(update=settled))
    if REGION in setup.space:
        name = setup.plan.region
        region: Any = [run.made(run.regions, "localize"), get("localizer", name).source]
    else:
        region = setup.region(0.0)
    space = {name: asdict(where) for name, where in setup.space.items()}
    return ["sweep", made, stop.model_dump(), region, space]


@contextmanager
def open_study(file: Path, name: str, stop: Stop) -> Iterator[optuna.Study]:
    """The study of that name in the file, without trials that a killed process left running.

    One process at a time: what another one is trying would be taken for such a trial.

    Raises:
        BadInput: the file is not one of optuna's.
    """
    import optuna
    from sqlalchemy.engine import URL
    from sqlalchemy.exc import SQLAlchemyError

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    file.parent.mkdir(parents=True, exist_ok=True)
    pruner = optuna.pruners.MedianPruner(
        n_startup_trials=STARTUP, n_warmup_steps=max(1, round(WARMUP * stop.looks))
    )
    try:
        try:
            storage = optuna.storages.RDBStorage(str(URL.create("sqlite", database=str(file))))
            study = optuna.create_study(
                storage=storage,
                study_name=name,
                pruner=pruner,
                direction="maximize",
                load_if_exists=True,
            )
            for left in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
                study.tell(left.number, state=optuna.trial.TrialState.FAIL)
        except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError) as error:
            reason = str(error).split("\n")[0]
            raise BadInput(f"{file}: holds no sweep ({reason}); remove it") from None
        yield study
        storage.remove_session()
    finally:
        optuna.logging.set_verbosity(level)


def count_trials(study: optuna.Study) -> int:
    from optuna.trial import TrialState

    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))


def ask_trial(
    study: optuna.Study, space: Mapping[str, Range], seed: int, done: int
) -> optuna.Trial:
    """The next trial: the variant's own settings, then what TPE suggests.

    Each trial has a sampler of its own, whose seed says how many are done: a sweep that was
    interrupted goes on as if it had not been, where one sampler would begin its draws anew.
    """
    from optuna.distributions import FloatDistribution
    from optuna.samplers import TPESampler
    from optuna.trial import TrialState

    study.sampler = TPESampler(seed=int(fingerprint([seed, done])[:8], 16))
    if not done and not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        own = {name: w.own for name, w in space.items() if w.low <= w.own <= w.high}
        study.enqueue_trial(own)
    return study.ask(
        {name: FloatDistribution(w.low, w.high, log=w.log) for name, w in space.items()}
    )


def run_trial(
    start: Start, watch: Watch, setup: StudySetup, study: optuna.Study, trial: optuna.Trial
) -> None:
    """Train with a trial's settings, and tell the study how it went."""
    from optuna.trial import TrialState

    began = time.perf_counter()
    looks: list[Look] = []

    def look(seen: Look) -> bool:
        looks.append(seen)
        trial.report(seen["score"], len(looks))  # by looks, which all trials have alike
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
        done = unlearn(start, **training, **setup.settings, watch=watch, look=look)
        if "diverged" in done.facts:
            facts["reason"] = f"diverged: {done.facts['diverged']}"
        elif done.facts["stopped"] == "pruned":
            facts["reason"] = f"below the median at look {len(looks)}"
    if looks:
        facts["best"] = max(looks, key=lambda seen: seen["score"])
    facts["seconds"] = round(time.perf_counter() - began, 2)
    for key, value in facts.items():
        trial.set_user_attr(key, value)
    if "reason" in facts:
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, facts["best"]["score"])


def _rounded(params: Mapping[str, float]) -> dict[str, float]:
    return {name: four_digits(value) for name, value in params.items()}


def read_trial(study: optuna.Study) -> list[Trial]:
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
