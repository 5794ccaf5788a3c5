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

from rapidfuzz.fuzz import partial_ratio

from knowundo.encoding import Encoded
from knowundo.models import Model
from knowundo.neighbours import about_other_things, about_others, invented_names, near_names
from knowundo.records import Record
from knowundo.scoring import complete

# Rows of each kind, about; tokens of a text; likeness that makes an answer a protected one.
OTHERS, NAMES, THINGS, TEXTS, TEXT_TOKENS, LEAK = 480, 80, 120, 160, 60, 80
# Tokens of an answer beyond the longest on the list.
ROOM = 16
_NAME = re.compile(r"[A-ZÀ-Þ][\w'’-]*(?: [A-ZÀ-Þ][\w'’-]*)+")

Encode = Callable[[Sequence[Record]], list[Encoded]]


class Leaks:
    """Tells whether a text repeats what must go."""

    def __init__(self, unlearn: Sequence[Record]) -> None:
        self.facts = [fact for record in unlearn for fact in record.facts]
        self.answers = [record.answer for record in unlearn]
        self.subjects = {record.subject for record in unlearn if record.subject}
        self.marks = [marks(record) for record in unlearn]

    def repeats(self, text: str) -> bool:
        """True if a fact stands in it, what marks a protected answer, or much of one."""
        if any(fact in text for fact in self.facts):
            return True
        words = set(_words(text))
        if any(any(map(_is_code, m & words)) or len(m & words) > 1 for m in self.marks):
            return True
        # A short text lies in many a long one.
        long = [answer for answer in self.answers if 2 * len(text) >= len(answer)]
        return any(partial_ratio(answer, text) >= LEAK for answer in long)

    def names(self, text: str) -> bool:
        """True if a subject of the list stands in it."""
        return any(subject in text for subject in self.subjects)


def _words(text: str) -> list[str]:
    return [word.strip(".,;:!?()\"'’“”") for word in text.split()]


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
    cut = {r.question.split(r.subject)[0].rstrip() for r in unlearn if r.subject in _named(r)}
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


def _named(record: Record) -> tuple[str, ...]:
    return (record.subject,) if record.subject and record.subject in record.question else ()


def own_texts(model: Model, leaks: Leaks, count: int, *, seed: int) -> list[Record]:
    """Text that the model writes with nothing before it, of scope general."""
    first = model.tokenizer.bos_token_id
    begin = [int(model.tokenizer.eos_token_id if first is None else first)]
    said = complete(model, [begin] * count, tokens=TEXT_TOKENS, temperature=1.0, seed=seed)
    texts = [text for text, _ in said if len(text.split()) > 3]
    kept = dict.fromkeys(t for t in texts if not leaks.repeats(t) and not leaks.names(t))
    return [
        Record(f"text/{n}", "", text, "general", "train", subject=f"text {n}", kind="text")
        for n, text in enumerate(kept)
    ]


def make_retention(
    model: Model, unlearn: Sequence[Record], encode: Encode, *, seed: int
) -> list[Record]:
    """Rows that must stay, answered by the model; see the top of this file.

    Args:
        model: the one that knows the list; not changed.
        unlearn: the list.
        encode: as the list's rows are encoded.
        seed: of names, texts and the order.
    """
    rng, leaks = Random(seed), Leaks(unlearn)
    known = names_it_knows(model, unlearn, seed=seed)
    strangers = invented_names(NAMES, seed, {*leaks.subjects, *known})
    near = near_names(sorted(leaks.subjects), NAMES, seed)
    pool = [*known, *strangers, *near]
    names = rng.sample(pool, len(pool))
    asked = [record for record in unlearn if record.kind == "qa"]
    others = about_others(asked, names, max(1, OTHERS // max(len(asked), 1)))
    things = about_other_things(asked)
    groups = (
        ("other subject", rng.sample(others, min(len(others), OTHERS))),
        ("same subject", rng.sample(things, min(len(things), THINGS))),
    )
    longest = max((row.answer_length for row in encode(asked)), default=32) + ROOM
    rows: list[Record] = []
    for kind, questions in groups:
        # What stands for the answer is not read: it only marks where the prompt ends.
        prompts = [row.prompt for row in encode([replace(q, answer=".") for q in questions])]
        answers = complete(model, prompts, tokens=longest) if prompts else []
        for question, (said, ended) in zip(questions, answers, strict=True):
            private = kind == "other subject" and leaks.names(said)
            if said and ended and not private and not leaks.repeats(said):
                rows.append(_kept(question, said, kind, len(rows)))
    texts = own_texts(model, leaks, TEXTS, seed=seed)
    return rows + [
        _kept(text, text.answer, "own text", len(rows) + n) for n, text in enumerate(texts)
    ]


def _kept(record: Record, answer: str, kind: str, number: int) -> Record:
    return replace(
        record,
        id=f"retention/generated/{number}",
        answer=answer,
        scope="retention",
        split="train",
        subset=f"generated: {kind}",
    )
