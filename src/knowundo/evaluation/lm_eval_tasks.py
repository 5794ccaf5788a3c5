"""General tasks (MMLU, ARC, ...): lm-evaluation-harness on the model that is already in memory.

The harness is an optional extra and slow to import, so it is imported inside the functions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from rapidfuzz.fuzz import ratio
from rapidfuzz.process import extract

from knowundo.errors import BadInput, unknown
from knowundo.evaluation.lm_eval_harness import (
    NO_VERSION,
    RESAMPLES,
    load_tasks,
    quiet_harness,
    reason_of,
    run_harness,
    task_manager,
    untouched_globals,
)
from knowundo.modeling.continuation import plain_generation
from knowundo.modeling.model import Model
from knowundo.progress import Progress
from knowundo.results import Row

# Metrics in [0, 1], reported in percent like all others; any other keeps the harness's unit.
_SHARE = re.compile(r"(.+_)?acc(_.+)?|exact_match")
# Half of a 95 % interval, in standard errors.
_HALF = 1.96


@dataclass(frozen=True)
class TaskSettings:
    """Which tasks of the harness are run, and how."""

    tasks: Sequence[str]
    """Names of tasks, groups or tags."""
    folder: str | Path | None = None
    """Task files (YAML) that are read beside the harness's own and override them. A relative path
    in their `data_files` starts at the working directory, and their `!function` runs code."""
    limit: int | None = None
    """Questions of each task, the first ones. If `None`, all."""
    shots: int | None = None
    """Solved examples before each question. If `None`, the task's own number."""
    seed: int = 0
    """Of the solved examples and of everything else that the harness draws."""
    batch_size: int = 16
    """Requests in one forward pass."""


def check_tasks(tasks: Sequence[str], folder: str | Path | None = None) -> None:
    """Check the names before anything is trained; data sets are first read by `task_rows`.

    Args:
        tasks: Names of tasks, groups or tags.
        folder: Task files (YAML) that are read beside the harness's own and override them.

    Raises:
        BadInput: The harness is not installed, a task or the folder does not exist, or a file in
            the folder is not YAML.
    """
    if not tasks:
        return
    known = task_manager(folder).all_tasks
    for task in tasks:
        if task not in known:
            nearest = [name for name, *_ in extract(task, known, scorer=ratio, limit=5)]
            raise unknown("general task", task, nearest)


def task_rows(
    model: Model,
    variant: str,
    settings: TaskSettings,
    *,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> list[Row]:
    """Run the tasks on the model as it is now: nothing is loaded again.

    Args:
        model: Left as it was, and so are all random generators.
        variant: Its name in the rows.
        settings: Which tasks, and how.
        progress: Called with answered and known requests; a multiple choice is one per choice.
        say: Told of what the harness does not do as asked, one line each.

    Returns:
        One row per task, group and metric: `metric` is the task's name, `subset` the harness's
        metric (and its filter, where it has one: `exact_match,strict-match`). Accuracies and exact
        matches are in percent, anything else is in the harness's unit. The interval is the value
        ± 1.96 standard errors, which may extend beyond 0 or 100.

    Raises:
        BadInput: As `check_tasks`, or the data or templates of a task cannot be read.
    """
    check_tasks(settings.tasks, settings.folder)
    if not settings.tasks:
        return []
    with quiet_harness(), untouched_globals(model), plain_generation(model.causal_lm()):
        results, harness = _evaluate(model, settings, progress)
    if say:
        for line in _remarks(results, harness, settings.shots):
            say(line)
    return list(_rows(results, variant))


def _evaluate(
    model: Model, settings: TaskSettings, progress: Progress | None
) -> tuple[dict[str, Any], Any]:
    """The harness's results, and the harness that counted its requests."""
    from lm_eval import simple_evaluate

    manager = task_manager(settings.folder)
    loaded = load_tasks(manager, settings.tasks)
    harness = run_harness(model, settings.batch_size, progress)
    seeds = ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed")
    try:
        results = simple_evaluate(
            harness,
            tasks=loaded,
            task_manager=manager,
            num_fewshot=settings.shots,
            limit=settings.limit,
            batch_size=settings.batch_size,
            bootstrap_iters=RESAMPLES,
            log_samples=False,
            **dict.fromkeys(seeds, settings.seed),
        )
    except (AssertionError, KeyError, TemplateError, ValueError) as error:
        raise BadInput(
            f"evaluate.general_tasks: the harness refuses ({reason_of(error)}); correct the "
            "task's file, general_shots or general_limit"
        ) from error
    return results, harness


def _remarks(results: Any, harness: Any, shots: int | None) -> Iterator[str]:
    if harness.cut:
        yield (
            f"general tasks: {harness.cut} of {harness.asked} prompts are longer than the "
            f"{harness.max_length} tokens that the model reads; their beginnings were cut"
        )
    own = [name for name in results["configs"] if shots and results["n-shot"][name] != shots]
    if own:
        yield f"general tasks: {', '.join(own)}: asked with no solved examples, as their files say"


def _rows(results: Any, variant: str) -> Iterable[Row]:
    for task, scores in results["results"].items():
        version = str(results["versions"].get(task))
        for key, value in scores.items():
            metric, _, way = key.partition(",")
            if not way or metric.endswith("_stderr"):
                continue
            unit = 100.0 if _SHARE.fullmatch(metric) else 1.0
            mean = _finite(value, unit)
            stderr = _finite(scores.get(f"{metric}_stderr,{way}"), unit)
            spread = None if mean is None or stderr is None else _HALF * stderr
            # A group counts by metric: a metric may be missing in some of its tasks.
            records = scores.get("sample_count", {}).get(key, scores["sample_len"])
            yield Row(
                variant=variant,
                metric=task,
                scope="general",
                split=None,
                subset=metric if way == "none" else key,
                value=mean,
                low=None if mean is None or spread is None else mean - spread,
                high=None if mean is None or spread is None else mean + spread,
                stderr=stderr,
                task_version=None if version in NO_VERSION else version,
                records=records,
                subjects=records,
            )


def _finite(value: Any, unit: float) -> float | None:
    """A number of the harness in our unit; `None` for its "N/A" and for what is not finite."""
    if value is None or isinstance(value, str) or not math.isfinite(value):
        return None
    return unit * float(value)
