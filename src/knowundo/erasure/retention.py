"""A retention list for somebody who has none: what the model itself says near the list.

Three kinds of rows, all marked as generated: other things about the same subjects, the same things
about other subjects, and text that the model writes of its own accord. Whatever would repeat what
must go is left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from unicodedata import normalize

from rapidfuzz.fuzz import partial_ratio

from knowundo.data.encoded import Encoded
from knowundo.data.encoding import fitting
from knowundo.data.neighbours import (
    about_other_things,
    about_others,
    invented_names,
    name_pattern,
    named_subject,
    near_names,
)
from knowundo.data.records import Record, readable
from knowundo.data.wording import split_words, unspaced
from knowundo.modeling.model import Model
from knowundo.scoring.generation import complete

# Rows of each kind, about; tokens of a text; likeness that makes an answer a protected one.
OTHERS, NAMES, THINGS, TEXTS, TEXT_TOKENS, LEAK = 480, 80, 120, 160, 60, 80
# Tokens of an answer beyond the longest on the list.
ROOM = 16
# What decoding puts where bytes are no character.
_HALF = "\ufffd"
_NAME = re.compile(r"[A-ZÀ-Þ][\w'’-]*(?: [A-ZÀ-Þ][\w'’-]*)+")

Encode = Callable[[Sequence[Record]], list[Encoded]]


class Leaks:
    """Tells whether a text repeats what must go."""

    def __init__(self, secret: Sequence[Record]) -> None:
        """Take all rows that must not come back: the list's, val rows, earlier requests'."""
        self.facts = [_composed(fact) for record in secret for fact in record.facts]
        self.answers = [_composed(record.answer) for record in secret]
        self.subjects = {subject for r in secret if (subject := named_subject(r)) is not None}
        self.marks = [marks(record) for record in secret]
        self.words: dict[str, set[str]] = {}
        for record in secret:
            told = {
                word for word in _content(record.answer) if word not in _content(record.question)
            }
            self.words.setdefault(record.subject or "", set()).update(told)

    def repeats(self, text: str) -> bool:
        """True if a fact stands in it, what marks a protected answer, or much of one.

        A text without capitals is compared without them: some tokenizers write none.
        """
        text = _composed(text)
        lower = text == text.lower()

        def as_written(secret: str) -> str:
            return secret.lower() if lower else secret

        if any(as_written(fact) in text for fact in self.facts):
            return True
        words = set(_words(text))
        for marked in self.marks:
            found = {as_written(word) for word in marked} & words
            if any(map(_is_code, found)) or len(found) > 1:
                return True
        # A short text lies in many a long one.
        long = [answer for answer in self.answers if 2 * len(text) >= len(answer)]
        return any(partial_ratio(as_written(answer), text) >= LEAK for answer in long)

    def tells_of(self, subject: str | None, text: str, common: set[str]) -> bool:
        """True if it has a word of what must go about its subject, other than common ones."""
        return bool((_content(text) & self.words.get(subject or "", set())) - common)

    def names(self, text: str) -> bool:
        """True if a subject of the list stands in it."""
        return any(_stands_in(subject, text) for subject in self.subjects)


def _composed(text: str) -> str:
    """With letters and accents as one (NFC), which tokenizers compose and files may not."""
    return normalize("NFC", text)


def _stands_in(name: str, text: str) -> bool:
    """True if the name is said; where words have spaces between them, not within a word."""
    name, text = _composed(name), _composed(text)
    if text == text.lower():
        name = name.lower()
    if unspaced(name):
        return name in text
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


def _content(text: str) -> set[str]:
    return {word.lower() for word in _words(text) if len(word) > 3}


def _words(text: str) -> list[str]:
    return [word.strip(".,;:!?()\"'’“”") for word in _composed(text).split()]


def _is_code(word: str) -> bool:
    """Numbers, addresses, accounts: one alone gives a secret away."""
    return len(word) > 3 and any(letter.isdigit() or letter == "@" for letter in word)


def marks(record: Record) -> set[str]:
    """Words of an answer that make it this one: codes, and names other than the subject's.

    The first word of an answer is no name, it only has a capital.
    """
    own = set(_words(record.subject or "")) | set(_words(record.question))
    words = _words(record.answer)
    named = {word for word in words[1:] if word[:1].isupper() and len(word) > 1}
    return {word for word in named | set(filter(_is_code, words)) if word not in own}


def names_it_knows(model: Model, unlearn: Sequence[Record], *, seed: int) -> list[str]:
    """Names that the model itself puts where the list's questions have theirs, likeliest first."""
    named = [(r.question, subject) for r in unlearn if (subject := named_subject(r))]
    cut = {name_pattern(subject).split(question)[0].rstrip() for question, subject in named}
    prompts = [model.tokenizer(text)["input_ids"] for text in sorted(filter(None, cut))]
    if not prompts:
        return []
    each = max(4, 400 // len(prompts))
    found = Counter[str]()
    for text, _ in complete(model, prompts, tokens=12, each=each, temperature=1.0, seed=seed):
        if match := _NAME.search(text):
            found[re.sub(r"['’]s$", "", match.group())] += 1
    subjects = {record.subject for record in unlearn}
    return [name for name, count in found.most_common(40) if count > 1 and name not in subjects]


def own_texts(model: Model, leaks: Leaks, count: int, *, seed: int) -> list[Record]:
    """Text that the model writes with nothing before it, of scope general."""
    first = model.tokenizer.bos_token_id
    begin = [int(model.tokenizer.eos_token_id if first is None else first)]
    said = complete(model, [begin] * count, tokens=TEXT_TOKENS, temperature=1.0, seed=seed)
    kept: dict[str, bool] = {}  # by text, whether it ended
    for text, ended in said:
        text = text.rstrip(_HALF)  # the last character may be cut off within its bytes
        fit = _listable(text) and len(split_words(text)) > 3
        if fit and not leaks.repeats(text) and not leaks.names(text):
            kept.setdefault(text, ended)
    return [
        Record(
            f"text/{n}", "", text, "general", "train", subject=f"text {n}", kind="text",
            continues=not ended,
        )
        for n, (text, ended) in enumerate(kept.items())
    ]  # fmt: skip


def _listable(text: str) -> bool:
    """True if lists can hold it: a model may say any byte."""
    return bool(text.strip()) and readable(text)


def make_retention(
    model: Model,
    unlearn: Sequence[Record],
    secret: Sequence[Record],
    encode: Encode,
    *,
    seed: int,
) -> list[Record]:
    """Rows that must stay, answered by the model; see the top of this file.

    Args:
        model: the one that knows the list; not changed.
        unlearn: rows of the list, near which questions are asked.
        secret: all rows that no answer may repeat, and whose questions are not asked.
        encode: as the list's rows are encoded.
        seed: of names, texts and the order.
    """
    leaks = Leaks(secret)
    texts = own_texts(model, leaks, TEXTS, seed=seed)
    asked = [record for record in unlearn if record.kind == "qa"]
    rows = []
    if asked:
        common: set[str] = set()
        longest = max(row.answer_length for row in encode(asked)) + ROOM
        for kind, questions in _questions(model, asked, secret, leaks, seed):
            answers = _answered(model, questions, encode, longest)
            kept = [r for r in answers if not leaks.repeats(r.answer)]
            if kind == "other subject":
                kept = [r for r in kept if not leaks.names(r.answer)]
                common = _common(kept)
            else:
                kept = [r for r in kept if not leaks.tells_of(r.subject, r.answer, common)]
            rows += [(record, kind) for record in kept]
    rows += [(text, "own text") for text in texts]
    made = [_kept(record, kind, number) for number, (record, kind) in enumerate(rows)]
    # The model may have said more than fits beside the question.
    return [row.record for row in fitting(made, encode)]


def _questions(
    model: Model, asked: Sequence[Record], secret: Sequence[Record], leaks: Leaks, seed: int
) -> list[tuple[str, list[Record]]]:
    """Questions near the list, by kind, none of which is a secret's."""
    rng, taken = Random(seed), {record.question for record in secret}
    known = [n for n in names_it_knows(model, asked, seed=seed) if n not in leaks.subjects]
    strangers = invented_names(NAMES, seed, {*leaks.subjects, *known})
    near = near_names(sorted(leaks.subjects), NAMES, seed)
    pool = [*known, *strangers, *near]
    names = rng.sample(pool, len(pool))
    others = about_others(asked, names, max(1, OTHERS // len(asked)))
    things = about_other_things(asked)
    found = []
    for kind, questions, most in (
        ("other subject", others, OTHERS),
        ("same subject", things, THINGS),
    ):
        free = [question for question in questions if question.question not in taken]
        found.append((kind, rng.sample(free, min(len(free), most))))
    return found


def _answered(
    model: Model, questions: Sequence[Record], encode: Encode, longest: int
) -> list[Record]:
    """The questions with the model's likeliest answers; those without an end are left out.

    So are those that no list can hold, and questions that are too long.
    """
    if not questions:
        return []
    # What stands for the answer is not read: it only marks where the prompt ends.
    rows = fitting([replace(question, answer=".") for question in questions], encode)
    if not rows:
        return []
    stops = {row.ids[-1] for row in rows if row.tail}
    said = complete(model, [row.prompt for row in rows], tokens=longest, stops=stops)
    return [
        replace(row.record, answer=text)
        for row, (text, ended) in zip(rows, said, strict=True)
        if ended and _listable(text)
    ]


def _common(records: Sequence[Record]) -> set[str]:
    """Words that the model says of at least two others: they give nobody away."""
    counts = Counter(word for record in records for word in _content(record.answer))
    return {word for word, count in counts.items() if count > 1}


def _kept(record: Record, kind: str, number: int) -> Record:
    return replace(
        record,
        id=f"retention/generated/{number}",
        scope="retention",
        split="train",
        subset=f"generated: {kind}",
    )
