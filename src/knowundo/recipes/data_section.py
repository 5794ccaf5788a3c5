"""The section `data` of a recipe: which records, and how they are written."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from knowundo.data.records import TODAY
from knowundo.recipes.values import Day, Prefix, Template, check_format


class Section(BaseModel):
    """Keys of a recipe; an unknown one is refused."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)


class Data(Section):
    """Which records."""

    benchmark: str = "embedded"
    """A registered benchmark: see `knowundo list benchmarks`."""
    domain: str = "privacy"
    """A domain of the benchmark."""
    source: str | None = None
    """Folder of the benchmark's files. If null, they are generated, or read from the hub."""
    revision: str | None = None
    """Commit of the benchmark's repository on the hub. If null, the newest."""
    general: str | None = None
    """General records from elsewhere: a dataset on the hub, a folder or a file of texts."""
    general_revision: str | None = None
    """Commit of that dataset on the hub. If null, the newest."""
    subjects: int | None = Field(None, ge=1)
    """Number of subjects that are used or drawn. If null, the benchmark's own number."""
    seed: int | None = None
    """Seed of the records. If null, the recipe's seed."""
    encoding: Literal["plain", "chat"] = "plain"
    """plain: question, blank line, answer, or `template`. chat: the tokenizer's chat template."""
    template: Template | None = None
    """Format of the finetuning: a name (`knowundo list templates`), a text with {question} and
    {answer}, or a file with one. If null, a blank line between question and answer."""
    system: str | None = None
    """System prompt, for chat or for a template with {system}. If null, the template's own."""
    prefix: Prefix | None = None
    """Put before every question: KnowUnDo's `direct` prompt, or the paper's `assistant` one."""
    max_length: int = Field(512, ge=8)
    """Most tokens that a row may have."""
    truncate: bool = False
    """Cut the end of a longer row and count it, instead of refusing the row."""
    date: Day = TODAY.isoformat()
    """Date that a chat template is given if it asks for today's: any, if it stays the same."""

    @model_validator(mode="after")
    def _format(self) -> Data:
        check_format(self.encoding, self.template, self.system)
        return self

    def written_as(self, name: str) -> Data:
        """The same records in another format: `chat`, `plain`, or the name of a template."""
        return self.model_copy(update=format_keys(name))


def format_keys(name: str) -> dict[str, str | None]:
    """Keys of the section that say a format: `chat`, `plain`, or the name of a template."""
    if name in ("chat", "plain"):
        return {"encoding": name, "template": None}
    return {"encoding": "plain", "template": name}
