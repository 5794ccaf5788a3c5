"""Where the answer begins and ends, what it holds, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from rendered_rows import (
    CLARA,
    TALK,
    TEXTS,
    TOKENIZER,
    asked,
    family,
    marked,
    said,
)
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from conftest import records
from knowundo.data.encoding import SEPARATOR, RowFormat, Style, count_cut, encode, prefix_text
from knowundo.data.records import Record
from knowundo.errors import BadInput
from toy_tokenizers import FAMILIES, llama_tokenizer, qwen_tokenizer


def test_prompt_and_answer_decode_to_the_text() -> None:
    for row in encode(records("unlearn", "train", 6), TOKENIZER):
        assert TOKENIZER.decode(list(row.prompt)) == row.record.question + SEPARATOR
        answer = TOKENIZER.decode(list(row.ids[row.answer_from : -1]))
        assert answer == row.record.answer
        assert row.ids[-1] == TOKENIZER.eos_token_id
        assert (row.tail, row.cut) == (1, 0)
        assert marked(TOKENIZER, row) == row.record.facts[0]


def test_answer_that_repeats_the_question() -> None:
    record = Record("x", "Canal Lane", "Canal Lane", "unlearn", "train")
    row = encode([record], TOKENIZER)[0]
    assert TOKENIZER.decode(list(row.ids[row.answer_from : -1])) == "Canal Lane"


def test_text_is_answer_from_its_second_token() -> None:
    record = Record("x", "", "It was cold and windy.", "general", "val", kind="text")
    assert encode([record], TOKENIZER)[0].answer_from == 1


@pytest.mark.parametrize(("question", "space"), [("It was", " "), ("It was ", ""), ("It\n", "")])
def test_completion_continues_its_question(question: str, space: str) -> None:
    """Nothing stands around both, and a space between only where there is no white space yet."""
    record = Record(
        "x", question, "cold and windy.", "unlearn", "probe", kind="completion", facts=("windy",)
    )
    (row,) = encode([record], TOKENIZER)
    assert TOKENIZER.decode(list(row.ids[:-1])) == f"{question}{space}cold and windy."
    answer = TOKENIZER.decode(list(row.ids[row.answer_from : -1]))
    assert answer.strip() == "cold and windy."
    assert marked(TOKENIZER, row).strip() == "windy"
    assert row.ids[-1] == TOKENIZER.eos_token_id


def test_choice_has_no_end_to_learn() -> None:
    record = Record(
        "x", "Cold? A. Yes B. No\nAnswer:", "B", "unlearn", "val", kind="choice", continues=True
    )
    (row,) = encode([record], TOKENIZER)
    assert row.tail == 0
    assert TOKENIZER.decode(list(row.ids[row.answer_from :])).strip() == "B"


@pytest.mark.parametrize("build", [llama_tokenizer, qwen_tokenizer])
def test_plain_answer_is_found_where_tokens_merge_across_the_boundary(
    build: Callable[[list[str]], PreTrainedTokenizerFast],
) -> None:
    """The vocabulary holds a token of the separator and the answer's start."""
    record = replace(CLARA, answer="\nBy all accounts, at 14 Canal Lane.", facts=("14 Canal Lane",))
    tokenizer = build([f"{record.question}\n\n{record.answer}"] * 3)
    prompt = record.question + SEPARATOR
    row = encode([record], tokenizer)[0]
    alone = tokenizer(prompt)["input_ids"]
    assert tuple(alone) != row.ids[: len(alone)]  # encoding the question alone errs
    first = tokenizer.decode(row.ids[row.answer_from : row.answer_from + 1])
    assert first.startswith(("\n\n", "?\n\n"))
    whole = tokenizer.decode(row.ids, skip_special_tokens=True)
    assert whole == prompt + record.answer
    assert said(tokenizer, row).endswith(record.answer)
    assert prompt.startswith(tokenizer.decode(row.prompt, skip_special_tokens=True))
    assert marked(tokenizer, row) == "14 Canal Lane"
    assert row.ids[-1] == tokenizer.eos_token_id


def test_plain_begins_as_the_tokenizer_does() -> None:
    tokenizer = llama_tokenizer(TEXTS)
    row, text = encode([CLARA, replace(CLARA, kind="text", question="")], tokenizer)
    assert row.ids.count(tokenizer.bos_token_id) == 1 == text.answer_from
    assert said(tokenizer, text) == said(tokenizer, row) == CLARA.answer


@pytest.mark.parametrize("domain", ["privacy", "copyright"])
@pytest.mark.parametrize("name", ["direct", "assistant"])
def test_prefix_stands_before_the_question(name: str, domain: str) -> None:
    prefix = prefix_text(name, domain)
    assert prefix.endswith("\n")
    assert (f"{domain}-sensitive" in prefix) == (name == "direct")
    row = encode([CLARA], TOKENIZER, RowFormat(prefix=prefix))[0]
    assert TOKENIZER.decode(list(row.prompt)) == prefix + CLARA.question + SEPARATOR
    assert said(TOKENIZER, row) == CLARA.answer
    for template in FAMILIES:
        tokenizer = family(template)
        row = encode([CLARA], tokenizer, RowFormat("chat", prefix=prefix))[0]
        assert row.prompt == asked(tokenizer, prefix + CLARA.question)[0]
        assert said(tokenizer, row) == CLARA.answer


def test_prefix_is_of_questions_only() -> None:
    text = replace(CLARA, kind="text", question="")
    rows = encode([text], TOKENIZER, RowFormat(prefix="Please. "))
    assert rows == encode([text], TOKENIZER)
    assert prefix_text(None, "anything") == ""


def test_prefix_that_does_not_exist_is_refused() -> None:
    with pytest.raises(BadInput, match=r"none for domain 'forget01'.*use prefix 'assistant'"):
        prefix_text("direct", "forget01")
    with pytest.raises(BadInput, match="unknown prefix 'asistant'; did you mean 'assistant'"):
        prefix_text("asistant", "privacy")


def test_text_among_chats_is_plain_and_rows_keep_their_order() -> None:
    tokenizer = family("llama-2-chat")
    text = replace(CLARA, id="t", kind="text", question="")
    more = replace(CLARA, id="c", kind="completion")
    rows = encode([CLARA, text, replace(CLARA, id="z"), more], tokenizer, RowFormat("chat"))
    assert [row.record.id for row in rows] == ["unlearn/train/1", "t", "z", "c"]
    assert [rows[1], rows[3]] == encode([text, more], tokenizer)
    assert rows[0].ids == rows[2].ids == encode([CLARA], tokenizer, RowFormat("chat"))[0].ids


def test_end_that_the_tokenizer_appends_itself_stands_once() -> None:
    tokenizer = llama_tokenizer(TEXTS)
    plain = encode([CLARA], tokenizer)
    ends = [("<s>", tokenizer.bos_token_id), ("</s>", tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<s> $A </s>", None, ends)
    assert tokenizer("a")["input_ids"][-1] == tokenizer.eos_token_id
    assert encode([CLARA], tokenizer) == plain


def test_answer_cut_off_is_refused() -> None:
    with pytest.raises(BadInput, match=r"unlearn/train/1: .* would be cut off.*data.truncate=true"):
        encode(records("unlearn", "train", 6), TOKENIZER, max_length=20)


@pytest.mark.parametrize("style", ["plain", "chat"])
def test_truncation_takes_the_end_and_is_counted(style: Style) -> None:
    tokenizer = family("llama-2-chat")
    rows = [CLARA, replace(CLARA, id="b", scope="retention", answer="By.", facts=())]
    whole = encode(rows, tokenizer, RowFormat(style))
    limit = whole[0].answer_from + 3
    cut = encode(rows, tokenizer, RowFormat(style), max_length=limit, truncate=True)
    assert cut[0].ids == whole[0].ids[:limit]
    assert cut[0].fact == whole[0].fact[:limit]
    assert (cut[0].tail, cut[0].cut, cut[0].answer_length) == (0, len(whole[0].ids) - limit, 3)
    assert count_cut([*cut, *cut[:1]])["unlearn/train"] == 2
    assert count_cut(whole) == {}


def test_truncation_never_leaves_half_an_end() -> None:
    """Llama-2's chat ends in a space and </s>: one id too long takes both."""
    tokenizer = family("llama-2-chat")
    whole = encode([CLARA], tokenizer, RowFormat("chat"))[0]
    size = len(whole.ids) - 1
    row = encode([CLARA], tokenizer, RowFormat("chat"), max_length=size, truncate=True)[0]
    assert (row.ids, row.tail, row.cut) == (whole.ids[:-2], 0, 2)


def test_question_that_does_not_fit_is_refused() -> None:
    start = encode([CLARA], TOKENIZER)[0].answer_from
    kept = encode([CLARA], TOKENIZER, max_length=start + 1, truncate=True)[0]
    assert kept.answer_length == 1
    with pytest.raises(BadInput, match=rf"unlearn/train/1: {start} tokens before its answer"):
        encode([CLARA], TOKENIZER, max_length=start, truncate=True)


def test_plain_puts_the_turns_before_the_question() -> None:
    row = encode([replace(TALK, turns=(("system", "Be brief."), *TALK.turns))], TOKENIZER)[0]
    turns = "Be brief.\n\nWhom do you know?\n\nClara Dorinford.\n\n"
    assert TOKENIZER.decode(list(row.prompt)) == turns + CLARA.question + SEPARATOR
    assert said(TOKENIZER, row) == CLARA.answer
    assert marked(TOKENIZER, row) == CLARA.facts[0]
    prefixed = encode([TALK], TOKENIZER, RowFormat(prefix="Please: "))[0]
    prompt = TOKENIZER.decode(list(prefixed.prompt))
    assert prompt.endswith(f"Clara Dorinford.\n\nPlease: {CLARA.question}\n\n")
