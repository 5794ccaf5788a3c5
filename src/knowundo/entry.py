"""A registered function: its hyper-parameters, its documentation and what belongs to it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from knowundo.errors import BadInput, unknown
from knowundo.region_rule import RULE_DEFAULTS, RULE_TYPES


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
        kind: One of `registry.HOMES`.
        name: The function's name.
        function: What is called.
        facts: Keyword arguments of the decorator, such as a metric's unit.
        prepare_function: Of a method, makes columns once per record, before training; of a guard,
            makes what it needs of the train rows.
        state_function: Makes the state of the next optimizer step; methods only.
        edit_function: Makes weights of those before and after training; methods only.
        loss_function: What a second LoRA is trained with, the assistant; guards only.
        begin_function: Makes the weights that training begins with; methods only.
    """

    kind: str
    name: str
    function: Callable[..., Any]
    facts: dict[str, Any] = field(default_factory=dict)
    prepare_function: Callable[..., Any] | None = None
    state_function: Callable[..., Any] | None = None
    edit_function: Callable[..., Any] | None = None
    loss_function: Callable[..., Any] | None = None
    begin_function: Callable[..., Any] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself."""
        return self.function(*args, **kwargs)

    def prepare(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorator: `function` makes columns once per record, before training.

        Of a guard it is `(rows, scorer, *, …) -> {name: value}` of the train rows by scope; values
        are tensors, or what JSON can hold, and numbers by name under `measured` are reported. Its
        keyword-only arguments may be hyper-parameters.

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

    def begin(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorator: weights that training begins with, made of the memorized ones.

        Args:
            function: `(memorized, columns, seed, *, …) -> {parameter name: tensor}`, of the region;
                what it leaves out stays as it is. `columns` is what `prepare` made. Its
                keyword-only arguments may be hyper-parameters.

        Raises:
            BadInput: One of them is not.
        """
        self._check_names(function)
        self.begin_function = function
        return function

    def loss(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorator: the loss of a guard's assistant, a second LoRA beside the memorized one.

        Args:
            function: As of a method. Its keyword-only arguments may be hyper-parameters.

        Raises:
            BadInput: One of them is not.
        """
        self._check_names(function)
        self.loss_function = function
        return function

    @property
    def trained(self) -> Entry | None:
        """The loss that is trained: a method itself, or a guard's assistant if it has one."""
        if self.kind != "guard":
            return self
        if self.loss_function is None:
            return None
        return Entry("method", self.name, self.loss_function)

    def _check_names(self, function: Callable[..., Any]) -> None:
        for name in keyword_defaults(function):
            if name not in self.arguments:
                raise unknown(f"argument of {self.kind} {self.name}", name, self.arguments)

    @property
    def arguments(self) -> dict[str, Any]:
        """Hyper-parameters and their defaults: of the signature, and of a region's rule."""
        return keyword_defaults(self.function) | (RULE_DEFAULTS if self.facts.get("needs") else {})

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return (inspect.getdoc(self.function) or "").split("\n")[0]

    @property
    def source(self) -> str:
        """Source code of the function and what belongs to it: artifacts depend on it."""
        own = self.prepare_function, self.state_function, self.loss_function
        also = *own, self.edit_function, self.begin_function
        functions = [self.function, *(function for function in also if function is not None)]
        return "\n".join(inspect.getsource(function) for function in functions)

    def _check_type(self, name: str, value: Any) -> None:
        from pydantic import TypeAdapter, ValidationError

        hints = get_type_hints(self.function, include_extras=True)
        hints |= RULE_TYPES if self.facts.get("needs") else {}
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
