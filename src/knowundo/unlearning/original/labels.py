"""Labels of whole rows, question included, as the public KnowUnDo code makes them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from knowundo.data.encoded import Encoded
from knowundo.modeling.fast.chunked_logits import full_precision
from knowundo.modeling.model import Model
from knowundo.unlearning.labels import draw


def random_row_labels(model: Model, rows: Sequence[Encoded], seed: int) -> dict[str, torch.Tensor]:
    """Any token in place of every ordinary one; special tokens stay.

    Returns:
        Labels by record id, [answer tokens].
    """
    generator = torch.Generator().manual_seed(seed)
    special = torch.tensor(sorted(model.tokenizer.all_special_ids))
    labels = {}
    for row in rows:
        truth = torch.tensor(row.ids[row.answer_from :])
        drawn = torch.randint(model.tokenizer.vocab_size, truth.shape, generator=generator)
        labels[row.record.id] = torch.where(torch.isin(truth, special), truth, drawn)
    return labels


@torch.no_grad()
def base_labels(
    model: Model,
    rows: Sequence[Encoded],
    seed: int,
    *,
    top_k: int | None,
    top_p: float,
    keep_truth: bool,
) -> dict[str, torch.Tensor]:
    """At each place a likely next token of the model that is not the token standing there.

    Args:
        model: The base.
        rows: Unlearn rows.
        seed: Seed of the draws.
        top_k: See `draw`.
        top_p: See `draw`.
        keep_truth: Whether the token standing there may be drawn too.

    Returns:
        Labels by record id, [answer tokens].
    """
    labels, generator = {}, torch.Generator().manual_seed(seed)
    for row in rows:
        ids = torch.tensor([row.ids], device=model.device)
        logits = full_precision(model.net(input_ids=ids).logits[0])
        logits[:, -1] = float("-inf")
        if not keep_truth:
            # The token at the place itself and not the next one, which the logits there predict.
            logits.scatter_(1, ids[0][:, None], float("-inf"))
        drawn = draw(logits, top_k=top_k, top_p=top_p, generator=generator)
        labels[row.record.id] = drawn[row.answer_from :]
    return labels
