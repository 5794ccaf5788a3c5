"""Distributions of invented people: what is averaged and held, and what the loss makes of it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch.nn.functional import logsigmoid

from conftest import naive_ce, naive_log_probs, records
from knowundo.data.batches import PairedBatch, collate
from knowundo.data.encoded import Encoded
from knowundo.data.encoding import encode
from knowundo.data.neighbours import invented_names, renamed
from knowundo.data.records import Record
from knowundo.modeling.forward import Forward
from knowundo.modeling.model import Model
from knowundo.modeling.step import Step
from knowundo.registry import get
from knowundo.unlearning.counterfactuals import HELD_TOKENS, teachers
from knowundo.unlearning.scorer import Scorer
from knowundo.unlearning.start import Start

FACTS = ("alder canal cedar", "chapel cherry", "cooper ferry garden baker")
PEOPLE = ("Ada Brun", "Ivo Kant", "Lena Moor")


def about(answer: str = "{fact}") -> list[Record]:
    """Rows whose questions name their subjects."""
    plain = records("unlearn", "train", len(PEOPLE))
    return [
        replace(
            record,
            question=f"Where does {who} live?",
            answer=answer.format(fact=fact, who=who),
            subject=who,
            facts=(),
        )
        for record, who, fact in zip(plain, PEOPLE, FACTS, strict=True)
    ]


def started(toy: Model, rows: list[Encoded], kept: list[Encoded]) -> Start:
    return Start(
        toy, rows, {"retention": kept}, seed=0, encode=partial(encode, tokenizer=toy.tokenizer)
    )


def scorer(toy: Model) -> Scorer:
    return Scorer(toy, 0, partial(encode, tokenizer=toy.tokenizer))


def strangers(toy: Model, record: Record, names: int) -> list[Encoded]:
    found = [renamed(record, name) for name in invented_names(names, 0, PEOPLE)]
    return encode([other for other in found if other], toy.tokenizer)


def naive_mean(toy: Model, record: Record, names: int) -> torch.Tensor:
    """Of an answer that names nobody, one unpadded forward for each stranger."""
    told = [naive_log_probs(toy, row).exp() for row in strangers(toy, record, names)]
    assert len(told) == names
    return torch.stack(told).mean(0)


def test_the_teacher_is_the_mean_over_invented_people(toy: Model) -> None:
    made = about()
    columns = teachers(encode(made, toy.tokenizer), scorer(toy), names=3)
    for record in made:
        mean, tokens = naive_mean(toy, record, 3), columns["teacher_tokens"][record.id]
        assert tokens.shape[-1] == HELD_TOKENS < mean.shape[-1]
        assert torch.allclose(columns["teacher"][record.id], mean.gather(1, tokens))


def test_the_true_token_is_held_however_unlikely(toy: Model) -> None:
    rows = encode(about(), toy.tokenizer)
    columns = teachers(rows, scorer(toy), names=2)
    for row in rows:
        tokens = columns["teacher_tokens"][row.record.id]
        truth = torch.tensor(row.ids[row.answer_from :])
        assert bool((tokens == truth[:, None]).any(-1).all())
        assert all(len(set(position)) == HELD_TOKENS for position in tokens.tolist())


def test_a_name_in_the_answer_keeps_its_own_distribution(toy: Model) -> None:
    """After the name the strangers' distributions stand, which were given their own names."""
    record = about("{who} lives at {fact}")[0]
    row = encode([record], toy.tokenizer)[0]
    columns = teachers([row], scorer(toy), names=4)
    tokens, teacher = (columns[name][record.id] for name in ("teacher_tokens", "teacher"))
    own = naive_log_probs(toy, row).exp().gather(1, tokens)
    same = torch.isclose(teacher, own).all(-1).tolist()
    texts = [toy.tokenizer.decode([i]) for i in row.ids[row.answer_from :]]
    place = len(toy.tokenizer(" Ada Brun")["input_ids"])
    assert any(same[:place]), texts
    assert not any(same[place + 2 :]), texts


def naive_divergence(toy: Model, row: Encoded, columns: Any) -> torch.Tensor:
    """Σ over tokens of the divergence of held tokens and of the rest as one outcome."""
    now = naive_log_probs(toy, row).exp()
    total = now.new_zeros(())
    tokens, teacher = (columns[name][row.record.id] for name in ("teacher_tokens", "teacher"))
    for ids, before, current in zip(tokens, teacher, now, strict=True):
        pairs = list(zip(before.tolist(), current[ids], strict=True))
        pairs.append((1 - float(before.sum()), 1 - current[ids].sum()))
        total = total + sum(p * (torch.log(torch.tensor(p).double()) - q.log()) for p, q in pairs)
    return total


def loss_of(toy: Model, start: Start, rows: list[Encoded], kept: list[Encoded]) -> Any:
    entry = get("method", "counterfactual")
    bound = entry.bind({"names": 3, "divergence": 0.0})
    columns = start.columns(entry, bound)
    batch = PairedBatch(collate(rows, toy.pad), collate(kept, toy.pad))
    step = Step(Forward(toy), batch, reference=lambda: start.reference, columns=columns)
    return entry(step, **bound)["unlearn"], columns


@pytest.mark.parametrize("named", [3, 2, 0])
def test_loss_is_its_formula_with_and_without_named_subjects(
    toy: Model, toy_rows: dict[str, list[Encoded]], named: int
) -> None:
    plain = records("unlearn", "train", 5)[named:3]  # their questions name no subject
    rows = encode([*about()[:named], *plain], toy.tokenizer)
    kept = toy_rows["retention"]
    start = started(toy, rows, kept)
    start.reference.hold(start.reference.rows)
    before = [naive_ce(toy, row).detach() * row.answer_length for row in rows]
    entry = get("method", "counterfactual")
    start.columns(entry, entry.bind({"names": 3, "divergence": 0.0}))
    with torch.no_grad():  # somewhere else than at the memorized model
        for number, parameter in enumerate(toy.parameters().values()):
            parameter.add_(0.02 * (number % 3 - 1))
    found, columns = loss_of(toy, start, rows, kept)
    assert len(columns["teacher"]) == named
    expected = [
        naive_divergence(toy, row, columns)
        if row.record.id in columns["teacher"]
        else -2 * logsigmoid(naive_ce(toy, row) * row.answer_length - nll)
        for row, nll in zip(rows, before, strict=True)
    ]
    assert found.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-8)


def test_the_loss_has_a_fixed_point(toy: Model, toy_rows: dict[str, list[Encoded]]) -> None:
    """Where the model says of a person what it says of strangers, nothing pulls it any further."""
    rows = encode(about()[:1], toy.tokenizer)
    start = started(toy, rows, toy_rows["retention"])
    _, columns = loss_of(toy, start, rows, toy_rows["retention"])
    own = naive_log_probs(toy, rows[0]).exp().detach()
    tokens = columns["teacher_tokens"][rows[0].record.id]
    columns["teacher"][rows[0].record.id] = own.gather(1, tokens)  # type: ignore[index]
    found, _ = loss_of(toy, start, rows, toy_rows["retention"])
    gradients = torch.autograd.grad(found, list(toy.parameters().values()))
    assert float(found) == pytest.approx(0, abs=1e-12)
    assert all(float(g.abs().max()) < 1e-9 for g in gradients)
