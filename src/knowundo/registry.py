"""Everything that can be added by writing one file, such as a method, a metric or a benchmark.

A decorator registers a function under its own name; its keyword-only arguments are its
hyper-parameters, its docstring is its documentation. Files are found by scanning a folder of this
package, through the entry-point group `knowundo.<kind>` of other packages, and in the folders that
the environment variable KNOWUNDO_PLUGINS names.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, get_type_hints, overload

from knowundo.errors import BadInput, unknown

# The package in which the files of each kind are.
HOMES = {
    "method": "knowundo.unlearning.methods",
    "localizer": "knowundo.localization.localizers",
    "metric": "knowundo.evaluation.metrics",
    "benchmark": "knowundo.data.benchmarks",
    "combination": "knowundo.unlearning.gradients",
}


def keyword_defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """Keyword-only arguments and their defaults."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def taken(function: Callable[..., Any] | None, bound: Mapping[str, Any]) -> dict[str, Any]:
    """The hyper-parameters that a function takes, with their values."""
    return {} if function is None else {name: bound[name] for name in keyword_defaults(function)}


@dataclass
class Entry:
    """A registered function with what its author declared.

    Attributes:
        kind: One of `HOMES`.
        name: The function's name.
        function: What is called.
        facts: Keyword arguments of the decorator, such as a metric's unit.
        prepare_function: Makes columns once per record, before training; methods only.
        state_function: Makes the state of the next optimizer step; methods only.
        edit_function: Makes weights of those before and after training; methods only.
    """

    kind: str
    name: str
    function: Callable[..., Any]
    facts: dict[str, Any] = field(default_factory=dict)
    prepare_function: Callable[..., Any] | None = None
    state_function: Callable[..., Any] | None = None
    edit_function: Callable[..., Any] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself."""
        return self.function(*args, **kwargs)

    def prepare(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorator: `function` makes columns once per record, before training.

        Its keyword-only arguments may be hyper-parameters of the method.

        Raises:
            BadInput: One of them is not.
        """
        self._check_names(function)
        self.prepare_function = function
        return function

    def prepare_arguments(self, bound: Mapping[str, Any]) -> dict[str, Any]:
        """The hyper-parameters that the method's `prepare` takes, with their values."""
        return taken(self.prepare_function, bound)

    def state(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorator: numbers that the loss carries from one optimizer step to the next.

        Checkpoints hold them, and the loss reads them as `step.state`.

        Args:
            function: `(before, parts, done, *, …) -> {name: number}`. `before` is the state of the
                step that is complete, `None` before the first one; `parts` are the values of the
                loss's parts over that step's whole batch; `done` is the share of the optimizer
                steps that are complete. Its keyword-only arguments may be hyper-parameters.

        Raises:
            BadInput: One of them is not.
        """
        self._check_names(function)
        self.state_function = function
        return function

    def first_state(self, bound: Mapping[str, Any]) -> dict[str, float]:
        """The state of the first optimizer step; empty for a method without one."""
        if self.state_function is None:
            return {}
        return dict(self.state_function(None, {}, 0.0, **taken(self.state_function, bound)))

    def edit(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorator: weights that are a function of those before and after training.

        Args:
            function: `(memorized, trained, *, …) -> {parameter name: tensor}`, of dictionaries of
                the same names. Its keyword-only arguments may be hyper-parameters.

        Raises:
            BadInput: One of them is not.
        """
        self._check_names(function)
        self.edit_function = function
        return function

    def _check_names(self, function: Callable[..., Any]) -> None:
        for name in keyword_defaults(function):
            if name not in self.arguments:
                raise unknown(f"argument of {self.kind} {self.name}", name, self.arguments)

    @property
    def arguments(self) -> dict[str, Any]:
        """Hyper-parameters and their defaults, read from the signature."""
        return keyword_defaults(self.function)

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return (inspect.getdoc(self.function) or "").split("\n")[0]

    @property
    def source(self) -> str:
        """Source code of the function and what belongs to it: artifacts depend on it."""
        also = self.prepare_function, self.state_function, self.edit_function
        functions = [self.function, *(function for function in also if function is not None)]
        return "\n".join(inspect.getsource(function) for function in functions)

    def _check_type(self, name: str, value: Any) -> None:
        from pydantic import TypeAdapter, ValidationError

        hints = get_type_hints(self.function, include_extras=True)
        if name not in hints:
            return
        try:
            TypeAdapter(hints[name]).validate_python(value)
        except ValidationError as error:
            said = error.errors()[0]["msg"]
            raise BadInput(f"{self.kind} {self.name}: {name}: {said}; correct this value") from None

    def bind(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """All hyper-parameters: the given ones over the defaults.

        Raises:
            BadInput: A name is not in the signature, a required one is missing, or a value does not
                have the annotated type or range.
        """
        for name in arguments:
            if name not in self.arguments:
                raise unknown(f"argument of {self.kind} {self.name}", name, self.arguments)
            self._check_type(name, arguments[name])
        bound = self.arguments | arguments
        for name, value in bound.items():
            if value is inspect.Parameter.empty:
                raise BadInput(f"{self.kind} {self.name} needs '{name}': give it in the recipe")
        return bound


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


def localizer(function: Callable[..., Any]) -> Entry:
    """Register `(gradients, *, …) -> set of parameter names`."""
    return _register("localizer", function)


def metric(*, higher_is: str, unit: str = "percent") -> Callable[[Callable[..., Any]], Entry]:
    """Register `(scores) -> float`.

    Args:
        higher_is: What a high value means, such as "remembered".
        unit: "percent" or "ratio".
    """
    return lambda function: _register("metric", function, higher_is=higher_is, unit=unit)


def benchmark(**facts: Any) -> Callable[[Callable[..., Any]], Entry]:
    """Register a record-builder `(*, domain, seed, …) -> list[Record]`.

    Args:
        facts: What is shown of it: `domains`, `licence`, `citation`, `counts`. A builder whose
            general rows of subset `facts` are what one base knows, and others do not, names that
            base as `facts_of_base`: beside other bases those rows are left out.
    """
    return lambda function: _register("benchmark", function, **facts)


def combination(**facts: Any) -> Callable[[Callable[..., Any]], Entry]:
    """Register `(gradients of a step, *, …) -> one gradient`; see `unlearning.combining`."""
    return lambda function: _register("combination", function, **facts)


DECORATORS: dict[str, Callable[..., Any]] = {
    one.__name__: one for one in (method, localizer, metric, benchmark, combination)
}


def own_files(kind: str) -> list[Traversable]:
    """The package's own files of a kind, sorted by name; nothing is imported for it."""
    # `files(HOMES[kind])` would import the package of the kind, and with it torch.
    package, *path = HOMES[kind].split(".")
    home = files(package).joinpath(*path)
    found = (f for f in home.iterdir() if f.name.endswith(".py") and not f.name.startswith("_"))
    return sorted(found, key=lambda file: file.name)


def plugin_folders(plugins: str) -> list[str]:
    """The folders that KNOWUNDO_PLUGINS names."""
    return [folder for folder in plugins.split(os.pathsep) if folder]


@cache
def _load_file(path: Path) -> None:
    name = f"knowundo_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
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
