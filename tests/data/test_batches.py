"""Batches of encoded rows."""

from __future__ import annotations

from dataclasses import replace

import torch
from rendered_rows import (
    CLARA,
    TEXTS,
    TOKENIZER,
)

from conftest import records
from knowundo.data.batches import collate, paired
from knowundo.data.encoding import encode
from toy_tokenizers import llama_tokenizer


def test_end_is_learned_where_it_is_also_the_padding() -> None:
    """Llama has no pad token, and people set pad = eos: the last label is still the end."""
    tokenizer = llama_tokenizer(TEXTS)
    tokenizer.pad_token = tokenizer.eos_token
    rows = encode([CLARA, replace(CLARA, id="b", answer="No.", facts=())], tokenizer)
    batch = collate(rows, pad=tokenizer.pad_token_id)
    for number, row in enumerate(rows):
        targets = batch.targets[batch.rows == number]
        assert targets.tolist() == list(row.ids[row.answer_from :])
        assert targets[-1] == tokenizer.eos_token_id
        assert batch.mask[number].sum() == len(row.ids)
    assert batch.ids[1, -1] == tokenizer.eos_token_id
    assert batch.mask[1, -1] == 0


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


def test_rows_of_several_lists_come_in_turn() -> None:
    first = encode(records("unlearn", "train", 3), TOKENIZER)
    lists = [encode(records(scope, "train", 4), TOKENIZER) for scope in ("retention", "general")]
    batches = paired(first, *lists, size=2, epochs=2, seed=0, pad=1, retained=3)
    kept = [row.record for batch in batches for row in batch.retention.encoded]
    assert [record.scope for record in kept] == ["retention", "general"] * 6
    for rows in lists:
        own = [record for record in kept if record.scope == rows[0].record.scope]
        assert sorted(record.id for record in own[:4]) == sorted(row.record.id for row in rows)


def test_a_batch_of_one_row_has_rows_of_every_list() -> None:
    first = encode(records("unlearn", "train", 1), TOKENIZER)
    lists = [encode(records(scope, "train", 2), TOKENIZER) for scope in ("retention", "general")]
    (batch,) = paired(first, *lists, size=4, epochs=1, seed=0, pad=1)
    assert [row.record.scope for row in batch.retention.encoded] == ["retention", "general"]
