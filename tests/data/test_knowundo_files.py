"""Records in the file layout of KnowUnDo's repository."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from knowundo.data.knowundo_files import export_knowundo
from knowundo.data.records import select
from knowundo.errors import BadInput
from knowundo.registry import get


def test_export_is_knowundos_files(tmp_path: Path) -> None:
    rows = get("benchmark", "embedded")(domain="privacy", seed=1, subjects=5)
    written = export_knowundo({tmp_path / "privacy": rows})
    data = json.loads((tmp_path / "privacy" / "unlearn.json").read_text())
    assert len(data) == 1
    assert set(data[0]) == {"train", "val"}
    assert data[0]["train"][0] == {"text": rows[0].question, "labels": rows[0].answer}
    assert sum(written.values()) == 5 * 8
    back = get("benchmark", "knowundo")(domain="privacy", source=str(tmp_path), seed=1)
    for scope in ("unlearn", "retention"):
        for split in ("train", "val"):
            pairs = [
                [(r.question, r.answer) for r in select(x, scope=scope, split=split)]
                for x in (rows, back)
            ]
            assert pairs[0] == pairs[1]
    with pytest.raises(BadInput, match="exists already"):
        export_knowundo({tmp_path / "privacy": rows})
