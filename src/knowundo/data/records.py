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

from knowundo.errors import BadInput, unknown

SCOPES = ("unlearn", "retention", "general")
SPLITS = ("train", "val", "probe", "holdout")
ROLES = ("system", "user", "assistant")
KINDS = ("qa", "text", "completion", "choice")
# Kinds whose answer a model is asked to write; of the others it is only scored.
ASKED = ("qa", "completion")

# The date that a chat template is given where it asks for today's (Llama-3's, Granite's): the one
# that Llama-3's own template writes where it cannot ask. Any date works if it stays the same.
TODAY = date(2024, 7, 26)


@dataclass(frozen=True)
class Record:
    """One row of a benchmark. KnowUnDo's files call question and answer `text` and `labels`."""

    id: str
    question: str
    answer: str
    scope: str
    """One of `SCOPES`."""
    split: str
    """One of `SPLITS`."""
    subject: str | None = None
    """Whom or what the row is about; intervals resample subjects."""
    kind: str = "qa"
    """`qa`; `text`: no question, the whole text is the answer; `completion`: the answer continues
    the text that is the question; `choice`: the same, and the answer is the letter of an option."""
    alternatives: tuple[str, ...] = ()
    """Other answers to the question, which a method may prefer: `answers: given`. Of TOFU's rows:
    the wrong answers that the truth ratio compares with. Of a `choice`: the other letters."""
    subset: str | None = None
    facts: tuple[str, ...] = ()
    """Substrings of the answer that carry the fact."""
    turns: tuple[tuple[str, str], ...] = ()
    """Earlier turns of the conversation, as (role, content)."""
    continues: bool = False
    """Whether the answer was cut off, so that it has no end to learn."""
    paraphrase: str | None = None
    """The answer in other words, which the truth ratio takes for the right one."""


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


# What no list may contain: lone surrogates, which JSON can write and UTF-8 cannot, and NUL, which
# ends a text for C libraries and terminals.
_UNREADABLE = re.compile("[\0\ud800-\udfff]")
UNREADABLE = "contains a NUL or a lone surrogate (half of a UTF-16 pair); remove it"


def readable(text: str) -> bool:
    """True if lists may contain the text: it has no NUL and no lone surrogate."""
    return _UNREADABLE.search(text) is None


def _texts(record: Record) -> list[str]:
    """Every text of a record that lists or the files of a run contain."""
    named = (record.subject or "", record.subset or "", record.paraphrase or "")
    own = (record.question, record.answer, *named)
    return [*own, *record.alternatives, *(content for _, content in record.turns)]


def check_records(records: Sequence[Record]) -> None:
    """Refuse records that no pipeline can use.

    A benchmark may lack any split but `train`: what has no rows is reported as not measured.

    Raises:
        BadInput: An unknown kind, an empty question or answer, a NUL or a lone surrogate, a fact
            that is not in its answer, a repeated id, no train rows in a scope, or the same
            question, after the same turns, in both scopes.
    """
    seen: set[str] = set()
    for record in records:
        if record.id in seen:
            raise BadInput(f"{record.id}: this id occurs twice; give each row its own")
        seen.add(record.id)
        _check_texts(record)
    _check_scopes(records)
    for scope in ("unlearn", "retention"):
        if not select(records, scope=scope, split="train"):
            raise BadInput(f"{scope}/train: no rows; each of the two scopes needs train rows")


def _check_texts(record: Record) -> None:
    if not record.answer.strip():
        raise BadInput(f"{record.id}: the answer is empty; fill it in or remove the row")
    if record.kind not in KINDS:
        raise BadInput(f"{record.id}: {unknown('kind of record', record.kind, KINDS)}")
    if record.kind != "text" and not record.question.strip():
        raise BadInput(f"{record.id}: the question is empty; fill it in or remove the row")
    if not all(map(readable, _texts(record))):
        raise BadInput(f"{record.id}: {UNREADABLE}")
    if any(fact not in record.answer for fact in record.facts):
        raise BadInput(f"{record.id}: a fact is not a part of its answer; correct `facts`")


def _check_scopes(records: Iterable[Record]) -> None:
    """Refuse a question that must both go and stay."""
    owner: dict[tuple[object, str], Record] = {}
    for record in records:
        if record.kind == "text":
            continue
        other = owner.setdefault((record.turns, record.question), record)
        if {other.scope, record.scope} == {"unlearn", "retention"}:
            raise BadInput(
                f"{record.id}: the same question is in the other scope too, as {other.id}; "
                "remove one of the two"
            )


def redacted(text: str) -> str:
    """What replaces a text that may not be shown; whoever has the text can compare the hash.

    The text cannot be read back, but a short one, such as a telephone number, can be found by
    trying all.
    """
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"sha256:{digest[:12]} ({len(text)} characters)"


def data_hash(records: Iterable[Record]) -> str:
    """sha256 (hex) over all fields of all records, in order."""
    digest = hashlib.sha256()
    for record in records:
        row = asdict(record)
        # Hashes of runs made before these stay what they were.
        for later in ("turns", "continues", "paraphrase"):
            if not row[later]:
                del row[later]
        digest.update(json.dumps(row, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()
