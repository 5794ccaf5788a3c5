"""A model that learned each scope through known tensors only."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from knowundo.data.batches import PairedBatch, paired
from knowundo.data.encoded import Encoded
from knowundo.data.encoding import encode
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.forward import hidden_states
from knowundo.modeling.half import Half
from knowundo.modeling.head import live_head
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from knowundo.modeling.regions import place
from knowundo.modeling.step import Parts
from knowundo.planting.plantings import Planting, plantings
from knowundo.registry import get
from knowundo.scoring.teacher_forcing import token_accuracy
from knowundo.training.separate_gradients import Gradients, StepGradients
from knowundo.training.settings import TrainingHooks, TrainingSettings
from knowundo.training.trainer import train

SCOPES = ("unlearn", "retention")


@dataclass(frozen=True)
class TestbedSettings:
    """How scopes are planted.

    Attributes:
        base: A base as `Model` takes it.
        subjects: People of the embedded privacy benchmark.
        rank: Of the LoRA.
        rates: Peak learning rate by kind of adaptation.
        epochs: At most so many passes over the rows.
        batch_size: Rows of each scope per optimizer step.
        known: Token accuracy of both scopes that ends training, in [0, 1].
    """

    __test__ = False  # pytest takes classes of such a name for tests

    base: str = "embedded"
    subjects: int = 8
    rank: int = 8
    rates: dict[str, float] = field(default_factory=lambda: {"lora": 4e-3, "full": 1e-3})
    epochs: int = 40
    batch_size: int = 16
    known: float = 0.99


@dataclass(frozen=True)
class Testbed:
    """A memorized model with its truth.

    Attributes:
        model: Knows both scopes.
        planting: Which tensors learned which scope.
        rows: Train and val rows, by scope and split.
        unknown: Token accuracy of the base on unlearn train rows, in [0, 1].
        known: Token accuracy of the model on the train rows of each scope, in [0, 1].
        steps: Optimizer steps that it took.
    """

    __test__ = False

    model: Model
    planting: Planting
    rows: dict[tuple[str, str], list[Encoded]]
    unknown: float
    known: dict[str, float]
    steps: int


class OwnGradients:
    """Each parameter gets the gradient of the scope that is planted in it, and of no other."""

    by_row = False

    def __init__(self, model: Model, planting: Planting) -> None:
        """Note the order in which the optimizer has the parameters.

        Args:
            model: That is trained.
            planting: Which tensors learn which scope.
        """
        region = planting.unlearn | planting.retention
        order = [name for name, _ in model.net.named_parameters() if name in region]
        self.learns = [(name in planting.unlearn, name in planting.retention) for name in order]

    def losses(self, parts: Parts) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The loss of each scope."""
        return parts["unlearn"], parts["retention"]

    def combine(self, step: StepGradients) -> Gradients:
        """Of each parameter, the sum of the gradients of the scopes that it learns."""
        combined: Gradients = []
        for learns, *scopes in zip(self.learns, step.unlearn, step.retention, strict=True):
            own = [
                g for learned, g in zip(learns, scopes, strict=True) if learned and g is not None
            ]
            combined.append(torch.stack(own).sum(0) if own else None)
        return combined


def plant(name: str, kind: str, seed: int, settings: TestbedSettings) -> Testbed:
    """Make a testbed: both scopes are learned at once, each in its own tensors.

    Args:
        name: Of the planting.
        kind: `lora` or `full`.
        seed: Of the people, the LoRA, the planting and the order of rows.
        settings: How they are learned.
    """
    adaptation = Adaptation(kind, rank=settings.rank, alpha=2 * settings.rank)
    options = LoadingOptions(dtype="float32", device="cpu")
    model = Model(settings.base, adaptation, seed=seed, options=options)
    planting = plantings(_plantable(model), seed)[name]
    build = get("benchmark", "embedded")
    records = build(domain="privacy", seed=seed, subjects=settings.subjects)
    rows = {
        (scope, split): encode(
            [r for r in records if (r.scope, r.split) == (scope, split)], model.tokenizer
        )
        for scope in SCOPES
        for split in ("train", "val")
    }
    unknown = token_accuracy(model, rows["unlearn", "train"])
    steps = _learn(model, planting, rows, settings, seed)
    known = {scope: token_accuracy(model, rows[scope, "train"]) for scope in SCOPES}
    return Testbed(model, planting, rows, unknown, known, steps)


def _plantable(model: Model) -> list[str]:
    """Parameters of linear layers inside decoder layers."""
    own = model.parameters().items()
    return [n for n, p in own if p.ndim == 2 and place(n)["layer"] is not None]


def _learn(
    model: Model,
    planting: Planting,
    rows: dict[tuple[str, str], list[Encoded]],
    settings: TestbedSettings,
    seed: int,
) -> int:
    """Train until both scopes are known; the optimizer steps that it took."""
    of_scope = {scope: rows[scope, "train"] + rows[scope, "val"] for scope in SCOPES}
    batches = paired(
        of_scope["unlearn"], of_scope["retention"],
        size=settings.batch_size, epochs=settings.epochs, seed=seed, pad=model.pad,
    )  # fmt: skip
    per_epoch, done = len(batches) // settings.epochs, 0

    def loss(batch: PairedBatch) -> Parts:
        parts = {}
        for scope in SCOPES:
            part = getattr(batch, scope).to(model.device)
            half = Half(part, hidden_states(model, part), live_head(model))
            parts[scope] = half.mean(half.mean_nll)
        return parts

    def enough() -> bool:
        nonlocal done
        done += 1
        if done % per_epoch:
            return False
        return all(token_accuracy(model, of_scope[s]) >= settings.known for s in SCOPES)

    curve = train(
        model,
        batches,
        loss,
        planting.unlearn | planting.retention,
        TrainingSettings(
            lr=settings.rates[model.adaptation.kind], seed=seed, schedule="constant_with_warmup"
        ),
        hooks=TrainingHooks(stop=enough, combination=OwnGradients(model, planting)),
    )
    return len(curve)
