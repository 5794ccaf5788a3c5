"""Other answers to the unlearn questions: prepared ones, a file's, or the model's own."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import Annotated

from pydantic import AfterValidator, PositiveInt

from knowundo.data.encoded import Encoded
from knowundo.data.records import Record
from knowundo.data.wording import holds_words, split_words
from knowundo.errors import BadInput, TooLong
from knowundo.modeling.half import Columns
from knowundo.unlearning.scorer import Scorer

PREPARED, MODEL, INSTRUCTED = ("refusal", "unknown"), "model", "instructed"
GIVEN = "given"  # the record's own `alternatives`
# Sources that are the model itself, and not lines of a file.
OWN = (MODEL, INSTRUCTED)
# What AltPO draws (Mekala et al. 2024, arXiv:2409.13474), and how often all of it is drawn for rows
# of which no draw differs from the true answer.
DRAWS, TEMPERATURE, ROUNDS = 5, 1.0, 4
# AltPO shows the model question and answer and asks for another answer; the words are ours.
INSTRUCTION = (
    "Below are a question and its answer.\n\n"
    "Question: {question}\nAnswer: {answer}\n\n"
    "Write one other answer to the question, in the same style and of about the same length, in "
    "which every fact is replaced by a different, plausible one. Write nothing but that answer."
)


def answers(source: str) -> list[str]:
    """Read prepared answers, one per line; empty lines and comments (#) do not count.

    Args:
        source: `unknown`, `refusal`, or a UTF-8 file.

    Raises:
        BadInput: There is no such file, it is not UTF-8, or it has no answer.
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
            f"answers '{source}': no such file; say unknown, refusal, model or instructed, or name "
            "a file with one answer a line"
        ) from None
    lines = [line.strip() for line in text.splitlines()]
    if not (found := [line for line in lines if line and not line.startswith("#")]):
        raise BadInput(f"{path}: holds no answer; write one a line")
    return found


def _known(source: str) -> str:
    if source not in (*OWN, GIVEN):
        answers(source)
    return source


# The type of a method's argument: a missing file is refused before anything runs.
AnswerSource = Annotated[str, AfterValidator(_known)]


def alternatives(records: Sequence[Encoded], scorer: Scorer, *, answers: AnswerSource) -> Columns:
    """Make the column `alternative`: every row with another answer than the true one.

    It is the `prepare` of methods that read `step.alternative`; see `several_alternatives`.
    """
    return several_alternatives(records, scorer, answers=answers, others=1)


def several_alternatives(
    records: Sequence[Encoded], scorer: Scorer, *, answers: AnswerSource, others: PositiveInt
) -> Columns:
    """Make the column `alternative`: every row with answers other than the true one.

    Args:
        records: Rows with questions.
        scorer: Of the memorized model.
        answers: `model`, one of the model's own answers to the question; `instructed`, one of its
            answers when it is shown question and answer and asked for another one, as AltPO does;
            `given`, one of the record's own `alternatives`; otherwise a line of the prepared
            answers or the file. Alternatives and lines are drawn by the scorer's seed.
        others: Answers of each row at most, all different; epochs take them in turn.

    Raises:
        BadInput: A row is plain text, which no question asks for, or every line of the file is the
            true answer of a row.
    """
    for row in records:
        if row.record.kind != "qa":
            raise BadInput(
                f"{row.record.id}: a text is no answer to a question, so there is no other one; "
                "choose a method that needs none"
            )
    if answers in OWN:
        found = _sampled(records, scorer, others, instructed=answers == INSTRUCTED)
    else:
        rng = Random(scorer.seed)
        found = {row.record.id: _lines(row, scorer, answers, rng, others) for row in records}
    ordered = {row.record.id: found[row.record.id] for row in records}
    return {"alternative": {name: m[0] if len(m) == 1 else m for name, m in ordered.items()}}


def _lines(
    row: Encoded, scorer: Scorer, source: str, rng: Random, others: int
) -> tuple[Encoded, ...]:
    """Return the row with prepared lines as its answer, none of which is the true answer.

    A line is the true answer if text or tokens are the same. Facts are not searched for: the fact
    "known" is in "Nothing is known of this.", which gives nothing away.

    Raises:
        BadInput: There is no other line.
    """
    lines = list(row.record.alternatives) if source == GIVEN else answers(source)
    if not lines:
        raise BadInput(
            f"{row.record.id}: it has no alternatives; add `alternatives` to the row, or set "
            "answers to unknown, refusal, model, instructed or a file"
        )
    bare = replace(row.record, facts=())
    # One draw per row, whatever it is: the draws of later rows do not depend on this row's answer.
    first = lines.index(rng.choice(lines))
    made = _different(replace(row, record=bare), [*lines[first:], *lines[:first]], scorer, others)
    if not made:
        raise BadInput(
            f"{row.record.id}: every line of answers '{source}' is its true answer, or has the "
            "same tokens where the row is cut off; add another line"
        )
    return made


def _sampled(
    records: Sequence[Encoded], scorer: Scorer, others: int, *, instructed: bool
) -> dict[str, tuple[Encoded, ...]]:
    """Return rows with the first of the model's own answers that differ, by record id.

    Rows with fewer such answers among `DRAWS` than are asked for are asked again, `ROUNDS` times in
    all. Those of which no answer differs then get lines of `unknown`, and a note says how many.
    """
    waiting, texts = list(records), dict[str, list[str]]()
    found = dict[str, tuple[Encoded, ...]]()
    for number in range(ROUNDS):
        asked = [_instructed(row, scorer) for row in waiting] if instructed else waiting
        seed = scorer.seed + number
        said = scorer.sample(asked, n=DRAWS, temperature=TEMPERATURE, seed=seed)
        for row in waiting:
            own = texts.setdefault(row.record.id, [])
            own += said[row.record.id]
            found[row.record.id] = _different(row, own, scorer, others)
        waiting = [row for row in waiting if len(found[row.record.id]) < others]
        if not waiting:
            return found
    if not (without := [row for row in waiting if not found[row.record.id]]):
        return found
    scorer.note(
        f"answers: of {len(without)} of {len(records)} rows ({without[0].record.id} is the first) "
        f"none of {DRAWS * ROUNDS} answers of the model differs from the true one; they get a line "
        "of 'unknown' instead"
    )
    rng = Random(scorer.seed)
    unknown = {row.record.id: _lines(row, scorer, "unknown", rng, others) for row in without}
    return found | unknown


def _different(
    row: Encoded, texts: Sequence[str], scorer: Scorer, most: int
) -> tuple[Encoded, ...]:
    """Return the row with the first texts, at most so many, that differ from its true answer."""
    made = dict[tuple[int, ...], Encoded]()
    for text in texts:
        if len(made) == most:
            break
        if (other := _other(row, text, scorer)) is not None:
            made.setdefault(other.ids, other)
    return tuple(made.values())


def _instructed(row: Encoded, scorer: Scorer) -> Encoded:
    """Return the row with question, answer and instruction in place of the question.

    A draw may be as long as the row's own answer, even where the answer in the instruction had to
    be cut off.

    Raises:
        BadInput: So many tokens do not fit.
    """
    record = row.record
    question = INSTRUCTION.format(question=record.question.strip(), answer=record.answer.strip())
    try:
        prompt = scorer.asked(row, question).prompt
    except TooLong:
        raise BadInput(
            f"{record.id}: question, answer and the instruction of answers 'instructed' do not fit "
            "into data.max_length or the model's positions; raise data.max_length, or say answers: "
            "model"
        ) from None
    made = row.with_prompt(prompt)
    if scorer.positions is not None and len(made.ids) > scorer.positions:
        raise BadInput(
            f"{record.id}: {len(made.ids)} tokens with the instruction of answers 'instructed', "
            f"more than the model's {scorer.positions} positions; shorten the row, or say answers: "
            "model"
        )
    return made


def _other(row: Encoded, text: str, scorer: Scorer) -> Encoded | None:
    """Return the row with this text as its answer; `None` if that is the true answer.

    Tokens can be the same where the text is not, since rows are cut at a length.
    """
    if not differs(row.record, text):
        return None
    other = scorer.answered(row, text.strip())
    return None if other.ids == row.ids else other


def differs(record: Record, text: str) -> bool:
    """Return whether a text is another answer than the true one.

    It is not empty, not the same text but for case, spaces and punctuation, and contains none of
    the record's facts as whole words: the fact "O" is in "blood type O" and not in "nobody knows".
    """
    said = _bare(text)
    if not said or said == _bare(record.answer):
        return False
    words = _words(text)
    return not any(holds_words(words, _words(fact)) for fact in record.facts)


def _words(text: str) -> list[str]:
    """Split a text into words, with characters of full width as the usual ones."""
    return split_words(unicodedata.normalize("NFKC", text))


def _bare(text: str) -> str:
    """Return a text without case, spaces and punctuation; if nothing else is in it, as it is."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    bare = "".join(one for one in folded if unicodedata.category(one)[0] not in "PZC")
    return bare or text.strip()
