"""localize(): which tensors hold the unlearn scope and not the retention scope?

An adapter that knows the records has gradients in A and B, and a region is a set of tensors. Where
the base's own weights know them there are two ways. A fresh LoRA's B is zero, so A has no gradient:
B speaks for its module, and a region is a set of modules. All weights: each has its gradient, and
few of those are held at a time (`held`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from knowundo import regions
from knowundo.batches import by_length
from knowundo.checkpoints import Checkpoint, prefixed, under
from knowundo.encoding import Encoded
from knowundo.forwards import Half, hidden_states, packs
from knowundo.head import live_head
from knowundo.memory import halved
from knowundo.models import Model
from knowundo.pieces import pieces
from knowundo.progress import Progress
from knowundo.registry import get


@dataclass(frozen=True)
class Measured:
    """What a localizer sees of each tensor: two numbers, so that no gradient need be kept."""

    cosines: dict[str, float]
    magnitudes: dict[str, float]

    @property
    def names(self) -> list[str]:
        """Tensors that were measured; of a fresh LoRA only those of B."""
        return list(self.cosines)

    def cosine(self, name: str) -> float:
        """cos(g_unlearn, g_retention) of one tensor; 0 where either vanishes."""
        return self.cosines[name]

    def magnitude(self, name: str) -> float:
        """mean |g_unlearn| of one tensor."""
        return self.magnitudes[name]


@dataclass
class Gradients:
    """Mean gradients of tensors over the noisy records of each scope."""

    unlearn: dict[str, torch.Tensor]
    retention: dict[str, torch.Tensor]

    def measured(self) -> Measured:
        """The two numbers of each tensor."""
        names = list(self.unlearn)
        magnitudes = {name: float(self.unlearn[name].double().abs().mean()) for name in names}
        return Measured({name: self._cosine(name) for name in names}, magnitudes)

    def _cosine(self, name: str) -> float:
        a, b = self.unlearn[name].double().flatten(), self.retention[name].double().flatten()
        norms = float(a.norm() * b.norm())
        return float(a @ b) / norms if norms > 0 else 0.0


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
    model: Model,
    encoded: Sequence[Encoded],
    *,
    batch_size: int = 32,
    names: Iterable[str] | None = None,
    begin: Sums | None = None,
    each: Callable[[Sums], None] | None = None,
) -> dict[str, torch.Tensor]:
    """Mean over rows of the gradient of each row's mean answer cross-entropy.

    One backward a batch: the gradient of the sum of row losses is the sum of row gradients. Where
    memory runs out, all is summed again in batches of half the size.

    Args:
        model: not changed.
        encoded: the rows.
        batch_size: rows a backward pass.
        names: parameters whose gradients are wanted; none: all that can be trained.
        begin: sums over the first batches, to go on from.
        each: told of the sums after each batch.
    """
    own = model.parameters()
    wanted = {name: own[name] for name in (own if names is None else names)}
    size = batch_size if begin is None else begin.size
    try:
        while True:
            model.train_only(wanted)
            try:
                return _summed(model, encoded, size, wanted, begin, each)
            except RuntimeError as error:
                size = halved(min(size, len(encoded)), error, model.notes, "localization")
            begin = None
    finally:
        for parameter in wanted.values():
            parameter.grad = None
        model.train_only([])


@dataclass
class Sums:
    """Gradients summed over the first batches."""

    batches: int
    size: int  # rows a batch
    gradients: dict[str, torch.Tensor]


def _summed(
    model: Model,
    encoded: Sequence[Encoded],
    size: int,
    wanted: Mapping[str, torch.nn.Parameter],
    begin: Sums | None,
    each: Callable[[Sums], None] | None,
) -> dict[str, torch.Tensor]:
    for name, parameter in wanted.items():
        held = None if begin is None else begin.gradients.get(name)
        parameter.grad = None if held is None else held.to(parameter.device)
    done = 0 if begin is None else begin.batches
    for number, batch in enumerate(by_length(encoded, size, model.pad)[done:], start=done + 1):
        for piece in pieces(batch, tokens=model.tokens, shared=packs(model)):
            piece = piece.to(model.device)
            half = Half(piece, hidden_states(model, piece), live_head(model))
            (half.mean_nll.sum() / len(encoded)).backward()
        if each:
            got = {name: p.grad for name, p in wanted.items() if p.grad is not None}
            each(Sums(number, size, got))
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.detach()
        for name, p in wanted.items()
    }


def in_groups(sizes: Mapping[str, int], held: int | None) -> Iterator[list[str]]:
    """Names in order, as many at a time as hold `held` parameters; at least one, or all of them."""
    group: list[str] = []
    for name, size in sizes.items():
        if group and held is not None and sum(sizes[n] for n in group) + size > held:
            yield group
            group = []
        group.append(name)
    yield group


def measure(
    model: Model,
    rows: Mapping[str, Sequence[Encoded]],
    sizes: Mapping[str, int],
    *,
    batch_size: int,
    held: int | None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> Measured:
    """Cosine and magnitude of the mean gradients of each tensor.

    Args:
        model: not changed.
        rows: `unlearn` and `retention`.
        sizes: of the tensors that are wanted, by name.
        batch_size: rows a backward pass.
        held: parameters whose gradients of both scopes are in memory at a time; fewer take more
            passes over the rows. None: all.
        progress: called with (done, total).
        checkpoint: gone on from, and written now and then.
    """
    groups, course = list(in_groups(sizes, held)), _Course(checkpoint)
    for number, group in enumerate(groups):
        if set(group) <= set(course.measured.names):
            continue
        for part, (scope, encoded) in enumerate(rows.items(), start=1):
            if scope not in course.means:
                course.means[scope] = mean_gradients(
                    model, encoded, batch_size=batch_size, names=group,
                    begin=course.sums, each=course.after_batch,
                )  # fmt: skip
                course.sums = None
            if progress:
                progress(number * len(rows) + part, len(groups) * len(rows))
        course.after_group()
    return course.measured


class _Course:
    """How far the measuring got: groups of tensors, scopes of a group, batches of a scope."""

    def __init__(self, checkpoint: Checkpoint | None) -> None:
        self.checkpoint, self.measured = checkpoint, Measured({}, {})
        self.means: dict[str, dict[str, torch.Tensor]] = {}
        self.sums: Sums | None = None
        if checkpoint is None or (state := checkpoint.read()) is None:
            return
        facts = state.facts
        self.measured = Measured(facts["cosines"], facts["magnitudes"])
        self.means = {s: under(f"mean-{s}", state.tensors) for s in facts["scopes"]}
        if facts["batches"]:
            gradients = under("sum", state.tensors)
            self.sums = Sums(facts["batches"], facts["size"], gradients)

    def after_batch(self, sums: Sums) -> None:
        if self.checkpoint is None or not self.checkpoint.due():
            return
        facts = {
            "cosines": self.measured.cosines,
            "magnitudes": self.measured.magnitudes,
            "scopes": list(self.means),
            "batches": sums.batches,
            "size": sums.size,
        }
        tensors = prefixed("sum", sums.gradients)
        for scope, means in self.means.items():
            tensors |= prefixed(f"mean-{scope}", means)
        self.checkpoint.write(facts, {name: value.cpu() for name, value in tensors.items()})

    def after_group(self) -> None:
        found = Gradients(**self.means).measured()
        self.measured.cosines.update(found.cosines)
        self.measured.magnitudes.update(found.magnitudes)
        self.means = {}


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
    held: int | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> dict[str, Any]:
    """Find regions by gradients, and the controls that any claim needs.

    Args:
        model: the memorized model; not changed. Beside a fresh LoRA its regions are whole modules.
        unlearn: rows that must go.
        retention: rows that must stay.
        localizers: name → arguments.
        copies: noisy copies of each row (the paper averages 5, its code 3).
        batch_size: rows a backward pass.
        draws: random regions with as many parameters as each located one.
        seed: of noise and draws.
        held: parameters whose gradients are in memory at a time; none: all.
        progress: called with (done, total).
        checkpoint: gone on from, and written now and then.

    Returns:
        `tensors`: of each measured tensor its name, place, size, cosine and magnitude;
        `regions`: name → parameter names, among them `everything` and `random-<n>`;
        `parameters`: size of each region.
    """
    vocabulary = model.causal_lm().get_input_embeddings().num_embeddings  # type: ignore[operator]
    noisy = {
        scope: noisy_copies(rows, copies=copies, vocabulary=vocabulary, seed=seed + number)
        for number, (scope, rows) in enumerate((("unlearn", unlearn), ("retention", retention)))
    }
    sizes = {name: parameter.numel() for name, parameter in model.parameters().items()}
    fresh = model.is_fresh
    wanted = {name: size for name, size in sizes.items() if not fresh or "lora_B" in name}
    how: dict[str, Any] = {"batch_size": batch_size, "held": held, "progress": progress}
    measured = measure(model, noisy, wanted, **how, checkpoint=checkpoint)
    located: dict[str, list[str]] = {}
    for name, arguments in localizers.items():
        entry = get("localizer", name)
        region = entry(measured, **entry.bind(arguments))
        located[name] = regions.with_whole_modules(region, sizes) if fresh else sorted(region)
    tensors = [
        {
            "name": name,
            **regions.place(name),
            "size": sizes[name],
            "cosine": measured.cosine(name),
            "magnitude": measured.magnitude(name),
        }
        for name in wanted
    ]
    controlled = with_controls(located, sizes, draws=draws, seed=seed, whole_modules=fresh)
    return {"tensors": tensors, **controlled}


def with_controls(
    located: dict[str, list[str]],
    sizes: dict[str, int],
    *,
    draws: int,
    seed: int,
    whole_modules: bool = False,
) -> dict[str, Any]:
    """Located regions and what they are measured against: `regions` and `parameters` of each.

    Args:
        located: name → parameter names.
        sizes: parameters of every trainable tensor, by name.
        draws: random regions with as many parameters as each located one.
        seed: of the draws.
        whole_modules: draw modules, not tensors.
    """
    found = dict(located)
    for name, region in located.items():
        prefix = "random" if len(located) == 1 else f"random-{name}"
        for draw in range(draws):
            drawn = regions.random_like(region, sizes, seed + draw, whole_modules=whole_modules)
            found[f"{prefix}-{draw + 1}"] = drawn
    found[regions.EVERYTHING] = sorted(sizes)
    parameters = {name: sum(sizes[t] for t in region) for name, region in found.items()}
    return {"regions": found, "parameters": parameters}
