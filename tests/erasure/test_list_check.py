"""What was found in lists is told in sentences, and read again."""

from __future__ import annotations

import pytest

from knowundo.data.encoding import encode
from knowundo.data.records import Record
from knowundo.erasure.checks import describe_rows
from knowundo.erasure.list_check import ListCheck
from knowundo.modeling.model import Model
from named_rows import CLARA, MAIL


def test_a_contradiction_is_told_with_its_fix() -> None:
    check = ListCheck(same_answer=[["1", "s"]])
    assert check.lines() == [
        "the same answer in unlearn and retention, which cannot both go and stay; remove one of "
        "the two if it is the same fact: 1 and s"
    ]


def test_what_is_known_is_told_in_the_words_that_scripts_read() -> None:
    check = ListCheck(verbatim=["1", "2"], known=["3"], not_known=["4"], level=0.25)
    assert check.lines() == [
        "the model answers 2 unlearn rows by heart, knows 1 more, and does not know 1, which need "
        "not go (token accuracy on what it cannot know: 25%)",
        "not known: 4",
    ]


def test_a_check_of_an_earlier_version_is_read() -> None:
    check = ListCheck(verbatim=["1"], similar=[["1", "s"]], level=0.5)
    assert ListCheck.from_dict(check.as_dict()) == check
    former = {"by_heart": ["1"], "alike": [["1", "s"]], "level": 0.5}
    assert ListCheck.from_dict(former) == check
    with pytest.raises(TypeError, match="bogus"):
        ListCheck.from_dict({"bogus": 1})


def test_rows_that_name_nobody_are_no_subjects(toy: Model) -> None:
    named = [CLARA, MAIL, Record("n", "Who?", "He.", "unlearn", "train", subject="n")]
    check = ListCheck()
    describe_rows(check, "unlearn", encode(named, toy.tokenizer))
    assert check.subjects == {"unlearn": 1}
    assert check.lines()[0].startswith("unlearn: 3 rows about 1 subjects (1 of them name none), ")
