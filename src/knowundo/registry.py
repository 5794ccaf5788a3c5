"""Everything that can be added by writing one file, such as a method, a metric or a benchmark.

A decorator registers a function under its own name; its keyword-only arguments are its
hyper-parameters, its docstring is its documentation. Files are found by scanning a folder of this
package, through the entry-point group `knowundo.<kind>` of other packages, and in the folders that
the environment variable KNOWUNDO_PLUGINS names.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib.metadata import entry_points
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, overload

from knowundo.entry import Entry
from knowundo.errors import BadInput, unknown

# The package in which the files of each kind are.
HOMES = {
    "method": "knowundo.unlearning.methods",
    "guard": "knowundo.unlearning.guards",
    "localizer": "knowundo.localization.localizers",
    "attack": "knowundo.attacks",
    "metric": "knowundo.evaluation.metrics",
    "scorer": "knowundo.evaluation.metrics",
    "benchmark": "knowundo.data.benchmarks",
    "combination": "knowundo.unlearning.gradients",
}

ENTRIES: dict[str, dict[str, Entry]] = {kind: {} for kind in HOMES}


def _register(kind: str, function: Callable[..., Any], **facts: Any) -> Entry:
    entry = Entry(kind, function.__name__, function, facts)
    entry.__doc__ = function.__doc__
    ENTRIES[kind][entry.name] = entry
    return entry


@overload
def method(function: Callable[..., Any]) -> Entry: ...
@overload
def method(*, reads: Sequence[str]) -> Callable[[Callable[..., Any]], Entry]: ...
def method(
    function: Callable[..., Any] | None = None, *, reads: Sequence[str] | None = None
) -> Entry | Callable[[Callable[..., Any]], Entry]:
    """Register an unlearning loss `(step, *, …) -> {part: scalar}`.

    Args:
        function: The loss, where the decorator is used without arguments.
        reads: What the loss reads of a step with its default hyper-parameters, among `unlearn`,
            `retention`, `alternative` and `reference`. If `None`, it is not declared.
    """
    if function is None:
        return lambda function: _register("method", function, reads=reads)
    return _register("method", function, reads=reads)


def guard(*, changes: Literal["prompt", "embeddings", "logits"]) -> Callable[..., Entry]:
    """Register `(asked, value, *, …) -> value`, a change to what a model is asked or answers.

    The function is called for each prompt, in teacher forcing and in generation alike.

    Args:
        changes: What the value is. `prompt`: its ids, a tuple; `embeddings`: those of its ids,
            [prompt tokens, hidden]; `logits`: those of answer tokens, [tokens, vocabulary].
    """
    return lambda function: _register("guard", function, changes=changes)


def localizer(
    function: Callable[..., Any] | None = None, *, needs: Sequence[str] | None = None
) -> Any:
    """Register `(measured, *, …) -> set of parameter names`, or a function that scores tensors.

    Args:
        function: Where the decorator is used without arguments: from cosine and magnitude.
        needs: What `(tensor, *, …) -> score` sees of it, among `gradients`, `squares`, `weights`
            and `base`; or `model`, for `(probe, *, …) -> {name: score}`. If `None`, as above.
    """
    register = partial(_register, "localizer", needs=needs)
    return register if function is None else register(function)


def attack(*, changes: Literal["weights", "questions", "answers"]) -> Callable[..., Entry]:
    """Register `(attacked, *, …) -> None`, which scores a model once in each of its settings.

    The function calls `attacked.score(setting)` or `attacked.keep(setting, table)`; see
    `attacked.Attacked`.

    Args:
        changes: What the attacker changes. `weights`: the model, which a guard does not protect;
            `questions`: what is asked; `answers`: how answers are read out of the model.
    """
    return lambda function: _register("attack", function, changes=changes)


def scorer(
    *, needs: Literal["tokens", "answer", "alternatives"], asked: bool = False
) -> Callable[[Callable[..., Any]], Entry]:
    """Register `(seen) -> float | None`, which makes a column of the scores of the same name.

    It is called once a record; `None` leaves the record out of the column.

    Args:
        needs: What it sees (`scoring.seen`). `tokens`: the model's predictions at the true answer's
            tokens; `answer`: what the model answers, of records that are answered freely;
            `alternatives`: how likely other answers are, of records that have some, which costs a
            forward pass for each.
        asked: Whether it runs only for metrics that `evaluate.metrics` names.
    """
    return lambda function: _register("scorer", function, needs=needs, asked=asked)


def metric(
    *,
    higher_is: str,
    unit: str = "percent",
    groups: Sequence[str] = (),
    asks: Sequence[str] = (),
    interval: bool = True,
) -> Callable[[Callable[..., Any]], Entry]:
    """Register `(scores, *, reference=None) -> float`, or a scorer, whose mean is the metric.

    The reference is the retain model's scores of the same records. A function without this argument
    does not get it.

    Args:
        higher_is: What a high value means: remembered, forgotten, fluent, damaged or refused.
        unit: "percent" or "ratio"; the mean of a scorer is multiplied by 100 for percent.
        groups: Of a metric over several groups, each `scope/split` or `scope/split/subset`: the
            function takes the scores of each, in this order, and the reference is a tuple of such.
            If empty, it is called for every group by itself.
        asks: Scorers with `asked` that it reads; it is measured where `evaluate.metrics` names it.
        interval: Whether resampling subjects tells how sure the value is.
    """
    facts: dict[str, Any] = {"higher_is": higher_is, "unit": unit}
    facts |= {"groups": tuple(groups), "asks": tuple(asks), "interval": interval}

    def register(function: Callable[..., Any]) -> Entry:
        if isinstance(function, Entry):
            return _register("metric", mean_of(function, 100 if unit == "percent" else 1), **facts)
        return _register("metric", function, **facts)

    return register


def mean_of(column: Entry, factor: float) -> Callable[..., float]:
    """The metric that is the mean of a scorer's column, times a factor."""

    def mean(scores: Mapping[str, Any]) -> float:
        return factor * float(scores[column.name].mean())

    mean.__name__, mean.__doc__ = column.name, column.function.__doc__
    mean.__module__ = column.function.__module__
    mean.factor = factor  # type: ignore[attr-defined]  # tells a mean from other metrics
    return mean


def benchmark(**facts: Any) -> Callable[[Callable[..., Any]], Entry]:
    """Register a record-builder `(*, domain, seed, …) -> list[Record]`.

    Args:
        facts: What is shown of it: `domains`, `licence`, `citation`, `counts`, `size`, `requires`
            (where the data are from); `facts_of_base`, the base that alone knows its general rows
            of subset `facts`: others go without them.
    """
    return lambda function: _register("benchmark", function, **facts)


def combination(**facts: Any) -> Callable[[Callable[..., Any]], Entry]:
    """Register `(gradients of a step, *, …) -> one gradient`; see `unlearning.combining`."""
    return lambda function: _register("combination", function, **facts)


DECORATORS: dict[str, Callable[..., Any]] = {
    one.__name__: one
    for one in (method, guard, localizer, attack, metric, scorer, benchmark, combination)
}


def own_files(kind: str) -> list[Traversable]:
    """The package's own files of a kind, sorted by name; nothing is imported for it."""
    # `files(HOMES[kind])` would import the package of the kind, and with it torch.
    package, *path = HOMES[kind].split(".")
    there = files(package).joinpath(*path).iterdir()
    own = (f for f in there if f.name.endswith(".py") and not f.name.startswith("_"))
    return sorted(own, key=lambda file: file.name)


def plugin_folders(plugins: str) -> list[str]:
    """The folders that KNOWUNDO_PLUGINS names."""
    return [folder for folder in plugins.split(os.pathsep) if folder]


@cache
def _load_file(path: Path) -> None:
    name = f"knowundo_plugin_{path.stem}"
    if not (spec := importlib.util.spec_from_file_location(name, path)) or spec.loader is None:
        raise BadInput(f"{path}: cannot be imported as a plugin; it must be a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


@cache
def _scan(kind: str, plugins: str) -> None:
    for file in own_files(kind):
        importlib.import_module(f"{HOMES[kind]}.{file.name[:-3]}")
    for point in entry_points(group=f"knowundo.{kind}"):
        point.load()
    for folder in plugin_folders(plugins):
        paths = sorted(Path(folder).glob("*.py"))
        if not paths:
            raise BadInput(f"KNOWUNDO_PLUGINS: no .py file in {folder}; name an existing folder")
        for path in paths:
            _load_file(path)


def entries(kind: str) -> dict[str, Entry]:
    """All registered entries of a kind by name, sorted."""
    _scan(kind, os.environ.get("KNOWUNDO_PLUGINS", ""))
    return dict(sorted(ENTRIES[kind].items()))


def get(kind: str, name: str) -> Entry:
    """One entry.

    Raises:
        BadInput: There is none of that name; suggests the nearest.
    """
    known = entries(kind)
    if name not in known:
        raise unknown(kind, name, known)
    return known[name]


def planned_entry(name: str) -> Entry:
    """The method or guard that a plan names.

    Raises:
        BadInput: There is none of that name; suggests the nearest.
    """
    known = entries("guard") | entries("method")
    if name not in known:
        raise unknown("method", name, known)
    return known[name]


def trained_entry(name: str) -> Entry:
    """The method of that name, or the loss of the assistant of a guard of that name.

    Raises:
        BadInput: There is none of that name, or the guard trains nothing.
    """
    entry = planned_entry(name)
    if entry.trained is None:
        raise BadInput(f"guard {name} trains nothing; name a method")
    return entry.trained
