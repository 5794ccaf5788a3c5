"""A long text as several records."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rendered_rows import (
    CLARA,
    TOKENIZER,
    family,
)

from knowundo.data.chunks import chunked
from knowundo.data.encoding import encode
from knowundo.data.records import Record
from knowundo.errors import BadInput
from toy_tokenizers import FAMILIES

BLANK_END = "an end of nothing but white space"


DOCUMENTS = {
    "sentences": "By all accounts, she lives there. Nobody asked why! Was it cold?\nIt was. " * 9,
    "words": "canal lane " * 60,
    "one word": "x" * 400,
    "Chinese": "她住在运河巷十四号。没有人问为什么。那天很冷，" * 12,
    "accents": "Où étaient-ils ? À l’été, là-bas… " * 4 + "e\u0301a\u0300o\u0302" * 40,
    "emoji": "👩‍👩‍👧 gone 🇫🇷🇩🇪 " * 20,
    "spaces": "  a\n\n\n b\t \t c" * 30 + " " * 30 + "\n",
    BLANK_END: "So it was." + " \n" * 60,
    "line separators": "one\u2028two\x85three\r\nfour\x0b" * 20,
    "markup": "[INST] a [/INST] <0x0A> &amp; ▁▁ " * 20,
}


@pytest.mark.parametrize("template", [*FAMILIES, None])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_chunks_fit_and_nothing_is_lost(template: str | None, name: str) -> None:
    tokenizer, text = family(template) if template else TOKENIZER, DOCUMENTS[name]
    facts = tuple({text[n : n + 7] for n in range(0, len(text) - 7, 23)})
    record = Record("d", "", text, "unlearn", "train", "s", kind="text", facts=facts)
    whole = len(encode([record], tokenizer, max_length=10_000)[0].ids)
    assert chunked(record, tokenizer, whole) == [record]
    for size in (8, 13, 64, whole - 1):
        parts = chunked(record, tokenizer, size)
        assert len(parts) >= 2
        assert "".join(part.answer for part in parts) == text
        assert [part.id for part in parts] == [f"d/part-{n}" for n in range(len(parts))]
        assert {(part.kind, part.subject) for part in parts} == {("text", "s")}
        for part in parts:
            assert part.facts == tuple(fact for fact in facts if fact in part.answer)
        lengths = [len(row.ids) for row in encode(parts, tokenizer, max_length=size)]
        if name != BLANK_END and size >= 64:
            assert all(part.answer.strip() for part in parts)
            assert all(length >= 0.7 * size for length in lengths[:-2])


def test_chunks_end_with_a_sentence_a_word_or_a_token() -> None:
    def ends(text: str, size: int) -> list[str]:
        parts = chunked(Record("d", "", text, "unlearn", "train", kind="text"), TOKENIZER, size)
        return [part.answer[-1] for part in parts[:-1]]

    assert set(ends("She lives there. It was cold, was it? " * 20, 64)) <= {".", "?"}
    lined = ends("a canal, a lane\n" * 40, 64)
    assert set(lined) == {"e"}
    words = chunked(
        Record("d", "", "canal lane " * 60, "unlearn", "train", kind="text"), TOKENIZER, 64
    )
    assert {part.answer.split()[-1] for part in words} <= {"canal", "lane"}
    assert all(part.answer[0] == " " for part in words[1:])


def test_only_texts_are_cut() -> None:
    assert chunked(CLARA, TOKENIZER, 3) == [CLARA]
    with pytest.raises(BadInput, match="d: not even one character of its text fits"):
        chunked(Record("d", "", "👩‍👧 and more", "unlearn", "train", kind="text"), TOKENIZER, 1)


def test_a_part_of_a_text_has_no_end_to_learn() -> None:
    record = Record("d", "", "canal lane " * 60, "unlearn", "train", kind="text")
    parts = chunked(record, TOKENIZER, 64)
    assert [part.continues for part in parts] == [True] * (len(parts) - 1) + [False]
    rows = encode(parts, TOKENIZER, max_length=64)
    assert [row.tail for row in rows] == [0] * (len(parts) - 1) + [1]
    end = TOKENIZER.eos_token_id
    assert [row.ids.count(end) for row in rows] == [row.tail for row in rows]
    assert [row.cut for row in rows] == [0] * len(parts)
    cut = chunked(replace(record, continues=True), TOKENIZER, 64)
    assert cut[-1].continues
    (one,) = encode([replace(record, answer="a", continues=True)], TOKENIZER)
    assert one.answer_length == 1  # a row without an answer could not be scored
