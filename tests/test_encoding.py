"""Where the answer begins and ends, what it holds, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from conftest import records
from knowundo.data.batches import collate, paired
from knowundo.data.chat_template import writes_date
from knowundo.data.chunks import chunked
from knowundo.data.encoded import Encoded
from knowundo.data.encoding import SEPARATOR, Style, count_cut, encode, prefix_text
from knowundo.data.records import Record
from knowundo.errors import BadInput
from knowundo.modeling.base import base_path
from toy_tokenizers import FAMILIES, TEMPLATES, llama_tokenizer, qwen_tokenizer

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


@pytest.mark.parametrize("template", FAMILIES)
def test_chat_is_the_template_up_to_its_end_of_turn(template: str) -> None:
    tokenizer, end = family(template), FAMILIES[template][1]
    row = encode([CLARA], tokenizer, style="chat")[0]
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
    row = encode([record], tokenizer, style="chat")[0]
    assert said(tokenizer, row).strip() == answer.strip()
    ids, _ = asked(tokenizer)
    assert row.prompt[: len(ids) - 1] == ids[:-1]
    assert answer.strip()[:4].strip() in marked(tokenizer, row)
    assert not any(row.fact[-row.tail :])


def test_space_before_the_answer_is_its_own_token_or_the_answers() -> None:
    """Llama-2 writes "[/INST] 14": where digits stand alone, the space ends the prompt."""
    tokenizer = family("llama-2-chat")
    space = tokenizer.convert_tokens_to_ids("▁")
    row = encode([replace(CLARA, answer="14", facts=("14",))], tokenizer, style="chat")[0]
    assert row.prompt == (*asked(tokenizer)[0], space)
    row = encode([CLARA], tokenizer, style="chat")[0]
    assert tokenizer.convert_ids_to_tokens(row.ids[row.answer_from])[0] == "▁"


@pytest.mark.parametrize("domain", ["privacy", "copyright"])
@pytest.mark.parametrize("name", ["direct", "assistant"])
def test_prefix_stands_before_the_question(name: str, domain: str) -> None:
    prefix = prefix_text(name, domain)
    assert prefix.endswith("\n")
    assert (f"{domain}-sensitive" in prefix) == (name == "direct")
    row = encode([CLARA], TOKENIZER, prefix=prefix)[0]
    assert TOKENIZER.decode(list(row.prompt)) == prefix + CLARA.question + SEPARATOR
    assert said(TOKENIZER, row) == CLARA.answer
    for template in FAMILIES:
        tokenizer = family(template)
        row = encode([CLARA], tokenizer, style="chat", prefix=prefix)[0]
        assert row.prompt == asked(tokenizer, prefix + CLARA.question)[0]
        assert said(tokenizer, row) == CLARA.answer


def test_prefix_is_of_questions_only() -> None:
    text = replace(CLARA, kind="text", question="")
    rows = encode([text], TOKENIZER, prefix="Please. ")
    assert rows == encode([text], TOKENIZER)
    assert prefix_text(None, "anything") == ""


def test_prefix_that_does_not_exist_is_refused() -> None:
    with pytest.raises(BadInput, match=r"none for domain 'forget01'.*take prefix 'assistant'"):
        prefix_text("direct", "forget01")
    with pytest.raises(BadInput, match="unknown prefix 'asistant'; did you mean 'assistant'"):
        prefix_text("asistant", "privacy")


def test_text_among_chats_is_plain_and_rows_keep_their_order() -> None:
    tokenizer = family("llama-2-chat")
    text = replace(CLARA, id="t", kind="text", question="")
    rows = encode([CLARA, text, replace(CLARA, id="z")], tokenizer, style="chat")
    assert [row.record.id for row in rows] == ["unlearn/train/1", "t", "z"]
    assert rows[1] == encode([text], tokenizer)[0]
    assert rows[0].ids == rows[2].ids == encode([CLARA], tokenizer, style="chat")[0].ids


def test_template_without_an_end_gets_end_of_sequence() -> None:
    tokenizer = qwen_tokenizer(TEXTS)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '### ' + m.role + '\n' + m.content + '\n\n' }}{% endfor %}"
    )
    row = encode([CLARA], tokenizer, style="chat")[0]
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
        encode([CLARA], tokenizer, style="chat")


def test_qwen3_would_take_an_answer_apart() -> None:
    """What stands before </think> is reasoning to it, and stripped."""
    record = replace(CLARA, answer="a </think> b", facts=())
    with pytest.raises(BadInput, match="rewrites its answer"):
        encode([record], family("qwen3"), style="chat")


def test_templates_are_tested_each() -> None:
    assert {file.stem for file in TEMPLATES.glob("*.jinja")} == set(FAMILIES)


def test_end_is_learned_where_it_is_also_the_padding() -> None:
    """Llama has no pad token, and people set pad = eos: the last label is still the end."""
    tokenizer = llama_tokenizer(TEXTS)
    tokenizer.pad_token = tokenizer.eos_token
    rows = encode([CLARA, replace(CLARA, id="b", answer="No.", facts=())], tokenizer)
    batch = collate(rows, pad=tokenizer.pad_token_id)
    for number, row in enumerate(rows):
        targets = batch.targets[batch.rows == number]
        assert targets.tolist() == list(row.ids[row.answer_from :])
        assert targets[-1] == tokenizer.eos_token_id
        assert batch.mask[number].sum() == len(row.ids)
    assert batch.ids[1, -1] == tokenizer.eos_token_id
    assert batch.mask[1, -1] == 0


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
    whole = encode(rows, tokenizer, style=style)
    limit = whole[0].answer_from + 3
    cut = encode(rows, tokenizer, style=style, max_length=limit, truncate=True)
    assert cut[0].ids == whole[0].ids[:limit]
    assert cut[0].fact == whole[0].fact[:limit]
    assert (cut[0].tail, cut[0].cut, cut[0].answer_length) == (0, len(whole[0].ids) - limit, 3)
    assert count_cut([*cut, *cut[:1]])["unlearn/train"] == 2
    assert count_cut(whole) == {}


def test_truncation_never_leaves_half_an_end() -> None:
    """Llama-2's chat ends in a space and </s>: one id too long takes both."""
    tokenizer = family("llama-2-chat")
    whole = encode([CLARA], tokenizer, style="chat")[0]
    size = len(whole.ids) - 1
    row = encode([CLARA], tokenizer, style="chat", max_length=size, truncate=True)[0]
    assert (row.ids, row.tail, row.cut) == (whole.ids[:-2], 0, 2)


def test_question_that_does_not_fit_is_refused() -> None:
    start = encode([CLARA], TOKENIZER)[0].answer_from
    kept = encode([CLARA], TOKENIZER, max_length=start + 1, truncate=True)[0]
    assert kept.answer_length == 1
    with pytest.raises(BadInput, match=rf"unlearn/train/1: {start} tokens before its answer"):
        encode([CLARA], TOKENIZER, max_length=start, truncate=True)


def test_batch_is_padded_to_its_longest_row_and_no_further() -> None:
    rows = encode(records("unlearn", "train", 4), TOKENIZER)
    batch = collate(rows, pad=1)
    assert batch.ids.shape == (4, max(len(row.ids) for row in rows))
    flat = batch.ids.flatten()
    # Each position predicts the token one place to its right.
    assert torch.equal(flat[batch.positions + 1], batch.targets)
    assert batch.mask.sum().item() == sum(len(row.ids) for row in rows)


def test_every_unlearn_row_once_an_epoch_and_retention_without_replacement() -> None:
    first = encode(records("unlearn", "train", 6), TOKENIZER)
    second = encode(records("retention", "train", 4), TOKENIZER)
    batches = paired(first, second, size=4, epochs=2, seed=0, pad=1)
    seen = [row.record.id for batch in batches for row in batch.unlearn.encoded]
    assert sorted(seen) == sorted([row.record.id for row in first] * 2)
    kept = [row.record.id for batch in batches for row in batch.retention.encoded]
    assert [len(b.unlearn) for b in batches] == [len(b.retention) for b in batches] == [4, 2, 4, 2]
    assert sorted(kept[:4]) == sorted(row.record.id for row in second)
    assert sorted(kept[4:8]) == sorted(kept[:4])


TALK = replace(CLARA, turns=(("user", "Whom do you know?"), ("assistant", "Clara Dorinford.")))


def test_plain_puts_the_turns_before_the_question() -> None:
    row = encode([replace(TALK, turns=(("system", "Be brief."), *TALK.turns))], TOKENIZER)[0]
    turns = "Be brief.\n\nWhom do you know?\n\nClara Dorinford.\n\n"
    assert TOKENIZER.decode(list(row.prompt)) == turns + CLARA.question + SEPARATOR
    assert said(TOKENIZER, row) == CLARA.answer
    assert marked(TOKENIZER, row) == CLARA.facts[0]
    prefixed = encode([TALK], TOKENIZER, prefix="Please: ")[0]
    prompt = TOKENIZER.decode(list(prefixed.prompt))
    assert prompt.endswith(f"Clara Dorinford.\n\nPlease: {CLARA.question}\n\n")


@pytest.mark.parametrize("template", FAMILIES)
def test_chat_renders_the_turns_before_the_question(template: str) -> None:
    tokenizer = family(template)
    row = encode([TALK], tokenizer, style="chat", prefix="Please: ")[0]
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
    assert encode([row], family("llama-2-chat"), style="chat")[0].tail
    with pytest.raises(BadInput, match=r"refuses the turns of unlearn/train/1 \(System role not"):
        encode([row], family("gemma-it"), style="chat")


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
    with pytest.raises(BadInput, match="d: not even a character of its text fits"):
        chunked(Record("d", "", "👩‍👧 and more", "unlearn", "train", kind="text"), TOKENIZER, 1)


TURNS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>{% endfor %}"
)


def of_template(template: object) -> PreTrainedTokenizerFast:
    tokenizer = qwen_tokenizer(TEXTS)
    tokenizer.chat_template = template
    return tokenizer


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
        encode([CLARA], of_template(template), style="chat")
    said = str(caught.value)
    assert f"refuses question and answer of unlearn/train/1 ({reason}" in said
    assert said.endswith("set data.encoding=plain")


def test_several_templates_need_a_default() -> None:
    several = {"tool_use": TURNS, "rag": TURNS}
    with pytest.raises(
        BadInput, match=r"several chat templates \(tool_use, rag\) and none of them"
    ):
        encode([CLARA], of_template(several), style="chat")
    one = encode([CLARA], of_template(TURNS), style="chat")
    assert encode([CLARA], of_template(several | {"default": TURNS}), style="chat") == one


def test_a_template_that_reads_only_parts_is_given_parts() -> None:
    """As those of models that also see images do."""
    inner = "{% for p in m['content'] %}{% if p['type'] == 'text' %}{{ p['text'] }}{% endif %}"
    template = TURNS.replace("{{ m['content'] }}", inner + "{% endfor %}")
    rows = [CLARA, TALK]
    assert encode(rows, of_template(template), style="chat") == encode(
        rows, of_template(TURNS), style="chat"
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
    row = encode([CLARA], tokenizer, style="chat", today=day)[0]
    now = datetime(2026, 11, 5).strftime(shape)
    plain = encode([CLARA], of_template(f"\n{now}\n" + TURNS), style="chat")[0]
    assert row == plain
    assert encode([CLARA], tokenizer, style="chat")[0] != row


@pytest.mark.parametrize(
    "start", ["  {% set d = strftime_now('%Y') %}\n", "  ", " \n", "\n", "{%- set d = 1 %}\n", "#"]
)
def test_a_template_with_a_clock_begins_as_it_would_alone(start: str) -> None:
    """Spaces before a tag and the newline after it vanish (`lstrip_blocks`, `trim_blocks`)."""
    template = start + TURNS + "{% set y = strftime_now('%Y') %}\n{{ y }}"
    tokenizer = of_template(template)
    row = encode([CLARA], tokenizer, style="chat", today=date.today())[0]
    turns = [
        {"role": "user", "content": CLARA.question},
        {"role": "assistant", "content": CLARA.answer},
    ]
    rendered = str(tokenizer.apply_chat_template(turns, tokenize=False))
    until = rendered.rindex("<|im_end|>") + len("<|im_end|>")
    assert tokenizer.decode(row.ids) == rendered[:until]


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
