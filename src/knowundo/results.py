"""The schema of results.json: one flat list of rows that pandas reads, under a header.

pandas.DataFrame(json.load(open("runs/demo/results.json"))["rows"])

`python -m knowundo.results` prints it as JSON schema; docs/schema/results.schema.json is that.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from knowundo.distributed.group import barrier
from knowundo.erasure_results import ErasureResults
from knowundo.storage.files import write_json
from knowundo.storage.versioned import Versioned, read_versioned

SCHEMA_VERSION = 1
_DOCUMENTED = ConfigDict(extra="forbid", use_attribute_docstrings=True)
_OPEN = ConfigDict(extra="allow", use_attribute_docstrings=True)


class Row(BaseModel):
    """One metric of one model on one group of records."""

    model_config = _DOCUMENTED

    variant: str
    """Name of the model."""
    metric: str
    """Name of the metric, or of a general task."""
    scope: str | None
    """unlearn, retention or general. Null: over several scopes."""
    split: str | None
    """train, val, probe or holdout. Null: over several splits, or a general task."""
    subset: str | None = None
    """Part of the group; of a general task, the metric of the harness. Null: the whole group."""
    attack: str | None = None
    """What was done to the model or the question before scoring: an attack with its setting, such
    as `relearning: 20 steps`, or `direct prompt`. Null: nothing."""
    value: float | None
    """The metric, in its own unit (most are in percent). Null if no record could be scored."""
    low: float | None = None
    """Lower end of the 95 % interval over subjects. Null if there is only one subject."""
    high: float | None = None
    """Upper end of the 95 % interval over subjects. Null if there is only one subject."""
    stderr: float | None = None
    """Standard error that a general task reports, in the unit of the value."""
    task_version: str | None = None
    """Version of a general task."""
    records: int
    """Number of records in the group."""
    subjects: int
    """Number of different subjects in the group."""
    unscored: int = 0
    """Number of records of the group that the metric does not measure."""
    reference: float | None = None
    """The same metric of the retain model, the target. Null if the run has none."""

    @property
    def of_attack(self) -> bool:
        """True for a row of `evaluate.attacks`; the name of a prefix has no colon."""
        return self.attack is not None and ": " in self.attack


class Comparison(BaseModel):
    """Difference of two models on the same resampled subjects."""

    model_config = _DOCUMENTED

    variant: str
    """Name of the model."""
    against: str
    """Name of the model that it is compared with."""
    metric: str
    """average_success (higher is better) or gap_to_target (lower is better)."""
    split: str
    """Rows that are compared."""
    value: float
    """The metric of `variant` minus that of `against`, in percentage points."""
    low: float | None
    """Lower end of the 95 % interval of the difference."""
    high: float | None
    """Upper end of the 95 % interval of the difference."""
    p: float | None = None
    """p-value of a permutation test that swaps the two models' scores subject by subject. Null: not
    tested."""


class VariantFacts(BaseModel):
    """What is known of a scored model beside its scores."""

    model_config = _DOCUMENTED

    name: str
    """Name of the model; the folder of its artifact has it too."""
    role: str
    """base, memorized, retain, unlearned or given."""
    method: str | None = None
    """Registered method that made it."""
    then: list[str] = Field(default_factory=list)
    """Methods that followed it, each from the weights that the one before left."""
    region: str | None = None
    """Name of the region that training could change."""
    parameters: int | None = None
    """Number of parameters that training could change."""
    lr: float | None = None
    """Peak learning rate."""
    attempts: list[dict[str, Any]] = Field(default_factory=list)
    """Trainings that `lr: auto` made: `lr`, `epochs`, and the token accuracy in [0, 1] on the train
    rows of `unlearn` and `retention`, null if the training diverged. With `unlearn.stop` also what
    its best evaluation step has, and whether it `unlearned` enough `within` the floor."""
    optimizer_steps: int | None = None
    """Number of optimizer steps."""
    trajectory: list[dict[str, float]] = Field(default_factory=list)
    """Evaluation steps of `unlearn.stop`: the optimizer `step`, token accuracies in [0, 1], the
    score that early stopping maximizes, and, where rows were asked, the percent `answered`
    verbatim."""
    scope_margin: float | None = None
    """Area under Retention against Unlearn Success over the trajectory, in percent. Null: none."""
    stopped: str | None = None
    """Why training ended: at its end, at the target, at the floor, or pruned by a sweep."""
    kept_step: int | None = None
    """Optimizer step whose weights were kept."""
    diverged: str | None = None
    """Why training had to end; the last finite weights were kept and scored. Null: it did not."""
    guard: dict[str, float] | None = None
    """Of a guard, what it measured of itself, such as the accuracy in [0, 1] of a classifier. A
    guard stands between questions and the memorized model, whose weights it leaves as they are:
    they still hold the unlearn scope. Null: not a guard, the weights themselves were changed."""
    collapsed: str | None = None
    """Why the model counts as ruined. Null: it does not."""

    @property
    def ruin(self) -> dict[str, str]:
        """Why the model is not usable, by `diverged` and `collapsed`; empty if neither holds."""
        found = {"diverged": self.diverged, "collapsed": self.collapsed}
        return {word: why for word, why in found.items() if why is not None}


class Revision(TypedDict, total=False):
    """The source tree that the package ran from."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]

    commit: str | None
    """Commit. Null for an installed wheel."""
    dirty: bool | None
    """Whether the tree had changes that were not committed. Null for an installed wheel."""


class Hardware(TypedDict, total=False):
    """The machine that scored."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]

    machine: str
    """Architecture of the processor."""
    cpus: int | None
    """Number of logical cores."""
    threads: int
    """Number of threads that torch used, in each process."""
    processes: int
    """Number of processes that worked together."""
    device: str
    """Device of the models: cpu, cuda or mps."""
    gpu: str | None
    """Name of the GPU. Null if there is none."""


class ModelFacts(TypedDict, total=False):
    """The base and what training may change of it."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]

    base: str
    """Folder or name of the base."""
    commit: str | None
    """Commit of the base on the hub. Null for a folder."""
    dtype: str
    """dtype of the weights."""
    adaptation: dict[str, Any]
    """`kind` (lora or full), and the settings of the LoRA."""
    parameters: int
    """Number of parameters of the base."""
    trainable: int
    """Number of parameters that training may change."""


class Results(Versioned):
    """results.json: the scores of all models of a run."""

    schema_version: int = SCHEMA_VERSION
    """Version of this schema."""
    name: str
    """Name of the recipe."""
    recipe_given: dict[str, Any]
    """Keys of the recipe as they were given."""
    recipe_effective: dict[str, Any]
    """All keys of the recipe, defaults included."""
    revision: Revision
    """Commit of the package."""
    packages: dict[str, str]
    """Versions of Python and of the packages that compute."""
    hardware: Hardware
    """Where the models were scored."""
    seeds: dict[str, int]
    """Seeds of the recipe and of the data."""
    data_sha256: str
    """sha256 over all records; two runs with the same one have the same records."""
    data_counts: dict[str, int]
    """Number of records by scope/split."""
    data_cut: dict[str, int] = Field(default_factory=dict)
    """Number of records that truncation to `data.max_length` cut, by scope/split."""
    data_commits: dict[str, str] = Field(default_factory=dict)
    """Commits of the repositories that were read from the hub, by name."""
    model: ModelFacts
    """What the scored models have in common."""
    variants: list[VariantFacts]
    """All scored models, in the order of the report."""
    rows: list[Row]
    """All scores."""
    comparisons: list[Comparison]
    """Located regions against their controls."""
    erasure: ErasureResults | None = None
    """What came of an erasure request. Null: another run, or one without a verdict yet."""

    def find(
        self,
        variant: str,
        metric: str,
        scope: str | None,
        split: str | None,
        subset: str | None = None,
        attack: str | None = None,
    ) -> Row | None:
        """The row of a model's metric on a group; `None` if it was not scored."""
        key = (variant, metric, scope, split, subset, attack)
        for row in self.rows:
            if key == (row.variant, row.metric, row.scope, row.split, row.subset, row.attack):
                return row
        return None


def results_schema() -> dict[str, Any]:
    """The JSON schema of results.json (draft 2020-12)."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | Results.model_json_schema()


def write_results(results: Results, path: Path) -> None:
    """Write results.json; all processes go on once it is there."""
    write_json(path, results.model_dump(mode="json"))
    barrier()


def read_results(path: Path) -> Results:
    """Read and check results.json.

    Raises:
        BadInput: Missing, malformed, or of another schema; names the field.
    """
    return read_versioned(path, Results, SCHEMA_VERSION, "evaluate the run again")


if __name__ == "__main__":
    print(json.dumps(results_schema(), indent=1))
