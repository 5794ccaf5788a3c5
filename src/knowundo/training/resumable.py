"""State that a resumed training needs beside the weights, as what a checkpoint can hold."""

from __future__ import annotations

import random
from typing import Any, Protocol

import numpy as np
import torch

from knowundo.storage.checkpoints import State


class Resumable(Protocol):
    """Something that training changes beside the weights, so that a checkpoint must hold it."""

    def state_dict(self) -> State:
        """Return its present state."""

    def load_state_dict(self, state: State) -> None:
        """Take over a state that `state_dict` returned."""

    def rollback(self) -> None:
        """Discard what was recorded since the last optimizer step: that step is repeated."""


class RandomState:
    """The state of every random number generator that training may draw from."""

    def __init__(self, device: torch.device) -> None:
        """Read nothing yet; `device` is the model's, whose generator counts too."""
        self.device = device

    def state_dict(self) -> State:
        """Return the states of Python's, NumPy's and torch's generators."""
        version, words, gauss = random.getstate()
        kind, keys, place, has_gauss, cached = np.random.get_state()
        tensors = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(np.array(keys))}
        if self.device.type == "cuda":
            tensors["cuda"] = torch.cuda.get_rng_state(self.device)
        facts = {
            "python": [version, list(words), gauss],
            "numpy": [str(kind), int(place), int(has_gauss), float(cached)],
        }
        return State(facts, tensors)

    def load_state_dict(self, state: State) -> None:
        """Set all generators to a state that `state_dict` returned."""
        version, words, gauss = state.facts["python"]
        random.setstate((version, tuple(words), gauss))
        kind, place, has_gauss, cached = state.facts["numpy"]
        np.random.set_state((kind, state.tensors["numpy"].numpy(), place, has_gauss, cached))
        torch.set_rng_state(state.tensors["torch"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state.tensors["cuda"], self.device)


class OptimizerState:
    """An optimizer's state: its tensors, and the numbers beside them."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        """Read nothing yet."""
        self.optimizer = optimizer

    def state_dict(self) -> State:
        """Return the optimizer's state; its tensors in the host's memory."""
        held = self.optimizer.state_dict()
        state = State({"param_groups": held["param_groups"], "numbers": {}})
        for number, values in held["state"].items():
            for name, value in values.items():
                # safetensors holds tensors only, so that plain numbers go into the JSON file.
                if isinstance(value, torch.Tensor):
                    state.tensors[f"{number}.{name}"] = value.detach().cpu()
                else:
                    state.facts["numbers"][f"{number}.{name}"] = value
        return state

    def load_state_dict(self, state: State) -> None:
        """Take over a state that `state_dict` returned."""
        values: dict[int, dict[str, Any]] = {}
        for key, value in (state.facts["numbers"] | state.tensors).items():
            number, name = key.split(".", 1)
            values.setdefault(int(number), {})[name] = value
        groups = state.facts["param_groups"]
        self.optimizer.load_state_dict({"state": values, "param_groups": groups})
