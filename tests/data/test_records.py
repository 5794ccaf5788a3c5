"""What a record must be, and how records are selected and hashed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import records
from knowundo.data.records import Record, check_records, data_hash, redacted
from knowundo.errors import BadInput
from strategies import QUICK


def good() -> list[Record]:
    return [
        row
        for scope in ("unlearn", "retention")
        for split in ("train", "val")
        for row in records(scope, split, 2)
    ]


def test_good_records_pass() -> None:
    check_records(good())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"answer": "  ", "facts": ()}, "the answer is empty"),
        ({"question": ""}, "the question is empty"),
        ({"question": "", "kind": "completion"}, "the question is empty"),
        ({"kind": "choices"}, "did you mean 'choice'"),
        ({"id": "retention/val/1"}, "occurs twice"),
        ({"facts": ("elsewhere",)}, "not a part of its answer"),
        (
            {"question": "What is number 0 of retention train?"},
            "same question is in the other",
        ),
    ],
)
def test_bad_record_is_named(change: dict[str, object], said: str) -> None:
    rows = good()
    rows[0] = replace(rows[0], **change)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=said):
        check_records(rows)


@pytest.mark.parametrize("scope", ["unlearn", "retention"])
def test_only_train_rows_are_needed(scope: str) -> None:
    check_records([r for r in good() if r.split == "train"])
    with pytest.raises(BadInput, match=f"{scope}/train: no rows"):
        check_records([r for r in good() if (r.scope, r.split) != (scope, "train")])


@pytest.mark.parametrize("bad", ["\ud800", "a\0b"])
@pytest.mark.parametrize("key", ["answer", "question", "subject", "subset", "turns"])
def test_what_no_list_can_hold_is_refused(key: str, bad: str) -> None:
    rows = [
        Record(id=f"{scope}/{split}", question=f"Q {scope} {split}?", answer="a", scope=scope,
               split=split, subject="s", kind="qa")
        for scope in ("unlearn", "retention") for split in ("train", "val")
    ]  # fmt: skip
    check_records(rows)
    value: Any = (("user", bad),) if key == "turns" else bad
    broken = replace(rows[0], **{key: value})
    with pytest.raises(
        BadInput, match=r"unlearn/train: contains a NUL or a lone surrogate .*; remove it"
    ):
        check_records([broken, *rows[1:]])


def test_hash_of_records_without_turns_is_what_it_was() -> None:
    """Runs made before there were turns are not done again."""
    rows = records("unlearn", "train", 3)
    pinned = "bb43b1bd332fd496c4adacd0c877c9692c567f0d1c53b0cbdf7d5c42a322c70c"
    assert data_hash(rows) == pinned
    assert data_hash([replace(rows[0], turns=(("user", "a"),)), *rows[1:]]) != pinned


def test_same_question_after_other_turns_is_another() -> None:
    rows = good()
    same = replace(rows[-1], id="same", question="And where?")
    other = replace(same, id="other", scope="unlearn", turns=(("user", "Who?"),))
    check_records([*rows, same, other])
    with pytest.raises(BadInput, match="the same question is in the other scope"):
        check_records([*rows, same, replace(other, turns=())])


def test_the_end_of_a_cut_text_is_in_its_hash() -> None:
    whole = records("general", "train", 1)
    assert data_hash([replace(whole[0], continues=True)]) != data_hash(whole)


@QUICK
@given(st.text())
def test_redacted_says_length_and_nothing_else(text: str) -> None:
    shown = redacted(text)
    assert shown.endswith(f"({len(text)} characters)")
    assert redacted(text) == shown
    assert len(shown) < 60
