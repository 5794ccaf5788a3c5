"""lm-evaluation-harness itself: its task index, its model wrapper, and what it prints."""

from __future__ import annotations

import copy
import logging
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jinja2 import TemplateError

from knowundo.errors import BadInput
from knowundo.modeling.model import Model
from knowundo.progress import Progress

# What the harness says of a task without a version.
NO_VERSION = ("N/A", "Yaml", "None")
# Resamples behind standard errors without a formula (F1, BLEU, perplexity).
RESAMPLES = 1000


def task_manager(folder: str | Path | None) -> Any:
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
            raise BadInput(f"{file}: not YAML ({reason_of(error)}); fix it") from None
    return _index(place.resolve(), files)


@cache
def _index(folder: Path | None, files: tuple[Path, ...]) -> Any:
    try:
        from lm_eval.tasks import TaskManager
    except ModuleNotFoundError:
        raise BadInput(
            "evaluate.general_tasks needs lm-evaluation-harness: pip install 'knowundo[lm-eval]'"
        ) from None
    with quiet_harness():
        return TaskManager(include_path=folder)


def load_tasks(manager: Any, tasks: Sequence[str]) -> list[Any]:
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
                f"general task '{name}': cannot be loaded ({reason_of(error)}); fix its file, or "
                "put its data within reach"
            ) from error
        if twice := seen & set(part["tasks"]):
            raise BadInput(f"general task '{name}': '{min(twice)}' is already asked for; drop one")
        seen |= set(part["tasks"])
        found += [part["groups"][name]] if name in part["groups"] else part["tasks"].values()
    return found


def run_harness(model: Model, batch_size: int, progress: Progress | None) -> Any:
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
            return {}  # it would request the weights from the hub

    # The harness gives a tokenizer without a padding token one: ours stays as it is.
    tokenizer = copy.deepcopy(model.tokenizer)
    harness = Harness(pretrained=model.net, tokenizer=tokenizer, batch_size=batch_size)
    harness.set_cache_hook(harness)
    return harness


def reason_of(error: Exception) -> str:
    """The first line of an error, or of the one behind it, which says more."""
    cause = error.__cause__ or error
    return (str(cause).strip() or type(cause).__name__).split("\n")[0]


@contextmanager
def quiet_harness() -> Iterator[None]:
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
def untouched_globals(model: Model) -> Iterator[None]:
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
