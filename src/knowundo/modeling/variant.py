"""A model to be scored: the base with an adapter or weights on top."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Variant:
    """A model to be scored: the base with a folder of tensors on top (none: the base itself)."""

    name: str
    role: str  # base, memorized, retain, unlearned or given
    folder: Path | None = None
    facts: dict[str, Any] = field(default_factory=dict)
