"""Two runs compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from knowundo.pipeline.scores import unaltered_rows
from knowundo.recipes.reading import differing_keys
from knowundo.reporting.comparison import Difference, differences
from knowundo.results import read_results
from knowundo.scoring.table import read_scores
from knowundo.storage.integrity import check_seal


def compare(first: Path, second: Path) -> tuple[list[tuple[str, Any, Any]], list[Difference]]:
    """Compare two runs.

    Args:
        first: Directory of an evaluated run.
        second: Directory of another one.

    Returns:
        The keys of the recipe in which they differ, with both values; and the differences of the
        scores.

    Raises:
        BadInput: One of them holds no results.
    """
    for folder in (first, second):
        if (folder / "results.json").is_file():
            check_seal(folder, folder / "results.json")
    one, other = (read_results(folder / "results.json") for folder in (first, second))
    keys = list(differing_keys(one.recipe_effective, other.recipe_effective))
    tables = {}
    for variant in one.variants:
        files = [out / "scores" / variant.name / "rows.parquet" for out in (first, second)]
        if all(file.is_file() for file in files):
            tables[variant.name] = (
                unaltered_rows(read_scores(files[0])),
                unaltered_rows(read_scores(files[1])),
            )
    return keys, differences(one, other, tables)
