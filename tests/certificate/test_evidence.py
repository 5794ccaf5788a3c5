"""evidence.json: its schema is exported, and every field is described."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from certified import evidence, row
from knowundo.certificate.evidence import evidence_schema, read_evidence
from knowundo.errors import BadInput

FILE = Path(__file__).parents[2] / "docs" / "schema" / "evidence.schema.json"


def test_the_exported_schema_is_that_of_the_code() -> None:
    assert json.loads(FILE.read_text("utf-8")) == evidence_schema(), (
        "write it anew: python -m knowundo.certificate.evidence > docs/schema/evidence.schema.json"
    )


def test_every_object_and_field_is_described() -> None:
    schema = evidence_schema()
    for name, one in {"Evidence": schema, **schema["$defs"]}.items():
        assert one["description"], name
        for key, field in one["properties"].items():
            assert str(field.get("description", "")).endswith("."), f"{name}.{key}"


def test_evidence_keeps_its_schema_and_is_read_as_written(tmp_path: Path) -> None:
    given = evidence(row("m", "exact_match", 1.5))
    text = given.model_dump_json()
    jsonschema.validate(json.loads(text), evidence_schema())
    (tmp_path / "evidence.json").write_text(text)
    assert read_evidence(tmp_path / "evidence.json") == given
    (tmp_path / "evidence.json").write_text(text.replace('"m"', "7", 1))
    with pytest.raises(BadInput, match="certify the run again"):
        read_evidence(tmp_path / "evidence.json")
