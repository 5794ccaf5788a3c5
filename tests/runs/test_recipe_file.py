"""The recipe that a run's directory holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from knowundo.errors import BadInput
from knowundo.runs.recipe_file import (
    RECIPE,
    amended_recipe,
    read_recipe_file,
    refuse_other_recipe,
    write_recipe_file,
)

WHOLE = {
    "memorize": {"lr": 0.002},
    "localize": {"adopt": None, "draws": 3},
    "evaluate": {"models": []},
}


def with_key(section: str, key: str, value: object) -> dict[str, dict[str, object]]:
    return {**WHOLE, section: {**WHOLE[section], key: value}}


def test_it_is_written_once(tmp_path: Path) -> None:
    assert write_recipe_file(tmp_path, {"memorize": {}}, WHOLE)
    assert not write_recipe_file(tmp_path, {"memorize": {}}, WHOLE)
    assert read_recipe_file(tmp_path / RECIPE) == {"given": {"memorize": {}}, "effective": WHOLE}
    assert write_recipe_file(tmp_path, {}, with_key("memorize", "lr", 0.001))


def test_another_recipe_is_refused_by_the_key_that_differs(tmp_path: Path) -> None:
    refuse_other_recipe(tmp_path / "new", WHOLE)
    write_recipe_file(tmp_path, {}, WHOLE)
    refuse_other_recipe(tmp_path, WHOLE)
    with pytest.raises(BadInput, match=r"memorize\.lr is 0\.002, not 0\.001\); choose another"):
        refuse_other_recipe(tmp_path, with_key("memorize", "lr", 0.001))


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("localize", "adopt", "region.json"), ("evaluate", "models", ["one"])],
)
def test_some_keys_may_change_later(tmp_path: Path, section: str, key: str, value: object) -> None:
    write_recipe_file(tmp_path, {}, WHOLE)
    changed = with_key(section, key, value)
    refuse_other_recipe(tmp_path, changed)
    assert amended_recipe(WHOLE, changed) == changed


def test_what_is_no_directory_of_a_run(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(BadInput, match="file: is a file; choose another directory"):
        refuse_other_recipe(file, WHOLE)
    (tmp_path / RECIPE).write_text("name: x\n")
    with pytest.raises(BadInput, match=r"recipe\.yaml: not a run's recipe"):
        refuse_other_recipe(tmp_path, WHOLE)
