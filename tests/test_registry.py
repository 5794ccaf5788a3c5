"""What a decorator registers, how its hyper-parameters are bound, and where files are found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from knowundo.entry import Entry, keyword_defaults
from knowundo.errors import BadInput
from knowundo.registry import ENTRIES, HOMES, entries, get, own_files


def loss(
    step: Any, *, weight: Annotated[float, Field(gt=0)] = 1.0, answers: str, top_k: int = 5
) -> Any:
    """A loss of three hyper-parameters.

    Only the first line is its summary.
    """


def entry() -> Entry:
    return Entry("method", "loss", loss)


def test_hyper_parameters_are_the_keyword_only_arguments() -> None:
    assert list(keyword_defaults(loss)) == ["weight", "answers", "top_k"]
    assert entry().arguments["weight"] == 1.0
    assert entry().summary == "A loss of three hyper-parameters."


def test_given_values_replace_defaults() -> None:
    bound = entry().bind({"answers": "unknown", "weight": 2})
    assert bound == {"weight": 2, "answers": "unknown", "top_k": 5}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"answers": "x", "wait": 1}, "did you mean 'weight'?"),
        ({"weight": 1.0}, "method loss needs 'answers': give it in the recipe"),
        ({"answers": "x", "weight": -1}, "method loss: weight: Input should be greater than 0"),
        ({"answers": "x", "top_k": "many"}, "top_k: Input should be a valid integer"),
    ],
)
def test_what_cannot_be_bound_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as refused:
        entry().bind(given)
    assert said in str(refused.value)


def test_prepare_takes_hyper_parameters_of_its_method_only() -> None:
    method = entry()
    assert method.prepare_arguments({"weight": 1.0}) == {}

    @method.prepare
    def columns(records: Any, scorer: Any, *, top_k: int = 0) -> Any:
        return {}

    bound = {"weight": 1.0, "answers": "x", "top_k": 7}
    assert method.prepare_arguments(bound) == {"top_k": 7}
    # An artifact depends on both functions, so a change of either makes it again.
    assert "def loss(" in method.source
    assert "def columns(" in method.source

    def other(records: Any, scorer: Any, *, top_n: int = 0) -> Any:
        return {}

    with pytest.raises(BadInput, match="did you mean 'top_k'"):
        method.prepare(other)


@pytest.mark.parametrize("kind", HOMES)
def test_each_file_of_the_package_registers_something(kind: str) -> None:
    files = [file.name for file in own_files(kind)]
    assert files == sorted(files)
    assert "__init__.py" not in files
    found = entries(kind)
    assert list(found) == sorted(found)
    beside = [other for other, home in HOMES.items() if home == HOMES[kind]]
    homes = {one.function.__module__ for other in beside for one in entries(other).values()}
    assert {f"{HOMES[kind]}.{name.removesuffix('.py')}" for name in files} <= homes


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(BadInput, match="did you mean 'gradient_ascent'"):
        get("method", "gradient_ascend")


def test_files_of_a_plugin_folder_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENTRIES, "metric", dict(ENTRIES["metric"]))
    text = (
        "from knowundo.registry import metric\n"
        "@metric(higher_is='remembered', unit='ratio')\n"
        "def of_a_plugin(scores):\n    '''Half.'''\n    return 0.5\n"
    )
    (tmp_path / "registry_test_plugin.py").write_text(text)
    monkeypatch.setenv("KNOWUNDO_PLUGINS", str(tmp_path))
    found = get("metric", "of_a_plugin")
    assert found(None) == 0.5
    assert found.facts["higher_is"] == "remembered"
    assert found.facts["unit"] == "ratio"


def test_a_plugin_folder_without_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KNOWUNDO_PLUGINS", str(tmp_path))
    with pytest.raises(BadInput, match=r"KNOWUNDO_PLUGINS: no \.py file in .*; name an existing"):
        entries("metric")
