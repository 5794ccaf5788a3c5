"""Mean gradients of each tensor over rows, a few tensors in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from knowundo.data.batches import by_length
from knowundo.data.encoded import Encoded
from knowundo.distributed.group import group
from knowundo.distributed.sums import own_share, sum_gradients
from knowundo.modeling.fast.microbatches import micro_batches
from knowundo.modeling.fast.oom import halved
from knowundo.modeling.forward import hidden_states
from knowundo.modeling.half import Half
from knowundo.modeling.head import live_head
from knowundo.modeling.model import Model


@dataclass(frozen=True)
class Measured:
    """What a localizer sees of each tensor: two numbers, so that no gradient has to stay.

    Attributes:
        cosines: cos(g_unlearn, g_retention) by parameter name.
        magnitudes: Mean |g_unlearn| by parameter name.
    """

    cosines: dict[str, float]
    magnitudes: dict[str, float]

    @property
    def names(self) -> list[str]:
        """Names of the tensors that were measured; of a fresh LoRA only those of B."""
        return list(self.cosines)

    def cosine(self, name: str) -> float:
        """Return cos(g_unlearn, g_retention) of one tensor; 0 where either vanishes."""
        return self.cosines[name]

    def magnitude(self, name: str) -> float:
        """Return the mean |g_unlearn| of one tensor."""
        return self.magnitudes[name]


@dataclass
class Gradients:
    """Mean gradients of tensors over the noisy rows of each scope, by parameter name."""

    unlearn: dict[str, torch.Tensor]
    retention: dict[str, torch.Tensor]

    def measured(self) -> Measured:
        """Return the two numbers of each tensor."""
        names = list(self.unlearn)
        magnitudes = {name: float(self.unlearn[name].double().abs().mean()) for name in names}
        return Measured({name: self._cosine(name) for name in names}, magnitudes)

    def _cosine(self, name: str) -> float:
        # In double precision: the sums run over millions of products.
        a, b = self.unlearn[name].double().flatten(), self.retention[name].double().flatten()
        norms = float(a.norm() * b.norm())
        return float(a @ b) / norms if norms > 0 else 0.0


def mean_gradients(
    model: Model,
    encoded: Sequence[Encoded],
    *,
    batch_size: int = 32,
    names: Iterable[str] | None = None,
    begin: Sums | None = None,
    each: Callable[[Sums], None] | None = None,
) -> dict[str, torch.Tensor]:
    """Mean over rows of the gradient of each row's mean answer cross-entropy.

    One backward pass per batch: the gradient of the sum of row losses is the sum of row gradients.
    Where memory runs out, all is summed again in batches of half the size. Of several processes
    each takes its share of the rows, and sums begin with the first.

    Args:
        model: Not changed.
        encoded: The rows.
        batch_size: Rows per backward pass.
        names: Parameters whose gradients are wanted. If `None`, all that can be trained.
        begin: Sums over the first batches, which are then left out. If `None`, all are summed.
        each: Called with the sums after each batch.

    Returns:
        The gradients by parameter name, each in the shape of its parameter.
    """
    own = model.parameters()
    wanted = {name: own[name] for name in (own if names is None else names)}
    if group().size > 1:
        begin = each = None  # a checkpoint would hold the sums of one process only
    size = batch_size if begin is None else begin.size
    try:
        while True:
            model.train_only(wanted)
            try:
                _sum(model, encoded, size, wanted, begin, each)
                break
            except RuntimeError as error:
                size = halved(min(size, len(encoded)), error, model.notes.add, "localization")
            begin = None
        sum_gradients(list(wanted.values()))
        return {
            name: torch.zeros_like(p) if p.grad is None else p.grad.detach()
            for name, p in wanted.items()
        }
    finally:
        for parameter in wanted.values():
            parameter.grad = None  # the caller has the tensors; training must not find them
        model.train_only([])


@dataclass
class Sums:
    """Gradients summed over the first batches, `size` rows each."""

    batches: int
    size: int
    gradients: dict[str, torch.Tensor]


def _sum(
    model: Model,
    encoded: Sequence[Encoded],
    size: int,
    wanted: Mapping[str, torch.nn.Parameter],
    begin: Sums | None,
    each: Callable[[Sums], None] | None,
) -> None:
    """Add up the gradients of this process's rows in `.grad`."""
    for name, parameter in wanted.items():
        held = None if begin is None else begin.gradients.get(name)
        parameter.grad = None if held is None else held.to(parameter.device)
    done = 0 if begin is None else begin.batches
    own = encoded[own_share()]
    for number, batch in enumerate(by_length(own, size, model.pad)[done:], start=done + 1):
        for piece in micro_batches(batch, tokens=model.tokens, shared=model.capabilities.packing):
            piece = piece.to(model.device)
            half = Half(piece, hidden_states(model, piece), live_head(model))
            # Divided by all rows, so that batches of any size add up to the mean.
            (half.mean_nll.sum() / len(encoded)).backward()
        if each:
            got = {name: p.grad for name, p in wanted.items() if p.grad is not None}
            each(Sums(number, size, got))


def in_groups(sizes: Mapping[str, int], held: int | None) -> Iterator[list[str]]:
    """Divide tensors into groups, in their order.

    Args:
        sizes: Parameters of each tensor, by name.
        held: The most parameters of a group; a larger tensor is a group of its own. If `None`,
            there is one group.
    """
    group: list[str] = []
    for name, size in sizes.items():
        if group and held is not None and sum(sizes[n] for n in group) + size > held:
            yield group
            group = []
        group.append(name)
    yield group
