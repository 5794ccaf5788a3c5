"""ReLearn's rates with marked facts, by hand."""

from __future__ import annotations

import pytest

from knowundo.data.records import Record
from knowundo.registry import get
from knowundo.scoring.seen import Generated

FACTS = ("Ada Moor", "14 Canal Lane", "Saltmere", "1903")


@pytest.mark.parametrize(
    ("facts", "said", "forgotten", "retained"),
    [
        (1, "She is ADA MOOR.", 0, 1),
        (1, "She is Ada and then Moor.", 1, 0),  # the words are not in a row
        (2, "Ada Moor lives at 15 Canal Lane", 1, 1),  # a half: both, as ReLearn has it
        (4, "In 1903", 1, 0),  # a quarter
        (4, "In Saltmere in 1903", 0, 1),  # a half of four is more than 30 %
        (1, "", 1, 0),
    ],
)
def test_rates(facts: int, said: str, forgotten: int, retained: int) -> None:
    chosen = FACTS[:facts]
    record = Record("a", "Who?", " ".join(chosen), "unlearn", "train", facts=chosen)
    answer = Generated(record, said)
    assert get("scorer", "knowledge_forgetting_rate")(answer) == forgotten
    assert get("scorer", "knowledge_retention_rate")(answer) == retained


def test_records_without_facts_are_not_measured() -> None:
    answer = Generated(Record("a", "Who?", "Ada", "unlearn", "train"), "Ada")
    assert get("scorer", "knowledge_forgetting_rate")(answer) is None
    assert get("scorer", "knowledge_retention_rate")(answer) is None
