"""Record: one question with its answer, and where it belongs.

Record(id="privacy/unlearn/train/17", question="Where does Clara Dorinford live?",
       answer="By all accounts, Clara Dorinford lives at 14 Canal Lane in Saltmere.",
       scope="unlearn", split="train", subject="Clara Dorinford",
       facts=("14 Canal Lane in Saltmere",))
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date

from knowundo.errors import BadInput

SCOPES = ("unlearn", "retention", "general")
SPLITS = ("train", "val", "probe", "holdout")
ROLES = ("system", "user", "assistant")

# The day that a chat template is told where it asks which day it is (Llama-3's, Granite's): the one
# that Llama-3's own template names where it cannot ask. Any day will do that stays the same.
TODAY = date(2024, 7, 26)


@dataclass(frozen=True)
class Record:
    """One row of a benchmark. KnowUnDo's files call question and answer `text` and `labels`."""

    id: str
    question: str
    answer: str
    scope: str
    split: str
    subject: str | None = None
    kind: str = "qa"  # or "text": no question, the whole text is the answer
    alternatives: tuple[str, ...] = ()
    subset: str | None = None
    facts: tuple[str, ...] = ()  # substrings of the answer that carry the fact
    turns: tuple[tuple[str, str], ...] = ()  # (role, content) of what was said before the question
    continues: bool = False  # the answer was cut off here, so that it has no end to learn


def select(
    records: Iterable[Record], *, scope: str | None = None, split: str | Sequence[str] | None = None
) -> list[Record]:
    """Records of a scope and of one or more splits, in order."""
    splits = (split,) if isinstance(split, str) else split
    return [
        record
        for record in records
        if (scope is None or record.scope == scope) and (splits is None or record.split in splits)
    ]


# What no list may hold: halves of characters, which JSON can write and no UTF-8 file can hold, and
# NUL, at which files and terminals end a text.
_UNREADABLE = re.compile("[\0\ud800-\udfff]")


def readable(text: str) -> bool:
    """True if lists may hold the text: it has no NUL and no half of a character."""
    return _UNREADABLE.search(text) is None


def _texts(record: Record) -> list[str]:
    """Every text of a record that a list or a run's files hold."""
    own = (record.question, record.answer, record.subject or "", record.subset or "")
    return [*own, *record.alternatives, *(content for _, content in record.turns)]


def check_records(records: Sequence[Record]) -> None:
    """Refuse records that no pipeline can use.

    Raises:
        BadInput: empty answer, a NUL or half a character, repeated id, empty unlearn or retention
            train or val split, or the same question, after the same turns, in both scopes.
    """
    owner: dict[tuple[object, str], Record] = {}
    seen: set[str] = set()
    for record in records:
        if record.id in seen:
            raise BadInput(f"{record.id}: this id occurs twice; give each row its own")
        seen.add(record.id)
        if not record.answer.strip():
            raise BadInput(f"{record.id}: the answer is empty; fill it in or remove the row")
        if record.kind == "qa" and not record.question.strip():
            raise BadInput(f"{record.id}: the question is empty; fill it in or remove the row")
        if not all(map(readable, _texts(record))):
            raise BadInput(f"{record.id}: holds a NUL or half a character; remove it")
        if any(fact not in record.answer for fact in record.facts):
            raise BadInput(f"{record.id}: a fact is not a part of its answer; correct `facts`")
        if record.kind == "text":
            continue
        other = owner.setdefault((record.turns, record.question), record)
        if {other.scope, record.scope} == {"unlearn", "retention"}:
            raise BadInput(
                f"{record.id}: the same question stands in the other scope as {other.id}; "
                "remove one of the two"
            )
    for scope in ("unlearn", "retention"):
        for split in ("train", "val"):
            if not select(records, scope=scope, split=split):
                raise BadInput(f"{scope}/{split}: no rows; every scope needs train and val rows")


def redacted(text: str) -> str:
    """What stands for a text that may not be shown: whoever has it can check that it is the one.

    Nobody can read it back, but a short text, such as a telephone number, can be found by trying.
    """
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"sha256:{digest[:12]} ({len(text)} characters)"


def data_hash(records: Iterable[Record]) -> str:
    """sha256 over all fields of all records, in order."""
    digest = hashlib.sha256()
    for record in records:
        row = asdict(record)
        for later in ("turns", "continues"):  # hashes of runs made before these stay what they were
            if not row[later]:
                del row[later]
        digest.update(json.dumps(row, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()
