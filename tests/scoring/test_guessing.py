"""The level of guessing counts what a model says of strangers, and never a name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from knowundo.data.encoded import Encoded
from knowundo.data.encoding import encode
from knowundo.data.records import Record
from knowundo.modeling.model import Model
from knowundo.scoring import guessing as module
from knowundo.scoring.guessing import guessing_level
from named_rows import CLARA, MAIL


def level(
    monkeypatch: pytest.MonkeyPatch, toy: Model, record: Record, right: Sequence[str]
) -> tuple[float | None, Encoded]:
    """The level if of a stranger's answer just these words' tokens are predicted."""
    (own,) = encode([record], toy.tokenizer)

    def forced(_: Model, rows: list[Encoded]) -> dict[str, dict[str, Any]]:
        (row,) = rows
        answer = row.ids[row.answer_from : len(row.ids) - row.tail]
        known = {token for word in right for token in toy.tokenizer(word)["input_ids"]}
        likeliest = [token if token in known else -1 for token in answer]
        hits = sum(token in known for token in answer)
        accuracy = hits / len(answer)
        return {row.record.id: {"token_accuracy": accuracy, "likeliest": likeliest}}

    monkeypatch.setattr(module, "teacher_forced", forced)

    def encoded(records: Sequence[Record]) -> list[Encoded]:
        return encode(list(records), toy.tokenizer)

    return guessing_level(toy, [record], [record], encoded, seed=0), own


def test_a_name_in_the_answer_is_no_knowledge(monkeypatch: pytest.MonkeyPatch, toy: Model) -> None:
    """Of a stranger nothing is predicted, and that Clara is called Clara is still no secret."""
    found, own = level(monkeypatch, toy, CLARA, [])
    answer = own.ids[own.answer_from : len(own.ids) - own.tail]
    name = len(toy.tokenizer("Clara Dorin")["input_ids"])
    assert found is not None
    # A stranger's name may share a token with hers, which is then predicted or not.
    assert 0 < found <= name / len(answer)
    everything, _ = level(monkeypatch, toy, CLARA, [CLARA.answer])
    assert everything == 1


def test_without_a_name_it_is_the_token_accuracy(
    monkeypatch: pytest.MonkeyPatch, toy: Model
) -> None:
    assert CLARA.subject is not None
    assert CLARA.subject not in MAIL.answer
    assert level(monkeypatch, toy, MAIL, [])[0] == 0
    found, own = level(monkeypatch, toy, MAIL, ["Write"])
    answer = own.ids[own.answer_from : len(own.ids) - own.tail]
    known = set(toy.tokenizer("Write")["input_ids"])
    assert found == sum(token in known for token in answer) / len(answer) > 0
