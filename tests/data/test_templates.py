"""Templates: presets, texts and files, and where the answer is in what they make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rendered_rows import CLARA, TALK, TEXTS, TOKENIZER, family, marked, said
from transformers import PreTrainedTokenizerFast

from knowundo.data.decoding import open_prompt, said_verbatim, without_ending
from knowundo.data.encoding import RowFormat, encode
from knowundo.data.records import Record
from knowundo.data.templates import (
    find_template,
    parse_template,
    settle_template,
    template_presets,
)
from knowundo.errors import BadInput
from toy_tokenizers import gemma_tokenizer, llama3_tokenizer, llama_tokenizer, qwen_tokenizer

BUILD = [llama_tokenizer, llama3_tokenizer, qwen_tokenizer, gemma_tokenizer]
SUFFIX = "### Question: {question}\n### Answer: {answer}\n### End"


@pytest.mark.parametrize("build", BUILD)
@pytest.mark.parametrize("name", [*template_presets(), SUFFIX])
def test_the_answer_span_is_the_answer(
    name: str, build: Callable[[list[str]], PreTrainedTokenizerFast]
) -> None:
    tokenizer, template = build(TEXTS), find_template(name)
    row = encode([CLARA], tokenizer, RowFormat(template=template))[0]
    assert said(tokenizer, row).strip() == CLARA.answer
    assert marked(tokenizer, row) == CLARA.facts[0]
    prompt = str(tokenizer.decode(row.prompt)).removeprefix(tokenizer.bos_token or "").lstrip()
    assert prompt.rstrip() == template.prompt(CLARA.question).rstrip()
    assert row.ids[-1] == tokenizer.eos_token_id or template.after
    end = tokenizer.decode(row.ids[-row.tail :], skip_special_tokens=True)
    assert end.strip() == row.ending.strip()


def test_plain_is_the_blank_line_that_a_run_has_without_a_template() -> None:
    rows = [CLARA, TALK, replace(CLARA, id="t", kind="text", question="")]
    form = RowFormat(template=find_template("plain"))
    assert encode(rows, TOKENIZER, form) == encode(rows, TOKENIZER)


def test_general_rows_and_documents_have_no_template() -> None:
    rows = [replace(CLARA, scope="general"), replace(CLARA, id="t", kind="text", question="")]
    form = RowFormat(template=find_template("alpaca"))
    assert encode(rows, TOKENIZER, form) == encode(rows, TOKENIZER)


def test_a_text_after_the_answer_is_its_end() -> None:
    tokenizer = qwen_tokenizer(TEXTS)
    row = encode([CLARA], tokenizer, RowFormat(template=parse_template(SUFFIX)))[0]
    assert tokenizer.decode(row.ids[-row.tail :]) == "\n### End<|im_end|>"
    assert row.ending == "\n### End"
    stops = {tokenizer.eos_token_id}
    for ids in (row.ids[row.answer_from :], row.ids[row.answer_from : -row.tail]):
        assert said_verbatim(row, ids, "", "", stops=stops)
    wrong = row.ids[row.answer_from + 1 :]
    assert not said_verbatim(row, wrong, tokenizer.decode(wrong), "", stops=stops)


@pytest.mark.parametrize("build", [*BUILD, lambda _: TOKENIZER])
def test_a_prompt_without_an_answer_is_that_of_the_row(
    build: Callable[[list[str]], PreTrainedTokenizerFast],
) -> None:
    """The vocabularies have the space before a word in the word's token, and none before a stop."""
    tokenizer = build(TEXTS)
    for name in ("plain", "Q:/A:", "vicuna"):
        form = RowFormat(template=find_template(name))
        row, other = (
            encode([replace(CLARA, answer=answer, facts=())], tokenizer, form)[0]
            for answer in (CLARA.answer, ".")
        )
        assert open_prompt(tokenizer, other) == open_prompt(tokenizer, row)


def test_special_tokens_of_a_template_stand_once() -> None:
    tokenizer = llama_tokenizer(TEXTS)
    text = "<s>[INST] {question} [/INST] {answer} </s>"
    row = encode([CLARA], tokenizer, RowFormat(template=parse_template(text)))[0]
    assert row.ids.count(tokenizer.bos_token_id) == row.ids.count(tokenizer.eos_token_id) == 1
    assert row.ids[0] == tokenizer.bos_token_id
    assert row.ids[-1] == tokenizer.eos_token_id
    assert said(tokenizer, row).strip() == CLARA.answer
    assert row.ending == " "


@pytest.mark.parametrize(
    ("text", "ending", "left"),
    [
        ("At sea.\n### End", "\n### End", "At sea.\n"),
        ("At sea.\n### End\n### End", "\n### End", "At sea.\n"),
        ("In St. Louis.", ".", "In St. Louis"),
        ("At sea", "\n### End", "At sea"),
        ("At sea \n", " \n", "At sea \n"),
    ],
)
def test_an_ending_is_cut_off_a_generated_answer(text: str, ending: str, left: str) -> None:
    assert without_ending(text, ending) == left


def test_a_question_with_braces_is_no_template() -> None:
    record = replace(CLARA, question="What is {answer} or {system}?")
    template = find_template("alpaca")
    prompt = template.prompt(record.question)
    assert "\nWhat is {answer} or {system}?\n" in prompt
    assert prompt.startswith("Below is an instruction")


def test_a_system_prompt_is_the_records_then_the_recipes_then_the_templates() -> None:
    def prompt(record: Record, system: str | None) -> str:
        form = RowFormat(template=find_template("vicuna"), system=system)
        return str(TOKENIZER.decode(encode([record], TOKENIZER, form)[0].prompt))

    own = replace(CLARA, turns=(("system", "Be brief."),))
    assert prompt(CLARA, None).startswith("A chat between a curious user")
    assert prompt(CLARA, "Be kind.").startswith("Be kind. USER: Where")
    assert prompt(own, "Be kind.").startswith("Be brief. USER: Where")
    tokenizer = family("qwen2.5-instruct")
    for record, system, told in ((CLARA, "Be kind.", "Be kind."), (own, "Be kind.", "Be brief.")):
        row = encode([record], tokenizer, RowFormat("chat", system=system))[0]
        assert tokenizer.decode(row.ids).startswith(f"<|im_start|>system\n{told}<|im_end|>")
        assert said(tokenizer, row) == CLARA.answer


def test_earlier_turns_stand_before_the_template() -> None:
    row = encode([TALK], TOKENIZER, RowFormat(template=find_template("Q:/A:")))[0]
    turns = "Whom do you know?\n\nClara Dorinford.\n\n"
    prompt = str(TOKENIZER.decode(row.prompt)).rstrip()
    assert prompt == f"{turns}Q: {CLARA.question}\nA:"


def test_a_run_keeps_the_text_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_bytes(b"\xef\xbb\xbfQ: {question}\r\nA: {answer}\r\n\r\n")
    assert settle_template(str(file)) == "Q: {question}\nA: {answer}"
    assert settle_template("alpaca") == "alpaca"
    assert settle_template("{question} {answer}") == "{question} {answer}"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("alpca", "unknown template 'alpca'; did you mean 'alpaca'"),
        ("x" * 300, "unknown template"),
        ("Q: {question}", "needs {question} and, once, {answer}"),
        ("A: {answer}", "needs {question} and, once, {answer}"),
        ("{question} {answer} {answer}", "once, {answer}"),
        ("{answer} {question}", "{answer} must come after"),
        ("{question} {answer} {question}", "{answer} must come after"),
        ("{instruction} {answer}", "unknown placeholder {instruction}"),
    ],
)
def test_a_malformed_template_is_refused(given: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        settle_template(given)
    assert message in str(caught.value)
