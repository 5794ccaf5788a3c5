"""The section `erasure` of results.json: what came of an erasure request, before → after."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_DOCUMENTED = ConfigDict(extra="forbid", use_attribute_docstrings=True)

# What may come of a request.
State = Literal["erased", "erased_with_damage", "not_erased"]


class Change(BaseModel):
    """One measure before and after the erasure, on the same rows."""

    model_config = _DOCUMENTED

    before: float | None
    """Of the model that knew the list. Null if no row could be scored."""
    after: float | None
    """Of the unlearned model. Null if no row could be scored."""
    records: int
    """Number of rows that were scored."""


class EarlierRequest(BaseModel):
    """An earlier request of the same model, asked again."""

    model_config = _DOCUMENTED

    number: int
    """Its place in the order of requests, from 1."""
    exact: Change
    """Percent of its rows answered exactly."""
    relapsed: bool
    """Whether it is known again."""


class ErasureSettings(BaseModel):
    """The settings that were given or chosen."""

    model_config = _DOCUMENTED

    method: str
    """Registered method that made the model."""
    arguments: dict[str, Any]
    """Arguments of the method."""
    region: str
    """Name of the region that training could change."""
    parameters: int
    """Number of parameters that training could change."""
    adaptation: str
    """lora or full."""
    lr: float
    """Peak learning rate of the training that was kept."""
    lr_chosen: bool
    """Whether a search chose the rate."""
    encoding: str
    """How a question becomes a prompt: `data.encoding`."""
    dtype: str
    """dtype of the weights."""
    seed: int
    """Seed of the recipe."""
    template: str | None = None
    """Name or text of the template around question and answer: `data.template`."""


class ErasureResults(BaseModel):
    """What came of an erasure request. It holds no text of any list."""

    model_config = _DOCUMENTED

    variant: str
    """Name of the unlearned model among the `variants`."""
    state: State
    """erased; erased_with_damage: the list is unlearned, and the model is damaged; not_erased."""
    sentence: str
    """The verdict in one sentence."""
    rows: int
    """Number of rows of the list that were unlearned."""
    subjects: int
    """Number of different subjects of these rows."""
    not_known: int
    """Number of further rows of the list that the model did not know from the start."""
    exact: Change
    """Percent of the list's rows answered exactly."""
    reworded: Change
    """Percent of the other questions about the list (val rows) answered exactly."""
    predicted: Change
    """Percent of the tokens of the list's answers predicted, mean over rows."""
    lost: float | None = None
    """What rows which must stay have lost. Null if too few of them are known."""
    lost_in: Literal["tokens", "answers"] = "tokens"
    """Unit of `lost` and `bound`, the one in which more is lost. tokens: points of token accuracy
    on val rows. answers: percent of the rows that were answered exactly before, in that wording."""
    bound: float | None = None
    """How much they may lose: `unlearn.stop.floor`. Null if there is no bound."""
    retention_listed: Change
    """Percent answered exactly of the retention rows that the user gave."""
    retention_reworded: Change
    """Percent answered exactly of these rows in other words. Nothing was trained on them."""
    retention_unlisted: Change
    """Percent answered exactly of the generated retention rows: what no list names."""
    retention_held_out: Change
    """Percent answered exactly of those generated rows that nothing was trained on."""
    retention_by_kind: dict[str, Change] = Field(default_factory=dict)
    """Percent answered exactly of the generated retention rows, by how they were made."""
    general_perplexity: Change
    """Perplexity of ordinary text that nothing was trained on."""
    earlier: list[EarlierRequest] = Field(default_factory=list)
    """Earlier requests of the same model, asked again."""
    seconds: dict[str, float]
    """Seconds of each stage, all attempts included. A stage that was resumed counts in full."""
    optimizer_steps: int
    """Optimizer steps of the training that was kept."""
    attempts: int
    """Number of trainings, those that were not kept included."""
    settings: ErasureSettings
    """Method, region, rate and prompt format, as they were given or chosen."""
    command: str
    """The command that makes the same request."""
    list_sha256: str
    """sha256 of lists/unlearn.jsonl in the run's directory."""
    exported: Literal["adapter", "merged"] | None = None
    """Form of the exported model. Null if none was exported."""
    weights_sha256: dict[str, str] = Field(default_factory=dict)
    """sha256 of the weight files of the exported model, by file name."""
    packages: dict[str, str]
    """Versions of Python and of the packages that compute."""
