"""Optuna's study: trials in a database of the run, so that a sweep resumes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from knowundo.errors import BadInput, first_line
from knowundo.recipes.stop_section import Stop
from knowundo.storage.files import fingerprint
from knowundo.sweeps.space import (
    Range,
)

if TYPE_CHECKING:
    import optuna


# No trial is pruned before so many are complete, nor before this share of its evaluation steps.
STARTUP, WARMUP = 4, 0.25


def need_optuna() -> None:
    """Refuse a sweep without optuna.

    Raises:
        BadInput: optuna is not installed.
    """
    if find_spec("optuna") is None:
        raise BadInput("sweep needs optuna; pip install 'knowundo[sweep]'")


@contextmanager
def open_study(file: Path, name: str, stop: Stop) -> Iterator[optuna.Study]:
    """Open the study of that name in the file; trials that a killed process left running fail.

    Only one process may have it open: another one's running trial would be taken for such a trial.

    Args:
        file: an SQLite file; made if it is not there.
        name: of the study.
        stop: says how many evaluation steps a trial has.

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
        n_startup_trials=STARTUP, n_warmup_steps=max(1, round(WARMUP * stop.evaluations))
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
            reason = first_line(error)
            raise BadInput(f"{file}: holds no sweep ({reason}); remove it") from None
        yield study
        storage.remove_session()
    finally:
        optuna.logging.set_verbosity(level)


def count_trials(study: optuna.Study) -> int:
    """Number of complete and pruned trials; failed ones do not count."""
    from optuna.trial import TrialState

    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))


def ask_trial(
    study: optuna.Study, space: Mapping[str, Range], seed: int, done: int
) -> optuna.Trial:
    """The next trial: first the variant's own settings, then what TPE suggests.

    Each trial has a sampler of its own, seeded by the number of trials before it. So a sweep that
    was interrupted suggests the same settings as one that was not; a single sampler would start
    its draws again. TPE is due to Bergstra et al. (2011).

    Args:
        study: the trials so far.
        space: where each number is searched.
        seed: of the run.
        done: number of trials so far.
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
