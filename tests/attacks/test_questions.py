"""Attacks on questions: what is asked, and that answers stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from attacks.attacking import Rows, Taught, accuracy, facts, under_attack
from knowundo.attacks.in_context import in_context
from knowundo.attacks.prefixes import prefixes, read_prompts
from knowundo.attacks.rewording import hurried, mistyped, rewording
from knowundo.data.records import Record
from knowundo.errors import BadInput
from knowundo.modeling.model import Model


def record(question: str) -> Record:
    return Record("a", question, "Bern", "unlearn", "train", subject="Clara Dorinford")


def test_typos_swap_inner_letters_and_spare_the_name() -> None:
    asked = record("Where does Clara Dorinford usually live?")
    made = mistyped(asked, seed=0, errors=1.0)
    assert "Clara Dorinford" in made.question
    assert made.question != asked.question
    for old, new in zip(asked.question.split(), made.question.split(), strict=True):
        assert sorted(old) == sorted(new)
        assert (old[0], old[-1]) == (new[0], new[-1])
    assert made.answer == "Bern"
    assert mistyped(asked, seed=0, errors=1.0) == made


def test_a_hurried_question() -> None:
    assert hurried(record("Where does Clara live?")).question == "where does clara live"


def test_each_form_is_a_setting(toy: Model, toy_rows: Rows) -> None:
    attacked = under_attack(toy, toy_rows)
    rewording(attacked, forms=("words", "typos", "lowercase"), errors=1.0)
    assert list(attacked.tables) == ["words", "typos", "lowercase"]
    asked = {row.record.id: row.record.question for row in attacked.rows}
    for table in attacked.tables.values():
        assert all(q != asked[i] for i, q in zip(table["id"], table["question"], strict=True))


def test_prompts_hold_the_question(toy: Model, toy_rows: Rows, tmp_path: Path) -> None:
    assert len(read_prompts(None)) >= 5
    file = tmp_path / "mine.yaml"
    file.write_text("shout: 'NOW: {question}'\nwhisper: 'psst, {question}'\n")
    attacked = under_attack(toy, toy_rows)
    prefixes(attacked, file=str(file), names=("shout",))
    (setting,) = attacked.tables
    assert setting == "shout"
    asked = {row.record.id: row.record.question for row in attacked.rows}
    table = attacked.tables["shout"]
    assert all(q == f"NOW: {asked[i]}" for i, q in zip(table["id"], table["question"], strict=True))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shout: 'NOW'", r"shout: a text with \{question\}"),
        ("- a", "no mapping"),
        ("a: [", "malformed YAML"),
    ],
)
def test_bad_prompts_are_refused(
    toy: Model, toy_rows: Rows, tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    attacked = under_attack(toy, toy_rows)
    with pytest.raises(BadInput, match=message):
        prefixes(attacked, file=str(file))
    with pytest.raises(BadInput, match="no such file"):
        prefixes(attacked, file=str(tmp_path / "none.yaml"))
    with pytest.raises(BadInput, match="did you mean 'role_play'"):
        prefixes(attacked, names=("roleplay",))


def test_rows_that_are_shown_are_not_scored(taught: Taught) -> None:
    taught.model.restore(taught.known)
    attacked = under_attack(taught.model, taught.rows)
    in_context(attacked, counts=(2,))
    table = attacked.tables["2 rows"]
    assert (table["scope"] == "unlearn").sum() == 6
    assert (table["scope"] == "retention").sum() == 8
    assert accuracy(attacked, "2 rows") >= 0
    assert len(facts("unlearn", 0)) == 8
    with pytest.raises(BadInput, match="there are 8"):
        in_context(attacked, counts=(8,))
