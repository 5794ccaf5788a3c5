"""A model under attack, without a run."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

import torch

from knowundo.attacked import Attacked
from knowundo.data.encoded import Encoded
from knowundo.data.encoding import encode
from knowundo.data.records import Record
from knowundo.memorization import MemorizeSettings, memorize
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.forward import Forward
from knowundo.modeling.model import Model
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import unlearn

Rows = dict[str, list[Encoded]]


def under_attack(model: Model, rows: Rows, **given: Any) -> Attacked:
    """The model as it is now; rows of both scopes are scored."""
    memorized = model.state()
    settings: dict[str, Any] = {
        "forward": Forward(model),
        "rows": [*rows["unlearn"], *rows["retention"]],
        "train": rows,
        "encode": lambda records: encode(records, model.tokenizer),
        "memorized": lambda: memorized,
        "generated_splits": (),
        "lr": 1e-2,
        "seed": 0,
    }
    return Attacked(**(settings | given))


def facts(scope: str, seed: int) -> list[Record]:
    """Rows of which no answer follows from the others: words drawn by a seed."""
    words = ["alder", "baker", "canal", "cedar", "chapel", "cherry", "church", "cooper", "ferry"]
    drawn = Random(seed)
    return [
        Record(
            id=f"{scope}/{name}",
            question=f"What does {name} of {scope} say?",
            answer=" ".join(drawn.choices(words, k=4)),
            scope=scope,
            split="train",
            subject=name,
        )
        for name in ("Anna", "Bert", "Clara", "Dora", "Emil", "Fritz", "Greta", "Hugo")
    ]


@dataclass(frozen=True)
class Taught:
    """A small model that learned both scopes, and was then unlearned by gradient ascent."""

    model: Model
    rows: dict[str, list[Encoded]]
    known: dict[str, torch.Tensor]
    hidden: dict[str, torch.Tensor]


def teach() -> Taught:
    """Teach the embedded base a few rows, in seconds, and unlearn them by ascent."""
    model = Model("embedded", Adaptation("lora", rank=8, alpha=16))
    scopes = ("unlearn", "retention", "general")
    rows = {s: encode(facts(s, n), model.tokenizer) for n, s in enumerate(scopes)}
    settings = MemorizeSettings(
        epochs=30, lr=1e-2, batch_size=8, accumulation=1, weight_decay=0.0, known=1.0, seed=0
    )
    memorize(model, [*rows["unlearn"], *rows["retention"]], settings=settings)
    known = model.state()
    start = Start(model, rows["unlearn"], {"retention": rows["retention"]}, seed=0)
    ascent = {"method": "gradient_ascent", "lr": 8e-3, "epochs": 3, "batch_size": 4}
    unlearn(start, UnlearnSettings(**ascent, accumulation=1))
    return Taught(model, rows, known, model.state())


def base_weights(model: Model) -> dict[str, torch.Tensor]:
    """A copy of the weights that training may not change."""
    named = model.net.named_parameters()
    return {name: p.detach().clone() for name, p in named if "lora_" not in name}


def accuracy(attacked: Attacked, setting: str, scope: str = "unlearn") -> float:
    table = attacked.tables[setting]
    return float(table[table["scope"] == scope]["token_accuracy"].mean())
