"""Each question against its criterion, on values worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from certified import results, row
from knowundo.certificate.evidence import Answer
from knowundo.certificate.verdict import Scores, answer_questions, outcome
from knowundo.recipes.acceptance import Acceptance
from knowundo.results import Row


def asked(key: str, *rows: Row, **criteria: Any) -> Answer:
    """The answer to one question about the model `m`."""
    acceptance = Acceptance.model_validate(criteria)
    answers = answer_questions(Scores(results(*rows), "m"), acceptance)
    return next(one for one in answers if one.key == key)


@pytest.mark.parametrize(
    ("value", "low", "high", "state"),
    [
        (5.0, 5.0, 5.0, "passed"),
        (4.0, 0.0, 5.0, "passed"),
        (4.0, 0.0, 5.1, "undecided"),
        (5.1, 0.0, 9.0, "failed"),
        (4.0, None, None, "passed"),
        (None, None, None, "not_tested"),
    ],
)
def test_a_bound_holds_for_the_value_and_for_its_interval(
    value: float | None, low: float | None, high: float | None, state: str
) -> None:
    one = row("m", "exact_match", value, low=low, high=high)
    assert asked("reworded", one).state == state


def test_the_worst_row_decides() -> None:
    rows = [row("m", "exact_match", 0.0), row("m", "exact_match", 40.0, split="probe")]
    answer = asked("reworded", *rows)
    assert (answer.state, len(answer.checks)) == ("failed", 2)
    assert "40.0 on unlearn probe, at most 5" in answer.sentence
    assert (
        asked("reworded", rows[0], row("m", "exact_match", None, split="probe")).state == "passed"
    )


def test_bounds_are_about_what_they_say() -> None:
    before = row("memorized", "probability", 90.0)
    own = row("m", "probability", 40.0, low=30.0, high=50.0, reference=20.0)

    def measured(of: str, **bound: float) -> Any:
        criterion = {"metric": "probability", "of": of, **(bound or {"at_most": 0.0})}
        check = asked("latent", own, before, latent=criterion).checks[0]
        return check.measured, check.low, check.high, check.state

    assert measured("value") == (40.0, 30.0, 50.0, "failed")
    assert measured("over_target", at_most=20.0) == (20.0, 10.0, 30.0, "undecided")
    assert measured("change", at_least=-70.0) == (-50.0, -60.0, -40.0, "passed")
    assert measured("change", at_least=-55.0) == (-50.0, -60.0, -40.0, "undecided")
    # (40 − 20) / (90 − 20), and so for the ends.
    assert measured("left", at_most=50.0)[:3] == pytest.approx((200 / 7, 100 / 7, 300 / 7))


def test_without_a_retain_model_the_way_begins_at_zero() -> None:
    before, own = row("memorized", "probability", 80.0), row("m", "probability", 20.0)
    check = asked("latent", own, before).checks[0]
    assert check.measured == 25.0
    missing = {"metric": "probability", "at_most": 1, "of": "over_target"}
    assert asked("latent", own, before, latent=missing).state == "not_tested"
    # What was never known cannot be measured on its way back.
    assert asked("latent", own, row("memorized", "probability", 0.0)).state == "not_tested"


def test_a_question_without_rows_or_criterion_never_passes() -> None:
    fine = row("m", "exact_match", 0.0)
    assert asked("sampling", fine).state == "not_tested"
    assert asked("reworded", fine, reworded=None).state == "no_criterion"
    assert asked("sampling", fine, sampling=[]).state == "not_tested"
    for answer in answer_questions(Scores(results(fine), "m"), None):
        assert answer.state in ("no_criterion", "not_tested")
    assert asked("reworded", fine, reworded={"metric": "other", "at_most": 1}).state == "not_tested"


def test_zero_hits_say_what_they_leave_open() -> None:
    none = row("m", "exact_match", 0.0, low=0.0, high=0.0, subjects=60)
    assert "none of 60 subjects, so of others up to 5 %" in asked("reworded", none).sentence
    # The list itself is all there is to ask, no sample of it.
    itself = none.model_copy(update={"split": "train"})
    assert "rule of three" not in asked("asked", itself).sentence


def relearned(*steps: tuple[int, float], **given: Any) -> Answer:
    rows = [
        row("m", "exact_match", value, attack=f"relearning: {n} steps", reference=0.0)
        for n, value in steps
    ]
    return asked("relearning", *rows, **given)


def test_a_list_that_returns_after_20_steps_fails() -> None:
    answer = relearned((0, 0.0), (10, 5.0), (20, 80.0))
    assert answer.state == "failed"
    assert "80.0 over the retain model on unlearn val relearning: 20 steps" in answer.sentence
    assert len(answer.checks) == 2  # before the first step there was no attack


def test_fewer_steps_than_asked_do_not_pass() -> None:
    assert relearned((20, 0.0)).state == "not_tested"
    assert "only up to 20 steps" in relearned((20, 0.0)).sentence
    assert relearned((20, 0.0), (50, 0.0)).state == "passed"


def test_eight_bits_do_not_stand_for_four() -> None:
    def quantized(*names: str) -> Answer:
        rows = [row("m", "exact_match", 0.0, attack=f"quantization: {name}") for name in names]
        return asked("quantization", *rows)

    assert quantized("int8").state == "not_tested"
    assert quantized("int8", "int4").state == quantized("nf4").state == "passed"


def test_attacks_go_to_their_questions() -> None:
    attacks = ("direct prompt", "rewording: typos", "in_context: 8 rows", "sampling: k=8", "new: 1")
    rows = [row("m", "exact_match", 0.0, attack=attack) for attack in attacks]

    def where(key: str) -> list[str]:
        return [check.where.removeprefix("unlearn val ") for check in asked(key, *rows).checks]

    assert where("reworded") == ["direct prompt", "rewording: typos"]
    assert where("sampling") == ["sampling: k=8"]
    assert where("other_attacks") == ["in_context: 8 rows", "new: 1"]


@pytest.mark.parametrize(
    ("value", "state"), [(50.0, "passed"), (61.0, "failed"), (39.0, "failed"), (None, "not_tested")]
)
def test_members_that_are_too_unlikely_are_told_as_well(value: float | None, state: str) -> None:
    assert asked("membership", row("m", "min_k_auc", value, scope=None, split=None)).state == state
    assert asked("membership", row("m", "other_auc", value)).state == "not_tested"


def test_what_nobody_knows_is_no_measure_of_retention() -> None:
    rows = [
        row(name, "token_accuracy", value, scope="retention", split=split)
        for name, split, value in (
            ("memorized", "val", 99.0), ("m", "val", 97.0),
            ("memorized", "holdout", 60.0), ("m", "holdout", 20.0),
        )
    ]  # fmt: skip
    assert asked("retention", *rows).state == "passed"


def test_the_whole() -> None:
    acceptance = Acceptance.model_validate(dict.fromkeys(Acceptance.model_fields, None))
    only = acceptance.model_copy(update={"reworded": Acceptance().reworded})
    good, bad = row("m", "exact_match", 0.0), row("m", "exact_match", 50.0)

    def said(one: Row) -> tuple[str, str]:
        return outcome(answer_questions(Scores(results(one), "m"), only), [])

    assert said(good) == (
        "not_shown",
        "NOT SHOWN: 1 of 11 questions passed, 9 not tested, 1 no criterion",
    )
    assert said(bad)[0] == "not_accepted"
    assert "Is it forgotten in rewordings? NO: exact_match 50.0" in said(bad)[1]
    passed = [one.model_copy(update={"state": "passed"}) for one in
              answer_questions(Scores(results(good), "m"), only)]  # fmt: skip
    assert outcome(passed, []) == ("accepted", "ACCEPTED: 11 of 11 questions passed")
