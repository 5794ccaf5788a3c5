"""localize(): which tensors hold the unlearn scope and not the retention scope?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from knowundo import regions
from knowundo.batches import by_length
from knowundo.encoding import Encoded
from knowundo.forwards import Half, hidden_states, live_head
from knowundo.models import Model
from knowundo.progress import Progress
from knowundo.registry import get


@dataclass
class Gradients:
    """Mean gradients of every trainable tensor over the noisy records of each scope."""

    unlearn: dict[str, torch.Tensor]
    retention: dict[str, torch.Tensor]

    def cosine(self, name: str) -> float:
        """cos(g_unlearn, g_retention) of one tensor; 0 where either vanishes."""
        a, b = self.unlearn[name].double().flatten(), self.retention[name].double().flatten()
        norms = float(a.norm() * b.norm())
        return float(a @ b) / norms if norms > 0 else 0.0

    def magnitude(self, name: str) -> float:
        """mean |g_unlearn| of one tensor."""
        return float(self.unlearn[name].double().abs().mean())


def noisy_copies(
    encoded: Sequence[Encoded], *, copies: int, vocabulary: int, seed: int
) -> list[Encoded]:
    """Copies of each row with half of its answer's tokens replaced by random ones.

    As in KnowUnDo's repository: the tokens change in the input and in the labels together, the
    places are drawn with replacement (so less than half changes), end-of-sequence stays.
    """
    generator = torch.Generator().manual_seed(seed)
    noisy = []
    for row in encoded:
        length = row.answer_length - row.tail
        for _ in range(copies):
            ids = list(row.ids)
            places = torch.randint(max(length, 1), (length // 2,), generator=generator)
            tokens = torch.randint(vocabulary, (length // 2,), generator=generator)
            for place, token in zip(places.tolist(), tokens.tolist(), strict=True):
                ids[row.answer_from + place] = token
            noisy.append(replace(row, ids=tuple(ids)))
    return noisy


def mean_gradients(
    model: Model, encoded: Sequence[Encoded], *, batch_size: int = 32
) -> dict[str, torch.Tensor]:
    """Mean over rows of the gradient of each row's mean answer cross-entropy.

    One backward a batch: the gradient of the sum of row losses is the sum of row gradients.
    """
    chosen = model.train_only(model.parameters())
    for parameter in chosen:
        parameter.grad = None
    for batch in by_length(encoded, batch_size, model.pad):
        batch = batch.to(model.device)
        half = Half(batch, hidden_states(model, batch), live_head(model))
        (half.mean_nll.sum() / len(encoded)).backward()
    gradients = {}
    for name, parameter in model.parameters().items():
        value = parameter.grad
        gradients[name] = torch.zeros_like(parameter) if value is None else value.detach()
        parameter.grad = None
    model.train_only([])
    return gradients


def localize(
    model: Model,
    unlearn: Sequence[Encoded],
    retention: Sequence[Encoded],
    localizers: dict[str, dict[str, Any]],
    *,
    copies: int,
    batch_size: int,
    draws: int,
    seed: int,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Find regions by gradients, and the controls that any claim needs.

    Args:
        model: the memorized model; not changed.
        unlearn: rows that must go.
        retention: rows that must stay.
        localizers: name → arguments.
        copies: noisy copies of each row (the paper averages 5, its code 3).
        batch_size: rows a backward pass.
        draws: random regions with as many parameters as each located one.
        seed: of noise and draws.
        progress: called with (done, total).

    Returns:
        `tensors`: of each trainable tensor its name, place, size, cosine and magnitude;
        `regions`: name → parameter names, among them `everything` and `random-<n>`;
        `parameters`: size of each region.
    """
    steps = len(localizers) + 2
    vocabulary = model.causal_lm().get_input_embeddings().num_embeddings  # type: ignore[operator]
    means = {}
    for number, (scope, rows) in enumerate((("unlearn", unlearn), ("retention", retention))):
        noisy = noisy_copies(rows, copies=copies, vocabulary=vocabulary, seed=seed + number)
        means[scope] = mean_gradients(model, noisy, batch_size=batch_size)
        if progress:
            progress(number + 1, steps)
    gradients = Gradients(**means)
    sizes = {name: parameter.numel() for name, parameter in model.parameters().items()}
    located: dict[str, list[str]] = {}
    for name, arguments in localizers.items():
        entry = get("localizer", name)
        located[name] = sorted(entry(gradients, **entry.bind(arguments)))
        if progress:
            progress(len(means) + len(located), steps)
    tensors = [
        {
            "name": name,
            **regions.place(name),
            "size": sizes[name],
            "cosine": gradients.cosine(name),
            "magnitude": gradients.magnitude(name),
        }
        for name in sizes
    ]
    return {"tensors": tensors, **with_controls(located, sizes, draws=draws, seed=seed)}


def with_controls(
    located: dict[str, list[str]], sizes: dict[str, int], *, draws: int, seed: int
) -> dict[str, Any]:
    """Located regions and what they are measured against: `regions` and `parameters` of each.

    Args:
        located: name → parameter names.
        sizes: parameters of every trainable tensor, by name.
        draws: random regions with as many parameters as each located one.
        seed: of the draws.
    """
    found = dict(located)
    for name, region in located.items():
        prefix = "random" if len(located) == 1 else f"random-{name}"
        for draw in range(draws):
            found[f"{prefix}-{draw + 1}"] = regions.random_like(region, sizes, seed + draw)
    found[regions.EVERYTHING] = sorted(sizes)
    parameters = {name: sum(sizes[t] for t in region) for name, region in found.items()}
    return {"regions": found, "parameters": parameters}
