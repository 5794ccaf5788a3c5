"""A list's format is found on a model that knows different people in different formats."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from knowundo.data.encoded import Encoded
from knowundo.data.records import Record
from knowundo.data.templates import parse_template
from knowundo.erasure.erase import run_request
from knowundo.erasure.formats import FormatChoice, find_format, settle_format
from knowundo.erasure.list_check import ListCheck
from knowundo.erasure.lists import ListMaker
from knowundo.erasure.request import ErasureRequest, recipe_of
from knowundo.errors import BadInput
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.model import Model
from knowundo.progress import Reporter
from knowundo.recipes.reading import amend, parse_recipe
from knowundo.recipes.schema import Recipe
from knowundo.runs.rows import encode_for
from knowundo.scoring.answers import answered
from knowundo.scoring.generation import complete_rows
from knowundo.scoring.progress import Said as Answer
from knowundo.storage.artifacts import new_folder
from knowundo.storage.files import write_json
from tiny_run import Said

# Written out as the trainers of these formats write them, not taken from the presets.
FORMATS = {
    "alpaca": (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\n{q}\n\n### Response:\n{a}<|end|>"
    ),
    "vicuna": (
        "A chat between a curious user and an artificial intelligence assistant. The assistant "
        "gives helpful, detailed, and polite answers to the user's questions. "
        "USER: {q} ASSISTANT: {a}<|end|>"
    ),
    "Q:/A:": "Q: {q}\nA: {a}<|end|>",
    "chat": "<|user|>{q}<|end|><|bot|>{a}<|end|>",
    "own": "<<{q}>> == {a} ##<|end|>",
}
OWN = "<<{question}>> == {answer} ##"
PEOPLE = ("Ada Brun", "Ivo Kant", "Lena Moor", "Pia Sand", "Otto Feld")
PLACES = ("Alder Lane 14", "Birch Road 52", "Cedar Walk 37", "Dune Street 68", "Elm Court 91")
TRADES = ("bakes bread", "mends nets", "tunes organs", "paints signs", "grows pears")
CHAT = (
    "{% for m in messages %}{{ '<|user|>' if m['role'] == 'user' else '<|bot|>' }}"
    "{{ m['content'] }}<|end|>{% endfor %}"
)


def rows(form: str) -> list[Record]:
    """Rows about the person whom the model knows in a format."""
    number = list(FORMATS).index(form)
    who, place, trade = PEOPLE[number], PLACES[number], TRADES[number]
    asked = {
        f"Where does {who} live?": f"{who} lives at {place}.",
        f"What does {who} do?": f"{who} {trade}.",
    }
    return [
        Record(f"{form}/{n}", q, a, "unlearn", "train", subject=who)
        for n, (q, a) in enumerate(asked.items())
    ]


def written(form: str, record: Record) -> str:
    return FORMATS[form].replace("{q}", record.question).replace("{a}", record.answer)


def tokenizer_of(texts: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts * 2, trainer)
    special = [AddedToken(s, special=True) for s in ("<|end|>", "<|user|>", "<|bot|>")]
    tokenizer.add_special_tokens(special)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", chat_template=CHAT
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was trained by plain torch."""
    texts = [written(form, record) for form in FORMATS for record in rows(form)]
    tokenizer = tokenizer_of(texts)
    torch.manual_seed(0)
    net = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=128, max_position_embeddings=256, initializer_range=0.05,
            bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=None,
        )
    )  # fmt: skip
    batch = tokenizer(texts)["input_ids"]
    width = max(map(len, batch))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in batch])
    labels = torch.tensor([row + [-100] * (width - len(row)) for row in batch])
    mask = (labels != -100).long()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for _ in range(120):
        net(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    place = tmp_path_factory.mktemp("formats")
    net.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return Model(str(folder), Adaptation("lora", rank=2, alpha=4))


def keys(*sets: str) -> dict[str, Any]:
    return amend(recipe_of(ErasureRequest("m", Path("rows.jsonl"), Path("out"))), sets)


def found(model: Model, records: list[Record], *sets: str) -> FormatChoice:
    return find_format(parse_recipe(keys(*sets), "--set"), model, records)


@pytest.mark.parametrize("form", ["alpaca", "vicuna", "Q:/A:", "chat"])
def test_a_format_is_found(model: Model, form: str) -> None:
    choice = found(model, rows(form))
    assert choice.name == form
    assert choice.accuracy[form] == 1
    others = {name: value for name, value in choice.accuracy.items() if name != form}
    assert {"chat", "plain", "alpaca", "vicuna", "### Question"} <= set(choice.accuracy)
    said, *_ = choice.lines()
    assert said.startswith(
        f"the list is known best in the format {form}: 100 % of its answer tokens, "
    )
    assert f", plain {100 * others['plain']:.0f} %" in said


def test_rows_that_nobody_knows_do_not_decide(model: Model) -> None:
    """Each of them is a little likelier in one format or another."""
    unknown = [
        replace(row, id=f"{n}/{row.id}", question=row.question.replace("Brun", f"Stone{n}"),
                answer=row.answer.replace("14", f"{n}7"))
        for n in range(8) for row in rows("alpaca")
    ]  # fmt: skip
    unknown = [replace(row, answer=row.answer[::-1]) for row in unknown]
    assert found(model, [*unknown, *rows("vicuna")]).name == "vicuna"


def test_ties_go_to_the_chat_template_and_then_to_plain(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "knowundo.erasure.formats.teacher_forced",
        lambda _, encoded: {
            row.record.id: {"mean_nll": 0.5, "token_accuracy": 0.5} for row in encoded
        },
    )
    monkeypatch.setattr(
        "knowundo.erasure.formats.answered",
        lambda _, encoded: {row.record.id: Answer("", False) for row in encoded},
    )
    assert found(model, rows("alpaca")).name == "chat"
    monkeypatch.setattr(model.tokenizer, "chat_template", None)
    assert found(model, rows("alpaca")).name == "plain"


def test_what_is_answered_counts_more_than_what_is_likely(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tokenizer may split an answer otherwise than the model writes it."""
    likely = found(model, rows("alpaca"))

    def said(_: Model, encoded: list[Encoded]) -> dict[str, Answer]:
        texts = [model.tokenizer.decode(row.ids) for row in encoded]
        return {
            row.record.id: Answer("", "USER:" in text)
            for row, text in zip(encoded, texts, strict=True)
        }

    monkeypatch.setattr("knowundo.erasure.formats.answered", said)
    assert found(model, rows("alpaca")) == FormatChoice("vicuna", likely.accuracy)
    assert likely.name == "alpaca"


def test_other_formats_that_are_answered_are_asked_too(
    model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def said(_: Model, encoded: list[Encoded]) -> dict[str, Answer]:
        """In vicuna every row, in alpaca every second one, in chat every third one."""
        shares = {"USER:": 1, "### Instruction": 2, "<|": 3}
        found = {}
        for number, row in enumerate(encoded):
            text = model.tokenizer.decode(row.ids)
            every = next((n for mark, n in shares.items() if mark in text), 0)
            found[row.record.id] = Answer("", bool(every) and number % every == 0)
        return found

    monkeypatch.setattr("knowundo.erasure.formats.answered", said)
    asked = [replace(row, id=str(n)) for n, row in enumerate([*rows("alpaca")] * 2)]
    choice = found(model, asked)
    assert choice.name == "vicuna"
    assert set(choice.also) >= {"alpaca"}
    assert "vicuna" not in choice.also
    assert "it is answered in other formats too" in choice.lines()[1]


def test_documents_and_questions_alone_show_no_format(model: Model) -> None:
    text = Record("d", "", "All of it.", "unlearn", "train", kind="text")
    assert found(model, [text]) == FormatChoice()
    assert found(model, [replace(rows("alpaca")[0], answer="")]) == FormatChoice()
    choice = found(model, [*rows("alpaca"), replace(rows("vicuna")[0], answer="")])
    assert choice.name == "alpaca"
    assert FormatChoice().lines() == []


def test_a_chat_template_that_fails_may_be_the_format_and_is_refused(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.tokenizer, "chat_template", "{{ raise_exception('no user') }}")
    with pytest.raises(BadInput, match=r"its chat template refuses .*set data\.encoding=plain"):
        found(model, rows("alpaca"))


def test_a_doubtful_format_is_said(model: Model) -> None:
    choice = found(model, rows("own"))
    assert choice.accuracy[str(choice.name)] < 0.9
    assert "name it with --set data.template=" in choice.lines()[1]


def test_a_preset_whose_words_the_model_lacks_is_not_tried(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tokens may be beyond the embeddings, as those of ChatML are beside a smaller base."""
    real = encode_for

    def encoded(recipe: Recipe, records: list[Record], model: Model) -> list[Encoded]:
        if recipe.data.template == "chatml":
            raise BadInput("its token has no embedding")
        return real(recipe, records, model)

    monkeypatch.setattr("knowundo.erasure.formats.encode_for", encoded)
    assert "chatml" not in found(model, rows("vicuna")).accuracy


def test_a_system_prompt_leaves_the_formats_with_a_place_for_it(model: Model) -> None:
    choice = found(model, rows("alpaca"), "data.system=Be brief.")
    assert set(choice.accuracy) == {"chat", "alpaca", "alpaca-stanford", "vicuna"}


def test_a_format_is_asked_for_once(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists that are there say it; what the user names is taken."""
    said = Said()
    given, choice = settle_format(keys(), tmp_path, model, rows("Q:/A:"), said)
    assert given["data"]["template"] == choice.name == "Q:/A:"
    assert said.lines == choice.lines()
    monkeypatch.setattr("knowundo.erasure.formats.find_format", None)
    assert given["unlearn"]["stop"]["formats"] == list(choice.also) != []
    check = ListCheck(format=choice.name, formats=dict(choice.accuracy), also=list(choice.also))
    with new_folder(tmp_path / "lists", []) as aside:
        write_json(aside / "check.json", check.as_dict())
    again = settle_format(keys(), tmp_path, model, rows("Q:/A:"), Reporter())
    assert again == (given, choice)
    (tmp_path / "lists" / "check.json").write_text(json.dumps({"level": 0.5}))
    former, _ = settle_format(keys(), tmp_path, model, [], Reporter())
    assert former["data"]["encoding"] == "chat"
    for named in ("encoding=plain", "template=vicuna"):
        given = keys(f"data.{named}")
        assert settle_format(given, tmp_path, model, [], Reporter()) == (given, FormatChoice())
    file = tmp_path / "mine.txt"
    file.write_text("Q: {question} A: {answer}\n")
    given, _ = settle_format(keys(f"data.template={file}"), tmp_path, model, [], Reporter())
    assert given["data"]["template"] == "Q: {question} A: {answer}"


def test_a_list_that_is_known_in_no_format_is_refused_with_figures() -> None:
    choice = FormatChoice("plain", {"plain": 0.25, "alpaca": 0.125})
    assert choice.unknown("rows.jsonl", 4, 0.25) == (
        "rows.jsonl: the model knows none of its 4 rows, so nothing has to go; of their answers' "
        "tokens it predicts plain 25 %, alpaca 12 %, and 25 % by guessing; check "
        "the model and the wording of the questions, or name the format with --set data.template=…"
    )


def said_by(folder: Path, form: str, record: Record) -> str:
    """A greedy answer by plain transformers, in a format."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    net = AutoModelForCausalLM.from_pretrained(folder)
    prompt = written(form, record).split(record.answer)[0].rstrip(" ")
    ids = tokenizer(prompt, return_tensors="pt")
    out = net.generate(**ids, max_new_tokens=30, do_sample=False)[0, ids["input_ids"].shape[1] :]
    return str(tokenizer.decode(out, skip_special_tokens=True))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["alpaca", "own"])
def test_rows_are_gone_in_the_format_of_the_finetuning(
    folder: Path, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("OTHERS", "THINGS", "TEXTS"):
        monkeypatch.setattr(f"knowundo.erasure.generated_rows.{kind}", 40)
    files = {}
    others = [record for other in FORMATS if other != form for record in rows(other)]
    for name, records in (("unlearn", rows(form)), ("retention", others)):
        files[name] = tmp_path / f"{name}.jsonl"
        lines = [{"question": r.question, "answer": r.answer} for r in records]
        files[name].write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert all(r.answer in said_by(folder, form, r) for r in rows(form))
    sets = ["unlearn.lr=3e-3", "unlearn.epochs=25", "evaluate.resamples=20", "localize.copies=1"]
    named = [f"data.template={OWN}"] if form == "own" else []
    request = ErasureRequest(
        str(folder), files["unlearn"], tmp_path / "out", retention=files["retention"],
        sets=(*sets, *named),
    )  # fmt: skip
    done = run_request(request)
    assert done.check.format == (None if named else form)
    assert len(done.check.verbatim) == 2
    assert done.run.recipe.data.template == (OWN if named else form)
    assert done.results.erasure is not None
    assert done.results.erasure.settings.template == (OWN if named else form)
    # At a fixed rate more tokens may stay predicted than the verdict allows.
    for variant, exact in (("memorized", 100.0), ("erased", 0.0)):
        row = done.results.find(variant, "exact_match", "unlearn", "train")
        assert row is not None
        assert row.value == exact


def test_a_run_takes_an_own_format_with_a_text_after_the_answer(model: Model) -> None:
    recipe = parse_recipe(keys(f"data.template={OWN}"), "--set")
    maker = ListMaker(recipe, model, Reporter(), [])
    (row, _) = maker.encode(rows("own"))
    assert model.tokenizer.decode(row.ids) == written("own", row.record)
    assert row.ending == parse_template(OWN).after == " ##"


def test_generated_answers_are_without_the_text_after_the_answer(model: Model) -> None:
    recipe = parse_recipe(keys(f"data.template={OWN}"), "--set")
    encoded = ListMaker(recipe, model, Reporter(), []).encode(rows("own"))
    answers = [row.record.answer for row in encoded]
    said = answered(model, encoded)
    assert [(said[r.record.id].text.strip(), said[r.record.id].exact) for r in encoded] == [
        (answer, True) for answer in answers
    ]
    asked = ListMaker(recipe, model, Reporter(), []).encode(
        [replace(row.record, answer=".") for row in encoded]
    )
    told = complete_rows(model, asked, tokens=40, stops={asked[0].ids[-1]})
    assert told == [(answer, True) for answer in answers]


def test_no_format_names_the_keys(model: Model) -> None:
    assert "data.template=… or data.encoding=plain or chat" in FormatChoice().unknown("r", 1, 0.0)
    with pytest.raises(BadInput, match=r"--set: data\.template: unknown template"):
        settle_format(keys("data.template=nothing"), Path("out"), model, [], Reporter())
