"""sweep(): search one variant's learning rate, loss weights and region size.

    run = Run.existing(Path("runs/demo"))
    found = sweep(run, "memflex", trials=20)

A trial is one training from the memorized model, evaluated on train rows only, and counts as its
best evaluation. Trials stand in an SQLite file of the run's directory, so a sweep can be
interrupted at any moment and continued by the same call; what a killed trial had done is lost, the
others stay.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from knowundo.pipeline.aims import prepare_unlearning
from knowundo.pipeline.localization import localize
from knowundo.pipeline.memorization import memorize
from knowundo.recipes.stop_section import Stop
from knowundo.runs.run import Run
from knowundo.storage.files import fingerprint
from knowundo.storage.locks import alone
from knowundo.sweeps.results import SweepResult, read_result, trial_line, write_results
from knowundo.sweeps.setup import StudySetup, chosen_plan, set_up_study, sweep_inputs
from knowundo.sweeps.space import check_ranges
from knowundo.sweeps.study import ask_trial, count_trials, need_optuna, open_study
from knowundo.sweeps.trials import read_trials, run_trial

if TYPE_CHECKING:
    import optuna


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
        run: its recipe's `unlearn.stop` says how trials are evaluated. If `None`,
            the defaults of `Stop`.
        name: of the variant. If `None`, the only one.
        trials: in all, those of earlier calls included; failed ones do not count.
        timeout: seconds after which no further trial begins.
        ranges: low and high ends that replace the derived ones, by name: see `derive_space`.

    Raises:
        BadInput: optuna is not installed; no such variant; a range that cannot be searched; the
            SQLite file is none of a sweep.
    """
    need_optuna()
    plan = chosen_plan(run.recipe, name)
    check_ranges(run.recipe, plan, ranges or {})
    memorize(run)
    localize(run)
    stop = run.recipe.unlearn.stop or Stop()
    start, aim, rule = prepare_unlearning(run, stop)
    assert rule is not None
    setup = set_up_study(run, plan, ranges or {})
    described = ", ".join(f"{key} {where}" for key, where in setup.space.items())
    run.reporter.say(f"sweep {plan.name}: {described}")
    study_name = f"{plan.name} {fingerprint(sweep_inputs(run, setup, stop))[:16]}"
    file = run.out / "sweep" / f"{plan.name}.db"
    with open_study(file, study_name, stop) as study:
        try:
            _search(
                run, setup, study, partial(run_trial, start, rule, setup, study), trials, timeout
            )
        finally:
            start.restore()
        tried = read_trials(study)
    result = read_result(run, setup, study_name, aim.accuracy, tried)
    write_results(run, setup, result)
    return result


def _search(
    run: Run,
    setup: StudySetup,
    study: optuna.Study,
    attempt: Callable[[optuna.Trial], None],
    trials: int,
    timeout: float | None,
) -> None:
    """Try until there are so many trials, or the time is up."""
    began, title = time.monotonic(), f"sweep {setup.plan.name}"
    with run.reporter.task(title) as progress:
        done = count_trials(study)
        progress(done, max(done, trials))
        while done < trials and (timeout is None or time.monotonic() - began < timeout):
            attempt(ask_trial(study, setup.space, run.recipe.seed, done))
            run.reporter.say(f"{title}: {trial_line(read_trials(study)[-1])}")
            done = count_trials(study)
            progress(done, trials)
