"""Guards that change the prompt: what the model gets is computed by hand, from texts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from conftest import naive_log_probs, records
from guarding import guarded
from knowundo.data.encoded import Encoded
from knowundo.data.encoding import RowFormat, encode
from knowundo.data.templates import parse_template
from knowundo.errors import BadInput
from knowundo.modeling.forward import answer_logits
from knowundo.modeling.model import Model
from knowundo.unlearning.answers import answers
from knowundo.unlearning.contexts import prompt_head, put_before_question
from knowundo.unlearning.scorer import Scorer

Rows = dict[str, list[Encoded]]


def test_the_instruction_stands_before_the_question(
    toy: Model, toy_rows: Rows, tmp_path: Path
) -> None:
    told = "Say nothing of {subjects}."
    with guarded(toy, toy_rows, "prompt_refusal", tmp_path, instruction=told) as (forward, _):
        for row, logits in answer_logits(forward, toy_rows["retention"]):
            text = f"Say nothing of subject 0, subject 1, subject 2.\n\n{row.record.question}\n\n"
            prompt = [
                i
                for part in (text[: text.index("What")], row.record.question + "\n\n")
                for i in toy.tokenizer(part)["input_ids"]
            ]
            ids = torch.tensor([[*prompt, *row.ids[row.answer_from :]]])
            alone = toy.net(input_ids=ids).logits[0, len(prompt) - 1 : -1]
            torch.testing.assert_close(logits, alone, rtol=1e-5, atol=1e-5)


def test_unlearn_rows_with_other_answers_stand_before_the_question(
    toy: Model, toy_rows: Rows, tmp_path: Path
) -> None:
    own, asked = toy.tokenizer, toy_rows["unlearn"][2]
    with guarded(toy, toy_rows, "icul", tmp_path, forgotten=1, kept=2) as (forward, guard):
        made = own.decode(forward.guard.prompt(asked.prompt))
        first, *kept, question = made.split("What is number")[1:]
        # The nearest row is the one that is asked for, and its answer is a prepared one.
        asks, said = first.split("?", 1)
        assert asks == " 2 of unlearn train"
        assert said.strip() in answers("unknown")
        shown = {
            f" {r.record.id[-1]} of retention train?\n\n{r.record.answer}\n\n"
            for r in toy_rows["retention"]
        }
        assert len(set(kept)) == 2
        assert set(kept) < shown
        assert question == " 2 of unlearn train?\n\n"
        for row, logits in answer_logits(forward, [asked]):
            changed = guard.row(row)
            assert changed.ids[changed.answer_from :] == row.ids[row.answer_from :]
            expected = naive_log_probs(toy, changed)
            torch.testing.assert_close(logits.log_softmax(-1), expected, rtol=1e-5, atol=1e-5)


def test_a_template_stays_before_what_is_put_before_the_question(toy: Model) -> None:
    form = RowFormat(template=parse_template("Request: {question} Reply: {answer}"))
    scorer = Scorer(toy, 0, lambda made: encode(made, toy.tokenizer, form))
    row = encode(records("unlearn", "train", 1), toy.tokenizer, form)[0]
    head = prompt_head(row, scorer)
    text = toy.tokenizer.decode(put_before_question(row.prompt, head, scorer.tokens(" Be silent.")))
    assert text == f"Request: Be silent. {row.record.question} Reply:"


def test_a_prompt_beyond_the_positions_is_refused(
    toy: Model, toy_rows: Rows, tmp_path: Path
) -> None:
    toy.positions = 30
    said = r"guard icul: .* has 30 positions; choose settings"
    with (
        guarded(toy, toy_rows, "icul", tmp_path, kept=4) as (forward, _),
        pytest.raises(BadInput, match=said),
    ):
        list(answer_logits(forward, toy_rows["unlearn"]))
