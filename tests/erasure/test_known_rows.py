"""A generated row is known if the model gives its answer however it is asked."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from knowundo.data.encoded import Encoded
from knowundo.data.encoding import encode
from knowundo.data.records import Record
from knowundo.erasure import known_rows as module
from knowundo.erasure.known_rows import WORDINGS, demonstrably_known
from knowundo.modeling.model import Model
from knowundo.scoring.progress import Said
from knowundo.scoring.teacher_forcing import SURE
from named_rows import CLARA, MAIL


class Answers:
    """Stands for a model: the probability of each row's answer, and who answers how often."""

    def __init__(self, sure: dict[str, float], same: dict[str, int]) -> None:
        self.sure, self.same = sure, same
        self.asked: list[str] = []
        self.wordings = dict.fromkeys(sure, 0)

    def forced(self, _: Any, rows: list[Encoded]) -> dict[str, dict[str, Any]]:
        return {
            row.record.id: {"mean_nll": -math.log(self.sure[row.record.id]) / row.answer_length}
            for row in rows
        }

    def said(self, _: Any, rows: list[Encoded]) -> dict[str, Said]:
        left, found = dict(self.same), {}
        for row in rows:
            name = row.record.id
            self.asked.append(row.record.question)
            whose = name.partition("/")[0]
            left[whose] -= 1
            self.wordings[whose] += 1
            found[name] = Said(row.record.answer, left[whose] >= 0)
        return found


def known(
    monkeypatch: pytest.MonkeyPatch, toy: Model, rows: list[Record], answers: Answers
) -> set[str]:
    monkeypatch.setattr(module, "teacher_forced", answers.forced)
    monkeypatch.setattr(module, "answered", answers.said)

    def encoded(records: Any) -> list[Encoded]:
        return encode(list(records), toy.tokenizer)

    return demonstrably_known(toy, rows, encoded, seed=0)


ROWS = [replace(CLARA, id="clara"), replace(MAIL, id="mail")]


def test_an_answer_that_the_model_is_not_sure_of_is_not_asked_again(
    monkeypatch: pytest.MonkeyPatch, toy: Model
) -> None:
    answers = Answers({"clara": SURE + 0.01, "mail": SURE - 0.01}, {"clara": 9, "mail": 9})
    assert known(monkeypatch, toy, ROWS, answers) == {"clara"}
    assert answers.asked
    assert CLARA.question not in answers.asked


@pytest.mark.parametrize("same", range(WORDINGS + 1))
def test_most_wordings_must_have_the_same_answer(
    monkeypatch: pytest.MonkeyPatch, toy: Model, same: int
) -> None:
    answers = Answers({"clara": 0.9, "mail": 0.9}, {"clara": 0, "mail": same})
    found = known(monkeypatch, toy, ROWS, answers)
    assert answers.wordings == {"clara": WORDINGS, "mail": WORDINGS}
    assert found == ({"mail"} if 2 * same > WORDINGS else set())


def test_documents_and_rows_that_do_not_exist_are_not_known(
    monkeypatch: pytest.MonkeyPatch, toy: Model
) -> None:
    text = Record("t", "", "It was cold.", "retention", "train", kind="text")
    assert known(monkeypatch, toy, [text], Answers({}, {})) == set()
