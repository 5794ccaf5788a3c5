"""One parameter tensor as a localizer sees it: gradients of each scope, and its weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from knowundo.errors import KnowUndoError
from knowundo.region_rule import Granularity


@dataclass(frozen=True)
class ScopeGradients:
    """What the rows of one scope say of a tensor, over their noisy copies.

    Attributes:
        mean: Mean gradient of a row's mean answer cross-entropy, in the tensor's shape. `None` if
            it was not asked for.
        mean_square: Mean over rows of the squared gradient, the diagonal of the empirical Fisher
            information, in the tensor's shape. `None` if it was not asked for.
    """

    mean: torch.Tensor | None = None
    mean_square: torch.Tensor | None = None

    @property
    def gradient(self) -> torch.Tensor:
        """The mean gradient, in float64.

        Raises:
            KnowUndoError: The localizer does not declare that it needs it.
        """
        return _declared(self.mean, "gradients")

    @property
    def squares(self) -> torch.Tensor:
        """The mean squared gradient, in float64.

        Raises:
            KnowUndoError: The localizer does not declare that it needs it.
        """
        return _declared(self.mean_square, "squares")


@dataclass(frozen=True)
class TensorView:
    """One parameter tensor of the memorized model.

    Attributes:
        name: Of the parameter.
        granularity: What of it is chosen or left as a whole.
        unlearn: Gradients of the unlearn rows.
        retention: Gradients of the retention rows.
        now: Its weights in the memorized model. `None` if they were not asked for.
        before: Its weights in the base; a LoRA without effect. `None` if they were not asked for.
    """

    name: str
    granularity: Granularity = "tensor"
    unlearn: ScopeGradients = ScopeGradients()
    retention: ScopeGradients = ScopeGradients()
    now: torch.Tensor | None = None
    before: torch.Tensor | None = None

    @property
    def weights(self) -> torch.Tensor:
        """The memorized weights, in float64.

        Raises:
            KnowUndoError: The localizer does not declare that it needs them.
        """
        return _declared(self.now, "weights")

    @property
    def change(self) -> torch.Tensor:
        """Memorized weights minus those of the base, in float64.

        Raises:
            KnowUndoError: The localizer does not declare that it needs both.
        """
        return self.weights - _declared(self.before, "base")

    def pool(self, values: torch.Tensor) -> torch.Tensor:
        """Mean of the values of each unit that is chosen or left as a whole.

        Args:
            values: In the tensor's shape.

        Returns:
            One value a unit, in a shape that broadcasts to the tensor's.
        """
        axes = tuple(range(values.ndim))
        if self.granularity == "weight":
            return values
        if self.granularity in ("row", "column"):
            own = 0 if self.granularity == "row" or values.ndim < 2 else 1
            axes = tuple(axis for axis in axes if axis != own)
        return values.mean(axes, keepdim=True) if axes else values


def _declared(value: torch.Tensor | None, need: str) -> torch.Tensor:
    if value is None:
        raise KnowUndoError(f"declare it: @localizer(needs=…) has to name '{need}'")
    return value.double()
