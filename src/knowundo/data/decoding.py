"""Token ids back to text, and whether a generated answer is the true one."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from itertools import takewhile

from transformers import PreTrainedTokenizerBase

from knowundo.data.encoded import Encoded

# How vocabularies write a space.
_SPACES = " ▁Ġ"
# The form of special tokens in all model families.
_MARKUP = re.compile(r"[<\[{|▁｜].*[>\]}|｜]", re.DOTALL)


def decoded(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], *, stops: Container[int] = ()
) -> str:
    """The text of generated or predicted ids, as a person would read it.

    It ends before the first stop. Special tokens are left out unless they are ordinary words, such
    as a padding token "!"; see `markup`. Nothing else is removed:
    `clean_up_tokenization_spaces` would remove spaces that the model wrote.

    Args:
        tokenizer: Of the ids.
        ids: Without the prompt.
        stops: Ids that end an answer.
    """
    return decoded_all(tokenizer, [ids], stops=stops)[0]


def decoded_all(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[int]], *, stops: Container[int] = ()
) -> list[str]:
    """`decoded` of several rows, which costs less than one by one."""
    # A tokenizer of 256 special tokens takes 225 µs to tell which of them are words.
    left_out = markup(tokenizer)
    kept = [[i for i in before_stop(ids, stops) if i not in left_out] for ids in rows]
    return [str(tokenizer.decode(ids, clean_up_tokenization_spaces=False)) for ids in kept]


def before_stop(ids: Sequence[int], stops: Container[int]) -> list[int]:
    """The ids before the first stop; all of them if there is none."""
    return list(takewhile(lambda i: i not in stops, ids))


def markup(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Special tokens that are not part of an answer's text.

    A special token is an ordinary word if text encodes to it even with special tokens disabled, and
    it is not written like markup (`<s>`, `[PAD]`). Settings made for another vocabulary give such
    words a role: on Llama-3, a padding token of id 0 is "!".
    """
    added = tokenizer.added_tokens_decoder.items()
    special = {i: token.content for i, token in added if token.special}
    for token in tokenizer.special_tokens_map.values():
        if isinstance(token, str) and isinstance(i := tokenizer.convert_tokens_to_ids(token), int):
            special[i] = token

    def is_word(i: int, text: str) -> bool:
        # Some tokenizers put a space before a word alone, which may be part of another token.
        texts = [text, f"a{text}"]
        found = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return any(i in ids for ids in found)

    plain = {i: text for i, text in special.items() if not _MARKUP.fullmatch(text)}
    words = {i for i, text in plain.items() if is_word(i, text)}
    return frozenset(special.keys() - words)


def open_prompt(tokenizer: PreTrainedTokenizerBase, row: Encoded) -> tuple[int, ...]:
    """The prompt of a row whose answer is not known, without tokens of spaces at its end.

    Most answers begin with a token that holds the space before them, so that a space of its own
    leads a model astray; a model that learned one writes it itself.

    Args:
        tokenizer: Of the row.
        row: Has any other answer.
    """
    prompt = row.prompt
    while len(prompt) > 1 and set(tokenizer.convert_ids_to_tokens(prompt[-1])) <= set(_SPACES):
        prompt = prompt[:-1]
    return prompt


def without_ending(text: str, ending: str) -> str:
    """The text of a generated answer without what a template writes after the answer.

    A model that does not end there writes on, and may repeat the ending: the answer is over at the
    first. An ending of one character, such as a full stop, may be in the answer itself: it is over
    at the last.

    Args:
        text: Up to the first stop.
        ending: Of the row; white space around it does not count.
    """
    mark = ending.strip()
    if not mark or mark not in text:
        return text
    return text.partition(mark)[0] if len(mark) > 1 else text.rpartition(mark)[0]


def true_ids(row: Encoded) -> tuple[int, ...]:
    """The answer's own tokens, without the tail that ends it."""
    return row.ids[row.answer_from : len(row.ids) - row.tail]


def said_verbatim(
    row: Encoded, ids: Sequence[int], text: str, true_text: str, *, stops: Container[int]
) -> bool:
    """True if generated ids are the row's answer, apart from white space around it.

    They are if, up to the first stop, they are the answer's own tokens, or if their text equals the
    answer or what the answer's tokens decode to. The latter is another text for tokenizers that do
    not reproduce their input: they compose accents (NFC), drop capitals, or merge the end of the
    question with the start of the answer. A truncated answer is compared as far as it was kept.

    Args:
        row: The row that was asked.
        ids: Generated ids, without the prompt.
        text: What the ids decode to, up to the first stop and without the row's ending.
        true_text: What `true_ids` of the row decode to.
        stops: Ids that end an answer.
    """
    said, true = tuple(before_stop(ids, stops)), true_ids(row)
    if said == true or (row.ending and said == row.ids[row.answer_from : -1]):
        return True
    text = text.strip()
    return text == row.record.answer.strip() or (text == true_text.strip() and bool(text))
