"""Record → token ids with the answer's positions marked.

The text is question + "\\n\\n" + answer + end-of-sequence, as in KnowUnDo. Where the answer begins
is read from character offsets of the whole text: tokens may merge across the boundary, so
encoding the question alone would give another place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from knowundo.errors import BadInput
from knowundo.records import Record

SEPARATOR = "\n\n"


@dataclass(frozen=True)
class Encoded:
    """One record as tokens.

    `ids` holds question, answer and, last, end-of-sequence; the answer's tokens are
    `ids[answer_from:]`, so `answer_from` ≥ 1. `fact[i]` tells whether token i is part of a fact.
    """

    record: Record
    ids: tuple[int, ...]
    answer_from: int
    fact: tuple[bool, ...]

    @property
    def answer_length(self) -> int:
        """Answer tokens, end-of-sequence included."""
        return len(self.ids) - self.answer_from

    @property
    def prompt(self) -> tuple[int, ...]:
        """The ids before the answer."""
        return self.ids[: self.answer_from]


def _fact_spans(record: Record, shift: int) -> list[tuple[int, int]]:
    spans = []
    for fact in record.facts:
        start = record.answer.index(fact) + shift
        spans.append((start, start + len(fact)))
    return spans


def encode(
    records: Sequence[Record], tokenizer: PreTrainedTokenizerBase, *, max_length: int = 512
) -> list[Encoded]:
    """Encode records.

    Args:
        records: any kinds; of a `text` record the whole text is the answer, except its first
            token, which nothing predicts.
        tokenizer: a fast tokenizer with an end-of-sequence token.
        max_length: tokens a row may have, end-of-sequence included.

    Raises:
        BadInput: a row is longer than `max_length`, or the tokenizer is slow or has no end.
    """
    if not records:
        return []
    if not tokenizer.is_fast or tokenizer.eos_token_id is None:
        raise BadInput(
            f"{tokenizer.name_or_path}: needs a fast tokenizer with an end-of-sequence token"
        )
    prompts = [r.question + SEPARATOR if r.kind == "qa" else "" for r in records]
    texts = [prompt + record.answer for prompt, record in zip(prompts, records, strict=True)]
    output = tokenizer(texts, return_offsets_mapping=True)
    rows = zip(records, prompts, output["input_ids"], output["offset_mapping"], strict=True)
    return [_encode_one(*row, tokenizer, max_length) for row in rows]


def _encode_one(
    record: Record,
    prompt: str,
    ids: list[int],
    offsets: list[tuple[int, int]],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
) -> Encoded:
    if ids and ids[-1] == tokenizer.eos_token_id:  # some tokenizers append it themselves
        ids, offsets = ids[:-1], offsets[:-1]
    if len(ids) + 1 > max_length:
        raise BadInput(
            f"{record.id}: {len(ids) + 1} tokens, more than max_length={max_length}, so its answer "
            "would be cut off; shorten the row or raise data.max_length"
        )
    # A token belongs to the answer when it reaches past the prompt's last character.
    answer_from = next(i for i, (_, end) in enumerate(offsets) if end > len(prompt))
    answer_from = max(answer_from, 1)
    spans = _fact_spans(record, len(prompt))
    fact = [any(a < end and start < b for a, b in spans) for start, end in offsets]
    return Encoded(record, (*ids, tokenizer.eos_token_id), answer_from, (*fact, False))
