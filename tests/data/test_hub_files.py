"""Where the rows of a benchmark come from, and what is said if they are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from knowundo.errors import BadInput
from knowundo.registry import get


def test_damaged_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "unlearn.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(BadInput, match=r"unlearn\.parquet: not readable as Parquet"):
        get("benchmark", "knowundo")(domain="privacy", source=str(tmp_path))


def test_cold_cache_says_what_to_download(hub: Path) -> None:
    with pytest.raises(BadInput) as caught:
        get("benchmark", "knowundo")(domain="privacy", revision="d" * 40)
    said = str(caught.value)
    assert "hf download zjunlp/KnowUnDo --repo-type dataset --revision ddd" in said
    assert "HF_HOME" in said
    assert "\n" not in said
