"""A guard before the toy model, as a run makes and scores it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from knowundo.data.encoded import Encoded
from knowundo.data.encoding import encode
from knowundo.entry import taken
from knowundo.modeling.forward import Forward
from knowundo.modeling.guard import Guard
from knowundo.modeling.guard_files import ASSISTANT, write_guard
from knowundo.modeling.guarded import guarded_forward
from knowundo.modeling.model import Model
from knowundo.modeling.variant import ModelVariant
from knowundo.modeling.weights import save_state
from knowundo.registry import get
from knowundo.unlearning.guarding import prepare_guard
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import unlearn

Rows = dict[str, list[Encoded]]


def start_of(model: Model, rows: Rows, seed: int = 0) -> Start:
    """The model as it is now, with its rows."""
    return Start(
        model,
        rows["unlearn"],
        {"retention": rows["retention"], "general": rows["general"]},
        seed=seed,
        encode=lambda records: encode(records, model.tokenizer),
    )


def make(model: Model, rows: Rows, name: str, folder: Path, **arguments: Any) -> ModelVariant:
    """A guard before the model as it is now, in a folder, with an assistant if it has one."""
    start, entry = start_of(model, rows), get("guard", name)
    (memorized := folder / "memorized").mkdir()
    (made := folder / "guard").mkdir()
    save_state(model, memorized)
    guard = prepare_guard(start, entry, arguments)
    if entry.trained is not None:
        own = taken(entry.loss_function, entry.bind(arguments))
        how: dict[str, Any] = {"epochs": 4, "batch_size": 5, "accumulation": 1, "arguments": own}
        unlearn(start, UnlearnSettings(name, lr=1e-2, **how))
        (made / ASSISTANT).mkdir()
        save_state(model, made / ASSISTANT)
        start.restore()
    write_guard(guard, made)
    return ModelVariant(name, "unlearned", memorized, guard=made)


@contextmanager
def guarded(
    model: Model, rows: Rows, name: str, folder: Path, **arguments: Any
) -> Iterator[tuple[Forward, Guard]]:
    """The forward of the model behind a guard that was written and read."""
    with guarded_forward(model, make(model, rows, name, folder, **arguments)) as forward:
        assert forward.guard is not None
        yield forward, forward.guard


def prompts(rows: Sequence[Encoded]) -> list[tuple[int, ...]]:
    """Of each row."""
    return [row.prompt for row in rows]
