"""The head of the report names the best model by its rule, and says when chance decides."""

from __future__ import annotations

import pytest

from knowundo.reporting.verdict import verdict
from knowundo.results import Results
from sample_run import results, sample, scores


def without(found: Results, *roles: str) -> Results:
    kept = [v for v in found.variants if v.role not in roles]
    return found.model_copy(update={"variants": kept})


def test_the_model_nearest_to_the_target_wins() -> None:
    found, material = sample(4)
    said = verdict(found, material.scores)
    assert said.winner == "method_0"
    assert said.sentence.startswith(("method_0 wins", "method_0 is ahead"))
    assert said.ranked == ("method_0", "method_1")  # controls do not compete
    assert said.controls == {"method_0_random-1", "method_0_random-2"}
    gaps = [found.find(name, "gap_to_target", None, "val") for name in said.ranked]
    assert [row.value for row in gaps if row is not None] == sorted(
        row.value for row in gaps if row is not None and row.value is not None
    )
    assert [one.label.split()[0] for one in said.measures] == ["Forgotten", "Kept", "General"]


def test_without_a_retain_model_the_average_decides() -> None:
    found, material = sample(3)
    said = verdict(without(found, "retain"), material.scores)
    assert said.winner == "method_0"
    assert "best average" in said.sentence or "only model" in said.sentence
    assert "target" not in said.sentence


@pytest.mark.parametrize(("far", "clear"), [(0.3, True), (0.0, False)])
def test_a_win_needs_more_than_chance(far: float, clear: bool) -> None:
    """The second keeps less by so much on every row, of twelve subjects; or is the same."""
    tables = scores(4)
    for table in tables.values():
        table["subject"] = table["id"]
    second = tables["method_0"].copy()
    second["token_accuracy"] -= far
    tables["method_1"] = second
    said = verdict(results(4, tables), tables)
    assert said.winner == "method_0"
    assert said.clear is clear
    assert ("wins" in said.sentence) is clear
    assert ("Chance may explain" in said.reasons[0]) is not clear


def test_ruined_models_and_guards_do_not_win() -> None:
    found, material = sample(5)
    ruined = {"method_0": {"collapsed": "it repeats itself"}, "method_1": {"guard": {}}}
    found.variants = [v.model_copy(update=ruined.get(v.name, {})) for v in found.variants]
    said = verdict(found, material.scores)
    assert said.winner == "method_2"
    assert any("out of the contest: method_0" in reason for reason in said.reasons)


def test_nothing_to_compare_is_said() -> None:
    found, material = sample(1)
    assert "only model" in verdict(found, material.scores).sentence
    said = verdict(without(found, "unlearned"), material.scores)
    assert (said.winner, said.measures) == (None, [])
    assert "nothing to compare" in said.sentence
