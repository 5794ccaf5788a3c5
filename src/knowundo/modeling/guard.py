"""A guard in use: it stands between a prompt, a model whose weights stay, and the logits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from knowundo.data.encoded import Encoded
from knowundo.entry import Entry
from knowundo.errors import BadInput, KnowUndoError

if TYPE_CHECKING:
    from knowundo.modeling.model import Model


@dataclass(frozen=True)
class Asked:
    """A prompt as the function of a guard sees it.

    Attributes:
        ids: Of the prompt, before the guard.
        learned: What the guard's `prepare` made of the train rows.
        assistant: Logits of the guard's assistant, as its own. If `None`, it has none.
    """

    ids: tuple[int, ...]
    learned: Mapping[str, Any]
    assistant: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class Guard:
    """A registered guard with its settings and what it learned.

    Attributes:
        entry: Its function.
        bound: Its hyper-parameters, defaults included.
        learned: What its `prepare` made: tensors, and what JSON can hold.
        positions: Tokens that a prompt may have. If `None`, any number.
    """

    entry: Entry
    bound: Mapping[str, Any]
    learned: Mapping[str, Any] = field(default_factory=dict)
    positions: int | None = None

    @property
    def changes(self) -> str:
        """What it changes: prompt, embeddings or logits."""
        return str(self.entry.facts["changes"])

    @property
    def adapters(self) -> int:
        """LoRAs that its forward computes: the memorized one, and an assistant if it has one."""
        return 1 if self.entry.trained is None else 2

    @property
    def measured(self) -> Mapping[str, float]:
        """What it measured of itself while it learned, by name."""
        found: Mapping[str, float] = self.learned.get("measured", {})
        return found

    def prompt(self, ids: Sequence[int]) -> tuple[int, ...]:
        """The ids that the model gets in place of a prompt's.

        Raises:
            BadInput: They are more than the model has positions for.
        """
        own = tuple(ids)
        if self.changes != "prompt":
            return own
        made: tuple[int, ...] = tuple(self.entry(Asked(own, self.learned), own, **self.bound))
        if self.positions is not None and len(made) >= self.positions:
            raise BadInput(
                f"guard {self.entry.name}: a prompt of {len(own)} tokens becomes one of "
                f"{len(made)}, and the model has {self.positions} positions; choose settings that "
                "add less"
            )
        return made

    def row(self, row: Encoded) -> Encoded:
        """The row with the prompt that the model gets, and the same answer.

        Raises:
            BadInput: It has more tokens than the model has positions.
        """
        prompt = self.prompt(row.prompt)
        if prompt == row.prompt:
            return row
        made = row.with_prompt(prompt)
        if self.positions is not None and len(made.ids) > self.positions:
            raise BadInput(
                f"{row.record.id}: {len(made.ids)} tokens behind guard {self.entry.name}, more "
                f"than the model's {self.positions} positions; choose settings that add less"
            )
        return made

    def embeddings(self, ids: Sequence[int], values: torch.Tensor) -> torch.Tensor:
        """Embeddings of a prompt's ids as the model gets them, [prompt tokens, hidden]."""
        made: torch.Tensor = self.entry(Asked(tuple(ids), self.learned), values, **self.bound)
        return made.to(values)

    def logits(
        self, ids: Sequence[int], values: torch.Tensor, assistant: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits after the guard, [answer tokens, vocabulary].

        Args:
            ids: Of the prompt.
            values: Logits of the memorized model.
            assistant: Those of the guard's assistant, if it has one.
        """
        if self.changes != "logits":
            return values
        asked = Asked(tuple(ids), self.learned, assistant)
        made: torch.Tensor = self.entry(asked, values, **self.bound)
        return made


@contextmanager
def guarded_embeddings(
    model: Model, guard: Guard, prompts: Sequence[Sequence[int]], *, left: bool, cached: bool
) -> Iterator[None]:
    """Within it, forwards of these prompts, padded, get their embeddings from the guard.

    Args:
        model: Not changed.
        guard: If it changes no embeddings, nothing happens.
        prompts: Ids of each row's prompt.
        left: Whether rows are padded on the left; else on the right.
        cached: Whether only the first forward is of whole prompts, as in generation with a cache.

    Raises:
        BadInput: The model does not call its embedding layer for them.
    """
    if guard.changes != "embeddings":
        yield
        return
    layer: Any = model.causal_lm().get_input_embeddings()  # type: ignore[operator]
    longest, changed = max(map(len, prompts)), 0
    with torch.no_grad():
        own = (layer(torch.tensor([list(ids)], device=model.device))[0] for ids in prompts)
        values = [guard.embeddings(ids, one) for ids, one in zip(prompts, own, strict=True)]

    def change(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        nonlocal changed
        if cached and changed:
            return output
        if len(output) != len(prompts) or output.shape[1] < longest:
            raise KnowUndoError(f"guard {guard.entry.name}: embeddings of other rows")
        changed += 1
        made = output.clone()
        for number, value in enumerate(values):
            first = longest - len(value) if left else 0
            made[number, first : first + len(value)] = value
        return made

    hook = layer.register_forward_hook(change)
    try:
        yield
    finally:
        hook.remove()
    if not changed:
        raise BadInput(
            f"model.base '{model.base}': its embedding layer is not called, so guard "
            f"{guard.entry.name} cannot change embeddings; choose another guard"
        )
