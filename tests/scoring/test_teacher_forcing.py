"""Teacher-forced numbers against one row at a time, and where a free answer ends."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, normalizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from conftest import records, score
from knowundo.data.batches import by_length
from knowundo.data.decoding import decoded, markup, said_verbatim, true_ids
from knowundo.data.encoded import Encoded
from knowundo.data.encoding import RowFormat, encode
from knowundo.data.records import Record
from knowundo.evaluation.metrics.accuracy import token_accuracy
from knowundo.evaluation.metrics.likelihood import perplexity
from knowundo.modeling.forward import answer_states
from knowundo.modeling.model import Model
from knowundo.scoring import table, teacher_forcing
from knowundo.scoring.answers import generate
from knowundo.scoring.progress import Said
from knowundo.scoring.teacher_forcing import teacher_forced
from toy_tokenizers import TEMPLATES, gemma_tokenizer, llama_tokenizer, qwen_tokenizer

SIZES = [1, 3, 64]
TEXTS = ["Who? What! Ada Rome née yes no"]


def batched(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Score batches of so many rows."""

    monkeypatch.setattr(teacher_forcing, "answer_states", partial(answer_states, size=size))


def exact(tokenizer: Any, row: Encoded, ids: Sequence[int], stops: Collection[int]) -> bool:
    """`said_verbatim` of ids that are decoded for it."""
    text, true = decoded(tokenizer, ids, stops=stops), decoded(tokenizer, true_ids(row))
    return said_verbatim(row, ids, text, true, stops=stops)


@torch.no_grad()
def naive(model: Model, row: Encoded) -> tuple[float, float]:
    """Token accuracy and mean negative log-likelihood of one unpadded row, from all its logits."""
    log_probs = model.net(input_ids=torch.tensor([row.ids])).logits[0].double().log_softmax(-1)
    right, nll = [], []
    for place in range(row.answer_from, len(row.ids)):
        nll.append(-log_probs[place - 1, row.ids[place]].item())
        if place < len(row.ids) - row.tail:
            right.append(log_probs[place - 1].argmax().item() == row.ids[place])
    return sum(right) / len(right), sum(nll) / len(nll)


@torch.no_grad()
def half_known(model: Model, row: Encoded) -> Encoded:
    """The row with every second answer token replaced by the model's own guess."""
    ids = list(row.ids)
    for place in range(row.answer_from, len(ids) - row.tail, 2):
        logits = model.net(input_ids=torch.tensor([ids[:place]])).logits
        ids[place] = int(logits[0, -1].argmax())
    return replace(row, ids=tuple(ids))


def rows_of_every_kind(model: Model) -> list[Encoded]:
    """Plain, chat with a tail of two, cut off, and text."""
    rows = encode(records("unlearn", "val", 5), model.tokenizer)
    model.tokenizer.chat_template = (TEMPLATES / "llama-2-chat.jinja").read_text("utf-8")
    model.tokenizer.bos_token = model.tokenizer.eos_token  # the template writes one
    chats = encode(records("retention", "val", 3), model.tokenizer, RowFormat("chat"))
    assert {row.tail for row in chats} == {2}
    longest = max(len(row.ids) for row in rows)
    longer = [replace(r, id=f"cut/{r.id}") for r in records("unlearn", "val", 5)]
    cut = encode(longer, model.tokenizer, max_length=longest - 4, truncate=True)
    assert 0 in {row.tail for row in cut}
    text = [replace(r, question="", kind="text") for r in records("general", "val", 5)[2:]]
    all_rows = [*rows, *chats, *cut, *encode(text, model.tokenizer)]
    return [half_known(model, row) for row in all_rows]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("size", SIZES)
def test_teacher_forced_equals_a_loop_over_single_rows(
    toy: Model, monkeypatch: pytest.MonkeyPatch, size: int, side: str
) -> None:
    toy.tokenizer.padding_side = side
    rows = rows_of_every_kind(toy)
    batched(monkeypatch, size)
    assert len(by_length(rows, size, toy.pad)) == -(-len(rows) // size)
    scored = teacher_forced(toy, rows)
    truth = {row.record.id: naive(toy, row) for row in rows}
    assert len(truth) == len(rows)
    assert len({accuracy for accuracy, _ in truth.values()}) > 3
    for row in rows:
        got, (accuracy, nll) = scored[row.record.id], truth[row.record.id]
        assert got["tokens"] == row.answer_length - row.tail
        assert got["token_accuracy"] == accuracy
        assert got["mean_nll"] == pytest.approx(nll, rel=1e-9)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("size", SIZES)
def test_metrics_equal_a_loop_over_single_rows(
    toy: Model, monkeypatch: pytest.MonkeyPatch, size: int, side: str
) -> None:
    toy.tokenizer.padding_side = side
    rows = rows_of_every_kind(toy)
    batched(monkeypatch, size)
    scored = score(toy, rows, generated_splits=())
    accuracies, nlls = zip(*(naive(toy, row) for row in rows), strict=True)
    assert token_accuracy(scored) == pytest.approx(100 * sum(accuracies) / len(rows), rel=1e-12)
    mean = torch.tensor(nlls, dtype=torch.float64).mean()
    assert perplexity(scored) == pytest.approx(mean.exp().item(), rel=1e-9)


def test_answer_cut_off_counts_its_last_token(toy: Model) -> None:
    record = records("unlearn", "val", 3)[2]
    whole = encode([record], toy.tokenizer)[0]
    row = encode([record], toy.tokenizer, max_length=len(whole.ids) - 3, truncate=True)[0]
    assert (row.tail, row.cut) == (0, 3)
    assert teacher_forced(toy, [row])[record.id]["tokens"] == row.answer_length


def test_answer_is_over_at_the_end_of_turn_it_was_encoded_with(toy: Model) -> None:
    """Gemma's end of turn is not its end-of-sequence: what follows it is not part of the answer."""
    record = records("unlearn", "val", 5)[4]
    row = encode([record], toy.tokenizer)[0]
    free = toy.net.generate(
        torch.tensor([row.prompt]),
        max_new_tokens=row.answer_length,
        do_sample=False,
        pad_token_id=toy.pad,
        eos_token_id=toy.tokenizer.eos_token_id,
    )[0, len(row.prompt) :].tolist()
    place = next(n for n in range(1, len(free)) if free[n] not in free[:n])
    turn = replace(row, ids=(*row.ids[:-1], free[place]))
    stopped = generate(toy, [turn])[record.id]
    assert stopped == toy.tokenizer.decode(free[:place])  # the end of turn is not said
    assert stopped != generate(toy, [row])[record.id]
    # Of a cut answer the last id ends nothing.
    assert generate(toy, [replace(turn, tail=0)]) == generate(toy, [row])


def verbatim(tokenizer: PreTrainedTokenizerFast, answer: str, said: str | None = None) -> bool:
    """Whether the tokens of `said`, or of the answer itself, count as the answer."""
    row = encode([Record("x", "Who?", answer, "unlearn", "train")], tokenizer)[0]
    ids = row.ids[row.answer_from :]
    if said is not None:
        ids = tuple(tokenizer(said, add_special_tokens=False)["input_ids"])
    return exact(tokenizer, row, ids, {tokenizer.eos_token_id})


ANSWERS = ["Ada née à Rome! 14.", "Ada ne\u0301e a\u0300 Rome! 14.", "ADA. Née .", "安布朗 🙂"]


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("build", [llama_tokenizer, qwen_tokenizer, gemma_tokenizer])
@pytest.mark.parametrize("change", ["nothing", "NFC", "lower case", "padding is a word"])
def test_an_answers_own_tokens_are_the_answer(build: Any, change: str, answer: str) -> None:
    """Also where decoding gives another text back than the one that was encoded."""
    tokenizer = build(["Who?\n\n" + text for text in ANSWERS])
    if change in ("NFC", "lower case"):
        rule = normalizers.NFC() if change == "NFC" else normalizers.Lowercase()
        held = tokenizer.backend_tokenizer.normalizer
        tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([rule, held])
    elif change == "padding is a word":
        tokenizer.pad_token = "!"
    assert verbatim(tokenizer, answer)
    assert not verbatim(tokenizer, answer, "Ada")
    assert not verbatim(tokenizer, answer, f"{answer} And more.")
    assert not verbatim(tokenizer, "Ada", "Ada!")


def test_special_tokens_that_are_words_are_said() -> None:
    tokenizer = qwen_tokenizer(TEXTS)
    tokenizer.pad_token = "!"
    ids = tokenizer("No! Yes!<|im_start|>x<|im_end|>y")["input_ids"]
    end = {tokenizer.eos_token_id}
    assert decoded(tokenizer, ids, stops=end) == "No! Yes!x"
    assert decoded(tokenizer, ids) == "No! Yes!xy"
    assert tokenizer.convert_tokens_to_ids("!") not in markup(tokenizer)
    assert end <= markup(tokenizer)


def test_spaces_before_punctuation_are_kept() -> None:
    """`clean_up_tokenization_spaces` is for WordPiece, and would take away what was said."""
    words = WordLevel({"Yes": 0, ".": 1, "<end>": 2, "[UNK]": 3}, unk_token="[UNK]")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(words), eos_token="<end>", clean_up_tokenization_spaces=True
    )
    assert tokenizer.decode([0, 1]) == "Yes."
    assert decoded(tokenizer, [0, 1, 2]) == "Yes ."


def test_a_cut_answer_is_compared_as_far_as_it_was_kept(toy: Model) -> None:
    record = records("unlearn", "val", 3)[2]
    size = len(encode([record], toy.tokenizer)[0].ids) - 3
    row = encode([record], toy.tokenizer, max_length=size, truncate=True)[0]
    assert row.cut
    assert exact(toy.tokenizer, row, row.ids[row.answer_from :], ())
    assert not exact(toy.tokenizer, row, row.ids[row.answer_from : -1], ())


def test_rouge_of_generated_answers_is_stemmed_and_of_forced_ones_not(toy: Model) -> None:
    record = replace(records("unlearn", "val", 1)[0], answer="She lived there", facts=())
    row = encode([record], toy.tokenizer)[0]
    likeliest = list(toy.tokenizer("She lives there")["input_ids"])
    forced = {record.id: {"likeliest": likeliest, "tokens": 3, "token_accuracy": None}}
    forced[record.id] |= {"fact_accuracy": None, "mean_nll": 1.0}
    (scored,) = table._rows(toy, [row], forced, {record.id: Said("She lives there", False)}, {})
    assert scored["rouge_l"] == 1
    assert scored["forced_rouge_l"] == pytest.approx(2 / 3)
    assert scored["exact_match"] == 0
