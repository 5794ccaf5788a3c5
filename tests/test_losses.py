"""Every loss against its formula, row by row in float64 on unpadded rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from conftest import naive_ce, naive_log_probs, randomize, records
from knowundo.batches import PairedBatch, collate, paired
from knowundo.encoding import Encoded, encode
from knowundo.forwards import Step
from knowundo.models import Adaptation, Model
from knowundo.registry import get
from knowundo.training import train
from knowundo.unlearning import Start

Rows = dict[str, list[Encoded]]


def step_of(model: Model, start: Start, method: str, rows: Rows, *, both: bool) -> Step:
    batch = PairedBatch(collate(rows["unlearn"], model.pad), collate(rows["retention"], model.pad))
    columns = start.columns(get("method", method))
    return Step(model, batch, reference=lambda: start.reference, columns=columns, both=both)


def naive(method: str, arguments: dict[str, float], model: Model, start: Start, rows: Rows) -> Any:
    """The parts of a loss as the papers write them, one row at a time."""

    def mean(value: Callable[[Encoded], torch.Tensor], scope: str) -> torch.Tensor:
        return torch.stack([value(row) for row in rows[scope]]).mean()

    def ce(row: Encoded) -> torch.Tensor:
        return naive_ce(model, row)

    def to_labels(name: str) -> Callable[[Encoded], torch.Tensor]:
        columns = start.columns(get("method", method))
        return lambda row: naive_ce(model, row, columns[name][row.record.id])

    def kl(row: Encoded) -> torch.Tensor:
        now = naive_log_probs(model, row)
        current = model.state()
        model.restore(start._state)
        with torch.no_grad():
            memorized = naive_log_probs(model, row)
        model.restore(current)
        return (memorized.exp() * (memorized - now)).sum(-1).mean()

    if method == "gradient_ascent":
        return {"unlearn": -mean(ce, "unlearn")}
    if method == "random_label":
        return {"unlearn": mean(to_labels("random"), "unlearn")}
    if method == "adversarial_sample":
        return {"unlearn": mean(to_labels("adversarial"), "unlearn")}
    if method == "ascent_plus_descent":
        return {
            "unlearn": -arguments["ascent"] * mean(ce, "unlearn"),
            "retention": arguments["descent"] * mean(ce, "retention"),
        }
    assert method == "ascent_plus_kl_divergence"
    return {
        "unlearn": -arguments["ascent"] * mean(ce, "unlearn"),
        "retention": arguments["kl"] * mean(kl, "retention"),
    }


CASES = [
    ("gradient_ascent", {}),
    ("random_label", {}),
    ("adversarial_sample", {}),
    ("ascent_plus_descent", {"ascent": 0.4, "descent": 2.0}),
    ("ascent_plus_kl_divergence", {"ascent": 1.0, "kl": 0.7}),
]


@pytest.fixture
def start(toy: Model, toy_rows: Rows) -> Start:
    kept = {scope: toy_rows[scope] for scope in ("retention", "general")}
    return Start(toy, toy_rows["unlearn"], kept, seed=0)


@pytest.mark.parametrize("rows", [1, 5], ids=["one row", "unequal rows"])
@pytest.mark.parametrize("both", [False, True], ids=["two forwards", "one forward"])
@pytest.mark.parametrize(("method", "arguments"), CASES, ids=[name for name, _ in CASES])
def test_loss_equals_formula(
    toy: Model, toy_rows: Rows, start: Start, method: str, arguments: Any, both: bool, rows: int
) -> None:
    chosen = {scope: encoded[-rows:] for scope, encoded in toy_rows.items()}
    entry = get("method", method)
    start.columns(entry)
    assert start.reference.states
    randomize(toy, seed=9)  # away from the memorized model, so that KL is not zero
    parts = entry(step_of(toy, start, method, chosen, both=both), **arguments)
    expected = naive(method, entry.bind(arguments), toy, start, chosen)
    assert set(parts) == set(expected)
    for name in expected:
        torch.testing.assert_close(parts[name], expected[name], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("method", "arguments"), CASES, ids=[name for name, _ in CASES])
def test_gradient_of_batch_is_mean_of_rows(
    toy: Model, toy_rows: Rows, start: Start, method: str, arguments: Any
) -> None:
    entry = get("method", method)
    start.columns(entry)
    assert start.reference.states
    randomize(toy, seed=9)

    def gradient(rows: Rows) -> list[torch.Tensor]:
        chosen = toy.train_only(toy.parameters())
        parts = entry(step_of(toy, start, method, rows, both=False), **entry.bind(arguments))
        return list(torch.autograd.grad(sum(parts.values()), chosen, allow_unused=True))

    whole = gradient(toy_rows)
    singles = [
        gradient({"unlearn": [a], "retention": [b]})
        for a, b in zip(toy_rows["unlearn"], toy_rows["retention"], strict=True)
    ]
    for number, value in enumerate(whole):
        mean = torch.stack([single[number] for single in singles]).mean(0)
        # transformers' RMSNorm works in float32 whatever the dtype
        torch.testing.assert_close(value, mean, rtol=1e-4, atol=1e-6)


def test_kl_is_zero_at_the_start(toy: Model, toy_rows: Rows, start: Start) -> None:
    method = get("method", "ascent_plus_kl_divergence")
    parts = method(step_of(toy, start, method.name, toy_rows, both=False))
    assert abs(parts["retention"].item()) < 1e-9


def test_reference_is_no_second_model(toy: Model, start: Start) -> None:
    before = {id(parameter) for parameter in toy.net.parameters()}
    reference = start.reference
    assert {id(parameter) for parameter in toy.net.parameters()} == before
    held = sum(states.numel() for states in reference.states.values())
    assert held < sum(p.numel() for p in toy.net.parameters())
    assert all(not states.requires_grad for states in reference.states.values())


def test_reference_after_weights_moved_is_refused(toy: Model, start: Start) -> None:
    randomize(toy, seed=5)
    with pytest.raises(Exception, match="first step"):
        _ = start.reference


def test_labels_change_answer_positions_only(toy: Model, start: Start, toy_rows: Rows) -> None:
    for name, column in (("random_label", "random"), ("adversarial_sample", "adversarial")):
        labels = start.columns(get("method", name))[column]
        for row in toy_rows["unlearn"]:
            assert len(labels[row.record.id]) == row.answer_length
            assert not set(labels[row.record.id].tolist()) - set(range(len(toy.tokenizer)))


def test_adversarial_token_is_the_likeliest_wrong_one_there(
    toy: Model, start: Start, toy_rows: Rows
) -> None:
    labels = start.columns(get("method", "adversarial_sample"))["adversarial"]
    for row in toy_rows["unlearn"]:
        for place, log_probs in enumerate(naive_log_probs(toy, row)):
            truth = row.ids[row.answer_from + place]
            ranked = log_probs.argsort(descending=True).tolist()
            wrong = next(token for token in ranked if token != truth)
            assert int(labels[row.record.id][place]) == wrong


def test_random_tokens_are_ordinary_and_seeded(toy: Model, toy_rows: Rows) -> None:
    method = get("method", "random_label")
    draws = [
        Start(toy, toy_rows["unlearn"], {}, seed=seed).columns(method)["random"]
        for seed in (0, 0, 1)
    ]
    flat = [torch.cat(list(draw.values())).tolist() for draw in draws]
    assert flat[0] == flat[1] != flat[2]
    assert not set(flat[0]) & set(toy.tokenizer.all_special_ids)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_accumulation_changes_nothing(
    toy_base: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batch 4 × 1 and 1 × 4 apply the same gradient (plain descent: Adam would hide its scale)."""
    monkeypatch.setattr(
        torch.optim, "AdamW", lambda chosen, lr, weight_decay: torch.optim.SGD(chosen, lr=lr)
    )
    ends = []
    for size, accumulation in ((4, 1), (1, 4)):
        model = Model(toy_base, Adaptation(kind, rank=2), dtype="float64")
        rows = encode(records("unlearn", "train", 4), model.tokenizer)
        method = get("method", "gradient_ascent")

        def loss(batch: PairedBatch, model: Model = model, method: Any = method) -> Any:
            return method(Step(model, batch, reference=lambda: None))  # type: ignore[arg-type, return-value]

        train(
            model,
            paired(rows, rows, size=size, epochs=1, seed=0, pad=model.pad),
            loss,
            region=model.parameters(),
            lr=1e-2,
            seed=0,
            accumulation=accumulation,
            schedule="constant",
            warmup=0.0,
            max_grad_norm=1e9,
        )
        ends.append(model.state())
    before = Model(toy_base, Adaptation(kind, rank=2), dtype="float64").state()
    assert any(not torch.equal(before[name], ends[0][name]) for name in before)
    for name in before:
        moved = [end[name] - before[name] for end in ends]
        torch.testing.assert_close(moved[0], moved[1], rtol=1e-4, atol=1e-9)
