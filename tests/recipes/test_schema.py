"""The keys of a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from knowundo.errors import BadInput
from knowundo.recipes.presets import presets
from knowundo.recipes.reading import load_recipe


def test_a_variant_goes_over_its_preset_and_the_shared_settings() -> None:
    first = "{preset: memflex, ascent: 6e-1, lr: 2e-4}"
    entry = f"unlearn.variants=[{first}, {{preset: memflex, name: b}}]"
    recipe, _ = load_recipe(None, [entry, "unlearn.lr=1e-5"])
    first, second = recipe.unlearn.variants
    assert first.arguments == {"ascent": 0.6, "descent": 2.0}
    assert recipe.unlearn.settings(first)["lr"] == 2e-4
    assert recipe.unlearn.settings(second)["lr"] == 1e-5
    assert (first.region, second.name) == ("memflex", "b")


@pytest.mark.parametrize(
    "written", ["2025-01-31", "20250131", "'2025-01-31'", "'20250131'", "2025-01-31 12:00:00"]
)
def test_a_day_is_read_as_yaml_reads_it(written: str, tmp_path: Path) -> None:
    """YAML makes a date, a number, a text or a moment of it."""
    assert load_recipe(None, [f"data.date={written}"])[0].data.date == "2025-01-31"
    (tmp_path / "mine.yaml").write_text(f"data: {{date: {written}}}\n")
    assert load_recipe(str(tmp_path / "mine.yaml"), [])[0].data.date == "2025-01-31"


def test_all_presets_are_those_that_nothing_else_names() -> None:
    named = "{preset: memflex, name: mine, lr: 1e-3}"
    entry = f"unlearn.variants=[{named}, {{preset: all, except: [meow, npo], epochs: 3}}]"
    first, *rest = load_recipe(None, [entry])[0].unlearn.variants
    assert (first.name, first.lr, first.epochs) == ("mine", 1e-3, None)
    assert [plan.name for plan in rest] == sorted(
        set(presets("methods")) - {"memflex", "meow", "npo"}
    )
    assert {plan.epochs for plan in rest} == {3}


@pytest.mark.parametrize(
    ("left_out", "said"),
    [("[memflx]", "did you mean 'memflex'"), ("meow", "except is a list of presets")],
)
def test_what_all_presets_leave_out_is_checked(left_out: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        load_recipe(None, [f"unlearn.variants=[{{preset: all, except: {left_out}}}]"])


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("then: {preset: undo}", "then is a list such as"),
        ("retain_on: [retention, retention]", "a scope is named twice"),
    ],
)
def test_what_a_variant_cannot_hold_is_said_in_its_words(key: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        load_recipe(None, [f"unlearn.variants=[{{preset: npo, {key}}}]"])


@pytest.mark.parametrize("key", ["preset: {a: 1}", "preset: [a]", "preset: all, except: [{a: 1}]"])
def test_a_preset_that_is_no_name_is_one_line(key: str) -> None:
    with pytest.raises(BadInput, match="preset"):
        load_recipe(None, [f"unlearn.variants=[{{{key}}}]"])


def test_a_number_of_controls_that_no_machine_lists_is_refused() -> None:
    """Their names were listed to look up a region, for minutes."""
    assert load_recipe(None, ["localize.draws=1000"])[0].localize.draws == 1000
    with pytest.raises(BadInput, match=r"localize\.draws: .*less than or equal to 1000"):
        load_recipe(None, ["localize.draws=9223372036854775808"])
