"""Recipes: layers, overrides, and errors that name the key and the fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowundo.errors import BadInput
from knowundo.recipes.reading import amend, load_recipe, parse_recipe
from strategies import QUICK, outcome, values


def test_set_goes_over_the_preset() -> None:
    recipe, given = load_recipe("demo", ["unlearn.lr=1e-4", "data.domain=copyright"])
    assert recipe.unlearn.lr == 1e-4
    assert given["data"] == {"benchmark": "embedded", "domain": "copyright"}
    assert recipe.unlearn.epochs == load_recipe("demo")[0].unlearn.epochs


@pytest.mark.parametrize(
    ("written", "template"),
    [
        ("alpaca", "alpaca"),
        ("Q:/A:", "Q:/A:"),
        ("### Question", "### Question"),
        (r"Q: {question}\nA: {answer}", "Q: {question}\nA: {answer}"),
        (r'"Q: {question}\nA: {answer}"', "Q: {question}\nA: {answer}"),
        ("null", None),
    ],
)
def test_a_template_is_taken_as_it_is_written(written: str, template: str | None) -> None:
    """Without quotes too, where YAML would read a mapping or a comment."""
    assert load_recipe("demo", [f"data.template={written}"])[0].data.template == template


def test_a_file_of_a_template_is_kept_as_its_text(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("Q: {question}\nA: {answer}\n")
    recipe, _ = load_recipe("demo", [f"data.template={tmp_path / 'mine.txt'}"])
    assert recipe.data.template == "Q: {question}\nA: {answer}"


def test_a_file_can_extend_a_preset(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: demo\nname: mine\nunlearn: {lr: 3e-5}\n")
    recipe, _ = load_recipe(str(file))
    assert (recipe.name, recipe.unlearn.lr) == ("mine", 3e-5)
    assert len(recipe.unlearn.variants) == 13


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
        (["data.date=today"], "data.date: 'today' is not a date; write a date such as 2025-01-31"),
        (["data.date=true"], "data.date: 'True' is not a date"),
        (["data.date=20251345"], "data.date: '20251345' is not a date"),
        (["data.date=2025.5"], "data.date: '2025.5' is not a date"),
        (["data.template=alpca"], "data.template: unknown template 'alpca'; did you mean 'alpaca'"),
        (["data.template=Q: {question}"], "data.template: template 'Q: {question}': needs"),
        (["data={template: {question: 1}}"], "quote a template"),
        (["data.template=alpaca", "data.encoding=chat"], "encoding chat has the tokenizer's own"),
        (["data.template={system} {question} {answer}"], "set data.system"),
    ],
)
def test_bad_key_or_value(sets: list[str], said: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_recipe("demo", sets)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@QUICK
@given(st.dictionaries(st.sampled_from(["seed", "data", "model", "unlearn", "name"]), values))
def test_recipes_of_any_shape_are_taken_or_one_line(tree: dict[str, Any]) -> None:
    recipe, said = outcome(lambda: parse_recipe(amend(tree, []), "r.yaml"))
    assert recipe is not None or str(said).startswith("r.yaml")
