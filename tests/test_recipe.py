"""Recipes: layers, overrides, and errors that name the key and the mend."""

from __future__ import annotations

from pathlib import Path

import pytest

from knowundo.errors import BadInput
from knowundo.recipes.reading import load_recipe
from knowundo.runs.checks import check


def test_set_goes_over_the_preset() -> None:
    recipe, given = load_recipe("demo", ["unlearn.lr=1e-4", "data.domain=copyright"])
    assert recipe.unlearn.lr == 1e-4
    assert given["data"] == {"benchmark": "embedded", "domain": "copyright"}
    assert recipe.unlearn.epochs == load_recipe("demo")[0].unlearn.epochs


def test_a_file_can_extend_a_preset(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: demo\nname: mine\nunlearn: {lr: 3e-5}\n")
    recipe, _ = load_recipe(str(file))
    assert (recipe.name, recipe.unlearn.lr) == ("mine", 3e-5)
    assert len(recipe.unlearn.variants) == 12


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
    ("sets", "said"),
    [
        (["unlearn.lrr=1"], "unknown key 'unlearn.lrr'; did you mean 'unlearn.lr'?"),
        (["memorise.lr=1"], "unknown key 'memorise'; did you mean 'memorize'?"),
        (["memorize.epochs=none"], "memorize.epochs: "),
        (["unlearn.lr=fast"], "unlearn.lr"),
        (["nonsense"], "expected key=value"),
        (["data.domain=[1"], "malformed YAML"),
        (["unlearn.variants=[{preset: memflexx}]"], "did you mean 'memflex'?"),
        (["unlearn.variants=[memflex]"], "a variant is a mapping"),
        (["unlearn.variants=[{preset: memflex, name: ../up}]"], "cannot be a folder's name"),
        (["unlearn.variants=[{preset: memflex}, {preset: memflex}]"], "two variants are named"),
        (["unlearn.variants=[{preset: npo, name: npo.step-20}]"], "rename the variant"),
        (["unlearn.keep_every=0"], "unlearn.keep_every"),
        (["data.date=today"], "data.date: 'today' is no day; write a day such as 2025-01-31"),
        (["data.date=true"], "data.date: 'True' is no day"),
        (["data.date=20251345"], "data.date: '20251345' is no day"),
        (["data.date=2025.5"], "data.date: '2025.5' is no day"),
    ],
)
def test_bad_key_or_value(sets: list[str], said: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_recipe("demo", sets)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "written", ["2025-01-31", "20250131", "'2025-01-31'", "'20250131'", "2025-01-31 12:00:00"]
)
def test_a_day_is_read_as_yaml_reads_it(written: str, tmp_path: Path) -> None:
    """YAML makes a date, a number, a text or a moment of it."""
    assert load_recipe(None, [f"data.date={written}"])[0].data.date == "2025-01-31"
    (tmp_path / "mine.yaml").write_text(f"data: {{date: {written}}}\n")
    assert load_recipe(str(tmp_path / "mine.yaml"), [])[0].data.date == "2025-01-31"


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["data.benchmark=knowundoo"], "did you mean 'knowundo'?"),
        (["unlearn.variants=[{method: gradient_assent}]"], "did you mean 'gradient_ascent'?"),
        (["unlearn.variants=[{preset: memflex, acsent: 1}]"], "did you mean 'ascent'?"),
        (["localize.localizers={memflx: {}}"], "did you mean 'memflex'?"),
        (["localize.localizers={memflex: {mue: 1}}"], "did you mean 'mu'?"),
        (["localize.draws=2"], "memflex_random-3: unknown region 'random-3'"),
        (["unlearn.variants=[{preset: memflex, region: gone.json}]"], "no region file gone.json"),
        (
            ["unlearn.variants=[{preset: memflex, keep_every: 20}]"],
            "variant memflex: keep_every: lr auto trains several times",
        ),
        (
            ["compat=original", "unlearn.retained=4"],
            "variant gradient_ascent: retained: compat mixed_batches takes as many retention rows",
        ),
    ],
)
def test_names_are_bound_before_anything_runs(sets: list[str], said: str) -> None:
    recipe, _ = load_recipe("demo", sets)
    with pytest.raises(BadInput) as caught:
        check(recipe)
    assert said in str(caught.value)
