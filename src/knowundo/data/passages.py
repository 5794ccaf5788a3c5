"""Long texts of a benchmark as passages of bounded length, cut without a tokenizer."""

from __future__ import annotations

import re

# At most so many characters, about 350 tokens of English: fits the default `data.max_length`.
LONGEST = 1500
# Where a passage may end, best places first: a paragraph, a line or sentence, a word.
_ENDS = (
    re.compile(r"\S(?=\s*\n\s*\n)"),
    re.compile(r"\S(?=\s*\n)|[.!?…][\"'”’»)\]]*(?=\s)|[。！？]"),
    re.compile(r"\S(?=\s)"),
)


def passages(text: str, longest: int = LONGEST) -> list[str]:
    """A text in passages, without the white space at their ends.

    A passage ends with a paragraph if one ends in its second half, else with a sentence or line,
    else with a word, else anywhere.

    Args:
        text: Any text.
        longest: Characters that a passage may have.
    """
    found, rest = [], text.strip()
    while len(rest) > longest:
        end = _end(rest, longest)
        found.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    return [*found, rest] if rest else found


def first_passage(text: str, longest: int = LONGEST) -> tuple[str, bool]:
    """The first passage of a text, and whether the text goes on after it."""
    parts = passages(text[: 2 * longest].strip(), longest)
    first = parts[0] if parts else ""
    return first, len(first) < len(text.strip())


def _end(text: str, longest: int) -> int:
    for pattern in _ENDS:
        ends = [match.end() for match in pattern.finditer(text, longest // 2, longest + 1)]
        if ends := [end for end in ends if end <= longest]:
            return ends[-1]
    return longest
