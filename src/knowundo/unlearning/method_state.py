"""Numbers that a method carries from one optimizer step to the next, such as a dual variable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from knowundo.entry import Entry, taken
from knowundo.storage.checkpoints import State


class MethodState:
    """The state of one training with a method, which its checkpoint holds.

    Attributes:
        values: By name, as the loss reads them in `step.state`.
    """

    def __init__(self, method: Entry, bound: Mapping[str, Any], steps: int) -> None:
        """Begin with the method's first state.

        Args:
            method: Of the training; its `state` is called.
            bound: Its hyper-parameters.
            steps: Optimizer steps of the whole training.
        """
        self._method, self._bound, self._steps = method, bound, steps
        self._done = 0
        self.values: dict[str, float] = method.first_state(bound)

    def after_step(self, parts: Mapping[str, float]) -> None:
        """Take the next state.

        Args:
            parts: Of the loss in the optimizer step that is complete, over its whole batch.
        """
        self._done += 1
        if (function := self._method.state_function) is not None:
            own = taken(function, self._bound)
            self.values = dict(function(self.values, parts, self._done / self._steps, **own))

    def state_dict(self) -> State:
        """Return the values, which JSON holds to the bit."""
        return State({"values": self.values, "done": self._done})

    def load_state_dict(self, state: State) -> None:
        """Take over a state that `state_dict` returned."""
        self.values, self._done = dict(state.facts["values"]), state.facts["done"]

    def rollback(self) -> None:
        """Do nothing: the state changes after an optimizer step only."""
