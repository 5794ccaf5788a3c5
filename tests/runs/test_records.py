"""The records of a recipe; what depends on the base is declared by the benchmark."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from knowundo.data.hub_files import ResolvedRecords
from knowundo.data.records import Record, select
from knowundo.recipes.reading import load_recipe
from knowundo.registry import ENTRIES, benchmark
from knowundo.runs.records import build_records


@pytest.fixture
def homemade() -> Iterator[None]:
    """A benchmark in one file, read from a hub, whose general facts are one base's."""

    @benchmark(facts_of_base="bases/mine", domains=("any",), licence="none", citation="none")
    def homemade(*, domain: str, seed: int = 0) -> list[Record]:
        """Three rows."""
        return ResolvedRecords(
            [
                Record("a", "Where?", "Here.", "unlearn", "train"),
                Record("b", "Who?", "She.", "general", "train", subset="facts"),
                Record("c", "What?", "It.", "general", "train", subset="text"),
            ],
            {"someone/rows": "abc"},
        )

    yield
    del ENTRIES["benchmark"]["homemade"]


@pytest.mark.usefixtures("homemade")
@pytest.mark.parametrize(
    ("base", "subsets"), [("bases/mine", ["facts", "text"]), ("embedded", ["text"])]
)
def test_facts_of_a_base_stand_beside_that_base_only(base: str, subsets: list[str]) -> None:
    sets = ["data.benchmark=homemade", "data.domain=any", f"model.base={base}"]
    records = build_records(load_recipe(None, sets)[0])
    assert [r.subset for r in select(records, scope="general")] == subsets
    assert records.commits == {"someone/rows": "abc"}
