"""Rows in the chat templates of all families."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime

import pytest
from rendered_rows import (
    CLARA,
    TALK,
    TEXTS,
    TURNS,
    asked,
    family,
    marked,
    of_template,
    said,
)

from knowundo.data.chat_template import writes_date
from knowundo.data.encoding import RowFormat, encode
from knowundo.errors import BadInput
from toy_tokenizers import FAMILIES, TEMPLATES, qwen_tokenizer


@pytest.mark.parametrize("template", FAMILIES)
def test_chat_is_the_template_up_to_its_end_of_turn(template: str) -> None:
    tokenizer, end = family(template), FAMILIES[template][1]
    row = encode([CLARA], tokenizer, RowFormat("chat"))[0]
    ids, text = asked(tokenizer)
    assert row.prompt == ids  # what the model is asked is what it is trained on
    assert tokenizer.decode(row.prompt).replace(" ", "").endswith(text.replace(" ", ""))
    assert said(tokenizer, row) == CLARA.answer
    assert tokenizer.convert_ids_to_tokens(row.ids[-1]) == end
    assert tokenizer.decode(row.ids[-row.tail :]).strip() == end
    assert row.tail == (2 if template == "llama-2-chat" else 1)  # it puts a space before its end
    assert marked(tokenizer, row) == CLARA.facts[0]
    bos = tokenizer.bos_token_id
    assert row.ids.count(bos) == (bos is not None)


@pytest.mark.parametrize("template", FAMILIES)
@pytest.mark.parametrize(
    "answer",
    [CLARA.question, "end", "im_end", "s", "user", "assistant\n\nmodel", "14", " two\nlines \n"],
)
def test_chat_answer_that_stands_elsewhere_too(template: str, answer: str) -> None:
    """In the question, or in the markup on either side."""
    tokenizer = family(template)
    record = replace(CLARA, answer=answer, facts=(answer.strip()[:4],))
    row = encode([record], tokenizer, RowFormat("chat"))[0]
    assert said(tokenizer, row).strip() == answer.strip()
    ids, _ = asked(tokenizer)
    assert row.prompt[: len(ids) - 1] == ids[:-1]
    assert answer.strip()[:4].strip() in marked(tokenizer, row)
    assert not any(row.fact[-row.tail :])


def test_space_before_the_answer_is_its_own_token_or_the_answers() -> None:
    """Llama-2 writes "[/INST] 14": where digits stand alone, the space ends the prompt."""
    tokenizer = family("llama-2-chat")
    space = tokenizer.convert_tokens_to_ids("▁")
    row = encode([replace(CLARA, answer="14", facts=("14",))], tokenizer, RowFormat("chat"))[0]
    assert row.prompt == (*asked(tokenizer)[0], space)
    row = encode([CLARA], tokenizer, RowFormat("chat"))[0]
    assert tokenizer.convert_ids_to_tokens(row.ids[row.answer_from])[0] == "▁"


def test_template_without_an_end_gets_end_of_sequence() -> None:
    tokenizer = qwen_tokenizer(TEXTS)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '### ' + m.role + '\n' + m.content + '\n\n' }}{% endfor %}"
    )
    row = encode([CLARA], tokenizer, RowFormat("chat"))[0]
    assert said(tokenizer, row) == CLARA.answer
    assert row.ids[-1] == tokenizer.eos_token_id
    assert row.tail == 1


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "toy-qwen: its tokenizer has no chat template; set data.encoding=plain"),
        ("{{ raise_exception('no') }}", r"toy-qwen: its chat template refuses .*\(no\); set"),
        ("{{ messages[1].content | upper }}", "unlearn/train/1: the chat template .* rewrites"),
        ("{{ messages[0].content }}", "unlearn/train/1: the chat template .* rewrites"),
    ],
)
def test_template_that_cannot_serve_is_refused(template: str | None, message: str) -> None:
    tokenizer = qwen_tokenizer(TEXTS)
    tokenizer.chat_template = template
    with pytest.raises(BadInput, match=message):
        encode([CLARA], tokenizer, RowFormat("chat"))


def test_qwen3_would_take_an_answer_apart() -> None:
    """What stands before </think> is reasoning to it, and stripped."""
    record = replace(CLARA, answer="a </think> b", facts=())
    with pytest.raises(BadInput, match="rewrites its answer"):
        encode([record], family("qwen3"), RowFormat("chat"))


def test_templates_are_tested_each() -> None:
    assert {file.stem for file in TEMPLATES.glob("*.jinja")} == set(FAMILIES)


@pytest.mark.parametrize("template", FAMILIES)
def test_chat_renders_the_turns_before_the_question(template: str) -> None:
    tokenizer = family(template)
    row = encode([TALK], tokenizer, RowFormat("chat", prefix="Please: "))[0]
    turns = [
        *({"role": role, "content": content} for role, content in TALK.turns),
        {"role": "user", "content": "Please: " + CLARA.question},
    ]
    text = tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    assert row.prompt == tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert said(tokenizer, row) == CLARA.answer
    assert marked(tokenizer, row) == CLARA.facts[0]


def test_template_that_refuses_the_turns_names_the_row() -> None:
    row = replace(TALK, turns=(("system", "Be brief."),))
    assert encode([row], family("llama-2-chat"), RowFormat("chat"))[0].tail
    with pytest.raises(BadInput, match=r"refuses the turns of unlearn/train/1 \(System role not"):
        encode([row], family("gemma-it"), RowFormat("chat"))


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% if tools | length > 0 %}x{% endif %}" + TURNS, "TypeError: object of type 'NoneType'"),
        ("{{ messages[7]['content'] }}" + TURNS, "list object has no element 7"),
        ("{{ messages[0]['content'] + 1 }}" + TURNS, "TypeError: can only concatenate str"),
        ("{{ 1 / 0 }}" + TURNS, "ZeroDivisionError: division by zero"),
    ],
)
def test_whatever_a_template_raises_is_one_line_that_names_the_row(
    template: str, reason: str
) -> None:
    with pytest.raises(BadInput) as caught:
        encode([CLARA], of_template(template), RowFormat("chat"))
    said = str(caught.value)
    assert f"refuses question and answer of unlearn/train/1 ({reason}" in said
    assert said.endswith("set data.encoding=plain")


def test_several_templates_need_a_default() -> None:
    several = {"tool_use": TURNS, "rag": TURNS}
    with pytest.raises(
        BadInput, match=r"several chat templates \(tool_use, rag\) and none of them"
    ):
        encode([CLARA], of_template(several), RowFormat("chat"))
    one = encode([CLARA], of_template(TURNS), RowFormat("chat"))
    assert encode([CLARA], of_template(several | {"default": TURNS}), RowFormat("chat")) == one


def test_a_template_that_reads_only_parts_is_given_parts() -> None:
    """As those of models that also see images do."""
    inner = "{% for p in m['content'] %}{% if p['type'] == 'text' %}{{ p['text'] }}{% endif %}"
    template = TURNS.replace("{{ m['content'] }}", inner + "{% endfor %}")
    rows = [CLARA, TALK]
    assert encode(rows, of_template(template), RowFormat("chat")) == encode(
        rows, of_template(TURNS), RowFormat("chat")
    )


@pytest.mark.parametrize(
    "shape",
    [
        "%d %b %Y %H:%M:%S",
        "%-d.%-m.%y %p %j %A",
        "%B %%d",
        "%e %B",
        "%F %T",
        "%D %R %G-W%V-%u",
        "%h %k %l %P",
        "%C %g %-e|%-k|%-l",
        "%n%t|%d",
        "%s",
        "%_d %^b %Od %Ey",
        "%Q %%e %%%e 100%",
    ],
)
def test_a_template_that_writes_the_date_is_told_one(shape: str) -> None:
    """The day and the rest of the template are as they would be on that day."""
    tokenizer = of_template(f"\n{{{{ strftime_now('{shape}') }}}}\n" + TURNS)
    assert writes_date(tokenizer)
    assert not writes_date(of_template(TURNS))
    day = date(2026, 11, 5)
    row = encode([CLARA], tokenizer, RowFormat("chat", today=day))[0]
    now = datetime(2026, 11, 5).strftime(shape)
    plain = encode([CLARA], of_template(f"\n{now}\n" + TURNS), RowFormat("chat"))[0]
    assert row == plain
    assert encode([CLARA], tokenizer, RowFormat("chat"))[0] != row


@pytest.mark.parametrize(
    "start", ["  {% set d = strftime_now('%Y') %}\n", "  ", " \n", "\n", "{%- set d = 1 %}\n", "#"]
)
def test_a_template_with_a_clock_begins_as_it_would_alone(start: str) -> None:
    """Spaces before a tag and the newline after it vanish (`lstrip_blocks`, `trim_blocks`)."""
    template = start + TURNS + "{% set y = strftime_now('%Y') %}\n{{ y }}"
    tokenizer = of_template(template)
    row = encode([CLARA], tokenizer, RowFormat("chat", today=date.today()))[0]
    turns = [
        {"role": "user", "content": CLARA.question},
        {"role": "assistant", "content": CLARA.answer},
    ]
    rendered = str(tokenizer.apply_chat_template(turns, tokenize=False))
    until = rendered.rindex("<|im_end|>") + len("<|im_end|>")
    assert tokenizer.decode(row.ids) == rendered[:until]
