"""Other answers to the unlearn questions: where they come from, and that they are encoded alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import naive_log_probs, records
from knowundo.data.batches import PairedBatch, collate
from knowundo.data.encoded import Encoded
from knowundo.data.encoding import SEPARATOR, RowFormat, Style, encode
from knowundo.data.records import Record
from knowundo.entry import Entry
from knowundo.errors import BadInput, KnowUndoError
from knowundo.modeling.fast.microbatches import micro_batches
from knowundo.modeling.forward import Forward
from knowundo.modeling.model import Model
from knowundo.modeling.step import Step
from knowundo.recipes.reading import load_recipe
from knowundo.registry import get
from knowundo.runs.checks import check
from knowundo.scoring import generation
from knowundo.scoring.generation import sample
from knowundo.unlearning.answers import DRAWS, PREPARED, ROUNDS, answers, differs
from knowundo.unlearning.original.losses import OneSided
from knowundo.unlearning.original.start import OriginalStart
from knowundo.unlearning.scorer import Scorer
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import unlearn
from toy_tokenizers import TEMPLATES

Rows = dict[str, list[Encoded]]


def start_of(toy: Model, toy_rows: Rows, *, seed: int = 0, **options: Any) -> Start:
    kept = {"retention": toy_rows["retention"]}

    def again(asked: list[Record]) -> list[Encoded]:
        return encode(asked, toy.tokenizer, **options)

    return Start(toy, toy_rows["unlearn"], kept, seed=seed, encode=again)


def others(start: Start, source: str, method: str = "dpo") -> list[Encoded]:
    entry = get("method", method)
    made = start.columns(entry, entry.bind({"answers": source}))["alternative"]
    assert list(made) == [row.record.id for row in start.unlearn_rows]
    return list(made.values())


@pytest.mark.parametrize("source", PREPARED)
def test_prepared_answers_are_short_polite_and_different(source: str) -> None:
    found = answers(source)
    assert len(set(found)) == len(found) == 24
    for line in found:
        assert line[-1] in ".!"
        assert len(line) < 60
        assert line.isascii()
    assert not set(found) & set(answers(next(name for name in PREPARED if name != source)))


def test_answers_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("\ufeff# mine\nNobody knows.\n\n  Niemand weiß es.  \r\n", encoding="utf-8")
    assert answers(str(file)) == ["Nobody knows.", "Niemand weiß es."]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; say unknown, refusal, model or instructed, or name a file"),
        (b"", "holds no answer"),
        (b"# only a comment\n\n", "holds no answer"),
        ("weiß".encode("latin-1"), "not UTF-8"),
    ],
)
def test_file_without_answers_is_refused_before_anything_runs(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    file = tmp_path / "mine.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BadInput, match=message):
        answers(str(file))
    with pytest.raises(BadInput, match=message):
        get("method", "dpo").bind({"answers": str(file)})
    preset = f"unlearn.variants=[{{preset: idk, answers: '{file}'}}]"
    with pytest.raises(BadInput, match=message):
        check(load_recipe(None, [preset])[0])


def test_folder_is_no_file_of_answers(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        answers(str(tmp_path))


@pytest.mark.parametrize("source", PREPARED)
def test_each_row_gets_a_line_by_the_seed(toy: Model, toy_rows: Rows, source: str) -> None:
    drawn = [
        [row.record.answer for row in others(start_of(toy, toy_rows, seed=seed), source)]
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert set(drawn[0]) <= set(answers(source))
    assert len(set(drawn[0])) > 1


@pytest.mark.parametrize("style", ["plain", "chat"])
def test_alternative_is_encoded_like_its_row(toy: Model, style: Style) -> None:
    """The same question, prefix and turns before the answer, the same tail after it."""
    options: dict[str, Any] = {"form": RowFormat(style, "Answer this:\n")}
    toy.tokenizer.chat_template = (TEMPLATES / "qwen1.5-chat.jinja").read_text("utf-8")
    said = (("user", "Hello."), ("assistant", "Hello!"))
    asked = [replace(record, turns=said) for record in records("unlearn", "train", 4)]
    rows = {s: encode(asked, toy.tokenizer, **options) for s in ("unlearn", "retention")}
    found = others(start_of(toy, rows, **options), "unknown")
    for row, other in zip(rows["unlearn"], found, strict=True):
        assert other.prompt == row.prompt
        assert other.ids[-other.tail :] == row.ids[-row.tail :]
        assert toy.tokenizer.decode(other.ids[other.answer_from : -other.tail]).strip() in answers(
            "unknown"
        )
        assert other.record == replace(row.record, answer=other.record.answer, facts=())
    texts = toy.tokenizer.decode(found[0].ids)
    assert ("<|im_start|>" in texts) == (style == "chat")
    assert texts.count(SEPARATOR) == (0 if style == "chat" else 3)


def test_alternative_half_asks_the_unlearn_questions(toy: Model, toy_rows: Rows) -> None:
    start = start_of(toy, toy_rows)
    entry = get("method", "alternative_descent")
    batch = PairedBatch(*(collate(toy_rows[s], toy.pad) for s in ("unlearn", "retention")))
    step = Step(
        Forward(toy), batch, reference=lambda: start.reference, columns=start.columns(entry)
    )
    half = step.alternative
    assert [row.record.question for row in half.batch.encoded] == [
        row.record.question for row in toy_rows["unlearn"]
    ]
    for row, nll in zip(half.batch.encoded, half.nll, strict=True):
        labels = torch.tensor(row.ids[row.answer_from :])
        wanted = -naive_log_probs(toy, row)[torch.arange(len(labels)), labels].sum()
        torch.testing.assert_close(nll, wanted, rtol=1e-9, atol=1e-9)
    assert not torch.equal(half.batch.lengths, step.unlearn.batch.lengths)


def test_epochs_take_several_other_answers_in_turn(
    toy: Model, toy_rows: Rows, tmp_path: Path
) -> None:
    """A row whose lines are exhausted begins again; none of them is the true answer."""
    truth = toy_rows["unlearn"][0].record.answer
    lines = ["Nothing is known.", truth, "No one can say."]
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    start, entry = start_of(toy, toy_rows), get("method", "dpo")
    bound = entry.bind({"answers": str(tmp_path / "lines.txt"), "others": 5})
    columns = start.columns(entry, bound)
    made = columns["alternative"]
    texts = [tuple(row.record.answer for row in one) for one in made.values()]
    assert sorted(texts[0]) == ["No one can say.", "Nothing is known."]
    assert all(sorted(one) == sorted(lines) for one in texts[1:])
    settings = UnlearnSettings("dpo", 3, 2, 1)
    batches, _ = start.batches(entry, bound, settings)
    assert [batch.epoch for batch in batches] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    asked = dict[str, list[str]]()
    for batch in batches:
        for part in micro_batches(batch, tokens=1):
            step = Step(Forward(toy), part, reference=lambda: start.reference, columns=columns)
            half = step.alternative.batch
            for row, other in zip(part.unlearn.encoded, half.encoded, strict=True):
                assert other.record.question == row.record.question
                asked.setdefault(row.record.id, []).append(other.record.answer)
    for name, own in zip(made, texts, strict=True):
        assert asked[name] == [own[turn % len(own)] for turn in range(3)]


def test_text_has_no_other_answer(toy: Model, toy_rows: Rows) -> None:
    text = Record("t", "", "All of this is one text.", "unlearn", "train", kind="text")
    rows = {**toy_rows, "unlearn": encode([text], toy.tokenizer)}
    with pytest.raises(BadInput, match="t: a text is no answer"):
        others(start_of(toy, rows), "unknown")


def test_scorer_without_encode_cannot_answer(toy: Model, toy_rows: Rows) -> None:
    start = Start(toy, toy_rows["unlearn"], {}, seed=0)
    with pytest.raises(KnowUndoError, match="encode"):
        start.columns(get("method", "dpo"))
    start.columns(get("method", "random_label"))  # needs none


def test_loss_without_the_column_says_so(toy: Model, toy_rows: Rows) -> None:
    batch = PairedBatch(*(collate(toy_rows[s], toy.pad) for s in ("unlearn", "retention")))
    with pytest.raises(KnowUndoError, match="alternative: the method's `prepare`"):
        _ = Step(Forward(toy), batch, reference=lambda: None).alternative  # type: ignore[arg-type, return-value]


def test_samples_are_seeded_and_leave_the_global_state_alone(toy: Model, toy_rows: Rows) -> None:
    rows = toy_rows["unlearn"]
    torch.manual_seed(5)
    before, weights = torch.get_rng_state(), toy.state()
    drawn = [sample(toy, rows, n=3, temperature=1.0, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(torch.equal(weights[name], value) for name, value in toy.state().items())
    assert set(drawn[0]) == {row.record.id for row in rows}
    assert all(len(texts) == 3 for texts in drawn[0].values())
    assert any(len(set(texts)) > 1 for texts in drawn[0].values())


def test_samples_are_no_longer_than_the_true_answer(
    toy: Model, toy_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, taken = list[int](), generation.decoded_all

    def reading(tokenizer: Any, rows: list[list[int]], **rest: Any) -> list[str]:
        read.append(len(rows[0]))
        return taken(tokenizer, rows, **rest)

    monkeypatch.setattr(generation, "decoded_all", reading)
    rows = toy_rows["unlearn"]
    sample(toy, rows, n=4, temperature=1.0, seed=0)
    assert read == [row.answer_length - row.tail for row in rows]


def test_samples_follow_the_models_probabilities(toy: Model, toy_rows: Rows) -> None:
    """First tokens of many draws, among rows padded on the left, against the softmax at T = 0.5."""
    rows = [toy_rows["unlearn"][0], toy_rows["unlearn"][4]]
    one = replace(rows[0], ids=rows[0].ids[: rows[0].answer_from + 1], fact=(), tail=0)
    log_probs = naive_log_probs(toy, one)[0] / 0.5
    probs = log_probs.softmax(-1).detach()
    longer = replace(rows[1], record=replace(rows[1].record, id="longer"))
    drawn = sample(toy, [one, longer], n=600, temperature=0.5, seed=0, batch_size=1200)
    texts = drawn[one.record.id]
    for token in probs.topk(3).indices.tolist():
        alike = [
            other
            for other in range(len(probs))
            if toy.tokenizer.decode([other], skip_special_tokens=True)
            == toy.tokenizer.decode([token], skip_special_tokens=True)
        ]
        p = float(probs[alike].sum())
        share = texts.count(toy.tokenizer.decode([token], skip_special_tokens=True)) / 600
        assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / 600) + 1e-9


def said(truth: str, facts: Sequence[str] = ()) -> Record:
    return Record("r", "Where?", truth, "unlearn", "train", facts=tuple(facts))


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("She lives at 14 Canal Lane.", False),
        ("  she lives at  14 Canal-Lane ", False),  # case, spaces and punctuation
        ("SHE LIVES AT １４ CANAL LANE!", False),  # full-width digits
        ("It is 14 canal lane!", False),  # holds the fact
        (" \n", False),
        ("At sea.", True),
        ("She lives at 15 Canal Lane.", True),
    ],
)
def test_what_is_another_answer(text: str, other: bool) -> None:
    assert differs(said("She lives at 14 Canal Lane.", ["14 Canal Lane"]), text) is other


@pytest.mark.parametrize(
    ("fact", "text", "other"),
    [
        ("O", "Nobody knows.", True),
        ("O", "It is o.", False),
        ("art", "A party.", True),
        ("1", "In 2010.", True),
        ("is in", "This is inside.", True),
        ("Canal Lane", "canal-lane", False),
        ("安布朗", "他叫安布朗。", False),
        ("🙂", "Nobody knows.", True),
    ],
)
def test_a_fact_is_found_as_whole_words(fact: str, text: str, other: bool) -> None:
    assert differs(said(f"It says {fact}.", [fact]), text) is other


def test_a_short_fact_leaves_the_prepared_lines(toy: Model, toy_rows: Rows) -> None:
    """Every line of `unknown` has an o, and some have "known": neither is the true answer."""
    record = replace(toy_rows["unlearn"][0].record, answer="O is known.", facts=("O", "known"))
    rows = {**toy_rows, "unlearn": encode([record], toy.tokenizer)}
    drawn = {others(start_of(toy, rows, seed=s), "unknown")[0].record.answer for s in range(12)}
    assert drawn <= set(answers("unknown"))
    assert len(drawn) > 4


def test_answers_of_punctuation_alone_are_compared_as_they_are() -> None:
    assert differs(said("?!"), "!?")
    assert not differs(said("?!"), " ?! ")


class Told:
    """Stands in for `Scorer.sample`: a list of answers a round, the same for every row."""

    def __init__(self, *rounds: list[str]) -> None:
        self.rounds, self.seeds = rounds, list[int]()
        self.asked = list[list[Encoded]]()

    def __call__(self, rows: Sequence[Encoded], *, seed: int, **_: Any) -> dict[str, list[str]]:
        number = len(self.seeds)
        self.seeds.append(seed)
        self.asked.append(list(rows))
        texts = self.rounds[min(number, len(self.rounds) - 1)]
        return {row.record.id: [t.format(row.record.answer) for t in texts] for row in rows}


def test_the_first_draw_that_differs_is_taken(
    toy: Model, toy_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told(["{}", " {}! ", ""], ["{}", " At sea. ", "Nowhere."])
    monkeypatch.setattr(Scorer, "sample", staticmethod(told))
    found = others(start_of(toy, toy_rows, seed=7), "model")
    assert [other.record.answer for other in found] == ["At sea."] * 5
    assert told.seeds == [7, 8]
    assert toy.notes.texts == ()


def test_where_no_draw_differs_a_prepared_line_is_taken_and_it_is_said(
    toy: Model, toy_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told(["{}", "{}."])
    monkeypatch.setattr(Scorer, "sample", staticmethod(told))
    found = others(start_of(toy, toy_rows), "model")
    assert told.seeds == list(range(ROUNDS))
    assert all(other.record.answer in answers("unknown") for other in found)
    assert all(o.ids != row.ids for o, row in zip(found, toy_rows["unlearn"], strict=True))
    (note,) = toy.notes.texts
    assert "of 5 of 5 rows (unlearn/train/0 is the first) none of 20 answers" in note
    assert "a line of 'unknown' instead" in note


def test_an_answer_that_is_cut_to_the_same_tokens_is_none(
    toy: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"truncate": True}
    asked = records("unlearn", "train", 4)[3:]
    whole = encode(asked, toy.tokenizer)[0]
    options["max_length"] = len(whole.ids) - whole.tail - 1
    rows = {s: encode(asked, toy.tokenizer, **options) for s in ("unlearn", "retention")}
    cut = toy.tokenizer.decode(rows["unlearn"][0].ids[rows["unlearn"][0].answer_from :]).strip()
    told = Told([f"{cut} and by the river", "Nowhere."])
    monkeypatch.setattr(Scorer, "sample", staticmethod(told))
    monkeypatch.setattr("knowundo.unlearning.answers.differs", lambda *_: True)
    (other,) = others(start_of(toy, rows, **options), "model")
    assert other.record.answer == "Nowhere."


def test_lines_that_are_the_true_answer_are_passed_over(
    toy: Model, toy_rows: Rows, tmp_path: Path
) -> None:
    truth = toy_rows["unlearn"][0].record.answer
    file = tmp_path / "mine.txt"
    file.write_text(f"{truth.upper()}!\nNobody knows.\n")
    rows = {**toy_rows, "unlearn": toy_rows["unlearn"][:1]}
    for seed in range(4):
        (other,) = others(start_of(toy, rows, seed=seed), str(file))
        assert other.record.answer == "Nobody knows."
    file.write_text(f"{truth}.\n")
    with pytest.raises(BadInput, match=r"train/0: every line of answers .*add another line"):
        others(start_of(toy, rows), str(file))


def test_instructed_answers_are_asked_for_with_question_and_answer(
    toy: Model, toy_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told(["At sea."])
    monkeypatch.setattr(Scorer, "sample", staticmethod(told))
    found = others(start_of(toy, toy_rows), "instructed")
    for asked, row, other in zip(told.asked[0], toy_rows["unlearn"], found, strict=True):
        prompt = toy.tokenizer.decode(asked.prompt, skip_special_tokens=True)
        for part in (row.record.question, row.record.answer, "one other answer"):
            assert part in prompt
        # What is trained on is the row's own question with the new answer.
        assert other.prompt == row.prompt
        assert other.record.answer == "At sea."


def test_instructed_draws_are_as_long_as_the_rows_own_answer(
    toy: Model, toy_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With truncation the instruction leaves one token for the answer, which is not drawn by it."""
    told = Told(["At sea."])
    monkeypatch.setattr(Scorer, "sample", staticmethod(told))
    rows = {**toy_rows, "unlearn": toy_rows["unlearn"][:1]}
    (row,) = rows["unlearn"]
    others(start_of(toy, rows), "instructed")
    prompt = told.asked[0][0].prompt
    tight = {"max_length": len(prompt) + 1}
    others(start_of(toy, rows, truncate=True, **tight), "instructed")
    (asked,) = told.asked[1]
    assert asked.prompt == prompt
    assert asked.ids[asked.answer_from :] == row.ids[row.answer_from :]
    assert (asked.tail, len(asked.fact)) == (row.tail, len(asked.ids))
    with pytest.raises(
        BadInput, match=f"^{row.record.id}: question, answer and the instruction of"
    ):
        others(start_of(toy, rows, **tight), "instructed")
    monkeypatch.setattr(Scorer, "positions", len(prompt) + 1)
    with pytest.raises(BadInput, match=rf"more than the model's {len(prompt) + 1} positions"):
        others(start_of(toy, rows), "instructed")


def test_own_answers_are_of_the_memorized_model(toy: Model, toy_rows: Rows) -> None:
    wanted = sample(toy, toy_rows["unlearn"], n=DRAWS, temperature=1.0, seed=7)
    found = others(start_of(toy, toy_rows, seed=7), "model")
    for row, other in zip(toy_rows["unlearn"], found, strict=True):
        texts = wanted[row.record.id]
        assert other.record.answer == next(t.strip() for t in texts if differs(row.record, t))


def test_every_preferred_answer_has_a_gradient(
    toy: Model, toy_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that knows its rows verbatim says nothing but the true answer."""
    monkeypatch.setattr(Scorer, "sample", staticmethod(Told(["{}"])))
    start, entry = start_of(toy, toy_rows), get("method", "dpo")
    bound = entry.bind({"answers": "model", "retention": 0.0})
    start.columns(entry, bound)
    for row in toy_rows["unlearn"]:
        batch = PairedBatch(collate([row], toy.pad), collate(toy_rows["retention"], toy.pad))
        chosen = toy.train_only(toy.parameters())
        loss = start.parts(entry, bound, batch, set())["unlearn"]
        gradients = torch.autograd.grad(loss, chosen)
        assert max(float(g.abs().max()) for g in gradients) > 1e-3


def test_columns_are_made_once_for_equal_arguments(toy: Model, toy_rows: Rows) -> None:
    start, entry = start_of(toy, toy_rows), get("method", "dpo")

    def made(**arguments: Any) -> Any:
        return start.columns(entry, entry.bind(arguments))

    assert made(answers="unknown") is made(beta=0.5) is start.columns(entry)
    assert made(answers="refusal") is not made(answers="unknown")
    entry = get("method", "alternative_descent")  # the same lines, drawn by the same seed
    first = made()["alternative"]
    assert first == start.columns(get("method", "dpo"))["alternative"]


def test_prepare_may_name_hyper_parameters_only_of_its_method() -> None:
    def loss(step: Step, *, weight: float = 1.0, depth: int = 2) -> Any: ...

    entry = Entry("method", "loss", loss)
    with pytest.raises(BadInput, match="did you mean 'depth'"):

        @entry.prepare
        def misspelt(rows: Any, scorer: Any, *, dept: int) -> Any: ...

    @entry.prepare
    def columns(rows: Any, scorer: Any, *, depth: int) -> Any: ...

    assert entry.prepare_arguments(entry.bind({"weight": 3.0})) == {"depth": 2}
    assert get("method", "random_label").prepare_arguments({}) == {}


@pytest.mark.parametrize("method", ["npo", "dpo", "alternative_descent"])
def test_nothing_outside_a_region_moves(toy: Model, toy_rows: Rows, method: str) -> None:
    start, region = start_of(toy, toy_rows), sorted(toy.parameters())[:3]
    before = toy.state()
    done = unlearn(
        start,
        UnlearnSettings(
            method=method,
            arguments={"divergence": 1.0},
            region=region,
            lr=1e-2,
            epochs=2,
            batch_size=2,
            accumulation=1,
            retained=3,
        ),
    )
    after = toy.state()
    for name, value in before.items():
        assert torch.equal(value, after[name]) == (name not in region)
    other = [] if method == "npo" else ["alternative"]
    own = [] if method == "alternative_descent" else ["unlearn"]
    assert done.facts["reads"] == [*other, "retention", *own]


@pytest.mark.parametrize("method", ["npo", "dpo", "alternative_descent"])
def test_mixed_batches_of_the_original(toy: Model, toy_rows: Rows, method: str) -> None:
    """One row at a time: the part of its side is the loss of that row, the other is zero."""
    kept = {"retention": toy_rows["retention"]}
    start = OriginalStart(
        toy,
        toy_rows["unlearn"],
        kept,
        seed=0,
        quirks=["mixed_batches"],
        encode=lambda asked: encode(asked, toy.tokenizer),
    )
    entry = get("method", method)
    bound = entry.bind({"divergence": 2.0})
    start.columns(entry, bound)
    batches, _ = start.batches(
        entry, bound, UnlearnSettings("any", epochs=1, batch_size=8, accumulation=1)
    )
    plain = start_of(toy, toy_rows)
    for batch in batches:
        assert isinstance(batch, OneSided)
        found = start.parts(entry, bound, batch, set())
        wanted = plain.parts(entry, bound, PairedBatch(batch.unlearn, batch.retention), set())
        for name, part in found.items():
            right = wanted[name] if name == batch.side else torch.zeros_like(part)
            torch.testing.assert_close(part, right, rtol=1e-9, atol=1e-9)


def test_given_answers_are_the_alternatives_of_the_rows(toy: Model, toy_rows: Rows) -> None:
    """Another row's alternatives, and the true answer among them, are passed over."""
    given = [
        replace(row.record, alternatives=(row.record.answer, f"Nowhere near {n}."))
        for n, row in enumerate(toy_rows["unlearn"])
    ]
    rows = {**toy_rows, "unlearn": encode(given, toy.tokenizer)}
    found = [other.record.answer for other in others(start_of(toy, rows), "given")]
    assert found == [f"Nowhere near {n}." for n in range(len(given))]
    with pytest.raises(BadInput, match="unlearn/train/0: it has no alternatives; add"):
        others(start_of(toy, toy_rows), "given")
