"""Scorers: what each sees of a record, and which columns a table of scores has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from conftest import naive_log_probs, score
from knowundo.data.encoded import Encoded
from knowundo.data.encoding import encode
from knowundo.entry import Entry
from knowundo.errors import BadInput
from knowundo.modeling.forward import Forward
from knowundo.modeling.model import Model
from knowundo.registry import ENTRIES, entries, metric, scorer
from knowundo.scoring.alternatives import other_answers
from knowundo.scoring.columns import FIXED, columns, identity, scorers
from knowundo.scoring.seen import Alternatives, Generated, Tokens
from knowundo.scoring.table import score_adapters

Rows = dict[str, list[Encoded]]


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("metric", "scorer"):
        entries(kind)  # what is scanned later would be lost with the copy
        monkeypatch.setitem(ENTRIES, kind, dict(ENTRIES[kind]))


def added(function: Callable[..., Any], **facts: Any) -> Entry:
    return scorer(**facts)(function)


def test_tokens_are_those_of_the_plain_logits(toy: Model, toy_rows: Rows) -> None:
    seen: dict[str, tuple[np.ndarray, ...]] = {}

    def seen_tokens(tokens: Tokens) -> float:
        seen[tokens.record.id] = tokens.nll, tokens.right, tokens.surprise
        return float(len(tokens))

    added(seen_tokens, needs="tokens")
    rows = score(toy, toy_rows["unlearn"], generated_splits=[])
    for row, length in zip(toy_rows["unlearn"], rows["seen_tokens"], strict=True):
        log_probs = naive_log_probs(toy, row).detach()[: row.answer_length - row.tail]
        truth = torch.tensor(row.ids[row.answer_from : len(row.ids) - row.tail])
        nll, right, surprise = seen[row.record.id]
        own = log_probs[torch.arange(len(truth)), truth]
        assert length == len(truth)
        np.testing.assert_allclose(nll, -own.numpy(), rtol=1e-6)
        assert right.tolist() == (log_probs.argmax(-1) == truth).tolist()
        # By the definition of a mean and a standard deviation, one token at a time.
        for token, value in enumerate(surprise):
            p, log_p = log_probs[token].exp().numpy(), log_probs[token].numpy()
            mean = np.average(log_p, weights=p)
            deviation = np.sqrt(np.average((log_p - mean) ** 2, weights=p))
            assert value == pytest.approx((own[token].item() - mean) / deviation, rel=1e-4)


def test_answers_are_seen_where_they_were_generated(toy: Model, toy_rows: Rows) -> None:
    def length(answer: Generated) -> float | None:
        return len(answer.said)

    added(length, needs="answer")
    rows = score(toy, toy_rows["unlearn"], generated_splits=["train"])
    assert rows["length"].tolist() == rows["said"].map(len).tolist()
    assert score(toy, toy_rows["unlearn"], generated_splits=["val"])["length"].isna().all()


def test_other_answers_are_seen_where_a_metric_asks(toy: Model, toy_rows: Rows) -> None:
    def margin(answers: Alternatives) -> float:
        return answers.paraphrase - min(answers.others) + 1000 * len(answers.others)

    added(margin, needs="alternatives", asked=True)
    metric(higher_is="forgotten", asks=["margin"])(ENTRIES["scorer"]["margin"])
    first, second, *_ = (row.record for row in toy_rows["unlearn"])
    changed = [
        replace(first, alternatives=("alder baker", "canal"), paraphrase="cedar chapel"),
        replace(second, alternatives=("garden",)),
        toy_rows["unlearn"][2].record,
    ]
    encoded = encode(changed, toy.tokenizer)
    assert "margin" not in columns()
    assert columns(["margin"])[-len(scorers(["margin"])) :] == tuple(
        sorted(entry.name for entry in scorers(["margin"]))
    )
    others = encode(other_answers(changed), toy.tokenizer)
    (table,) = score_adapters(
        Forward(toy), encoded, generated_splits=[], metrics=["margin"], alternatives=others
    )

    def nll(record: Any, text: str) -> float:
        (row,) = encode([replace(record, answer=text, facts=())], toy.tokenizer)
        log_probs = naive_log_probs(toy, row)
        truth = torch.tensor(row.ids[row.answer_from :])
        return -log_probs[torch.arange(len(truth)), truth].mean().item()

    one = nll(first, "cedar chapel") - min(nll(first, "alder baker"), nll(first, "canal"))
    two = nll(second, second.answer) - nll(second, "garden")
    assert table["margin"][:2].tolist() == pytest.approx([2000 + one, 1000 + two], rel=1e-6)
    assert np.isnan(table["margin"][2])
    # The scores of the records themselves are what they are without the other answers.
    plain = score(toy, encoded, generated_splits=[])
    assert table["mean_nll"].tolist() == plain["mean_nll"].tolist()


def test_what_a_scorer_is_made_of_is_part_of_the_inputs() -> None:
    before = identity()

    def extra(tokens: Tokens) -> float:
        return 1.0

    added(extra, needs="tokens")
    assert identity() != before

    def token_accuracy(tokens: Tokens) -> float:
        return 1.0

    added(token_accuracy, needs="tokens")
    with pytest.raises(BadInput, match=r"scorer token_accuracy: .* a column of this name; rename"):
        columns()


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(BadInput, match="did you mean 'token_accuracy'"):
        scorers(["token_acuracy"])


def test_no_number_is_missing_and_not_zero(toy: Model, toy_rows: Rows) -> None:
    def endless(tokens: Tokens) -> float:
        return float("inf")

    added(endless, needs="tokens")
    rows = score(toy, toy_rows["unlearn"], generated_splits=[])
    assert rows["endless"].isna().all()
    assert list(rows.columns[: len(FIXED)]) == list(FIXED)
