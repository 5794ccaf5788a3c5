"""The schema of results.json: one flat list of rows that pandas reads, under a header.

pandas.DataFrame(json.load(open("runs/demo/results.json"))["rows"])
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from knowundo.errors import BadInput
from knowundo.storage.files import read_json, write_json

SCHEMA_VERSION = 1


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Versioned(_Strict):
    """A whole file."""

    schema_version: int


File = TypeVar("File", bound=Versioned)


class Row(_Strict):
    """One metric of one variant on one group of records."""

    variant: str = Field(description="name of the model")
    metric: str = Field(description="name of the metric")
    scope: str | None = Field(description="unlearn, retention or general; null: over several")
    split: str | None = Field(description="train, val, probe or holdout")
    subset: str | None = Field(None, description="a part of the group; null: all of it")
    attack: str | None = Field(
        None, description="what was done before scoring, such as 'direct prompt'; null: nothing"
    )
    value: float | None = Field(description="null where no record could be scored, never 0")
    low: float | None = Field(None, description="lower end of the 95 % interval over subjects")
    high: float | None = Field(None, description="upper end of the 95 % interval over subjects")
    stderr: float | None = Field(None, description="standard error that a general task reports")
    task_version: str | None = Field(None, description="version of a general task")
    records: int = Field(description="records in the group")
    subjects: int = Field(description="different subjects in the group")
    unscored: int = Field(0, description="records of the group that the metric does not measure")
    reference: float | None = Field(None, description="the retain model's value: the target")


class Comparison(_Strict):
    """Difference of two variants on the same resampled subjects."""

    variant: str
    against: str
    metric: str = Field(description="average_success (higher is better) or gap_to_target (lower)")
    split: str
    value: float = Field(description="the metric of variant minus that of against")
    low: float | None
    high: float | None


class VariantFacts(_Strict):
    """What is known of a scored model beside its scores."""

    name: str
    role: str = Field(description="base, memorized, retain, unlearned or given")
    method: str | None = None
    region: str | None = None
    parameters: int | None = Field(None, description="parameters that training could change")
    lr: float | None = None
    attempts: list[dict[str, Any]] = Field(
        default_factory=list, description="of lr: auto: rate, token accuracy on both train lists"
    )
    optimizer_steps: int | None = None
    trajectory: list[dict[str, float]] = Field(
        default_factory=list, description="of unlearn.stop: what was seen while training"
    )
    stopped: str | None = Field(
        None, description="why training ended: at its end, at the target, the floor, or pruned"
    )
    kept_step: int | None = Field(None, description="the optimizer step that was kept")
    diverged: str | None = Field(
        None, description="why training had to end; the last good weights were kept and scored"
    )
    collapsed: str | None = Field(
        None, description="why it is to be called ruined; null: it is not"
    )

    @property
    def ruin(self) -> dict[str, str]:
        """What went wrong, in one word, and why: diverged, collapsed, both or nothing."""
        found = {"diverged": self.diverged, "collapsed": self.collapsed}
        return {word: why for word, why in found.items() if why is not None}


class Results(Versioned):
    """results.json."""

    schema_version: int = SCHEMA_VERSION
    name: str
    recipe_given: dict[str, Any]
    recipe_effective: dict[str, Any]
    revision: dict[str, Any]
    packages: dict[str, str]
    hardware: dict[str, Any]
    seeds: dict[str, int]
    data_sha256: str
    data_counts: dict[str, int]
    data_cut: dict[str, int] = Field(default_factory=dict, description="rows cut to max_length")
    data_commits: dict[str, str] = Field(
        default_factory=dict, description="commits of the repositories read from the hub"
    )
    model: dict[str, Any]
    variants: list[VariantFacts]
    rows: list[Row]
    comparisons: list[Comparison]

    def find(
        self,
        variant: str,
        metric: str,
        scope: str | None,
        split: str | None,
        subset: str | None = None,
        attack: str | None = None,
    ) -> Row | None:
        """The row of a variant's metric on a group, or None."""
        key = (variant, metric, scope, split, subset, attack)
        for row in self.rows:
            if key == (row.variant, row.metric, row.scope, row.split, row.subset, row.attack):
                return row
        return None


def write_results(results: Results, path: Path) -> None:
    """Write results.json."""
    write_json(path, results.model_dump(mode="json"))


def read_results(path: Path) -> Results:
    """Read and check results.json.

    Raises:
        BadInput: missing, malformed, or of another schema; names the field.
    """
    return read_versioned(path, Results, SCHEMA_VERSION, "evaluate the run again")


def read_versioned(path: Path, schema: type[File], version: int, mend: str) -> File:
    """Read and check a JSON file that says which schema it has.

    Raises:
        BadInput: missing, malformed, or of another schema; names the field and the mend.
    """
    try:
        found = schema.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadInput(f"{path}: {where}: {first['msg']}; {mend}") from None
    if found.schema_version != version:
        raise BadInput(
            f"{path}: schema {found.schema_version}, this version reads {version}; {mend}"
        )
    return found
