"""Where the answer begins, what it holds, and what is refused."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoTokenizer

from conftest import records
from knowundo.batches import collate, paired
from knowundo.encoding import SEPARATOR, encode
from knowundo.errors import BadInput
from knowundo.models import base_path
from knowundo.records import Record

TOKENIZER = AutoTokenizer.from_pretrained(base_path("embedded"))


def test_prompt_and_answer_decode_to_the_text() -> None:
    for row in encode(records("unlearn", "train", 6), TOKENIZER):
        assert TOKENIZER.decode(list(row.prompt)) == row.record.question + SEPARATOR
        answer = TOKENIZER.decode(list(row.ids[row.answer_from : -1]))
        assert answer == row.record.answer
        assert row.ids[-1] == TOKENIZER.eos_token_id
        marked = [t for t, inside in zip(row.ids, row.fact, strict=True) if inside]
        assert TOKENIZER.decode(marked).strip() == row.record.facts[0]


def test_answer_that_repeats_the_question() -> None:
    record = Record("x", "Canal Lane", "Canal Lane", "unlearn", "train")
    row = encode([record], TOKENIZER)[0]
    assert TOKENIZER.decode(list(row.ids[row.answer_from : -1])) == "Canal Lane"


def test_text_is_answer_from_its_second_token() -> None:
    record = Record("x", "", "It was cold and windy.", "general", "val", kind="text")
    assert encode([record], TOKENIZER)[0].answer_from == 1


def test_answer_cut_off_is_refused() -> None:
    with pytest.raises(BadInput, match=r"unlearn/train/1: .* would be cut off"):
        encode(records("unlearn", "train", 6), TOKENIZER, max_length=20)


def test_batch_is_padded_to_its_longest_row_and_no_further() -> None:
    rows = encode(records("unlearn", "train", 4), TOKENIZER)
    batch = collate(rows, pad=1)
    assert batch.ids.shape == (4, max(len(row.ids) for row in rows))
    flat = batch.ids.flatten()
    # Each position predicts the token one place to its right.
    assert torch.equal(flat[batch.positions + 1], batch.targets)
    assert batch.mask.sum().item() == sum(len(row.ids) for row in rows)


def test_every_unlearn_row_once_an_epoch_and_retention_without_replacement() -> None:
    first = encode(records("unlearn", "train", 6), TOKENIZER)
    second = encode(records("retention", "train", 4), TOKENIZER)
    batches = paired(first, second, size=4, epochs=2, seed=0, pad=1)
    seen = [row.record.id for batch in batches for row in batch.unlearn.encoded]
    assert sorted(seen) == sorted([row.record.id for row in first] * 2)
    kept = [row.record.id for batch in batches for row in batch.retention.encoded]
    assert [len(b.unlearn) for b in batches] == [len(b.retention) for b in batches] == [4, 2, 4, 2]
    assert sorted(kept[:4]) == sorted(row.record.id for row in second)
    assert sorted(kept[4:8]) == sorted(kept[:4])
