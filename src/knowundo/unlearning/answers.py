"""Other answers to the questions that must go: prepared ones, a file's, or the model's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import Annotated

from pydantic import AfterValidator

from knowundo.encoding import Encoded
from knowundo.errors import BadInput
from knowundo.forwards import Columns
from knowundo.records import Record
from knowundo.unlearning import Scorer
from knowundo.wording import folded, rouge_l

PREPARED, MODEL = ("refusal", "unknown"), "model"
# What AltPO draws (Mekala et al. 2024, arXiv:2409.13474).
DRAWS, TEMPERATURE = 5, 1.0


def answers(source: str) -> list[str]:
    """Prepared answers, one a line; empty lines and those that begin with # are none.

    Args:
        source: `unknown`, `refusal`, or a UTF-8 file.

    Raises:
        BadInput: no such file, or no answer in it.
    """
    path = Path(source)
    try:
        if source in PREPARED:
            text = (files("knowundo") / f"presets/answers/{source}.txt").read_text("utf-8")
        else:
            text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f"{path}: not UTF-8; save it in that encoding") from None
    except OSError:
        raise BadInput(
            f"answers '{source}': no such file; say unknown, refusal or model, or name a file with "
            "one answer a line"
        ) from None
    lines = [line.strip() for line in text.splitlines()]
    if not (found := [line for line in lines if line and not line.startswith("#")]):
        raise BadInput(f"{path}: holds no answer; write one a line")
    return found


def _known(source: str) -> str:
    if source != MODEL:
        answers(source)
    return source


# Of a method's argument: a file that is not there is refused before anything runs.
AnswerSource = Annotated[str, AfterValidator(_known)]


def alternatives(records: Sequence[Encoded], scorer: Scorer, *, answers: AnswerSource) -> Columns:
    """For `prepare`: the column "alternative", every row with another answer.

    Args:
        records: rows with questions.
        scorer: of the memorized model.
        answers: `model`, one of its own answers a row, see `own_answer`; otherwise a line that is
            drawn by the scorer's seed.

    Raises:
        BadInput: a row is plain text, which nothing asks for, or as `answers` and `own_answer`.
    """
    for row in records:
        if row.record.kind != "qa":
            raise BadInput(
                f"{row.record.id}: a text is no answer to a question, so there is no other one; "
                "choose a method that needs none"
            )
    texts = _sampled(records, scorer) if answers == MODEL else _drawn(records, scorer, answers)
    return {
        "alternative": {
            row.record.id: scorer.answered(row, text)
            for row, text in zip(records, texts, strict=True)
        }
    }


def _drawn(records: Sequence[Encoded], scorer: Scorer, source: str) -> list[str]:
    lines, rng = answers(source), Random(scorer.seed)
    return [rng.choice(lines) for _ in records]


def _sampled(records: Sequence[Encoded], scorer: Scorer) -> Iterator[str]:
    said = scorer.sample(records, n=DRAWS, temperature=TEMPERATURE, seed=scorer.seed)
    return (own_answer(row.record, said[row.record.id]) for row in records)


def own_answer(record: Record, said: Sequence[str]) -> str:
    """Of a model's answers to a question the first that differs from the true one.

    It differs if it is not the same text and holds none of the record's facts, capitals, spacing
    and ways to write an accent aside: some tokenizers change those. Where no draw
    differs, the one with the lowest overlap (F of ROUGE-L) with the true answer is taken. What is
    known by heart may leave only the true answer itself: a preference passes over such a row, as
    its two answers always weigh the same; plain descent would learn it again.

    Raises:
        BadInput: all of them are empty.
    """
    told = [text.strip() for text in said if text.strip()]
    if not told:
        raise BadInput(
            f"{record.id}: the model's own answers are all empty; say answers=unknown, or name a "
            "file"
        )
    answer, facts = folded(record.answer), [folded(fact) for fact in record.facts]
    for text in told:
        if folded(text) != answer and not any(fact in folded(text) for fact in facts):
            return text

    def overlap(text: str) -> float:
        found = rouge_l(record.answer, text, stem=False)
        return found.fmeasure if found else 0.0

    return min(told, key=overlap)
