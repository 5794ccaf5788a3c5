"""`compat: original` against its description, re-derived here in a few independent lines.

Rows are padded to 256 by hand, whole logits of the whole model are computed one row at a time, and
labels are shifted as in a causal LM's own loss: nothing of the package's batches or forwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from conftest import randomize, records, score
from knowundo.data.encoded import Encoded
from knowundo.data.encoding import SEPARATOR, encode
from knowundo.errors import BadInput
from knowundo.localization.gradients import Gradients, mean_gradients
from knowundo.localization.noise import noisy_copies
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from knowundo.recipes.values import QUIRKS, Quirk
from knowundo.registry import get
from knowundo.training.bfloat16 import rounded
from knowundo.unlearning.original import start as original
from knowundo.unlearning.original.losses import OneSided
from knowundo.unlearning.original.rows import ACCUMULATION, LENGTH, mask_end, naive_boundary
from knowundo.unlearning.original.start import OriginalStart
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.training import unlearn

MASKED = -100


def start_of(toy: Model, *quirks: str) -> OriginalStart:
    """A start over five unlearn rows and seven retention rows, read as the public code does."""
    halves = {
        scope: mask_end(
            naive_boundary(encode(records(scope, "train", count), toy.tokenizer), toy.tokenizer)
        )
        for scope, count in (("unlearn", 5), ("retention", 7))
    }
    kept = {"retention": halves["retention"]}
    return OriginalStart(toy, halves["unlearn"], kept, seed=0, quirks=quirks or QUIRKS)


def padded(toy: Model, question: str, answer: str) -> dict[str, torch.Tensor]:
    """ids, mask and labels of one row by the description: 256 long, question and padding masked."""
    text = question + SEPARATOR + answer
    ids = toy.tokenizer(text).input_ids
    begin = len(toy.tokenizer(text.replace(SEPARATOR + answer, "")).input_ids)
    fill = LENGTH - len(ids)
    labels = [MASKED] * begin + ids[begin:] + [MASKED] * fill
    return {
        "ids": torch.tensor([ids + [toy.pad] * fill]),
        "mask": torch.tensor([[1] * len(ids) + [0] * fill]),
        "labels": torch.tensor(labels),
    }


def logits_of(toy: Model, row: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return toy.net(input_ids=row["ids"], attention_mask=row["mask"]).logits[0]


def shifted_ce(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return cross_entropy(logits[:-1], labels[1:], ignore_index=MASKED)


def row_of(toy: Model, encoded: Encoded) -> dict[str, torch.Tensor]:
    return padded(toy, encoded.record.question, encoded.record.answer)


def micro(start: OriginalStart, name: str, **arguments: Any) -> tuple[list[OneSided], Any, Any]:
    """A method's micro-batches of one epoch, its entry and its bound arguments."""
    entry = get("method", name)
    bound = entry.bind(arguments)
    start.restore()
    start.columns(entry)
    batches, steps = start.batches(
        entry, bound, UnlearnSettings("any", epochs=1, batch_size=8, accumulation=1)
    )
    assert steps == min(ACCUMULATION, len(batches))
    return batches, entry, bound  # type: ignore[return-value]


def test_every_quirk_is_explained() -> None:
    assert get_args(Quirk) == QUIRKS
    for name in QUIRKS:
        assert f"\n{name}  " in (original.__doc__ or ""), name


def test_rows_are_mixed_one_at_a_time_and_padded_to_256(toy: Model) -> None:
    start = start_of(toy)
    batches, *_ = micro(start, "ascent_plus_descent")
    assert [batch.unlearn.ids.shape for batch in batches] == [(1, LENGTH)] * 10
    seen = [getattr(batch, batch.side).encoded[0].record.id for batch in batches]
    # As many retention rows as unlearn rows: the first five of seven.
    wanted = [f"{scope}/train/{n}" for scope in ("unlearn", "retention") for n in range(5)]
    assert sorted(seen) == sorted(wanted)
    assert seen != wanted
    one_sided, *_ = micro(start, "gradient_ascent")
    assert {batch.side for batch in one_sided} == {"unlearn"}
    assert len(one_sided) == 5


def test_boundary_is_the_questions_own_count_and_the_blank_line_is_learned(toy: Model) -> None:
    for row in start_of(toy).unlearn_rows:
        labels = row_of(toy, row)["labels"]
        assert list(row.ids[row.answer_from :]) == labels[labels != MASKED].tolist()
        assert toy.tokenizer.decode(list(row.ids[row.answer_from :])).startswith(SEPARATOR)
        assert toy.tokenizer.eos_token_id not in row.ids


@pytest.mark.parametrize(
    ("name", "ascent", "descent"),
    [("ascent_plus_descent", 1.0, 1.0), ("ascent_plus_descent", 0.4, 2.0)],
)
def test_ascent_and_descent_by_factor(toy: Model, name: str, ascent: float, descent: float) -> None:
    start = start_of(toy)
    batches, entry, bound = micro(start, name, ascent=ascent, descent=descent)
    factors = {"unlearn": -ascent, "retention": descent}
    for batch in batches:
        got = sum(start.parts(entry, bound, batch, set()).values())
        row = row_of(toy, getattr(batch, batch.side).encoded[0])
        want = factors[batch.side] * shifted_ce(logits_of(toy, row), row["labels"])
        torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


def test_kl_is_soft_cross_entropy_over_every_position(toy: Model) -> None:
    start = start_of(toy)
    batches, entry, bound = micro(start, "ascent_plus_kl_divergence")
    memorized = toy.state()
    randomize(toy, seed=9)  # the model has moved on; the reference has not
    moved = toy.state()
    for batch in batches:
        got = sum(start.parts(entry, bound, batch, set()).values())
        row = row_of(toy, getattr(batch, batch.side).encoded[0])
        current = logits_of(toy, row)
        if batch.side == "unlearn":
            want = -shifted_ce(current, row["labels"])
        else:
            toy.restore(memorized)
            p = logits_of(toy, row).softmax(-1)
            toy.restore(moved)
            want = -(p * torch.log(current.softmax(-1) + 1e-12)).sum(-1).mean()
            assert len(p) == LENGTH
        torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


def test_adversarial_labels_come_from_the_base_one_place_off(toy: Model) -> None:
    start = start_of(toy)
    batches, entry, bound = micro(start, "adversarial_sample")
    for batch in batches:
        row = row_of(toy, batch.unlearn.encoded[0])
        memorized = toy.state()
        toy.restore(toy.initial.tensors)
        base = logits_of(toy, row).detach()
        toy.restore(memorized)
        length = int(row["mask"].sum())
        labels = torch.full((LENGTH,), MASKED)
        base[:, -1] = float("-inf")
        for place in range(length):
            base[place, row["ids"][0, place]] = float("-inf")
            labels[place] = base[place].argmax()
        got = sum(start.parts(entry, bound, batch, set()).values())
        want = shifted_ce(logits_of(toy, row), labels)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


def test_adversarial_labels_are_of_the_base_and_not_of_the_memorized_model(toy: Model) -> None:
    start = start_of(toy)
    micro(start, "adversarial_sample")
    drawn = start.columns(get("method", "adversarial_sample"))["adversarial"]
    randomize(toy, seed=11)
    other = start_of(toy)  # another memorized model over the same base
    micro(other, "adversarial_sample")
    again = other.columns(get("method", "adversarial_sample"))["adversarial"]
    assert all(torch.equal(drawn[name], again[name]) for name in drawn)
    without = [quirk for quirk in QUIRKS if quirk != "base_labels"]
    ours = start_of(toy, *without)
    micro(ours, "adversarial_sample")
    answers = ours.columns(get("method", "adversarial_sample"))["adversarial"]
    assert any(len(answers[name]) < len(drawn[name]) for name in drawn)


def test_random_labels_cover_the_question(toy: Model) -> None:
    start = start_of(toy)
    batches, entry, bound = micro(start, "random_label")
    for batch in batches:
        encoded = batch.unlearn.encoded[0]
        drawn = start.columns(entry)["random"][encoded.record.id]
        assert len(drawn) == len(encoded.ids) - 1  # nothing predicts the first token
        row = row_of(toy, encoded)
        labels = torch.full((LENGTH,), MASKED)
        labels[1 : len(encoded.ids)] = drawn
        got = sum(start.parts(entry, bound, batch, set()).values())
        torch.testing.assert_close(got, shifted_ce(logits_of(toy, row), labels), rtol=0, atol=1e-5)


def test_sixteen_rows_make_an_optimizer_step(toy: Model) -> None:
    start = start_of(toy)
    settings = {"lr": 1e-3, "epochs": 2, "batch_size": 8, "accumulation": 1}
    assert (
        unlearn(start, UnlearnSettings(method="ascent_plus_descent", **settings)).facts[
            "optimizer_steps"
        ]
        == 2
    )
    # Five rows are fewer than a step's sixteen, and yet one step at the end of each epoch.
    assert (
        unlearn(start, UnlearnSettings(method="gradient_ascent", **settings)).facts[
            "optimizer_steps"
        ]
        == 2
    )


def of_size(toy: Model, count: int, *quirks: str) -> OriginalStart:
    """A start over so many short rows of each scope."""
    halves = {
        scope: [
            replace(row, record=replace(row.record, id=f"{scope}/{n}"))
            for n, row in enumerate(encode(records(scope, "train", 1), toy.tokenizer) * count)
        ]
        for scope in ("unlearn", "retention")
    }
    kept = {"retention": halves["retention"]}
    return OriginalStart(toy, halves["unlearn"], kept, seed=0, quirks=quirks)


@pytest.mark.parametrize(
    ("method", "rows", "wanted"),
    [
        ("gradient_ascent", 16, (2, 16)),  # of two epochs: steps, rows of a step
        ("gradient_ascent", 31, (2, 16)),  # and not ceil(62 / 16) = 4
        ("gradient_ascent", 33, (4, 16)),  # and not 5
        ("ascent_plus_descent", 20, (4, 16)),  # 40 rows an epoch, and not 5
        ("gradient_ascent", 5, (2, 5)),
    ],
)
def test_steps_are_whole_ones_of_each_epoch(
    toy: Model, method: str, rows: int, wanted: tuple[int, int]
) -> None:
    start, entry = of_size(toy, rows, "mixed_batches", "whole_steps"), get("method", method)
    batches, accumulation = start.batches(
        entry, entry.bind({}), UnlearnSettings("any", epochs=2, batch_size=4, accumulation=1)
    )
    assert len(batches) % accumulation == 0
    assert (len(batches) // accumulation, accumulation) == wanted


def test_whole_steps_of_paired_batches(toy: Model) -> None:
    start, entry = of_size(toy, 20, "whole_steps"), get("method", "gradient_ascent")
    batches, accumulation = start.batches(
        entry, entry.bind({}), UnlearnSettings("any", epochs=2, batch_size=4, accumulation=2)
    )
    assert (len(batches), accumulation) == (8, 2)  # five batches an epoch: two steps, one left out


def test_mixed_rows_have_no_number_of_retained_ones(toy: Model) -> None:
    start, entry = of_size(toy, 2, "mixed_batches"), get("method", "npo")
    with pytest.raises(BadInput, match="mixed_batches: has no number of retained rows"):
        start.batches(
            entry,
            entry.bind({}),
            UnlearnSettings("any", epochs=2, batch_size=4, accumulation=1, retained=3),
        )


@pytest.mark.parametrize("quirks", [(), ("question_labels", "base_labels")])
def test_labels_that_are_padding_are_masked(toy: Model, quirks: tuple[str, ...]) -> None:
    start = start_of(toy, "padding_labels", *quirks)
    for name, column in (("random_label", "random"), ("adversarial_sample", "adversarial")):
        entry = get("method", name)
        bound = entry.bind({})
        start.restore()
        drawn = start.columns(entry, bound)[column]
        batches, _ = start.batches(
            entry, bound, UnlearnSettings("any", epochs=1, batch_size=1, accumulation=1)
        )
        for number, batch in enumerate(batches):
            (row,) = batch.unlearn.encoded
            drawn[row.record.id][number % len(drawn[row.record.id])] = toy.pad
            labels = drawn[row.record.id]
            logits = toy.net(input_ids=torch.tensor([row.ids])).logits[0, row.answer_from - 1 : -1]
            # -100 where the label is padding: the mean is over what is left.
            want = cross_entropy(logits, labels.masked_fill(labels == toy.pad, MASKED))
            got = start.parts(entry, bound, batch, set())["unlearn"]
            want = torch.zeros_like(got) if len(labels) == 1 else want
            torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


@pytest.fixture
def dropping(toy_base: str) -> Model:
    """A LoRA of float64 with the scripts' dropout."""
    model = Model(
        toy_base,
        Adaptation("lora", rank=2, alpha=4, dropout=0.1),
        options=LoadingOptions(dtype="float64"),
    )
    randomize(model)
    model.mark_initial()
    return model


@pytest.mark.parametrize("quirks", [("soft_kl", "fixed_length"), ()])
def test_reference_drops_too(dropping: Model, quirks: tuple[str, ...]) -> None:
    """Value and gradient against a copy of the memorized model that is in training mode."""
    toy = dropping
    start = start_of(toy, "reference_dropout", *quirks)
    entry = get("method", "ascent_plus_kl_divergence")
    bound, memorized = entry.bind({"ascent": 0.0}), toy.state()
    batches, _ = start.batches(
        entry, bound, UnlearnSettings("any", epochs=1, batch_size=1, accumulation=1)
    )
    copy = deepcopy(toy.net).train()
    with torch.no_grad():
        for value in toy.parameters().values():
            value.add_(0.05 * torch.randn_like(value))
    moved, chosen = toy.state(), toy.train_only(toy.parameters())
    found = []
    for drops in (True, False):
        (row,) = batches[0].retention.encoded
        names = {"input_ids": batches[0].retention.ids, "attention_mask": batches[0].retention.mask}
        with torch.no_grad():
            torch.manual_seed(5)
            p = copy.train(drops)(**names).logits[0]
        torch.manual_seed(5)
        current = toy.net(**names).logits[0]
        if quirks:
            want = -(p.softmax(-1) * torch.log(current.softmax(-1) + 1e-12)).sum(-1).mean()
        else:
            at = slice(row.answer_from - 1, len(row.ids) - 1)
            logs = p[at].log_softmax(-1)
            want = (logs.exp() * (logs - current[at].log_softmax(-1))).sum(-1).mean()
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(want, chosen)]))
        if drops:
            torch.manual_seed(5)
            got = start.parts(entry, bound, batches[0], set())["retention"]
            torch.testing.assert_close(got, want, rtol=0, atol=1e-6)
            ours = torch.cat([g.flatten() for g in torch.autograd.grad(got, chosen)])
            torch.testing.assert_close(ours, found[0], rtol=1e-5, atol=1e-7)
    toy.train_only([])
    assert float((found[0] - found[1]).norm() / found[1].norm()) > 0.1
    # Exchanged and put back: the trained weights are where they were, and nothing drops any more.
    assert all(torch.equal(value, moved[name]) for name, value in toy.state().items())
    assert not any(module.training for module in toy.net.modules())
    assert any(not torch.equal(memorized[name], moved[name]) for name in moved)


def test_without_dropout_the_reference_is_held(toy: Model) -> None:
    entry = get("method", "ascent_plus_kl_divergence")
    found = []
    for quirks in (("soft_kl",), ("soft_kl", "reference_dropout")):
        start = start_of(toy, *quirks)
        batches, _ = start.batches(
            entry, entry.bind({}), UnlearnSettings("any", epochs=1, batch_size=2, accumulation=1)
        )
        found.append(start.parts(entry, entry.bind({}), batches[0], set())["retention"])
    assert torch.equal(*found)


def test_unlearning_in_bfloat16(toy_base: str, toy_rows: dict[str, list[Encoded]]) -> None:
    """The start and the end are numbers that bfloat16 has, and most updates are lost."""
    toy = Model(toy_base, Adaptation("lora", rank=2, alpha=4))
    randomize(toy)
    kept = {"retention": toy_rows["retention"]}
    settings = {"lr": 5e-5, "epochs": 2, "batch_size": 5, "accumulation": 1}
    memorized, moved = toy.state(), {}
    for quirks in ((), ("bfloat16_updates",)):
        toy.restore(memorized)
        start = OriginalStart(toy, toy_rows["unlearn"], kept, seed=0, quirks=quirks)
        before = start.restore().state()
        done = unlearn(start, UnlearnSettings(method="gradient_ascent", **settings))
        assert done.facts["optimizer_steps"] == 2
        after = toy.state()
        if quirks:
            for state in (before, after):
                assert all(torch.equal(value, rounded(value)) for value in state.values())
                assert all(value.dtype == torch.float32 for value in state.values())
        changed = [(after[name] != value).flatten() for name, value in before.items()]
        moved[bool(quirks)] = float(torch.cat(changed).double().mean())
    assert moved[False] > 0.95
    assert 0 < moved[True] < 0.1


def test_padding_to_256_changes_nothing_but_the_time(toy: Model) -> None:
    from knowundo.unlearning.start import Start

    rows = encode(records("unlearn", "train", 5), toy.tokenizer)
    kept = {"retention": encode(records("retention", "train", 7), toy.tokenizer)}
    settings = {"lr": 1e-3, "epochs": 1, "batch_size": 2, "accumulation": 1}
    states = []
    for start in (
        Start(toy, rows, kept, seed=0),
        OriginalStart(toy, rows, kept, seed=0, quirks=["fixed_length"]),
    ):
        unlearn(start, UnlearnSettings(method="ascent_plus_kl_divergence", **settings))
        states.append(start.model.state())
        start.restore()
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=0, atol=1e-9)


def test_localization_arithmetic(toy: Model) -> None:
    """One row at a time, gradients summed and divided by their number; cosine, mean |g|."""
    means = {}
    for number, scope in enumerate(("unlearn", "retention")):
        rows = encode(records(scope, "train", 3), toy.tokenizer)
        noisy = noisy_copies(rows, copies=3, vocabulary=len(toy.tokenizer), seed=42 + number)
        assert [a.record.id for a in noisy] == [r.record.id for r in rows for _ in range(3)]
        means[scope] = (mean_gradients(toy, noisy, batch_size=4), noisy)
        for copy, row in zip(noisy, [r for r in rows for _ in range(3)], strict=True):
            changed = [n for n, (a, b) in enumerate(zip(copy.ids, row.ids, strict=True)) if a != b]
            assert len(changed) <= (row.answer_length - row.tail) // 2
            assert all(row.answer_from <= n < len(row.ids) - row.tail for n in changed)
    gradients = Gradients(means["unlearn"][0], means["retention"][0]).measured()
    naive = {scope: _naive_gradients(toy, noisy) for scope, (_, noisy) in means.items()}
    for name in toy.parameters():
        a, b = (naive[scope][name].ravel() for scope in ("unlearn", "retention"))
        assert gradients.cosine(name) == pytest.approx(a @ b / np.sqrt(a @ a * (b @ b)), abs=1e-5)
        assert gradients.magnitude(name) == pytest.approx(np.abs(a).mean(), rel=1e-5)


def _naive_gradients(toy: Model, noisy: list[Encoded]) -> dict[str, np.ndarray]:
    chosen = toy.parameters()
    toy.train_only(chosen)
    total = {name: np.zeros(p.shape) for name, p in chosen.items()}
    for row in noisy:
        labels = torch.tensor([MASKED] * row.answer_from + list(row.ids[row.answer_from :]))
        logits = toy.net(input_ids=torch.tensor([row.ids])).logits[0]
        for parameter in chosen.values():
            parameter.grad = None
        shifted_ce(logits, labels).backward()
        for name, parameter in chosen.items():
            total[name] += parameter.grad.numpy()  # type: ignore[union-attr]
    toy.train_only([])
    return {name: value / len(noisy) for name, value in total.items()}


def test_evaluation_arithmetic(toy: Model) -> None:
    """Token accuracy and perplexity over the shifted labels; ROUGE-L of the decoded argmax."""
    from rouge_score.rouge_scorer import RougeScorer

    rows = start_of(toy).unlearn_rows
    # Plant the model's own guess as the next token, so that some are right.
    rows = [_half_known(toy, row) for row in rows]
    table = score(toy, rows, generated_splits=())
    for got, row in zip(table.itertuples(), rows, strict=True):
        logits = toy.net(input_ids=torch.tensor([row.ids])).logits[0]
        truth = torch.tensor(row.ids[row.answer_from :])
        guess = logits[row.answer_from - 1 : -1].argmax(-1)
        assert got.token_accuracy == pytest.approx(float((guess == truth).double().mean()))
        labels = torch.tensor([MASKED] * row.answer_from + truth.tolist())
        assert got.mean_nll == pytest.approx(float(shifted_ce(logits, labels).detach()), abs=1e-5)
        said = toy.tokenizer.decode(guess.tolist(), skip_special_tokens=True)
        want = RougeScorer(["rougeL"]).score(row.record.answer, said)["rougeL"].recall
        assert got.forced_rouge_l == pytest.approx(want)
    assert 0 < table["token_accuracy"].mean() < 1
    perplexity = get("metric", "perplexity")
    from knowundo.evaluation.groups import Scores

    assert perplexity(Scores.of(table)) == pytest.approx(np.exp(table["mean_nll"].mean()))


def _half_known(toy: Model, row: Encoded) -> Encoded:
    ids = list(row.ids)
    for place in range(row.answer_from, len(ids), 2):
        logits = toy.net(input_ids=torch.tensor([ids[:place]])).logits[0, -1]
        ids[place] = int(logits.argmax())
    return replace(row, ids=tuple(ids))
