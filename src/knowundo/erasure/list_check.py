"""What was found in a request's lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from knowundo.errors import BadInput
from knowundo.storage.files import read_json

# Names of fields in a check.json that was written by an earlier version.
_FORMER = {"by_heart": "verbatim", "alike": "similar"}


@dataclass
class ListCheck:
    """What was found in a request's lists. Rows are named by their ids; it holds no text of them.

    Attributes:
        rows: name of a list → number of its rows.
        subjects: name of a list → about how many subjects its rows have.
        tokens: name of a list → lowest, median and highest number of tokens of its rows.
        repeated: pairs of ids with the same question and answer; the second is left out.
        similar: pairs of ids, an unlearn row and a retention row, with almost the same question.
        same_answer: such pairs with the same answer.
        verbatim: ids of unlearn rows that the model answers exactly.
        known: ids of unlearn rows that it predicts well and does not answer exactly.
        nameless: name of a list → number of rows that name no subject.
        not_known: ids of unlearn rows that it does not know, and that need not go.
        level: token accuracy on rows that cannot be known, in [0, 1].
        answered: ids of rows that came as a question alone; the answer is the model's own.
        epochs: passes of unlearning, from the number of rows when the lists were made.
        format: the format that was found, `chat`, `plain` or a template's name. `None` if the
            recipe names one.
        formats: name of a format that was tried → token accuracy on rows of the list, in [0, 1].
        also: other formats in which the model answers the list.
    """

    rows: dict[str, int] = field(default_factory=dict)
    subjects: dict[str, int] = field(default_factory=dict)
    tokens: dict[str, list[float]] = field(default_factory=dict)
    repeated: list[list[str]] = field(default_factory=list)
    similar: list[list[str]] = field(default_factory=list)
    same_answer: list[list[str]] = field(default_factory=list)
    verbatim: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    nameless: dict[str, int] = field(default_factory=dict)
    not_known: list[str] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    level: float | None = None
    epochs: int | None = None
    format: str | None = None
    formats: dict[str, float] = field(default_factory=dict)
    also: list[str] = field(default_factory=list)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ListCheck:
        """The check that `as_dict` gave, of this version or an earlier one.

        Raises:
            TypeError: a field is unknown.
        """
        return cls(**{_FORMER.get(name, name): value for name, value in values.items()})

    def as_dict(self) -> dict[str, Any]:
        """All fields, for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """What was found, in sentences for a person."""
        said = [self._sizes(name) for name in self.rows]
        if self.answered:
            said.append(f"rows without an answer, which got the model's own: {some(self.answered)}")
        if self.repeated:
            said.append(f"repeated rows, counted once: {some([b for _, b in self.repeated])}")
        if self.similar:
            pairs = [f"{one} and {other}" for one, other in self.similar]
            said.append(f"almost the same question in unlearn and retention: {some(pairs)}")
        if self.same_answer:
            pairs = [f"{one} and {other}" for one, other in self.same_answer]
            said.append(
                "the same answer in unlearn and retention, which cannot both go and stay; remove "
                f"one of the two if it is the same fact: {some(pairs)}"
            )
        if self.level is not None:
            said.append(
                f"the model answers {len(self.verbatim)} unlearn rows by heart, knows "
                f"{len(self.known)} more, and does not know {len(self.not_known)}, which need not "
                f"go (token accuracy on what it cannot know: {self.level:.0%})"
            )
        if self.not_known:
            said.append(f"not known: {some(self.not_known)}")
        return said

    def _sizes(self, name: str) -> str:
        """How large a list is."""
        least, middle, most = self.tokens[name]
        about = f"about {self.subjects[name]} subjects"
        if nameless := self.nameless.get(name):
            about += f" ({nameless} of them name none)"
        return (
            f"{name}: {self.rows[name]} rows {about}, {least:.0f} to {most:.0f} tokens (median "
            f"{middle:.0f})"
        )


def read_check(file: Path) -> ListCheck:
    """The check that a request wrote.

    Raises:
        BadInput: it is malformed.
    """
    try:
        return ListCheck.from_dict(read_json(file))
    except TypeError:
        raise BadInput(f"{file}: malformed; remove the directory and start again") from None


def some(items: Sequence[str]) -> str:
    """The first five items, and how many more there are."""
    more = f" and {len(items) - 5} more" if len(items) > 5 else ""
    return ", ".join(items[:5]) + more
