"""Early stopping: what is set aside, when training ends, and which step is best."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from knowundo.data.encoded import Encoded
from knowundo.errors import BadInput
from knowundo.modeling.model import Model
from knowundo.scoring.progress import Said
from knowundo.unlearning import early_stopping as module
from knowundo.unlearning.early_stopping import (
    EarlyStopping,
    Evaluation,
    StoppingRule,
    percent_verbatim,
    set_aside,
)
from knowundo.unlearning.retained_answers import RetainedAnswers
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.training import unlearn
from unlearning.knowing import SETTINGS, begin, rule_of


class Script:
    """Token accuracies in the order in which they are asked for: unlearn, retention, unlearn …"""

    def __init__(self, *pairs: tuple[float, float]) -> None:
        self.values = [value for pair in pairs for value in pair]

    def __call__(self, *_: Any) -> float:
        return self.values.pop(0)


def played(
    toy: Model, monkeypatch: pytest.MonkeyPatch, *pairs: tuple[float, float], **changed: Any
) -> EarlyStopping:
    """Early stopping that measured these accuracies, one evaluation per step."""
    monkeypatch.setattr(module, "token_accuracy", Script(*pairs))
    settings: dict[str, Any] = {"target": 0.4, "floor": 10.0, "patience": 2} | changed
    rule = StoppingRule([], [], evaluations=len(pairs) - 1, **settings)
    stopping = EarlyStopping(toy, rule, [], len(pairs) - 1)
    for _ in pairs[1:]:
        if stopping.after_step():
            break
    return stopping


def test_score_is_the_harmonic_mean_on_both_scales(
    toy: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = played(toy, monkeypatch, (1.0, 0.9), (0.7, 0.8), (0.4, 0.7), enough=0.0)
    first, middle, last = stopping.trajectory
    assert (first["forgotten"], first["kept"], first["score"]) == (0, 1, 0)
    # Half of the way from 1 to 0.4; 10 points lost are what the floor allows.
    assert middle["forgotten"] == pytest.approx(0.5)
    assert middle["lost"] == pytest.approx(10)
    assert middle["kept"] == pytest.approx(0.5)
    assert middle["score"] == pytest.approx(0.5)
    assert last["forgotten"] == pytest.approx(1)
    assert last["kept"] == pytest.approx(0)
    assert last["score"] == pytest.approx(0)
    assert stopping.best == middle


def retained(*right: int, sure: int = 12) -> RetainedAnswers:
    """Twelve rows of which some are right; token accuracy hardly shows the others."""
    names = [str(n) for n in right]
    known = frozenset(name for name in names if int(name) < sure)
    return RetainedAnswers(0.9 + len(right) / 100, frozenset(names), known)


@pytest.mark.parametrize(("sure", "lost"), [(12, 25.0), (10, 30.0), (9, 3.0)])
def test_the_floor_can_count_answers(
    toy: Model, monkeypatch: pytest.MonkeyPatch, sure: int, lost: float
) -> None:
    """Three of twelve rows get one wrong token; of few sure rows token accuracy counts."""
    found = iter([retained(*range(12), sure=sure), retained(*range(3, 12))])
    monkeypatch.setattr(RetainedAnswers, "of", lambda *_: next(found))
    monkeypatch.setattr(module, "token_accuracy", Script((1.0, 0.5)))
    rule = StoppingRule([], [], 0.4, 10.0, 1, 1, damage="answers")
    stopping = EarlyStopping(toy, rule, [], 1)
    stopping.after_step()
    assert stopping.trajectory[1]["lost"] == pytest.approx(lost)
    resumed = EarlyStopping.__new__(EarlyStopping)
    resumed.model = toy
    resumed.load_state_dict(stopping.state_dict())
    assert resumed._known == stopping._known


def test_a_step_that_unlearned_enough_is_better_than_any_other(
    toy: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quarter forgotten at no cost is no erasure, whatever its score."""
    gentle, enough, more = (0.85, 0.9), (0.6, 0.72), (0.55, 0.71)
    stopping = played(toy, monkeypatch, (1.0, 0.9), gentle, enough, more)
    scores = [one["score"] for one in stopping.trajectory]
    assert scores[1] > scores[2] > scores[3]
    assert stopping.best == stopping.trajectory[2]


def test_an_infinite_floor_is_never_reached(toy: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    falling = [(1.0, 0.9), (0.9, 0.7), (0.8, 0.5), (0.7, 0.3), (0.6, 0.1)]
    stopping = played(toy, monkeypatch, *falling, floor=math.inf)
    assert (stopping.stopped, stopping.step) == ("end", 4)
    assert [one["kept"] for one in stopping.trajectory] == [1.0] * 5


def test_the_target_ends_training_only_above_the_floor(
    toy: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = played(toy, monkeypatch, (1.0, 0.9), (0.3, 0.85), (0.3, 0.9))
    assert (stopping.stopped, stopping.step) == ("target", 1)
    stopping = played(toy, monkeypatch, (1.0, 0.9), (0.3, 0.5), (0.3, 0.85), (0.3, 0.85))
    assert (stopping.stopped, stopping.step) == ("target", 2)


def test_training_continues_after_a_dip_that_recovers_and_ends_after_another(
    toy: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    healing = [(1.0, 0.9), (0.9, 0.5), (0.8, 0.55), (0.7, 0.6), (0.6, 0.65), (0.6, 0.7)]
    assert played(toy, monkeypatch, *healing).stopped == "end"
    falling = [(1.0, 0.9), (0.9, 0.7), (0.8, 0.6), (0.7, 0.5), (0.6, 0.4)]
    stopping = played(toy, monkeypatch, *falling)
    assert (stopping.stopped, stopping.step) == ("floor", 2)


def test_an_observer_can_end_training(knowing: Model, toy_rows: dict[str, list[Encoded]]) -> None:
    seen: list[Evaluation] = []

    def observe(found: Evaluation) -> bool:
        seen.append(found)
        return len(seen) == 2

    done = unlearn(
        begin(knowing, toy_rows),
        UnlearnSettings(lr=1e-3, **SETTINGS),
        rule=rule_of(toy_rows),
        observer=observe,
    )
    assert done.facts["stopped"] == "pruned"
    assert done.facts["trajectory"][1:] == seen
    assert len(done.curve) == seen[-1]["step"]


def test_the_best_step_is_what_is_left_in_memory(
    knowing: Model, toy_rows: dict[str, list[Encoded]]
) -> None:
    """Train with early stopping, then again up to its best step: the same weights."""
    start = begin(knowing, toy_rows)
    rule = rule_of(toy_rows, evaluations=18, target=-0.5, floor=15.0, patience=99)
    done = unlearn(start, UnlearnSettings(lr=3e-2, **SETTINGS), rule=rule)
    kept = knowing.state()
    step = done.facts["best"]["step"]
    scores = [one["score"] for one in done.facts["trajectory"]]
    assert done.facts["best"]["score"] == max(scores)
    assert 0 < step < len(done.curve)

    def stop(found: Evaluation) -> bool:
        return found["step"] == step

    unlearn(start, UnlearnSettings(lr=3e-2, **SETTINGS), rule=rule, observer=stop)
    assert all(torch.equal(kept[name], value) for name, value in knowing.state().items())


def test_evaluations_change_no_weight(knowing: Model, toy_rows: dict[str, list[Encoded]]) -> None:
    start = begin(knowing, toy_rows)
    unlearn(start, UnlearnSettings(lr=1e-3, **SETTINGS))
    plain = knowing.state()
    last = rule_of(toy_rows, evaluations=1)
    done = unlearn(start, UnlearnSettings(lr=1e-3, **SETTINGS), rule=last)
    assert done.facts["best"]["step"] == len(done.curve)
    assert all(torch.equal(plain[name], value) for name, value in knowing.state().items())


def test_rows_are_set_aside_by_seed(toy_rows: dict[str, list[Encoded]]) -> None:
    rows, retention = toy_rows["unlearn"], toy_rows["retention"]
    trained, kept, seen, seen_kept = set_aside(rows, retention, share=0.4, both=False, seed=0)
    assert trained == rows
    assert {row.record.id for row in seen} == {row.record.id for row in rows}
    assert len(seen_kept) == 2
    assert not set(kept) & set(seen_kept)
    assert set(kept) | set(seen_kept) == set(retention)
    trained, _, seen, _ = set_aside(rows, retention, share=0.4, both=True, seed=0)
    assert not set(trained) & set(seen)
    assert set_aside(rows, retention, share=0.4, both=True, seed=0)[2] == seen
    with pytest.raises(BadInput, match="retention/train has one row"):
        set_aside(rows, retention[:1], share=0.4, both=False, seed=0)


def test_a_row_is_answered_if_any_of_its_wordings_is(
    monkeypatch: pytest.MonkeyPatch, toy: Model, toy_rows: dict[str, list[Encoded]]
) -> None:
    one, two, three, four = toy_rows["unlearn"][:4]

    def said(_: Any, rows: list[Encoded]) -> dict[str, Said]:
        assert rows == [one, two, three, four]
        return {row.record.id: Said("", row is two) for row in rows}

    monkeypatch.setattr(module, "answered", said)
    assert percent_verbatim(toy, [[one, two], [three, four]]) == 50.0
    assert percent_verbatim(toy, [[one], [two], [three], [four]]) == 25.0
    assert percent_verbatim(toy, []) is None


def test_training_goes_on_while_the_list_is_answered(
    toy: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the target, rows are asked; the step at which they are not answered is the best."""
    left = [50.0, 0.0]
    monkeypatch.setattr(module, "percent_verbatim", lambda *_: left.pop(0))
    pairs = [(1.0, 0.9), (0.5, 0.9), (0.4, 0.9), (0.3, 0.88), (0.3, 0.9)]
    stopping = played(toy, monkeypatch, *pairs)
    assert [one.get("answered") for one in stopping.trajectory] == [None, None, 50.0, 0.0]
    assert (stopping.stopped, stopping.step) == ("target", 3)
    assert stopping.best == stopping.trajectory[3]
    assert stopping.best["score"] < stopping.trajectory[2]["score"]


def test_nothing_is_measured_with_dropout(toy: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A base may have dropout of its own; an answer that it garbles would count as gone."""
    seen = []
    monkeypatch.setattr(module, "percent_verbatim", lambda m, _: seen.append(m.net.training))
    toy.net.train()
    stopping = played(toy, monkeypatch, (1.0, 0.9), (0.3, 0.9))
    assert stopping.trajectory[1]["unlearn"] == 0.3
    assert seen == [False]
    assert toy.net.training
    toy.net.eval()


def test_where_no_loss_can_be_seen_no_more_is_unlearned_than_has_to_be(
    toy: Model, toy_rows: dict[str, list[Encoded]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are asked from `enough` on, long before the target, and training ends with them gone."""
    left = [50.0, 0.0]
    monkeypatch.setattr(module, "percent_verbatim", lambda *_: left.pop(0))
    pairs = [(1.0, 0.9), (0.8, 0.5), (0.6, 0.4), (0.55, 0.3), (0.5, 0.2)]
    asked = [[row] for row in toy_rows["unlearn"]]
    stopping = played(toy, monkeypatch, *pairs, floor=math.inf, asked=asked)
    assert [one.get("answered") for one in stopping.trajectory] == [None, None, 50.0, 0.0]
    assert (stopping.stopped, stopping.step) == ("target", 3)
    assert stopping.best == stopping.trajectory[3]
