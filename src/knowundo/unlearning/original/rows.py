"""Rows as the public KnowUnDo code encodes and batches them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from knowundo.data.encoded import Encoded
from knowundo.data.encoding import SEPARATOR

LENGTH, ACCUMULATION = 256, 16
# Methods whose labels cover the whole row, and the quirk that makes them.
WHOLE_ROW = {"random_label": "question_labels", "adversarial_sample": "base_labels"}
# The column of labels that such a method descends to.
LABELS = {"random_label": "random", "adversarial_sample": "adversarial"}


def naive_boundary(
    encoded: Sequence[Encoded], tokenizer: PreTrainedTokenizerBase, prefix: str = ""
) -> list[Encoded]:
    """Let the answer begin where the question, tokenized alone, ends."""
    moved = []
    for row in encoded:
        if row.record.kind != "qa":
            moved.append(row)
            continue
        labels = SEPARATOR + row.record.answer
        text = prefix + row.record.question + labels
        count = len(tokenizer(text.replace(labels, "")).input_ids)
        moved.append(replace(row, answer_from=min(max(count, 1), len(row.ids) - 1)))
    return moved


def mask_end(encoded: Sequence[Encoded]) -> list[Encoded]:
    """Cut off what follows the answer, so that no end of sequence is trained or scored."""
    return [
        replace(row, ids=row.ids[: len(row.ids) - row.tail], fact=row.fact[: -row.tail], tail=0)
        if row.tail
        else row
        for row in encoded
    ]


def whole_steps(batches: int, epochs: int, accumulation: int) -> tuple[int, int]:
    """Count optimizer steps that are all made of the same number of batches.

    Args:
        batches: Batches of all epochs.
        epochs: How many.
        accumulation: Batches that make an optimizer step.

    Returns:
        How many optimizer steps there are, and the batches of each: as many as asked for, or
        those of an epoch, if it has fewer.
    """
    of_epoch = batches // epochs
    accumulation = min(accumulation, of_epoch)
    return epochs * (of_epoch // accumulation), accumulation
