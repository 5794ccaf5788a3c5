"""A model to be scored: the base with an adapter or weights on top."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class ModelVariant:
    """A model to be scored: the base with a folder of tensors on top.

    If `folder` is `None`, it is the base itself. What a recipe plans to make is no variant but a
    `Plan` (recipes.schema); an unlearned variant is what came of one.
    """

    name: str
    role: str  # base, memorized, retain, unlearned or given
    folder: Path | None = None
    facts: dict[str, Any] = field(default_factory=dict)
