"""results.json: its schema is typed, documented and exported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from knowundo.errors import BadInput
from knowundo.results import Results, Row, read_results, results_schema, write_results

FILE = Path(__file__).parents[1] / "docs" / "schema" / "results.schema.json"


def results(**given: Any) -> Results:
    objects = ("recipe_given", "recipe_effective", "revision", "packages", "hardware", "seeds")
    empty: dict[str, Any] = {name: {} for name in (*objects, "data_counts", "model")}
    lists: dict[str, Any] = {name: [] for name in ("variants", "rows", "comparisons")}
    return Results(**empty | lists | {"name": "x", "data_sha256": ""} | given)


def test_the_exported_schema_is_that_of_the_code() -> None:
    assert json.loads(FILE.read_text("utf-8")) == results_schema(), (
        "write it anew: python -m knowundo.results > docs/schema/results.schema.json"
    )


def objects(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield schema["title"], schema
    yield from schema["$defs"].items()


def test_every_object_and_field_is_described() -> None:
    found = dict(objects(results_schema()))
    assert {"Results", "Row", "Comparison", "VariantFacts", "ModelFacts"} <= set(found)
    for name, one in found.items():
        assert one["description"], name
        assert one["properties"], name
        for key, field in one["properties"].items():
            assert str(field.get("description", "")).endswith("."), f"{name}.{key}"


def test_results_are_read_as_written(tmp_path: Path) -> None:
    row = Row(
        variant="a", metric="m", scope="unlearn", split="val", value=None, records=0, subjects=0
    )
    given = results(rows=[row], hardware={"machine": "x", "npu": "yes"})
    write_results(given, tmp_path / "results.json")
    read = read_results(tmp_path / "results.json")
    assert read == given
    assert read.find("a", "m", "unlearn", "val") == row
    assert read.find("a", "m", "unlearn", "train") is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema_version": 7}, "schema 7, this version reads 1; evaluate the run again"),
        ({"rows": [{}]}, r"rows\.0\.variant: Field required; evaluate the run again"),
        ({"more": 1}, "more: Extra inputs are not permitted"),
        ({"hardware": {"cpus": "many"}}, r"hardware\.cpus: "),
    ],
)
def test_other_files_are_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps(results().model_dump() | change))
    with pytest.raises(BadInput, match=said) as caught:
        read_results(file)
    assert str(caught.value).startswith(str(file))
