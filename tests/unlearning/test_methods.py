"""Every loss against its formula, row by row in float64 on unpadded rows."""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import Any

import pytest
import torch

from conftest import naive_ce, naive_log_probs, randomize, records
from knowundo.data.batches import PairedBatch, collate, paired
from knowundo.data.encoded import Encoded
from knowundo.data.encoding import encode
from knowundo.errors import BadInput, KnowUndoError
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.forward import Forward
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from knowundo.modeling.step import Step
from knowundo.registry import get
from knowundo.training.settings import TrainingSettings
from knowundo.training.trainer import train
from knowundo.unlearning.start import Start

Rows = dict[str, list[Encoded]]


BOTH = {"unlearn", "retention"}
ONE = ("alternative", "retention", "unlearn")  # what has been read, so that one forward gives it


def step_of(
    model: Model, start: Start, method: str, rows: Rows, *, read: Any = (), **arguments: Any
) -> Step:
    batch = PairedBatch(collate(rows["unlearn"], model.pad), collate(rows["retention"], model.pad))
    entry = get("method", method)
    columns = start.columns(entry, entry.bind(arguments))
    if "alternative" not in columns:
        read = [name for name in read if name != "alternative"]
    return Step(
        Forward(model), batch, reference=lambda: start.reference, columns=columns, read=read
    )


def take(start: Start, *columns: Any) -> None:
    """Let the reference hold every row that a loss could read."""
    start.reference.hold(start.reference.rows)
    for made in columns:
        rows = list(made.get("alternative", {}).values())
        start.reference.hold(rows, among=rows)


def naive(method: str, arguments: dict[str, Any], model: Model, start: Start, rows: Rows) -> Any:
    """The parts of a loss as the papers write them, one row at a time."""
    columns = start.columns(get("method", method), arguments)

    def mean(value: Callable[[Encoded], torch.Tensor], scope: str) -> torch.Tensor:
        return torch.stack([value(row) for row in rows[scope]]).mean()

    def ce(row: Encoded) -> torch.Tensor:
        return naive_ce(model, row)

    def to_labels(name: str) -> Callable[[Encoded], torch.Tensor]:
        return lambda row: naive_ce(model, row, columns[name][row.record.id])

    def both(row: Encoded, value: Callable[[Encoded], torch.Tensor]) -> Any:
        """A value of the current and of the memorized model."""
        now, current = value(row), model.state()
        model.restore(start._memorized.tensors)
        with torch.no_grad():
            memorized = value(row)
        model.restore(current)
        return now, memorized

    def kl(row: Encoded) -> torch.Tensor:
        now, memorized = both(row, lambda row: naive_log_probs(model, row))
        return (memorized.exp() * (memorized - now)).sum(-1).mean()

    def log_ratio(row: Encoded) -> torch.Tensor:
        now, memorized = both(row, lambda row: -naive_ce(model, row) * row.answer_length)
        return now - memorized

    def other(row: Encoded) -> Encoded:
        found: Encoded = columns["alternative"][row.record.id]
        return found

    def kept() -> Any:
        retention, divergence = arguments["retention"], arguments["divergence"]
        if not retention and not divergence:
            return {}
        return {"retention": retention * mean(ce, "retention") + divergence * mean(kl, "retention")}

    beta = arguments.get("beta", 0.0)
    if method == "npo":
        # (2/β) E log(1 + (π/π_ref)^β), equation 4 of the paper
        value = mean(lambda row: (1 + log_ratio(row).exp() ** beta).log(), "unlearn")
        return {"unlearn": 2 / beta * value} | kept()
    if method == "dpo":
        margin = lambda row: log_ratio(other(row)) - log_ratio(row)  # noqa: E731
        value = mean(lambda row: -(1 / (1 + (-beta * margin(row)).exp())).log(), "unlearn")
        return {"unlearn": 2 / beta * value} | kept()
    if method == "alternative_descent":
        return {"unlearn": mean(lambda row: ce(other(row)), "unlearn")} | kept()
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
    ("npo", {}),
    ("npo", {"beta": 0.3, "retention": 0.0, "divergence": 5.0}),
    ("npo", {"beta": 0.05, "retention": 0.4, "divergence": 2.0}),
    ("npo", {"retention": 0.0}),
    ("dpo", {"answers": "refusal"}),
    ("dpo", {"beta": 0.5, "retention": 0.5, "divergence": 0.5}),
    ("dpo", {"answers": "model", "retention": 0.0}),
    ("alternative_descent", {}),
    ("alternative_descent", {"retention": 0.0, "divergence": 3.0}),
]
IDS = [f"{name}-{'-'.join(map(str, arguments.values()))}" for name, arguments in CASES]


def encoder(toy: Model, **options: Any) -> Any:
    return lambda records: encode(records, toy.tokenizer, **options)


@pytest.fixture
def start(toy: Model, toy_rows: Rows) -> Start:
    kept = {scope: toy_rows[scope] for scope in ("retention", "general")}
    return Start(toy, toy_rows["unlearn"], kept, seed=0, encode=encoder(toy))


@pytest.mark.parametrize("rows", [1, 5], ids=["one row", "unequal rows"])
@pytest.mark.parametrize("read", [(), ONE], ids=["several forwards", "one forward"])
@pytest.mark.parametrize(("method", "arguments"), CASES, ids=IDS)
def test_loss_equals_formula(
    toy: Model, toy_rows: Rows, start: Start, method: str, arguments: Any, read: Any, rows: int
) -> None:
    chosen = {scope: encoded[-rows:] for scope, encoded in toy_rows.items()}
    entry = get("method", method)
    take(start, start.columns(entry, entry.bind(arguments)))
    randomize(toy, seed=9)  # away from the memorized model, so that KL is not zero
    parts = entry(step_of(toy, start, method, chosen, read=read, **arguments), **arguments)
    expected = naive(method, entry.bind(arguments), toy, start, chosen)
    assert set(parts) == set(expected)
    for name in expected:
        torch.testing.assert_close(parts[name], expected[name], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("method", "arguments"), CASES, ids=IDS)
def test_gradient_of_batch_is_mean_of_rows(
    toy: Model, toy_rows: Rows, start: Start, method: str, arguments: Any
) -> None:
    entry = get("method", method)
    take(start, start.columns(entry, entry.bind(arguments)))
    randomize(toy, seed=9)

    def gradient(rows: Rows) -> list[torch.Tensor]:
        chosen = toy.train_only(toy.parameters())
        step = step_of(toy, start, method, rows, **arguments)
        parts = entry(step, **entry.bind(arguments))
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
    parts = method(step_of(toy, start, method.name, toy_rows))
    assert abs(parts["retention"].item()) < 1e-9


@pytest.mark.parametrize("method", ["npo", "dpo"])
def test_nothing_is_preferred_at_the_start(
    toy: Model, toy_rows: Rows, start: Start, method: str
) -> None:
    parts = get("method", method)(step_of(toy, start, method, toy_rows), beta=0.2)
    assert parts["unlearn"].item() == pytest.approx(2 / 0.2 * log(2), abs=1e-6)


@pytest.mark.parametrize(
    ("method", "weights", "read", "referenced"),
    [
        ("npo", {"retention": 0.0}, {"unlearn"}, {"unlearn"}),
        ("npo", {"retention": 1.0}, BOTH, {"unlearn"}),
        ("npo", {"retention": 0.0, "divergence": 1.0}, BOTH, BOTH),
        ("dpo", {"retention": 0.0}, {"unlearn", "alternative"}, {"unlearn"}),
        ("alternative_descent", {"retention": 0.0}, {"alternative"}, set()),
        ("alternative_descent", {}, {"alternative", "retention"}, set()),
        ("ascent_plus_kl_divergence", {}, BOTH, {"retention"}),
    ],
)
def test_weight_zero_reads_nothing(
    toy: Model, toy_rows: Rows, start: Start, method: str, weights: Any, read: Any, referenced: Any
) -> None:
    entry, seen = get("method", method), set[str]()
    batch = PairedBatch(*(collate(toy_rows[s][:2], toy.pad) for s in ("unlearn", "retention")))
    parts = start.parts(entry, entry.bind(weights), batch, seen)
    assert seen == read
    assert ("retention" in parts) == ("retention" in read)
    held = start.reference.states
    assert {row.record.scope for row in held} == referenced
    # All rows of a scope, though the step has two: later steps come when weights have moved.
    assert all(row in held for scope in referenced for row in toy_rows[scope])
    others = [row for row in held if row not in toy_rows[row.record.scope]]
    assert len(others) == (5 if method == "dpo" else 0)


@pytest.mark.parametrize(
    ("method", "arguments"),
    [("npo", {"divergence": 1.0}), ("dpo", {"answers": "model"}), ("alternative_descent", {})],
)
def test_later_steps_take_one_forward(
    toy: Model,
    toy_rows: Rows,
    start: Start,
    method: str,
    arguments: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second step runs the model once, over all halves that the first one read."""
    entry, seen, ran = get("method", method), set[str](), list[int]()
    bound = entry.bind(arguments)
    start.columns(entry, bound)
    batch = PairedBatch(*(collate(toy_rows[s], toy.pad) for s in ("unlearn", "retention")))
    first = start.parts(entry, bound, batch, seen)
    taken = Forward.hidden_states
    monkeypatch.setattr(
        Forward, "hidden_states", lambda own, one: ran.append(len(one)) or taken(own, one)
    )
    second = start.parts(entry, bound, batch, seen)
    assert ran == [5 * len(seen)]
    for name, part in first.items():
        torch.testing.assert_close(second[name], part, rtol=1e-9, atol=1e-9)


def test_reference_read_late_is_refused(toy: Model, toy_rows: Rows, start: Start) -> None:
    for name in ("unlearn", "retention", "alternative"):
        step = step_of(toy, start, "dpo", toy_rows, read={"unlearn"})
        with pytest.raises(KnowUndoError, match="first step"):
            getattr(step.reference, name)


def test_reference_of_alternatives_is_the_memorized_model_on_them(
    toy: Model, toy_rows: Rows, start: Start
) -> None:
    """Two methods with other answers to the same questions share a start, and mix nothing up."""
    entry = get("method", "dpo")
    made = [start.columns(entry, entry.bind({"answers": a})) for a in ("unknown", "refusal")]
    wanted = [
        [-naive_ce(toy, row) * row.answer_length for row in columns["alternative"].values()]
        for columns in made
    ]
    for columns, nll in zip(made, wanted, strict=True):
        step = Step(
            Forward(toy),
            PairedBatch(*(collate(toy_rows[s], toy.pad) for s in ("unlearn", "retention"))),
            reference=lambda: start.reference,
            columns=columns,
        )
        found = step.reference.alternative.nll
        torch.testing.assert_close(-found, torch.stack(nll), rtol=1e-9, atol=1e-9)
    randomize(toy, seed=9)
    torch.testing.assert_close(step.reference.alternative.nll, -torch.stack(nll))


def test_what_is_held_does_not_depend_on_what_else_is(toy: Model, toy_rows: Rows) -> None:
    """Bit for bit: rows are taken in the same batches, whichever of them are wanted."""
    kept = {scope: toy_rows[scope] for scope in ("retention", "general")}
    some, every = (Start(toy, toy_rows["unlearn"], kept, seed=0).reference for _ in range(2))
    some.hold(toy_rows["retention"])
    every.hold(every.rows)
    assert set(some.states) == set(toy_rows["retention"])
    assert len(every.states) == 15
    for row, states in some.states.items():
        assert torch.equal(states, every.states[row])


@pytest.mark.parametrize("beta", [0, -1.0])
@pytest.mark.parametrize("method", ["npo", "dpo"])
def test_hyper_parameters_out_of_range_are_refused(method: str, beta: float) -> None:
    with pytest.raises(BadInput, match=r"beta: .*greater than 0"):
        get("method", method).bind({"beta": beta})
    with pytest.raises(BadInput, match=r"retention: .*greater than or equal to 0"):
        get("method", method).bind({"retention": -1.0})


def test_reference_is_no_second_model(toy: Model, start: Start) -> None:
    before = {id(parameter) for parameter in toy.net.parameters()}
    take(start)
    reference = start.reference
    assert {id(parameter) for parameter in toy.net.parameters()} == before
    held = sum(states.untyped_storage().nbytes() // 8 for states in reference.states.values())
    assert 0 < held < sum(p.numel() for p in toy.net.parameters())
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
        model = Model(toy_base, Adaptation(kind, rank=2), options=LoadingOptions(dtype="float64"))
        rows = encode(records("unlearn", "train", 4), model.tokenizer)
        method = get("method", "gradient_ascent")

        def loss(batch: PairedBatch, model: Model = model, method: Any = method) -> Any:
            return method(Step(Forward(model), batch, reference=lambda: None))  # type: ignore[arg-type, return-value]

        train(
            model,
            paired(rows, rows, size=size, epochs=1, seed=0, pad=model.pad),
            loss,
            model.parameters(),
            TrainingSettings(
                lr=1e-2,
                seed=0,
                accumulation=accumulation,
                schedule="constant",
                warmup=0.0,
                max_grad_norm=1e9,
            ),
        )
        ends.append(model.state())
    before = Model(
        toy_base, Adaptation(kind, rank=2), options=LoadingOptions(dtype="float64")
    ).state()
    assert any(not torch.equal(before[name], ends[0][name]) for name in before)
    for name in before:
        moved = [end[name] - before[name] for end in ends]
        torch.testing.assert_close(moved[0], moved[1], rtol=1e-4, atol=1e-9)
