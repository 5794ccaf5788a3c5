"""Generation behind a guard: what it changes in teacher forcing, it changes at every new token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList

from knowundo.errors import KnowUndoError
from knowundo.modeling.continuation import continued
from knowundo.modeling.forward import Forward
from knowundo.modeling.guard import Guard, guarded_embeddings


class _Guarded(LogitsProcessor):
    """The guard's logits in place of the model's, and a token drawn of them if wanted.

    With an assistant the second half of the rows is the assistant's. Both halves go on with the
    same token, so that it is chosen here.
    """

    def __init__(
        self, guard: Guard, prompts: Sequence[Sequence[int]], temperature: float | None
    ) -> None:
        self._guard, self._prompts, self._temperature = guard, prompts, temperature

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        halves = scores.unflatten(0, (self._guard.adapters, -1))
        rows = [
            self._guard.logits(ids, *(half[number, None] for half in halves))
            for number, ids in enumerate(self._prompts)
        ]
        made = torch.cat(rows)
        if self._temperature is not None:
            drawn = torch.multinomial((made / self._temperature).softmax(-1), 1)
            made = torch.full_like(made, -torch.inf).scatter(1, drawn, 0.0)
        return made.repeat(self._guard.adapters, 1)


def guarded_continuation(
    forward: Forward,
    prompts: Sequence[Sequence[int]],
    *,
    tokens: int,
    stops: Sequence[int],
    each: int,
    temperature: float | None,
) -> torch.Tensor:
    """New ids after each prompt, all in one batch, [prompts · each, at most `tokens`].

    Args:
        forward: With a guard, and as many adapters as it needs.
        prompts: Ids that the model gets: the guard has changed them.
        tokens: At most so many new ids.
        stops: Ids that end an answer.
        each: Answers to each prompt.
        temperature: Of the whole distribution. If `None`, greedy.

    Raises:
        KnowUndoError: There is no guard, or it has another number of adapters.
    """
    model, guard = forward.model, forward.guard
    if guard is None or guard.adapters != forward.adapters:
        raise KnowUndoError("a guard is asked with the adapters that it needs")
    asked = [prompt for prompt in prompts for _ in range(each)]
    cached = model.capabilities.left_padding
    how: dict[str, Any] = {}
    if guard.changes == "logits" or temperature is not None:
        how["logits_processor"] = LogitsProcessorList([_Guarded(guard, asked, temperature)])
    with guarded_embeddings(model, guard, asked, left=True, cached=cached):
        output = continued(
            model,
            asked * guard.adapters,
            max_new_tokens=tokens,
            eos_token_id=sorted(stops),
            use_cache=cached,
            do_sample=False,
            **how,
        )
    new: torch.Tensor = output.sequences[: len(asked), max(map(len, asked)) :]
    return new
