"""The facts of an erasure are computed from its scores, and name the command that repeats it."""

from __future__ import annotations

import shlex
from math import exp
from pathlib import Path

import pytest

from erasure_facts import change, score_tables
from knowundo.data.lists.rows import row_source
from knowundo.erasure.facts import _ordinary_text, _retention, command_of
from knowundo.erasure.loss import Loss
from knowundo.erasure.request import ErasureRequest
from knowundo.erasure.score_pair import ScorePair
from knowundo.erasure.verdict import Verdict
from knowundo.results import VariantFacts


@pytest.fixture
def pair() -> ScorePair:
    before, after = (table.set_index("id") for table in score_tables())
    return ScorePair(before, after)


def test_what_had_to_go(pair: ScorePair) -> None:
    listed = pair.rows("unlearn", "train")
    exact = listed.percent("exact_match")
    assert (exact.before, exact.records) == (100.0, 3)  # nobody asks for the document
    assert exact.after == pytest.approx(100 / 3)
    assert listed.percent("token_accuracy") == change(100.0, 62.5, 4)
    assert pair.rows("unlearn", "val").percent("exact_match") == change(0.0, 0.0, 1)


def test_what_had_to_stay_is_parted_by_who_gave_it(pair: ScorePair) -> None:
    assert _retention(pair.rows("retention")) == {
        "retention_listed": change(100.0, 50.0, 2),
        "retention_reworded": change(100.0, 100.0, 1),
        "retention_unlisted": change(100.0, 50.0, 2),
        "retention_held_out": change(100.0, 0.0, 1),
        "retention_by_kind": {"other subject": change(100.0, 50.0, 2)},
    }


def test_general_text_is_plain_text_where_there_is_some(pair: ScorePair) -> None:
    found = _ordinary_text(pair).perplexity()
    assert (found.before, found.after) == (pytest.approx(exp(1)), pytest.approx(exp(2)))
    facts = pair.only(pair.before[pair.before["subset"] != "text"])
    assert _ordinary_text(facts).perplexity().before == pytest.approx(exp(9))


def test_an_empty_group_is_null_with_its_count(pair: ScorePair) -> None:
    assert pair.rows("general", "train").percent("exact_match") == change(None, None, 0)
    assert pair.rows("general", "train").perplexity() == change(None, None, 0)


@pytest.mark.parametrize(
    ("gone", "lost", "collapsed", "state"),
    [
        (True, 1.0, None, "erased"),
        (True, None, None, "erased"),
        (True, 11.0, None, "erased_with_damage"),
        (True, 1.0, "it repeats itself", "erased_with_damage"),
        (False, 11.0, "it repeats itself", "not_erased"),
    ],
)
def test_the_state_is_that_of_the_verdict(
    gone: bool, lost: float | None, collapsed: str | None, state: str
) -> None:
    measured = None if lost is None else Loss(lost, "answers")
    verdict = Verdict(
        exact=0.0, reworded=0.0, predicted=0.0, level=None, gone=gone, lost=measured, bound=10.0,
        epochs=1, accepted=True, rechecked={}, relapsed=[], taught="",
        facts=VariantFacts(name="erased", role="unlearned", collapsed=collapsed),
    )  # fmt: skip
    assert verdict.state == state


def test_the_command_is_that_of_the_request() -> None:
    request = ErasureRequest(
        "my/model", Path("my rows.jsonl"), Path("out"), adapter=Path("a"), val=Path("v.csv"),
        general="t.txt", columns={"question": "Q", "answer": "A"}, route="adapter",
        answer_with="unknown", form="merged", earlier=(Path("one"), Path("two")),
        sets=("unlearn.lr=1e-4",), redact=True, accept_damage=True,
    )  # fmt: skip
    assert shlex.split(command_of(request)) == [
        "knowundo", "erase", "--model", "my/model", "--unlearn", "my rows.jsonl",
        "--adapter", "a", "--val", "v.csv", "--general", "t.txt", "--columns",
        "question=Q,answer=A",
        "--route", "adapter", "--answer-with", "unknown", "--format", "merged",
        "--earlier", "one", "--earlier", "two", "--set", "unlearn.lr=1e-4", "--redact",
        "--accept-damage",
        "--out", "out",
    ]  # fmt: skip
    bare = ErasureRequest("m", Path("rows.jsonl"), Path("out"))
    assert command_of(bare) == "knowundo erase --model m --unlearn rows.jsonl --out out"


def test_a_request_of_objects_is_repeated_by_its_call() -> None:
    rows = row_source([("Who?", "She.")], "rows")
    request = ErasureRequest(
        "my/model", rows, Path("out"), retention=Path("stay.csv"), adapter=Path("a"),
        sets=("seed=1",), redact=True,
    )  # fmt: skip
    assert command_of(request) == (
        "erase('my/model', None, rows, retention='stay.csv', out='out', sets=['seed=1'], "
        "redact=True, adapter='a')"
    )
