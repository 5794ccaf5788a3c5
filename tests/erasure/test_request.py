"""A request becomes a recipe, or is refused before anything is loaded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from knowundo.data.records import Record
from knowundo.erasure.request import ERASED, ErasureRequest, check_request, recipe_of
from knowundo.errors import BadInput
from knowundo.recipes.reading import parse_recipe
from knowundo.recipes.schema import Recipe

REQUEST = ErasureRequest("my/model", Path("rows.jsonl"), Path("out"))
ROW = Record("1", "Who?", "She.", "unlearn", "train")


def recipe(**changes: Any) -> Recipe:
    return parse_recipe(recipe_of(replace(REQUEST, **changes)), "--set")


def test_without_an_adapter_a_fresh_lora_is_trained() -> None:
    made = recipe()
    assert (made.model.base, made.memorize.adopt) == ("my/model", "my/model")
    assert made.model.adaptation == "lora"
    assert made.data.source == "out/lists"
    assert [plan.name for plan in made.unlearn.variants] == [ERASED]


def test_an_adapter_is_adopted_and_trained() -> None:
    made = recipe(adapter=Path("my/adapter"), route="adapter")
    assert (made.model.base, made.memorize.adopt) == ("my/model", "my/adapter")


def test_all_weights_are_localized_a_matrix_at_a_time() -> None:
    made = recipe(route="full")
    assert made.model.adaptation == "full"
    assert made.localize.held is not None
    assert recipe().localize.held != made.localize.held


@pytest.mark.parametrize("source", ["refusal", "model"])
def test_taught_answers_train_everything_without_an_aim(source: str) -> None:
    made = recipe(answer_with=source)
    (plan,) = made.unlearn.variants
    assert (plan.name, plan.region) == (ERASED, "everything")
    assert made.unlearn.stop is not None
    assert made.unlearn.stop.target == 0.0


def test_keys_on_top_win() -> None:
    assert recipe(sets=("unlearn.lr=1e-4",)).unlearn.lr == 1e-4


def test_the_route_adapter_needs_one() -> None:
    with pytest.raises(BadInput, match="--route adapter: needs --adapter"):
        recipe(route="adapter")


@pytest.mark.parametrize(
    ("route", "fields", "merged"),
    [
        ("auto", {}, False),
        ("adapter", {}, False),
        ("lora", {}, True),
        ("full", {}, True),
        ("auto", {"modules_to_save": ["lm_head"]}, True),
        ("adapter", {"trainable_token_indices": [3]}, True),
        ("full", {"init_lora_weights": "pissa"}, True),
    ],
)
def test_an_adapter_is_trained_or_merged(
    route: str, fields: dict[str, Any], merged: bool, tmp_path: Path
) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"} | fields))
    made = recipe(route=route, adapter=tmp_path)
    assert made.model.merge == (str(tmp_path) if merged else None)
    assert made.memorize.adopt == (made.model.base if merged else str(tmp_path))
    if merged:
        assert made.model.adaptation == ("full" if route == "full" else "lora")


@pytest.mark.parametrize(
    ("changes", "row", "said"),
    [
        ({"sets": ("unlearn.variants=[{preset: npo_kl}]",)}, ROW, "one variant, named erased"),
        ({"sets": ("unlearn.keep_every=2",)}, ROW, "keeps only its end"),
        ({"route": "full", "form": "adapter"}, ROW, "trains no adapter"),
        ({"answer_with": "refusal"}, replace(ROW, kind="text"), "1 is a document"),
    ],
)
def test_what_would_fail_after_hours_is_refused(
    changes: dict[str, Any], row: Record, said: str
) -> None:
    request = replace(REQUEST, **changes)
    made = parse_recipe(recipe_of(request), "--set")
    with pytest.raises(BadInput, match=said):
        check_request(request, made, [row])
