"""What unlearning aims at."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from knowundo.data.encoded import Encoded
from knowundo.pipeline.aims import (
    LEAST_KNOWN,
    REWORDINGS,
    asked_rows,
    known_rows,
    other_orders,
    prepare_unlearning,
)
from knowundo.pipeline.memorization import memorize
from knowundo.recipes.stop_section import Stop
from knowundo.runs.run import Run
from knowundo.scoring.teacher_forcing import token_accuracy
from tiny_run import tiny_run


@pytest.fixture(scope="module")
def run(toy_base: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = tiny_run(tmp_path_factory.mktemp("runs") / "run", toy_base, "data.subjects=6")
    memorize(made)
    return made


def test_without_early_stopping_it_is_the_model_that_never_saw_the_rows(run: Run) -> None:
    _, aim, rule = prepare_unlearning(run, None)
    assert aim.name == "the base model"
    assert rule is None
    run.model.reset()
    assert aim.accuracy == token_accuracy(run.model, run.encoded("unlearn", "train"))


def test_a_given_target_is_taken(run: Run) -> None:
    _, aim, rule = prepare_unlearning(run, Stop(target=0.25))
    assert aim == ("unlearn.stop.target", 0.25)
    assert rule is not None


def test_else_it_is_what_the_model_cannot_know(run: Run) -> None:
    _, aim, _ = prepare_unlearning(run, Stop())
    assert aim.name == "rows that it cannot know"
    assert 0 <= aim.accuracy < 1


def marked(run: Run, subset: str | None, count: int) -> list[Encoded]:
    """Retention rows of a run, `count` of them as if of this subset, the others made up."""
    rows = run.encoded("retention", "train", end=False)
    subsets = [subset] * count + ["generated: other subject"] * (len(rows) - count)
    return [
        replace(row, record=replace(row.record, subset=name))
        for row, name in zip(rows, subsets, strict=True)
    ]


@pytest.mark.parametrize("subset", [None, "generated: known other subject"])
def test_only_rows_that_are_known_bound_what_is_lost(run: Run, subset: str | None) -> None:
    rows = marked(run, subset, LEAST_KNOWN)
    known, others, floor = known_rows(run, Stop(floor=7.0), rows)
    assert (known, others, floor) == (rows[:LEAST_KNOWN], rows[LEAST_KNOWN:], 7.0)


def test_too_few_known_rows_bound_nothing(run: Run) -> None:
    rows = marked(run, None, LEAST_KNOWN - 1)
    assert known_rows(run, Stop(), rows) == (rows, [], math.inf)


def test_a_list_without_made_rows_is_bounded_however_short(run: Run) -> None:
    rows = marked(run, None, LEAST_KNOWN)[:3]
    assert known_rows(run, Stop(floor=7.0), rows) == (rows, [], 7.0)


def test_the_search_asks_other_wordings_than_the_val_rows(run: Run) -> None:
    rows = run.encoded("unlearn", "train", end=False)
    asked = asked_rows(run, rows)
    assert [row.record.id for row, *_ in asked] == [row.record.id for row in rows]
    assert all(len(wordings) == 1 + REWORDINGS for wordings in asked)
    for row, *others in asked:
        assert row.record.question not in {other.record.question for other in others}
        assert {other.record.answer for other in others} == {row.record.answer}
    # The wordings of val rows are not asked, even where few others are left.
    other = [row.record for _, *others in asked for row in others]
    val = [replace(record, id=f"v{n}", split="val") for n, record in enumerate(other)]
    judged = SimpleNamespace(recipe=run.recipe, encode=run.encode, records=val)
    again = [row.record for _, *others in asked_rows(cast(Run, judged), rows) for row in others]
    assert again
    assert not {record.question for record in again} & {record.question for record in val}


def test_the_search_asks_in_another_word_order_than_the_val_row(run: Run) -> None:
    """What is before or behind a question hides nothing; the order of its words can."""
    (row, *_) = run.encoded("unlearn", "train", end=False)
    question = "What is the phone number of Ada Brun?"
    (asked,) = run.encode([replace(row.record, question=question)])
    val = replace(row.record, id="v", split="val", question="What is Ada Brun's phone number?")
    judged = SimpleNamespace(recipe=run.recipe, encode=run.encode, records=[val])
    ((_, first, *rest),) = asked_rows(cast(Run, judged), [asked])
    assert first.record.question == "As for Ada Brun, what is the phone number?"
    assert len(rest) == REWORDINGS - 1
    assert all(question.lower() in other.record.question.lower() for other in rest)


def test_questions_are_unlearned_in_a_word_order_that_nothing_else_has(run: Run) -> None:
    rows = run.encoded("unlearn", "train", end=False)
    born = replace(rows[0].record, id="born", question="Where was Ada Brun born?")
    old = replace(rows[0].record, id="old", question="How old is Ada Brun?")
    encoded = run.encode([born, old])
    judged = SimpleNamespace(encode=run.encode, records=[born, old])
    (other,) = other_orders(cast(Run, judged), encoded)
    assert (other.record.id, other.record.question) == (
        "born/turned",
        "Do you know where Ada Brun was born?",
    )
    assert other.ids[other.answer_from :] == encoded[0].ids[encoded[0].answer_from :]
    probe = replace(born, id="p", split="probe", question=other.record.question)
    judged.records.append(probe)
    (other,) = other_orders(cast(Run, judged), encoded)
    assert other.record.question == "In which place was Ada Brun born?"


def test_word_orders_are_trained_on_and_not_evaluated(run: Run, monkeypatch: Any) -> None:
    rows = run.encoded("unlearn", "train", end=False)
    plain = prepare_unlearning(run, Stop(target=0.5))
    monkeypatch.setattr("knowundo.pipeline.aims.other_orders", lambda run, rows: rows[:2])
    start, _, rule = prepare_unlearning(run, Stop(target=0.5, word_orders=True))
    assert len(start.unlearn_rows) == len(plain.start.unlearn_rows) + 2 == len(rows) + 2
    assert rule is not None
    assert plain.rule is not None
    assert [row.record.id for row in rule.unlearn] == [r.record.id for r in plain.rule.unlearn]


def test_the_search_asks_in_other_formats(run: Run) -> None:
    rows = run.encoded("unlearn", "train", end=False)
    asked = asked_rows(run, rows, ["alpaca", "line"])
    for row, *others in asked:
        alpaca, line = others[REWORDINGS:]
        assert "### Instruction" in run.model.tokenizer.decode(alpaca.prompt)
        assert line.prompt != row.prompt
        assert line.record.question == row.record.question
        assert line.ids[line.answer_from :] == row.ids[row.answer_from :]
