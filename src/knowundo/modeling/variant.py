"""A model to be scored: the base with an adapter or weights on top."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from knowundo.errors import KnowUndoError


@dataclass
class ModelVariant:
    """A model to be scored: the base with a folder of tensors on top.

    If `folder` is `None`, it is the base itself. If `guard` is a folder, the guard in it stands
    between questions and that model, whose weights stay as they are. What a recipe plans to make is
    no variant but a `Plan` (recipes.schema); an unlearned variant is what came of one.
    """

    name: str
    role: str  # base, memorized, retain, unlearned or given
    folder: Path | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    guard: Path | None = None

    @property
    def weights(self) -> Path | None:
        """The folder of a model that answers by itself; `None` for the base.

        Raises:
            KnowUndoError: A guard stands before it, which would be passed by.
        """
        if self.guard is not None:
            raise KnowUndoError(f"variant {self.name}: its weights answer behind its guard only")
        return self.folder

    @property
    def made(self) -> Path | None:
        """The folder that was made for this variant: of its guard, or of its weights."""
        return self.folder if self.guard is None else self.guard
