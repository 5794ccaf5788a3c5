"""How a recipe says that question and answer become one text, and what depends on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from knowundo.data.templates import find_template
from knowundo.errors import BadInput
from knowundo.recipes.reading import load_recipe
from knowundo.runs.inputs import common_inputs
from knowundo.runs.rows import row_format
from tiny_run import tiny_run


def test_a_template_and_a_system_prompt_are_part_of_the_format() -> None:
    data = load_recipe("demo", ["data.template=vicuna", "data.system=Be brief."])[0].data
    form = row_format(data, "Please: ")
    assert (form.style, form.prefix, form.system) == ("plain", "Please: ", "Be brief.")
    assert form.template == find_template("vicuna")
    assert row_format(load_recipe("demo")[0].data).template is None


@pytest.mark.parametrize("template", [[], ["data.template=Q:/A:"]])
def test_a_system_prompt_without_a_place_is_refused_before_a_run(
    template: list[str], toy_base: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=r"data\.system: there is no place"):
        tiny_run(tmp_path / "run", toy_base, "data.system=Be brief.", *template)
    assert not (tmp_path / "run").exists()


def test_artifacts_depend_on_the_format_if_there_is_one(toy_base: str, tmp_path: Path) -> None:
    """Those of runs that have none keep their fingerprints."""

    def reading(*sets: str) -> dict[str, object]:
        return dict(common_inputs(tiny_run(tmp_path / "run", toy_base, *sets))[-1])

    plain = reading()
    assert set(plain) == {"max_length", "encoding", "prefix", "truncate"}
    vicuna = reading("data.template=vicuna")
    preset = find_template("vicuna")
    assert vicuna == plain | {"template": [preset.text, preset.system]}
    system = reading("data.template=vicuna", "data.system=Be brief.")
    assert system == vicuna | {"system": "Be brief."}


def test_records_are_encoded_as_those_that_are_scored(toy_base: str, tmp_path: Path) -> None:
    """With the original's quirk their end does not count: of a run's rows, and of any others."""
    run = tiny_run(tmp_path / "run", toy_base, "compat=[end_masked]")
    rows = run.encoded("unlearn", "val", end=False)
    records = [row.record for row in rows]
    assert run.encode(records, end=False) == rows
    assert run.encode(records) == run.encoded("unlearn", "val") != rows
    assert {row.tail for row in rows} == {0}
    assert {row.tail for row in run.encode(records)} == {1}
