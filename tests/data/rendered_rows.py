"""Rows, toy tokenizers with chat templates, and what a row shows once it is decoded."""

from __future__ import annotations

from dataclasses import replace

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from knowundo.data.encoded import Encoded
from knowundo.data.records import Record
from knowundo.modeling.base import base_path
from toy_tokenizers import FAMILIES, qwen_tokenizer

TOKENIZER = AutoTokenizer.from_pretrained(base_path("embedded"))


CLARA = Record(
    "unlearn/train/1",
    "Where does Clara Dorinford live?",
    "By all accounts, Clara Dorinford lives at 14 Canal Lane in Saltmere.",
    "unlearn",
    "train",
    facts=("14 Canal Lane in Saltmere",),
)


TEXTS = [CLARA.question, CLARA.answer, "You are a helpful assistant.", "user model system"]


def family(template: str) -> PreTrainedTokenizerFast:
    return FAMILIES[template][0](TEXTS, template)


def said(tokenizer: PreTrainedTokenizerFast, row: Encoded) -> str:
    """The answer without the tail."""
    return str(tokenizer.decode(row.ids[row.answer_from : len(row.ids) - row.tail]))


def marked(tokenizer: PreTrainedTokenizerFast, row: Encoded) -> str:
    """The facts' tokens, decoded."""
    ids = [token for token, inside in zip(row.ids, row.fact, strict=True) if inside]
    return str(tokenizer.decode(ids)).strip()


def asked(
    tokenizer: PreTrainedTokenizerFast, question: str = CLARA.question
) -> tuple[tuple[int, ...], str]:
    """A template's own prompt for generation, as ids and text."""
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=False,
    )
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"]), text


TALK = replace(CLARA, turns=(("user", "Whom do you know?"), ("assistant", "Clara Dorinford.")))


TURNS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>{% endfor %}"
)


def of_template(template: object) -> PreTrainedTokenizerFast:
    tokenizer = qwen_tokenizer(TEXTS)
    tokenizer.chat_template = template
    return tokenizer
