"""The model card of a certificate in CycloneDX 1.6 (ML-BOM, ECMA-424), for machines.

Rows of the evidence become performance metrics with slices and confidence intervals, questions
become claims, and the models that this one was made from its pedigree.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

from knowundo.certificate.evidence import Answer, Evidence, EvidenceRow, FileHash
from knowundo.version import __version__

# Of this package: serial numbers are names in it, so the same evidence has the same one.
_NAMES = uuid.uuid5(uuid.NAMESPACE_URL, "urn:knowundo:evidence:v1")


def bill_of_materials(evidence: Evidence) -> dict[str, Any]:
    """The model card, as CycloneDX 1.6 JSON."""
    serial = uuid.uuid5(_NAMES, f"{evidence.results_sha256} {evidence.certified}")
    tool = {"type": "application", "name": "knowundo", "version": __version__}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "timestamp": evidence.certified,
            "tools": {"components": [tool]},
            "component": _model(evidence),
        },
        "declarations": _declarations(evidence),
    }


def _model(evidence: Evidence) -> dict[str, Any]:
    return {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": evidence.model.name,
        "components": _files(evidence.weights),
        "pedigree": {
            "ancestors": [
                {
                    "type": "machine-learning-model",
                    "bom-ref": f"parent-{parent.role}",
                    "name": parent.name,
                    "description": parent.role,
                    "components": _files(parent.files),
                }
                for parent in evidence.parents
            ]
        },
        "modelCard": {
            "modelParameters": {"task": "text-generation"},
            "quantitativeAnalysis": {
                "performanceMetrics": [
                    _metric(row) for row in evidence.rows if row.value is not None
                ]
            },
            "considerations": {"technicalLimitations": evidence.limits},
        },
    }


def _files(files: Iterable[FileHash]) -> list[dict[str, Any]]:
    return [
        {
            "type": "file",
            "name": one.name,
            "hashes": [{"alg": "SHA-256", "content": one.sha256}],
        }
        for one in files
    ]


def _metric(row: EvidenceRow) -> dict[str, Any]:
    parts = (row.scope, row.split, row.subset, row.attack)
    metric: dict[str, Any] = {
        "type": row.metric,
        "value": f"{row.value:.6g}",
        "slice": ", ".join(part for part in parts if part) or "all",
    }
    if row.low is not None and row.high is not None:
        metric["confidenceInterval"] = {
            "lowerBound": f"{row.low:.6g}",
            "upperBound": f"{row.high:.6g}",
        }
    return metric


def _declarations(evidence: Evidence) -> dict[str, Any]:
    """Each question as a claim; what speaks against it is counter-evidence."""
    return {
        "assessors": [{"bom-ref": "assessor", "thirdParty": False}],
        "targets": {
            "components": [
                {
                    "type": "machine-learning-model",
                    "bom-ref": "target",
                    "name": evidence.model.name,
                }
            ]
        },
        "claims": [_claim(answer) for answer in evidence.answers],
        "evidence": [
            {
                "bom-ref": f"evidence-{answer.key}",
                "propertyName": f"knowundo:{answer.key}",
                "description": answer.sentence,
            }
            for answer in evidence.answers
        ],
    }


def _claim(answer: Answer) -> dict[str, Any]:
    speaks = "counterEvidence" if answer.state == "failed" else "evidence"
    return {
        "bom-ref": f"claim-{answer.key}",
        "target": "target",
        "predicate": answer.question,
        "reasoning": f"{answer.state}: {answer.sentence}",
        speaks: [f"evidence-{answer.key}"],
    }
