"""General tasks (MMLU, ARC, ...): lm-evaluation-harness on the model that is already in memory.

The harness is an optional extra and slow to import, so it is imported inside the functions.
"""

from __future__ import annotations

import copy
import logging
import math
import random
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jinja2 import TemplateError
from rapidfuzz.fuzz import ratio
from rapidfuzz.process import extract

from knowundo.errors import BadInput, unknown
from knowundo.models import Model
from knowundo.progress import Progress
from knowundo.results import Row

# Metrics in [0, 1], told in percent as everywhere; any other keeps the harness's unit.
_SHARE = re.compile(r"(.+_)?acc(_.+)?|exact_match")
# Half of a 95 % interval, in standard errors.
_HALF = 1.96
# What the harness says of a task without a version.
_NO_VERSION = ("N/A", "Yaml", "None")
# Resamples behind standard errors without a formula (F1, BLEU, perplexity).
_RESAMPLES = 1000


def check_tasks(tasks: Sequence[str], folder: str | Path | None = None) -> None:
    """Check the names before anything is trained; data sets are first touched by `general_rows`.

    Args:
        tasks: names of tasks, groups or tags.
        folder: task files (YAML) that are read beside the harness's own, and override them.

    Raises:
        BadInput: the harness is not installed, a task or the folder does not exist, or a file in
            the folder is no YAML.
    """
    if not tasks:
        return
    known = _manager(folder).all_tasks
    for task in tasks:
        if task not in known:
            nearest = [name for name, *_ in extract(task, known, scorer=ratio, limit=5)]
            raise unknown("general task", task, nearest)


def general_rows(
    model: Model,
    variant: str,
    *,
    tasks: Sequence[str],
    folder: str | Path | None = None,
    limit: int | None = None,
    shots: int | None = None,
    seed: int = 0,
    batch_size: int = 16,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> list[Row]:
    """Run the tasks on the model as it is now: nothing is loaded again.

    Args:
        model: left as it was, and so are all random generators.
        variant: its name in the rows.
        tasks: names of tasks, groups or tags.
        folder: task files (YAML) that are read beside the harness's own; a relative path in their
            `data_files` starts at the working directory, and their `!function` runs code.
        limit: questions of each task, the first ones; none: all.
        shots: solved examples before each question; none: the task's own number.
        seed: of the solved examples and of everything else the harness draws.
        batch_size: requests in one forward pass.
        progress: called with answered and known requests; a multiple choice is one per choice.
        say: told of what the harness does not do as asked, one line each.

    Returns:
        One row per task, group and metric: `metric` is the task's name, `subset` the harness's
        metric (and its filter, where it has one: `exact_match,strict-match`). Accuracies and exact
        matches are in percent, anything else is in the harness's unit; the interval is the value
        ± 1.96 standard errors, which may reach beyond 0 or 100.

    Raises:
        BadInput: as `check_tasks`; a task's data or templates cannot be read.
    """
    check_tasks(tasks, folder)
    if not tasks:
        return []
    from lm_eval import simple_evaluate

    with _quiet(), _untouched(model), model.plain_generation():
        manager = _manager(folder)
        loaded = _load(manager, tasks)
        harness = _harness(model, batch_size, progress)
        try:
            results = simple_evaluate(
                harness,
                tasks=loaded,
                task_manager=manager,
                num_fewshot=shots,
                limit=limit,
                batch_size=batch_size,
                bootstrap_iters=_RESAMPLES,
                log_samples=False,
                random_seed=seed,
                numpy_random_seed=seed,
                torch_random_seed=seed,
                fewshot_random_seed=seed,
            )
        except (AssertionError, KeyError, TemplateError, ValueError) as error:
            raise BadInput(
                f"evaluate.general_tasks: the harness refuses ({_reason(error)}); mend the task's "
                "file, general_shots or general_limit"
            ) from error
    if say:
        for line in _remarks(results, harness, shots):
            say(line)
    return list(_rows(results, variant))


def _manager(folder: str | Path | None) -> Any:
    """The harness's index of tasks; building it takes seconds, so it is kept."""
    if folder is None:
        return _index(None, ())
    place = Path(folder)
    if not place.is_dir():
        raise BadInput(f"evaluate.general_folder '{folder}': no such folder; name one with YAML")
    files = tuple(sorted(place.rglob("*.yaml")))
    for file in files:
        try:
            yaml.compose(file.read_text())  # the harness passes over a file that it cannot read
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise BadInput(f"{file}: not YAML ({_reason(error)}); mend it") from None
    return _index(place.resolve(), files)


@cache
def _index(folder: Path | None, files: tuple[Path, ...]) -> Any:
    try:
        from lm_eval.tasks import TaskManager
    except ModuleNotFoundError:
        raise BadInput(
            "evaluate.general_tasks needs lm-evaluation-harness: pip install 'knowundo[lm-eval]'"
        ) from None
    with _quiet():
        return TaskManager(include_path=folder)


def _load(manager: Any, tasks: Sequence[str]) -> list[Any]:
    """The harness's tasks and groups with their data.

    Raises:
        BadInput: data that cannot be read, or a question that would be counted twice.
    """
    from datasets.exceptions import DatasetsError

    found: list[Any] = []
    seen: set[str] = set()
    for name in tasks:
        try:
            part = manager.load([name])
        except (
            DatasetsError, ImportError, KeyError, OSError, RuntimeError, TemplateError, TypeError,
            ValueError,
        ) as error:  # fmt: skip
            raise BadInput(
                f"general task '{name}': cannot be loaded ({_reason(error)}); mend its file, or "
                "put its data within reach"
            ) from error
        if twice := seen & set(part["tasks"]):
            raise BadInput(f"general task '{name}': '{min(twice)}' is already asked for; drop one")
        seen |= set(part["tasks"])
        found += [part["groups"][name]] if name in part["groups"] else part["tasks"].values()
    return found


def _harness(model: Model, batch_size: int, progress: Progress | None) -> Any:
    """The model in the harness's clothes."""
    from lm_eval.models.huggingface import HFLM

    class Harness(HFLM):
        """Tells our progress instead of the harness's, and counts what it cuts."""

        asked = answered = cut = 0

        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> Any:
            self.asked += len(requests)
            return super().loglikelihood(requests, disable_tqdm=True)

        def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = True) -> Any:
            self.asked += len(requests)
            return super().loglikelihood_rolling(requests, disable_tqdm=True)

        def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> Any:
            self.asked += len(requests)
            return super().generate_until(requests, disable_tqdm=True)

        def _loglikelihood_tokens(self, requests: Any, *args: Any, **rest: Any) -> Any:
            room = self.max_length + 1  # the last token is only predicted
            self.cut += sum(len(context) + len(answer) > room for _, context, answer in requests)
            return super()._loglikelihood_tokens(requests, *args, **rest)

        def tok_batch_encode(self, strings: Any, *args: Any, **rest: Any) -> Any:
            if room := rest.get("left_truncate_len"):
                self.cut += sum(len(self.tok_encode(text)) > room for text in strings)
            return super().tok_batch_encode(strings, *args, **rest)

        def add_partial(self, *answer: Any) -> None:
            """The harness's hook for one answered request."""
            self.answered += 1
            if progress:
                progress(self.answered, self.asked)

        def get_model_info(self) -> dict[str, Any]:
            return {}  # it would look the weights up on the hub

    # The harness gives a tokenizer without a padding token one: ours stays as it is.
    tokenizer = copy.deepcopy(model.tokenizer)
    harness = Harness(pretrained=model.net, tokenizer=tokenizer, batch_size=batch_size)
    harness.set_cache_hook(harness)
    return harness


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
                task_version=None if version in _NO_VERSION else version,
                records=records,
                subjects=records,
            )


def _finite(value: Any, unit: float) -> float | None:
    """A number of the harness in our unit; None for its "N/A" and for what is no number."""
    if value is None or isinstance(value, str) or not math.isfinite(value):
        return None
    return unit * float(value)


def _reason(error: Exception) -> str:
    """The first line of an error, or of the one behind it, which says more."""
    cause = error.__cause__ or error
    return (str(cause).strip() or type(cause).__name__).split("\n")[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Stdout belongs to results, and our own bar tells the progress."""
    import datasets
    from lm_eval.api import task

    logger, bars = logging.getLogger("lm_eval"), task.tqdm
    level, shown = logger.level, not datasets.are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    task.tqdm = partial(bars, disable=True)
    datasets.disable_progress_bars()
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        logger.setLevel(level)
        task.tqdm = bars
        if shown:
            datasets.enable_progress_bars()


@contextmanager
def _untouched(model: Model) -> Iterator[None]:
    """Give back the random generators and the training flag; the harness sets them all."""
    devices = [model.device] if model.device.type == "cuda" else []
    python, numpy, training = random.getstate(), np.random.get_state(), model.net.training
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        model.net.train(training)
