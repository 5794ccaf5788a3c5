"""How the gradients of unlearning and of retention become one, by the name that a recipe gives.

A method names the parts of its loss. The gradient of the part `unlearn` and that of all other parts
together are accumulated over the whole batch of an optimizer step, combined by one of the files in
`unlearning/gradients/`, and then clipped. Both are one vector over all parameters of the region:
whether they conflict is decided once for the region, not by tensor.

A file registers `(step, *, …) -> gradient` with `@combination()`, which takes these facts:

- `retention=False`: the loss needs no part beside `unlearn`.
- `by_row=True`: a micro-batch has one row of the smaller half, so that `step.retentions` are of
  single retention rows where there are as many of them as unlearn rows.
- `holds=(names,)`: gradients that it keeps from step to step (`step.kept`, `step.held`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from knowundo.entry import Entry
from knowundo.errors import BadInput, unknown
from knowundo.modeling.step import Parts
from knowundo.registry import entries
from knowundo.training.separate_gradients import Gradients, StepGradients

# As a recipe says it: a name, or a mapping of `name` and hyper-parameters.
Asked = str | Mapping[str, Any]
SUM = "sum"


def chosen(gradients: Asked) -> tuple[Entry, dict[str, Any]] | None:
    """The combination that a recipe asks for, and its hyper-parameters, defaults included.

    Args:
        gradients: A name such as `gru`, or `{name: gru, weight: 0.9}`.

    Returns:
        `None` for `sum`: the parts are added before one backward pass.

    Raises:
        BadInput: No such combination, or no such hyper-parameter or value of it.
    """
    arguments = {} if isinstance(gradients, str) else dict(gradients)
    name = gradients if isinstance(gradients, str) else arguments.pop("name", None)
    if not isinstance(name, str):
        raise BadInput("gradients: say a name, or a mapping with one such as {name: sam, rho: 0.1}")
    if name == SUM:
        if arguments:
            raise BadInput(f"gradients sum: it has no argument '{next(iter(arguments))}'; say sum")
        return None
    known = entries("combination")
    if (key := name.replace("-", "_")) not in known:
        raise unknown("gradients", name, [SUM, *known])
    return known[key], known[key].bind(arguments)


def said(gradients: Asked) -> str | dict[str, Any]:
    """What a recipe says of gradients, with the defaults of hyper-parameters where there are any.

    Raises:
        BadInput: See `chosen`.
    """
    found = chosen(gradients)
    if found is None:
        return SUM
    entry, bound = found
    return {"name": entry.name} | bound if bound else entry.name


def combination(gradients: Asked, method: str) -> Combined | None:
    """What combines the gradients of a method's parts.

    Args:
        gradients: See `chosen`.
        method: Name of the method, for messages.

    Returns:
        `None` for `sum`.

    Raises:
        BadInput: See `chosen`.
    """
    found = chosen(gradients)
    return None if found is None else Combined(*found, method)


class Combined:
    """A registered combination with its hyper-parameters.

    Attributes:
        entry: The combination.
        bound: Its hyper-parameters.
        by_row: Whether a micro-batch has one row of the smaller half.
        holds: Names of the gradients that are kept from step to step.
    """

    def __init__(self, entry: Entry, bound: Mapping[str, Any], method: str) -> None:
        """Combine nothing yet.

        Args:
            entry: The combination.
            bound: Its hyper-parameters.
            method: Name of the method, for messages.
        """
        self.entry, self.bound, self._method = entry, bound, method
        self.by_row: bool = entry.facts.get("by_row", False)
        self.holds: tuple[str, ...] = tuple(entry.facts.get("holds", ()))

    def losses(self, parts: Parts) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The part `unlearn`, and the sum of all others, if there are any.

        Raises:
            BadInput: One that is needed is missing.
        """
        others = [part for name, part in parts.items() if name != "unlearn"]
        if "unlearn" not in parts or (needs_retention(self.entry) and not others):
            raise BadInput(
                f"gradients {self.entry.name}: the loss of {self._method} has the parts: "
                f"{', '.join(parts)}; it takes 'unlearn' and another one: give retention a "
                "weight, or take gradients sum"
            )
        return parts["unlearn"], torch.stack(others).sum() if others else None

    def combine(self, step: StepGradients) -> Gradients:
        """One gradient, of those of the whole batch."""
        found: Gradients = self.entry(step, **self.bound)
        return found


def needs_retention(entry: Entry) -> bool:
    """Whether a combination needs a part beside `unlearn`."""
    return bool(entry.facts.get("retention", True))
