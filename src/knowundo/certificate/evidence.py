"""The schema of evidence.json: what had to go, what was run, and what follows from it.

`python -m knowundo.certificate.evidence` prints it as JSON schema;
docs/schema/evidence.schema.json is that. Texts of records stand in it only if they were asked for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from knowundo.recipes.acceptance import Measure
from knowundo.results import Hardware, Revision, Row
from knowundo.storage.versioned import Versioned, read_versioned

SCHEMA_VERSION = 1
_DOCUMENTED = ConfigDict(extra="forbid", use_attribute_docstrings=True)

# not_tested: no row was measured, or not as far as was asked. undecided: the value is within the
# bound, and its interval is not. no_criterion: measured, and the recipe named no bound before.
State = Literal["passed", "failed", "undecided", "not_tested", "no_criterion"]
Outcome = Literal["accepted", "not_accepted", "not_shown"]


class FileHash(BaseModel):
    """One file, by its content."""

    model_config = _DOCUMENTED

    name: str
    """Name of the file inside its folder."""
    sha256: str
    """sha256 of the file."""


class Parent(BaseModel):
    """A model that this one was made from."""

    model_config = _DOCUMENTED

    role: str
    """base, or memorized: the model before unlearning."""
    name: str
    """Name of the model; of a folder, its last part."""
    files: list[FileHash]
    """What it consists of."""


class HiddenRow(BaseModel):
    """A row that had to go, without its text."""

    model_config = _DOCUMENTED

    subject: str
    """HMAC-SHA256 of the subject."""
    row: str
    """HMAC-SHA256 of the JSON list [question, answer]."""
    question: str | None = None
    """The question. Null unless texts were asked for."""
    answer: str | None = None
    """The answer. Null unless texts were asked for."""


class Scope(BaseModel):
    """What had to go."""

    model_config = _DOCUMENTED

    rows: int
    """Number of train rows of the unlearn scope."""
    subjects: int
    """Number of different subjects of these rows."""
    key_id: str
    """Which key the HMACs are made with: HMAC-SHA256 of the word `key id` with it."""
    key_source: Literal["signing key", "run"]
    """Whether the key is derived from the controller's signing key, or was drawn for this run."""
    listed: str
    """HMAC-SHA256 over all rows, in order."""
    entries: list[HiddenRow]
    """Each row."""


class DataFacts(BaseModel):
    """The records of the run."""

    model_config = _DOCUMENTED

    benchmark: str
    """Registered benchmark."""
    counts: dict[str, int]
    """Number of records by scope/split."""
    hmac: str
    """HMAC-SHA256 of the sha256 over all records. The sha256 alone could be guessed."""
    sha256: str | None = None
    """sha256 over all records, as in results.json. Null unless texts were asked for."""
    commits: dict[str, str]
    """Commits of the repositories that records were read from."""


class Person(BaseModel):
    """One subject of the unlearn scope: extraction is judged for each person."""

    model_config = _DOCUMENTED

    subject: str
    """HMAC-SHA256 of the subject, as in `scope`."""
    asked: int
    """Number of questions about it that were answered freely, in all splits, without attack."""
    answered: int
    """How many of the answers were exactly right."""


class EvidenceRow(Row):
    """A row of results.json, with the same metric of the model before unlearning."""

    model_config = _DOCUMENTED

    before: float | None = None
    """The metric of the memorized model on the same rows without attack. Null if not measured."""


class Check(BaseModel):
    """One row held against one criterion."""

    model_config = _DOCUMENTED

    metric: str
    """Name of the metric."""
    where: str
    """Scope, split and attack of the row."""
    of: Measure
    """What the bound is about."""
    bound: float
    """The bound, in the unit of `measured`."""
    side: Literal["at_most", "at_least"]
    """Which side of the bound passes."""
    measured: float | None
    """What was measured. Null if it could not be."""
    low: float | None
    """Lower end of the 95 % interval over subjects. Null if there is none."""
    high: float | None
    """Upper end of the 95 % interval over subjects. Null if there is none."""
    records: int
    """Number of records that were measured."""
    subjects: int
    """Number of different subjects of these records."""
    state: State
    """What follows."""


class Answer(BaseModel):
    """A question of the certificate with its plain verdict."""

    model_config = _DOCUMENTED

    key: str
    """Key of the question in the recipe's section `acceptance`."""
    question: str
    """The question."""
    state: State
    """The verdict: the worst of all checks."""
    sentence: str
    """The verdict in words."""
    checks: list[Check]
    """What it rests on."""


class Finding(BaseModel):
    """Something that tells this model from one that has forgotten."""

    model_config = _DOCUMENTED

    name: str
    """guard, switched_off, scaled_down, unchanged, only_unsaid, same_as_base or
    collapsed."""
    sentence: str
    """What was found, in words."""


class ModelStory(BaseModel):
    """How the model was made."""

    model_config = _DOCUMENTED

    name: str
    """Name of the variant."""
    role: str
    """unlearned, given, memorized, retain or base."""
    method: str | None
    """Registered method that made it."""
    then: list[str]
    """Methods that followed."""
    region: str | None
    """Name of the region that training could change."""
    parameters: int | None
    """Number of parameters that training could change."""
    lr: float | None
    """Peak learning rate."""
    optimizer_steps: int | None
    """Number of optimizer steps."""
    adaptation: dict[str, Any]
    """What training may change of the base: `kind` (lora or full), and the settings of the LoRA."""


class ErasureVerdict(BaseModel):
    """What `erase` itself concluded."""

    model_config = _DOCUMENTED

    state: str
    """erased, erased_with_damage or not_erased."""
    sentence: str
    """Its verdict in one sentence."""
    relapsed: list[int]
    """Numbers of earlier requests that are known again."""


class Evidence(Versioned):
    """evidence.json: everything that a certificate rests on."""

    schema_version: int = SCHEMA_VERSION
    """Version of this schema."""
    certified: str
    """When the certificate was made, in UTC."""
    outcome: Outcome
    """accepted: every question passed. not_accepted: one failed, or a finding speaks against the
    model. not_shown: neither."""
    sentence: str
    """The outcome in one sentence."""
    answers: list[Answer]
    """All questions, each with its verdict."""
    findings: list[Finding]
    """What tells the model from one that has forgotten; empty if nothing was found."""
    erasure: ErasureVerdict | None = None
    """What `erase` concluded. Null: the run is no erasure."""
    scope: Scope
    """The rows that had to go, without their texts."""
    people: list[Person]
    """Each subject of the unlearn scope, and how many questions about it are still answered."""
    acceptance: dict[str, Any] | None
    """The criteria as they stand in the recipe. Null: there are none."""
    criteria: Literal["before the run", "not before the run", "none"]
    """Whether the manifest of the model shows that the criteria stood when it was made."""
    model: ModelStory
    """The model, and how it was made."""
    folder: str | None = None
    """Folder of the weights inside the run's directory. Null: they are elsewhere."""
    weights: list[FileHash]
    """What is delivered: the files that this certificate is about."""
    parents: list[Parent]
    """What it was made from."""
    data: DataFacts
    """The records that were used."""
    run: str
    """Name of the recipe."""
    recipe_sha256: str
    """sha256 of the effective recipe as JSON with sorted keys."""
    results_sha256: str
    """sha256 of results.json."""
    seeds: dict[str, int]
    """Seeds of the recipe and of the data."""
    revision: Revision
    """Commit of the package."""
    packages: dict[str, str]
    """Versions of Python and of the packages that compute."""
    hardware: Hardware
    """Where the models were scored."""
    rows: list[EvidenceRow]
    """Every metric of the model, under every attack that was run, with its interval."""
    limits: list[str] = Field(min_length=1)
    """What this evidence cannot show."""

    def answer(self, key: str) -> Answer:
        """The answer to a question."""
        return next(one for one in self.answers if one.key == key)


def evidence_schema() -> dict[str, Any]:
    """The JSON schema of evidence.json (draft 2020-12)."""
    draft = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return draft | Evidence.model_json_schema()


def read_evidence(path: Path) -> Evidence:
    """Read and check evidence.json.

    Raises:
        BadInput: Missing, malformed, or of another schema; names the field.
    """
    return read_versioned(path, Evidence, SCHEMA_VERSION, "certify the run again")


if __name__ == "__main__":
    print(json.dumps(evidence_schema(), indent=1))
