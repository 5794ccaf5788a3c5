"""Retention rows that the model itself answers, near the list that must go.

Few lists name everybody whom the model knows, and what nobody names would be lost. Three kinds of
rows are made, all marked as generated: other things about the same subjects, the same things about
other subjects, and text that the model writes of its own accord. Rows that would repeat what must
go are left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from knowundo.data.encoded import Encoded
from knowundo.data.encoding import fitting
from knowundo.data.lists.reading import GENERATED, KNOWN
from knowundo.data.neighbours import (
    about_other_things,
    about_others,
    invented_names,
    name_pattern,
    named_subject,
    near_names,
)
from knowundo.data.records import Record, readable
from knowundo.data.wording import split_words
from knowundo.erasure.known_rows import demonstrably_known
from knowundo.erasure.leaks import Leaks, content_words
from knowundo.modeling.model import Model
from knowundo.scoring.generation import complete, complete_rows

# About how many rows of each kind are made, and how many tokens a text has.
OTHERS, NAMES, THINGS, TEXTS, TEXT_TOKENS = 480, 80, 120, 160, 60
# Tokens of an answer beyond the longest on the list.
ROOM = 16
# What decoding puts in place of bytes that are no whole character.
_REPLACEMENT = "\ufffd"
_NAME = re.compile(r"[A-ZÀ-Þ][\w'’-]*(?: [A-ZÀ-Þ][\w'’-]*)+")

Encode = Callable[[Sequence[Record]], list[Encoded]]


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
        text = text.rstrip(_REPLACEMENT)  # the last character may be cut off within its bytes
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
    real: set[str] = set()
    if asked:
        common: set[str] = set()
        longest = max(row.answer_length for row in encode(asked)) + ROOM
        names = [n for n in names_it_knows(model, asked, seed=seed) if n not in leaks.subjects]
        real = {*names, *leaks.subjects}
        for kind, questions in _questions(names, asked, secret, leaks, seed):
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
    fit = [row.record for row in fitting(made, encode)]
    # Whatever it says of a name that was invented here is no knowledge, however sure it is.
    about_real = [record for record in fit if record.kind == "qa" and record.subject in real]
    known = demonstrably_known(model, about_real, encode, seed=seed)
    return [
        replace(r, subset=str(r.subset).replace(f"{GENERATED}:", KNOWN, 1)) if r.id in known else r
        for r in fit
    ]


def _questions(
    known: Sequence[str], asked: Sequence[Record], secret: Sequence[Record], leaks: Leaks, seed: int
) -> list[tuple[str, list[Record]]]:
    """Questions near the list, by kind, none of which is a secret's.

    Args:
        known: names that the model itself puts into such questions.
        asked: questions of the list.
        secret: rows whose questions are not asked.
        leaks: of the secret rows.
        seed: of invented names and the order.
    """
    rng, taken = Random(seed), {record.question for record in secret}
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
    said = complete_rows(model, rows, tokens=longest, stops=stops)
    return [
        replace(row.record, answer=text)
        for row, (text, ended) in zip(rows, said, strict=True)
        if ended and _listable(text)
    ]


def _common(records: Sequence[Record]) -> set[str]:
    """Words that the model says of at least two others: they give nobody away."""
    counts = Counter(word for record in records for word in content_words(record.answer))
    return {word for word, count in counts.items() if count > 1}


def _kept(record: Record, kind: str, number: int) -> Record:
    return replace(
        record,
        id=f"retention/generated/{number}",
        scope="retention",
        split="train",
        subset=f"generated: {kind}",
    )
