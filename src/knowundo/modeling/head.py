"""A model's map from final hidden states to logits, computed apart from its layers.

Answers are a few of a row's tokens, and logits over a vocabulary are what takes the memory, so
logits are computed at answer positions only. What a model does after its last layer is its own
business (a linear layer; scaling; soft-capping; a transform before the layer), so it is the model's
own `forward` that does it, with hidden states standing in for what its layers would have computed.
Whether that gives the model's own logits is tried once on a short row; where it does not, the whole
model runs, and its logits take the place of hidden states.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from knowundo.modeling.model import Model


class _Output:
    """What a decoder returns, as far as the code after it reads it: its last hidden states."""

    def __init__(self, states: torch.Tensor) -> None:
        self.last_hidden_state = states

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return getattr(self, key)
        return (self.last_hidden_state,)[key]

    def __len__(self) -> int:
        return 1

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


class _Given(torch.nn.Module):
    """Stands in for a decoder, whose settings can be read through it."""

    states: torch.Tensor

    def __init__(self, decoder: torch.nn.Module) -> None:
        super().__init__()
        self._decoder = (decoder,)  # not as a part of this one

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(vars(self)["_decoder"][0], name)

    def forward(self, *_: Any, **__: Any) -> _Output:
        return _Output(self.states)


def _path(module: torch.nn.Module) -> list[str] | None:
    """Names that lead to a causal LM's decoder; `None` if it is not a part of it."""
    decoder = module.get_decoder()  # type: ignore[operator]
    names = (name for name, part in module.named_modules() if part is decoder and name)
    return next((name.split(".") for name in names), None)


def _without_layers(
    module: torch.nn.Module, path: list[str], given: _Given, *, copied: bool
) -> torch.nn.Module:
    """The same module with `given` where `path` leads.

    Everything else is shared with it, or, if `copied`, is a frozen copy.
    """
    made = copy.copy(module)
    parts = dict(module._modules)
    for name, part in parts.items():
        if name == path[0]:
            inner = part if len(path) > 1 else None
            parts[name] = _without_layers(inner, path[1:], given, copied=copied) if inner else given
        elif copied and part is not None:
            parts[name] = copy.deepcopy(part).requires_grad_(False)
    if copied:
        own = module._parameters.items()
        made._parameters = {n: None if p is None else _frozen(p) for n, p in own}
    made._modules = parts
    return made


def _frozen(parameter: torch.nn.Parameter) -> torch.nn.Parameter:
    return torch.nn.Parameter(parameter.detach().clone(), requires_grad=False)


@dataclass(frozen=True)
class Head:
    """A map from hidden states [tokens, hidden] to logits [tokens, vocabulary].

    `module` is the causal LM with `given` in place of its layers; without one, the states are the
    logits already.
    """

    vocabulary: int
    module: torch.nn.Module | None = None
    given: _Given | None = None

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """Logits of hidden states."""
        if self.module is None or self.given is None:
            return states
        self.given.states = states[None]
        # Which tokens these are the states of is not read: what is made of ids is made in layers.
        ids = torch.zeros(1, len(states), dtype=torch.long, device=states.device)
        # The class's own: a hook on the whole model would run the whole model.
        forward: Callable[..., Any] = type(self.module).forward
        try:
            output = forward(self.module, input_ids=ids, use_cache=False, return_dict=True)
        finally:
            del self.given.states
        logits: torch.Tensor = output.logits[0]
        return logits

    @property
    def frozen(self) -> bool:
        """True if nothing of it is trained."""
        return self.module is None or not any(p.requires_grad for p in self.module.parameters())


def _width(model: Model) -> int:
    """Logits of a token."""
    module: Any = model.causal_lm()
    layer = module.get_output_embeddings()
    width = getattr(layer, "out_features", None)
    return int(module.config.get_text_config().vocab_size if width is None else width)


def separated_head(model: Model, *, copied: bool) -> Head:
    """The head of a model whose layers hidden states stand in for.

    Args:
        model: Not changed.
        copied: True for a frozen copy of its weights, which later training does not move.

    Raises:
        ValueError: The decoder is not a part of the model.
    """
    module: Any = model.causal_lm()
    path = _path(module)
    if path is None:
        raise ValueError("its decoder is not a part of it")
    given = _Given(module.get_decoder())
    return Head(_width(model), _without_layers(module, path, given, copied=copied), given)


def live_head(model: Model) -> Head:
    """The model's map from what `hidden_states` gives to logits."""
    return (
        separated_head(model, copied=False)
        if model.capabilities.separate_head
        else Head(_width(model))
    )


def trained_head(model: Model) -> bool:
    """True if the adaptation can change what a head makes of hidden states."""
    module = live_head(model).module
    own = {id(parameter) for parameter in model.parameters().values()}
    return module is not None and any(id(parameter) in own for parameter in module.parameters())


def frozen_head(model: Model) -> Head:
    """The same map as it is now, unmoved by later training."""
    return separated_head(model, copied=True) if trained_head(model) else live_head(model)
