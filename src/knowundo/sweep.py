"""sweep(): search one variant's learning rate, loss weights and region size.

    run = Run.existing(Path("runs/demo"))
    found = sweep(run, "memflex", trials=20)

A trial is one training from the memorized model, looked at on train rows only, and counts as its
best look. Trials stand in an SQLite file of the run's directory, so a sweep can be interrupted at
any moment and continued by the same call; what a killed trial had done is lost, the others stay.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import plotly.graph_objects as go
import yaml

from knowundo import regions
from knowundo.artifacts import fingerprint, read_json, read_text, write_json
from knowundo.errors import BadInput, unknown
from knowundo.localization import Measured
from knowundo.locks import alone
from knowundo.pipeline import localize, memorize, prepare_unlearning
from knowundo.recipe import Recipe, Stop, parse_yaml
from knowundo.recipe import Variant as Planned
from knowundo.registry import Entry, get
from knowundo.reporting import write_page
from knowundo.runs import Run
from knowundo.unlearning import Start, unlearn
from knowundo.unlearning.rates import first_rate
from knowundo.unlearning.watching import Look, Watch

if TYPE_CHECKING:
    import optuna

# A rate is searched from a tenth to ten times the variant's own, a weight from a quarter to four
# times; a region from a tenth of each localizer's order to nine tenths.
RATE, WEIGHT, SIZE = 10.0, 4.0, (0.1, 0.9)
# No trial is pruned before so many are complete, nor before this share of its looks.
STARTUP, WARMUP = 4, 0.25
LR, REGION = "lr", "region"
# A localizer that has these arguments can make a region of any size from what it measured.
_QUANTILES = ("cosine_quantile", "magnitude_quantile")
_ABSOLUTE = ("mu", "sigma")


@dataclass(frozen=True)
class Range:
    """Where a number is searched."""

    low: float
    high: float
    own: float  # the variant's: tried first, if it lies inside
    log: bool = True

    def __str__(self) -> str:
        return f"{self.low:.3g} … {self.high:.3g}"


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
class SweepResult:
    """What a sweep found so far."""

    variant: str
    study: str  # its name in the SQLite file
    target: float  # token accuracy on unlearn rows that is low enough, in [0, 1]
    space: dict[str, Range]
    trials: list[Trial]
    front: list[int]  # numbers of the trials on the Pareto front, most forgotten first
    best: int | None  # number of the complete trial of the highest score
    recipe: str | None  # YAML that trains with the best one's settings
    region: str | None  # JSON of the best one's region, where its size was searched

    def trial(self, number: int) -> Trial:
        """The trial of that number."""
        return next(trial for trial in self.trials if trial.number == number)


@dataclass(frozen=True)
class _Plan:
    """What all trials have in common."""

    variant: Planned
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


@alone
def sweep(
    run: Run,
    name: str | None = None,
    *,
    trials: int = 20,
    timeout: float | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> SweepResult:
    """Search the settings of one variant; memorizes and localizes first, where that is not done.

    Writes `sweep/<variant>.json`, `.html` and, where the size of the region was searched, the best
    region's JSON. The base is loaded once; afterwards the model is the memorized one.

    Args:
        run: its recipe's `unlearn.stop` says how trials are looked at; none: the stop's defaults.
        name: of the variant; none: the only one.
        trials: in all, those of earlier calls included; failed ones do not count.
        timeout: seconds after which no further trial begins.
        ranges: low and high ends that replace the derived ones, by name: see `derive_space`.

    Raises:
        BadInput: optuna is not installed; no such variant; a range that cannot be searched; the
            SQLite file is none of a sweep.
    """
    need_optuna()
    variant = _chosen(run.recipe, name)
    _check_ranges(run.recipe, variant, ranges or {})
    memorize(run)
    localize(run)
    stop = run.recipe.unlearn.stop or Stop()
    start, aim, watch = prepare_unlearning(run, stop)
    assert watch is not None
    plan = _plan(run, variant, ranges or {})
    described = ", ".join(f"{key} {where}" for key, where in plan.space.items())
    run.reporter.say(f"sweep {variant.name}: {described}")
    study_name = f"{variant.name} {fingerprint(_inputs(run, plan, stop))[:16]}"
    file = run.out / "sweep" / f"{variant.name}.db"
    with _study(file, study_name, stop) as study:
        try:
            _search(run, plan, study, partial(_try, start, watch, plan, study), trials, timeout)
        finally:
            start.restore()
        tried = _read(study)
    result = _result(run, plan, study_name, aim.accuracy, tried)
    _write(run, plan, result)
    return result


def _search(
    run: Run,
    plan: _Plan,
    study: optuna.Study,
    attempt: Callable[[optuna.Trial], None],
    trials: int,
    timeout: float | None,
) -> None:
    """Try until there are so many trials, or the time is up."""
    began, title = time.monotonic(), f"sweep {plan.variant.name}"
    with run.reporter.task(title) as progress:
        done = _counted(study)
        progress(done, max(done, trials))
        while done < trials and (timeout is None or time.monotonic() - began < timeout):
            attempt(_ask(study, plan.space, run.recipe.seed, done))
            run.reporter.say(f"{title}: {_line(_read(study)[-1])}")
            done = _counted(study)
            progress(done, trials)


def need_optuna() -> None:
    """Refuse to go on without it.

    Raises:
        BadInput: optuna is not installed.
    """
    if find_spec("optuna") is None:
        raise BadInput("sweep needs optuna; pip install 'knowundo[sweep]'")


def _chosen(recipe: Recipe, name: str | None) -> Planned:
    planned = {variant.name: variant for variant in recipe.unlearn.variants}
    if name is None and len(planned) == 1:
        return next(iter(planned.values()))
    if name is None:
        raise BadInput(
            f"sweep: one variant at a time; name it with --variant: {', '.join(planned)}"
        )
    if name not in planned:
        raise unknown("variant", name, planned)
    return planned[name]


def read_ranges(file: Path) -> dict[str, tuple[float, float]]:
    """Read a YAML mapping such as `{lr: [1e-5, 1e-3], region: [0.2, 0.8]}`.

    Raises:
        BadInput: something else.
    """
    given = parse_yaml(read_text(file), str(file))
    if not isinstance(given, dict):
        raise BadInput(f"{file}: expected a mapping such as {{lr: [1e-5, 1e-3]}}")
    for name, ends in given.items():
        numbers = isinstance(ends, list) and [
            end for end in ends if isinstance(end, int | float) and not isinstance(end, bool)
        ]
        if not numbers or len(ends) != 2 or len(numbers) != 2:
            raise BadInput(f"{file}: {name}: expected two numbers, such as [1e-5, 1e-3]")
    return {str(name): (float(low), float(high)) for name, (low, high) in given.items()}


def weights(method: Entry) -> list[str]:
    """Hyper-parameters of a method that weigh its loss: numbers that `prepare` does not read."""
    hints = get_type_hints(method.function)
    prepared = method.prepare_arguments(method.arguments)
    return [n for n in method.arguments if hints.get(n) is float and n not in prepared]


def _is_sized(recipe: Recipe, variant: Planned) -> bool:
    """True if the variant's region was searched for, so that it can have another size."""
    localizers = recipe.localize.localizers
    if variant.region not in localizers or recipe.localize.adopt is not None:
        return False
    return set(_QUANTILES) <= set(get("localizer", variant.region).arguments)


def _check_ranges(
    recipe: Recipe, variant: Planned, ranges: Mapping[str, tuple[float, float]]
) -> None:
    """Refuse ranges that cannot be searched, before anything is computed."""
    method = get("method", variant.method)
    known = [LR, *weights(method), *([REGION] if _is_sized(recipe, variant) else [])]
    for name, (low, high) in ranges.items():
        if name not in known:
            raise unknown(f"range of variant {variant.name}", name, known)
        if not low <= high:
            raise BadInput(f"range {name}: {low:g} is more than {high:g}; turn them round")
        if name == REGION and not (low >= 0 and high <= 1):
            raise BadInput(
                f"range {name}: a share, so between 0 and 1; correct [{low:g}, {high:g}]"
            )
        if name != REGION and low <= 0:
            raise BadInput(f"range {name}: searched by its logarithm, so above 0, not {low:g}")
        if name not in (LR, REGION):
            for end in (low, high):
                method.bind(variant.arguments | {name: end})


def derive_space(
    method: Entry,
    arguments: Mapping[str, Any],
    *,
    rate: float,
    size: float | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> dict[str, Range]:
    """Where each number is searched, around a variant's own settings.

    Args:
        method: its weights are searched: see `weights`; one that is 0 stays 0. An end that the
            method does not take is drawn in to the variant's own value.
        arguments: of the method, bound.
        rate: the variant's learning rate.
        size: the variant's region, as `region_of_size` means it; none: it is fixed.
        ranges: low and high ends that replace the derived ones; a weight that is 0 is searched too
            if it has one.

    Returns:
        `lr`, weights and `region`, in this order.
    """
    given = ranges or {}
    space = {LR: Range(rate / RATE, rate * RATE, rate)}
    for name in weights(method):
        own = arguments[name]
        if name in given or own > 0:
            ends = (own / WEIGHT, own * WEIGHT)
            low, high = (v if _takes(method, arguments, name, v) else own for v in ends)
            space[name] = Range(low, high, own)
    if size is not None:
        space[REGION] = Range(*SIZE, size, log=False)
    for name, where in space.items():
        low, high = given.get(name, (_four(where.low), _four(where.high)))
        space[name] = Range(low, high, where.own, where.log)
    return space


def _takes(method: Entry, arguments: Mapping[str, Any], name: str, value: float) -> bool:
    try:
        method.bind({**arguments, name: value})
    except BadInput:
        return False
    return True


def region_of_size(
    size: float,
    *,
    localizer: Entry,
    arguments: Mapping[str, Any],
    measured: Measured,
    known: Sequence[str],
    whole_modules: bool,
) -> list[str]:
    """A localizer's region of another size, from what it measured; no gradients.

    The cosine may be among the lowest `size` of all, and the magnitude among the highest: so a
    larger region holds every smaller one, and 0.5 is the localizer's own default.

    Args:
        size: share of tensors that pass each threshold, in [0, 1].
        localizer: one with quantiles.
        arguments: its others; absolute thresholds give way to the quantiles.
        measured: cosine and magnitude of each tensor.
        known: all parameters that can be trained.
        whole_modules: a fresh LoRA's B speaks for its module.

    Raises:
        BadInput: no tensor passes.
    """
    others = {key: value for key, value in arguments.items() if key not in _ABSOLUTE}
    quantiles = dict(zip(_QUANTILES, (size, 1 - size), strict=True))
    found = localizer(measured, **localizer.bind(others | quantiles))
    return regions.with_whole_modules(found, known) if whole_modules else sorted(found)


def nearest_size(region: Callable[[float], list[str]], sizes: Mapping[str, int], own: int) -> float:
    """The size, in steps of 0.05, whose region comes nearest to `own` parameters; 0.5 wins ties."""
    low, high = SIZE
    steps = round((high - low) / 0.05)

    def off(size: float) -> tuple[float, float]:
        try:
            there = sum(sizes[name] for name in region(size))
        except BadInput:  # no tensor
            there = 0
        return abs(there - own), abs(size - 0.5)

    return min((round(low + 0.05 * step, 2) for step in range(steps + 1)), key=off)


def _plan(run: Run, variant: Planned, ranges: Mapping[str, tuple[float, float]]) -> _Plan:
    """Everything that is settled before the first trial; the model is the memorized one."""
    settings = run.recipe.unlearn.settings(variant)
    rate = settings.pop("lr")
    if rate == "auto":
        rate = variant.guess or first_rate(run.model)
    method = get("method", variant.method)
    arguments = method.bind(variant.arguments)
    own, size = run.region(variant.region), None

    def fixed(_: float) -> list[str]:
        return own

    region: Callable[[float], list[str]] = fixed
    if _is_sized(run.recipe, variant):
        region = partial(region_of_size, **_measured(run, variant.region))
        sizes = {name: parameter.numel() for name, parameter in run.model.parameters().items()}
        size = nearest_size(region, sizes, sum(sizes[name] for name in own))
    space = derive_space(method, arguments, rate=rate, size=size, ranges=ranges)
    settings |= {
        "method": variant.method,
        "retain_on": variant.retain_on,
        "optimizer": run.recipe.model.optimizer,
    }
    return _Plan(variant, arguments, space, region, settings)


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


def _inputs(run: Run, plan: _Plan, stop: Stop) -> list[Any]:
    """What trials are made of, beside what is searched: others are not mixed with them."""
    lows = {name: where.low for name, where in plan.space.items() if name in plan.arguments}
    settled = {
        "lr": 1.0,
        "guess": None,
        "arguments": plan.arguments | lows,
        "region": regions.EVERYTHING,
    }
    made = run.unlearn_inputs(plan.variant.model_copy(update=settled))
    if REGION in plan.space:
        name = plan.variant.region
        region: Any = [run.made(run.regions, "localize"), get("localizer", name).source]
    else:
        region = plan.region(0.0)
    space = {name: asdict(where) for name, where in plan.space.items()}
    return ["sweep", made, stop.model_dump(), region, space]


@contextmanager
def _study(file: Path, name: str, stop: Stop) -> Iterator[optuna.Study]:
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


def _counted(study: optuna.Study) -> int:
    from optuna.trial import TrialState

    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))


def _ask(study: optuna.Study, space: Mapping[str, Range], seed: int, done: int) -> optuna.Trial:
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


def _try(start: Start, watch: Watch, plan: _Plan, study: optuna.Study, trial: optuna.Trial) -> None:
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
        training = plan.training(_rounded(trial.params))
    except BadInput as error:
        facts["reason"] = str(error)
    else:
        sizes = {name: parameter.numel() for name, parameter in start.model.parameters().items()}
        facts |= {"lr": training["lr"], "arguments": training["arguments"]}
        facts["parameters"] = sum(sizes[name] for name in training["region"])
        done = unlearn(start, **training, **plan.settings, watch=watch, look=look)
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
    return {name: _four(value) for name, value in params.items()}


def _four(value: float) -> float:
    """Four digits of a number: enough to train with, and to copy by hand."""
    return float(f"{value:.4g}")


def _read(study: optuna.Study) -> list[Trial]:
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


def _line(trial: Trial) -> str:
    """One trial in one line."""
    settings = ", ".join(f"{name} {value:.3g}" for name, value in trial.params.items())
    line = f"trial {trial.number}: {settings}"
    if trial.forgotten is not None:
        line += f": {trial.forgotten:.0%} forgotten, {trial.lost:.1f} lost, score {trial.score:.3f}"
    return f"{line} ({trial.reason})" if trial.reason else line


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points to which no other is preferable.

    Args:
        points: (forgotten, lost) each. Another is preferable if it forgot no less and lost no more,
            and is better in one of the two; equal points stand beside each other.

    Returns:
        Places in `points`, most forgotten first, then by place.
    """

    def beaten(forgotten: float, lost: float) -> bool:
        return any(
            more >= forgotten and less <= lost and (more, less) != (forgotten, lost)
            for more, less in points
        )

    front = [place for place, point in enumerate(points) if not beaten(*point)]
    return sorted(front, key=lambda place: (-points[place][0], place))


def _result(run: Run, plan: _Plan, study: str, target: float, trials: list[Trial]) -> SweepResult:
    """Front and best of the complete trials: a pruned one might have come further."""
    complete = [trial for trial in trials if trial.state == "complete"]
    places = pareto_front([(trial.forgotten or 0.0, trial.lost or 0.0) for trial in complete])
    best = max(complete, key=lambda trial: trial.score or 0.0, default=None)
    file = None
    if best is not None and REGION in plan.space:
        file = str(run.out / "sweep" / f"{plan.variant.name}-region.json")
    return SweepResult(
        variant=plan.variant.name,
        study=study,
        target=target,
        space=plan.space,
        trials=trials,
        front=[complete[place].number for place in places],
        best=None if best is None else best.number,
        recipe=None if best is None else _recipe(run, plan.variant, best, file),
        region=file,
    )


def _recipe(run: Run, variant: Planned, best: Trial, region: str | None) -> str:
    """YAML of the variant with a trial's settings; with the stop too, if the recipe has none.

    What counted was the best look, and without a stop the last step would be kept instead.
    """
    taken = variant.model_dump(exclude={"guess"}, exclude_none=True)
    taken |= {"lr": best.lr, "arguments": best.arguments, "name": f"{variant.name}-swept"}
    if region is not None:
        taken["region"] = region
    section: dict[str, Any] = {"variants": [taken]}
    if run.recipe.unlearn.stop is None:
        section = {"stop": Stop().model_dump(), **section}
    return yaml.safe_dump({"unlearn": section}, sort_keys=False)


def _write(run: Run, plan: _Plan, result: SweepResult) -> None:
    folder, name = run.out / "sweep", result.variant
    if result.best is not None and result.region is not None:
        size = result.trial(result.best).params[REGION]
        write_json(Path(result.region), plan.region(size))
    write_json(folder / f"{name}.json", asdict(result))
    write_page(folder / f"{name}.html", f"sweep {name}", _figure(result))


def _figure(result: SweepResult) -> go.Figure:
    """Forgotten against lost: every trial that was looked at, and the front."""
    seen = [trial for trial in result.trials if trial.forgotten is not None]
    front = [result.trial(number) for number in result.front]
    kinds = {
        "complete": {"symbol": "circle", "size": 9, "color": "#3b5b8c"},
        "pruned": {"symbol": "x", "size": 7, "color": "#888888"},
    }
    figure = go.Figure()
    figure.add_scatter(**_points(front), mode="lines", name="front", line={"color": "#2e7d4f"})
    for state, marker in kinds.items():
        chosen = [trial for trial in seen if trial.state == state]
        figure.add_scatter(**_points(chosen), mode="markers", name=state, marker=marker)
    if result.best is not None:
        marker = {"symbol": "star", "size": 16, "color": "#2e7d4f"}
        best = [result.trial(result.best)]
        figure.add_scatter(**_points(best), mode="markers", name="highest score", marker=marker)
    figure.update_layout(
        template="plotly_white",
        font={"family": "system-ui, sans-serif", "size": 13},
        title=f"Sweep of {result.variant}: best look of each trial, train rows",
        height=560,
        xaxis={"title": "forgotten: percent of the way to not knowing", "range": [-3, 103]},
        yaxis={"title": "lost: points of retention accuracy"},
    )
    return figure


def _points(trials: Sequence[Trial]) -> dict[str, Any]:
    return {
        "x": [100 * (trial.forgotten or 0.0) for trial in trials],
        "y": [trial.lost for trial in trials],
        "text": [_line(trial).replace(", ", "<br>") for trial in trials],
        "hoverinfo": "text",
    }
