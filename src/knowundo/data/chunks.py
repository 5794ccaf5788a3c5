"""Splitting of a long text into several records that fit into the maximum length."""

from __future__ import annotations

import re
import sys
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from knowundo.data.encoding import encode
from knowundo.data.records import Record
from knowundo.errors import BadInput

# Where a text may be cut, best places first: after a line or a sentence, after a word.
_ENDS = (
    re.compile(r"\S(?=\s*\n)|[.!?…][\"'”’»)\]]*(?=\s)|[。！？]"),
    re.compile(r"\S(?=\s)"),
)
_BLANK = re.compile(r"\s*\Z")


def chunked(record: Record, tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[Record]:
    """Split a text into parts that fit, named `id/part-0` and so on.

    The concatenated answers of the parts are the text; all but the last have no end to learn. A
    part ends with a line or sentence if one ends in its last fifth, else with a word, else with a
    token. White space between two parts begins the second: most vocabularies have “ lane” as a
    token, and an answer should not end with newlines. A fact belongs to every part that contains
    all of it; a fact that is cut belongs to none.

    Args:
        record: Of any kind; only a `text` is split.
        tokenizer: As for `encode`.
        max_length: Tokens that a part may have, its end included.

    Returns:
        The parts; the record itself if it fits or is no text.

    Raises:
        BadInput: Not even one character fits, or as `encode`.
    """
    length = _length(record, tokenizer) if record.kind == "text" else 0
    if length <= max_length:
        return [record]
    text = record.answer
    output = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    starts = [start for start, _ in output["offset_mapping"]]
    parts: list[Record] = []
    start = 0
    while start < len(text):
        # The tokens of the whole text give a first guess. Only the part's own tokens tell whether
        # it fits, because the tokens at its ends may differ.
        room = max_length - (length - len(starts))
        while True:
            part = _part(record, len(parts), start, _part_end(text, start, starts, room))
            excess = _length(part, tokenizer) - max_length
            if excess <= 0:
                break
            room -= excess
        parts.append(part)
        start += len(part.answer)
    return parts


def _length(record: Record, tokenizer: PreTrainedTokenizerBase) -> int:
    """Number of tokens of a record, its end included."""
    return len(encode([record], tokenizer, max_length=sys.maxsize)[0].ids)


def _part(record: Record, number: int, start: int, end: int) -> Record:
    answer = record.answer[start:end]
    if not answer:
        raise BadInput(
            f"{record.id}: not even one character of its text fits; raise data.max_length"
        )
    facts = tuple(fact for fact in record.facts if fact in answer)
    continues = record.continues or end < len(record.answer)
    name = f"{record.id}/part-{number}"
    return replace(record, id=name, answer=answer, facts=facts, continues=continues)


def _part_end(text: str, start: int, starts: Sequence[int], room: int) -> int:
    """Index at which a part of about `room` tokens ends; `start` if nothing fits.

    `starts` are the indices of the first characters of all tokens.
    """
    first = bisect_left(starts, start)
    if room < 1:
        return start
    if first + room >= len(starts):
        return len(text)
    earliest, latest = starts[first + room * 4 // 5], starts[first + room]
    if _BLANK.match(text, latest):  # white space at the end is no part of its own
        word = start + len(text[start:latest].rstrip()) - 1
        latest = word if word > start else latest
    for pattern in _ENDS:
        ends = [match.end() for match in pattern.finditer(text, earliest, latest + 1)]
        if ends := [end for end in ends if earliest < end <= latest]:
            return ends[-1]
    return latest
