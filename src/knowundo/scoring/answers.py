"""What a model answers to the question of each record."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch

from knowundo.data.decoding import decoded_all, said_verbatim, true_ids, without_ending
from knowundo.data.encoded import Encoded
from knowundo.distributed.sums import own_share
from knowundo.modeling.fast.oom import in_portions
from knowundo.modeling.forward import Forward
from knowundo.modeling.model import Model
from knowundo.progress import Progress
from knowundo.scoring.generation import BATCH, continue_prompts, stop_ids
from knowundo.scoring.progress import Said, ScoringState, merged


@torch.no_grad()
def generate(
    model: Model,
    encoded: Sequence[Encoded],
    *,
    batch_size: int = BATCH,
) -> dict[str, str]:
    """Texts of `answered`, by record id."""
    said = answered(model, encoded, batch_size=batch_size)
    return {name: answer.text for name, answer in said.items()}


def answered(
    model: Model, encoded: Sequence[Encoded], *, batch_size: int = BATCH
) -> dict[str, Said]:
    """Greedy answers by record id, of at most as many tokens as the true answer.

    Rows are padded on the left and sorted by their true answer's length, so that a batch ends
    early; what a model would say beyond that length cannot make it more right. An answer is over
    at end-of-sequence or at the end of turn that the rows were encoded with.
    """
    state = ScoringState(1)
    answer_rows(Forward(model), encoded, state, batch_size=batch_size)
    return state.said[0]


def answer_rows(
    forward: Forward,
    encoded: Sequence[Encoded],
    state: ScoringState,
    *,
    batch_size: int = BATCH,
    progress: Progress | None = None,
) -> None:
    """Generate the answers that the state does not hold yet, and put them into it.

    Of several processes each takes its share of the rows, and gets the answers of all.
    """
    model = forward.model
    stops = stop_ids(model, encoded)
    order = sorted(encoded, key=lambda row: (row.answer_length, len(row.prompt)))

    def answer(rows: Sequence[Encoded]) -> None:
        if all(row.record.id in state.said[0] for row in rows):
            return
        output = continue_prompts(
            model,
            [row.prompt for row in rows],
            tokens=max(row.answer_length for row in rows),
            stops=stops,
            forward=forward,
        )
        true_texts = decoded_all(model.tokenizer, [true_ids(row) for row in rows])
        for answers, own in zip(state.said, output.chunk(forward.models), strict=True):
            # Cut to its own true answer's length, what a row says does not depend on others.
            tokens = [new[: row.answer_length] for row, new in zip(rows, own.tolist(), strict=True)]
            texts = decoded_all(model.tokenizer, tokens, stops=stops)
            for row, ids, text, true in zip(rows, tokens, texts, true_texts, strict=True):
                said = without_ending(text, row.ending)
                exact = said_verbatim(row, ids, said, true, stops=stops)
                answers[row.record.id] = Said(said, exact)
        state.keep()
        if progress:
            progress(len(state.said[0]), len(order))

    size = max(1, batch_size // forward.adapters)
    own = order[own_share()]
    deque(in_portions(own, size, answer, model.notes.add, "answering"), maxlen=0)
    state.said = merged(state.said, encoded)
