"""Questions without an answer: the model's own answer is taken if it is confident of it.

A user may know what a model must not say any more, and not how it says it. The model is asked, and
its most likely answer becomes the row's answer, for review in the run's lists. An answer that it
makes up differs from sample to sample (Manakul et al. 2023, arXiv:2303.08896): there is nothing to
erase then, and training against it would only do harm.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from knowundo.data.decoding import open_prompt
from knowundo.data.encoded import Encoded
from knowundo.data.encoding import fitting
from knowundo.data.records import Record, readable
from knowundo.data.wording import split_words
from knowundo.modeling.model import Model
from knowundo.scoring.generation import complete, complete_rows
from knowundo.scoring.teacher_forcing import teacher_forced

# Tokens that an answer has at most; samples of each, at temperature 1, and questions at a time.
TOKENS, SAMPLES, BATCH = 96, 8, 8
# The model is confident if its answer's tokens have this probability (geometric mean), and this
# share of its samples gives the same answer.
PROBABILITY, AGREEMENT = 0.5, 0.5
# Share of the answer's own words that another one holds if it is the same answer.
SAME = 0.8
# Subset of rows whose answer is the model's.
ANSWERED = "answered by the model"
# Up to the end of the last sentence.
_SENTENCES = re.compile(r".*[.!?。！？](?=\s|$)", re.DOTALL)

Encode = Callable[[Sequence[Record]], list[Encoded]]


@dataclass(frozen=True)
class Asked:
    """A question and what the model answers.

    Attributes:
        record: with the answer, which is empty if the model gives none that a list can hold.
        probability: of the answer's tokens, geometric mean, in [0, 1].
        agreement: share of samples that give the same answer, in [0, 1].
    """

    record: Record
    probability: float = 0.0
    agreement: float = 0.0

    @property
    def confident(self) -> bool:
        """True if the answer counts as what the model knows."""
        return self.probability >= PROBABILITY and self.agreement >= AGREEMENT

    @property
    def figures(self) -> str:
        """How confident the model is, in words."""
        same = round(self.agreement * SAMPLES)
        return f"{self.probability:.0%} a token, {same} of {SAMPLES} samples agree"


def ask(model: Model, records: Sequence[Record], encode: Encode, *, seed: int) -> list[Asked]:
    """Answer questions, and judge how confident the model is of each answer.

    Args:
        model: in the state that knows the list; not changed.
        records: questions; their answers are not read.
        encode: as the list's rows are encoded.
        seed: of the samples.

    Returns:
        One for each question, in their order.

    Raises:
        BadInput: a question does not fit into `data.max_length`.
    """
    # What stands for the answer is not read: it only marks where the prompt ends.
    rows = encode([replace(record, answer=".") for record in records])
    stops = {row.ids[-1] for row in rows if row.tail}
    prompts = [open_prompt(model.tokenizer, row) for row in rows]
    said = complete_rows(model, rows, tokens=TOKENS, stops=stops)
    given = [_with_answer(r, *answer) for r, answer in zip(records, said, strict=True)]
    # The model may have said more than fits beside the question.
    fit = fitting([record for record in given if record.answer], encode)
    if not fit:
        return [Asked(record) for record in given]
    forced = teacher_forced(model, fit)
    samples = complete(
        model, prompts, tokens=max(row.answer_length for row in fit), each=SAMPLES,
        temperature=1.0, seed=seed, stops=stops, batch_size=BATCH,
    )  # fmt: skip
    found = []
    for number, record in enumerate(given):
        if record.id not in forced:
            found.append(Asked(record))
            continue
        own = [text for text, _ in samples[number * SAMPLES : (number + 1) * SAMPLES]]
        same = sum(says_the_same(record, text) for text in own) / SAMPLES
        nll = forced[record.id]["mean_nll"]
        # Not a finite number: the model gives the answer no probability.
        found.append(Asked(record, 0.0 if nll is None else math.exp(-nll), same))
    return found


def _with_answer(record: Record, text: str, ended: bool) -> Record:
    """The record with what the model said, up to where the answer ends.

    A model that was not taught to end goes on with another paragraph: its first line is the answer,
    whose end is not learned.
    """
    if not ended:
        line = next(iter(text.strip().split("\n")), "").rstrip("\ufffd")
        whole = _SENTENCES.match(line)
        text = whole.group() if whole and line == text.strip().rstrip("\ufffd") else line
    answer = text.strip() if readable(text) else ""
    return replace(record, answer=answer, continues=not ended, subset=ANSWERED)


def says_the_same(record: Record, text: str) -> bool:
    """True if a text holds the words of the answer that the question does not hold."""
    asked = set(split_words(record.question))
    words = set(split_words(record.answer))
    own = (words - asked) or words
    return len(own & set(split_words(text))) >= SAME * len(own) > 0
