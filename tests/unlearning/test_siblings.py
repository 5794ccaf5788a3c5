"""Siblings of listed rows: whom the model is asked about, what, and which answers are taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from conftest import naive_ce, records
from knowundo.data.encoded import Encoded
from knowundo.data.encoding import encode
from knowundo.data.records import Record
from knowundo.errors import BadInput
from knowundo.modeling.model import Model
from knowundo.unlearning.scorer import Scorer
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.siblings import siblings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import unlearn

LIST = {
    "Where does Ada Brun live?": ("Ada Brun", "alder canal"),
    "Who knows Ada Brun?": ("Ada Brun", "cherry"),
    "What is the number of Ivo Kant?": ("Ivo Kant", "cedar chapel"),
    "Which is the longest answer?": ("Lena Moor", "baker baker baker baker"),
}


def listed(scope: str = "unlearn") -> list[Record]:
    plain = records(scope, "train", len(LIST))
    return [
        replace(record, question=question, subject=subject, answer=answer, facts=())
        for record, (question, (subject, answer)) in zip(plain, LIST.items(), strict=True)
    ]


class Told(Scorer):
    """Answers that the test chooses; all else is the model's."""

    asked: Sequence[Encoded] = ()
    said = "garden"

    def answers(self, rows: Sequence[Encoded]) -> dict[str, str]:
        self.asked = list(rows)
        return {row.record.id: f"{self.said} {n}" for n, row in enumerate(rows)}

    def mean_nll(self, rows: Sequence[Encoded]) -> dict[str, float]:
        """The later an answer was given, the surer the model is of it."""
        return {row.record.id: -float(row.record.answer.split()[-1]) for row in rows}


def told(toy: Model) -> Told:
    return Told(toy, 0, partial(encode, tokenizer=toy.tokenizer))


def test_subjects_are_asked_what_is_asked_about_others(toy: Model) -> None:
    scorer = told(toy)
    found = siblings(encode(listed(), toy.tokenizer), scorer, scope="unlearn")
    asked = {row.record.question for row in scorer.asked}
    assert asked == {
        "What is the number of Ada Brun?",
        "Where does Ivo Kant live?",
        "Who knows Ivo Kant?",
    }
    assert {row.answer_length for row in scorer.asked} == {
        encode([replace(listed()[0], answer="cedar chapel")], toy.tokenizer)[0].answer_length
    }
    # One of Ada Brun's two rows is left without; the row that names nobody has none.
    assert list(found) == ["unlearn/train/0", "unlearn/train/2"]


def test_the_surest_answer_is_taken_and_is_a_row_of_its_subject(toy: Model) -> None:
    scorer = told(toy)
    found = siblings(encode(listed(), toy.tokenizer), scorer, scope="siblings")
    of_ivo = [row.record.question for row in scorer.asked if row.record.subject == "Ivo Kant"]
    sibling = found["unlearn/train/2"].record
    assert sibling.question == of_ivo[-1]
    assert sibling.answer.startswith("garden")
    assert (sibling.subject, sibling.scope) == ("Ivo Kant", "siblings")
    assert sibling.id == "unlearn/train/2/sibling"


def test_an_answer_of_the_list_is_no_sibling(toy: Model) -> None:
    rows = encode([replace(row, answer="Garden, 0!") for row in listed()], toy.tokenizer)
    scorer = told(toy)
    scorer.said = "garden 0"

    def answers(rows: Sequence[Encoded]) -> dict[str, str]:
        return {row.record.id: "garden 0" for row in rows}

    scorer.answers = answers  # type: ignore[method-assign]
    assert siblings(rows, scorer, scope="unlearn") == {}


def test_the_model_itself_answers_and_is_as_sure_as_it_is(toy: Model) -> None:
    scorer = Scorer(toy, 0, partial(encode, tokenizer=toy.tokenizer))
    found = siblings(encode(listed(), toy.tokenizer), scorer, scope="unlearn")
    rows = encode([replace(r.record, answer="cedar chapel") for r in found.values()], toy.tokenizer)
    said = scorer.answers(rows)
    assert said
    for row in found.values():
        assert said[row.record.id].strip() == row.record.answer
        assert scorer.mean_nll([row])[row.record.id] == pytest.approx(naive_ce(toy, row).item())


def started(toy: Model, kept: list[Encoded]) -> Start:
    rows = encode(listed(), toy.tokenizer)
    encoder = partial(encode, tokenizer=toy.tokenizer)
    return Start(toy, rows, {"retention": kept}, seed=0, encode=encoder)


def settings(**more: Any) -> UnlearnSettings:
    arguments = {"retention": 0.0, "divergence": 1.0}
    asked = {"retain_on": ["retention", "siblings"], "retained": 4, "arguments": arguments}
    return UnlearnSettings("npo", 2, 2, 1, lr=1e-3, **(asked | more))


def test_siblings_of_retention_rows_are_retained(toy: Model) -> None:
    start = started(toy, encode(listed("retention"), toy.tokenizer))
    plain = settings(retain_on="retention")
    before = unlearn(start, plain).curve
    start.restore()
    curve = unlearn(start, settings()).curve
    assert {row.record.scope for row in start.reference.apart} == {"siblings"}
    assert all(row in start.reference.states for row in start.reference.apart)
    assert curve[-1]["parts"]["retention"] > 1e-9
    # Another variant of the run gets the same bits as if there were no siblings.
    assert unlearn(start, plain).curve == before


def test_a_training_that_resumes_has_the_same_siblings(toy: Model) -> None:
    """They are made again of the memorized model, and held by no checkpoint."""
    kept = encode(listed("retention"), toy.tokenizer)
    first, again = started(toy, kept), started(toy, kept)
    unlearn(first, settings())
    first.restore()
    assert again.retained(settings()) == first.retained(settings())


def test_rows_without_siblings_cannot_be_retained_on_them(
    toy: Model, toy_rows: dict[str, list[Encoded]]
) -> None:
    start = started(toy, toy_rows["retention"])
    with pytest.raises(BadInput, match="no question of a retention row names its subject"):
        unlearn(start, settings())
