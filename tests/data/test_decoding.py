"""Token ids as text: special tokens are left out, and answers are compared up to their stop."""

from __future__ import annotations

from dataclasses import replace

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from conftest import records
from knowundo.data.decoding import (
    before_stop,
    decoded,
    decoded_all,
    markup,
    said_verbatim,
    true_ids,
)
from knowundo.data.encoded import Encoded
from knowundo.data.encoding import encode
from knowundo.modeling.base import base_path


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base_path("embedded"))
    return found


@pytest.fixture
def row(tokenizer: PreTrainedTokenizerBase) -> Encoded:
    return encode(records("unlearn", "train", 3), tokenizer)[2]


def test_ids_end_before_the_first_stop() -> None:
    assert before_stop([5, 6, 7, 6], {7}) == [5, 6]
    assert before_stop([5, 6], {7}) == [5, 6]
    assert before_stop([7, 5], {7}) == []


def test_special_tokens_are_no_text(tokenizer: PreTrainedTokenizerBase) -> None:
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    assert {end, pad} <= markup(tokenizer)
    ids = tokenizer("Nina Reed lives here.", add_special_tokens=False)["input_ids"]
    assert decoded(tokenizer, [pad, *ids, end]).strip() == "Nina Reed lives here."
    assert decoded(tokenizer, [*ids, end, *ids], stops={end}).strip() == "Nina Reed lives here."
    both = [[*ids, end], []]
    assert decoded_all(tokenizer, both) == [decoded(tokenizer, one) for one in both]


def test_true_ids_are_those_of_the_answer_alone(
    tokenizer: PreTrainedTokenizerBase, row: Encoded
) -> None:
    ids = true_ids(row)
    assert len(ids) == row.answer_length - row.tail
    assert tokenizer.decode(ids).strip() == row.record.answer


@pytest.mark.parametrize(
    ("text", "exact"),
    [(None, True), ("  {answer} \n", True), ("{answer} more", False), ("", False)],
)
def test_an_answer_is_verbatim_apart_from_white_space(
    tokenizer: PreTrainedTokenizerBase, row: Encoded, text: str | None, exact: bool
) -> None:
    end = tokenizer.eos_token_id
    ids: list[int] = [*true_ids(row), end, 5] if text is None else [9]
    said = "" if text is None else text.format(answer=row.record.answer)
    true_text = decoded(tokenizer, true_ids(row))
    assert said_verbatim(row, ids, said, true_text, stops={end}) is exact


def test_an_empty_text_is_no_answer_though_the_true_one_decodes_to_nothing(row: Encoded) -> None:
    other = replace(row, record=replace(row.record, answer="x"))
    assert not said_verbatim(other, [9], " ", "", stops=set())
