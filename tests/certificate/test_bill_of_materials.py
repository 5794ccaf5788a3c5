"""The model card is CycloneDX 1.6, by its own schema."""

from __future__ import annotations

import json

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from certified import evidence, row
from knowundo.certificate.bill_of_materials import bill_of_materials
from knowundo.recipes.acceptance import Acceptance


def test_it_keeps_the_schema() -> None:
    rows = [
        row("m", "exact_match", 12.5, low=5.0, high=20.0, attack="sampling: k=8"),
        row("m", "exact_match", 0.0),
        row("m", "rouge_l", None),
    ]
    made = bill_of_materials(evidence(*rows, acceptance=Acceptance()))
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(json.dumps(made)) is None
    assert validator.validate_str(json.dumps(made | {"more": 1})) is not None
    card = made["metadata"]["component"]["modelCard"]
    assert card["quantitativeAnalysis"]["performanceMetrics"] == [
        {
            "type": "exact_match",
            "value": "12.5",
            "slice": "unlearn, val, sampling: k=8",
            "confidenceInterval": {"lowerBound": "5", "upperBound": "20"},
        },
        {"type": "exact_match", "value": "0", "slice": "unlearn, val"},
    ]
    claims = {one["bom-ref"]: one for one in made["declarations"]["claims"]}
    assert claims["claim-sampling"]["counterEvidence"] == ["evidence-sampling"]
    assert claims["claim-reworded"]["evidence"] == ["evidence-reworded"]
