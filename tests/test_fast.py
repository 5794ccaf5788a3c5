"""Every fast way against the plain one: the same numbers, for less."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    MistralConfig,
    Qwen2Config,
)

from conftest import randomize, records
from knowundo.data.batches import PairedBatch, collate, paired, shuffled
from knowundo.data.encoded import Encoded
from knowundo.data.encoding import encode
from knowundo.localization.gradients import mean_gradients
from knowundo.localization.noise import noisy_copies
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.base import base_path
from knowundo.modeling.fast import chunked_logits as vocabulary
from knowundo.modeling.fast import prefix_cache as lower
from knowundo.modeling.fast.microbatches import micro_batches
from knowundo.modeling.fast.prefix_cache import layers_of, lowest, make_prefix_cache
from knowundo.modeling.forward import Forward, hidden_states
from knowundo.modeling.half import Half
from knowundo.modeling.head import live_head
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from knowundo.modeling.padded import all_hidden_states
from knowundo.registry import entries
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import unlearn

Rows = dict[str, list[Encoded]]


def gradients(model: Model, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    loss.backward()
    found = {n: p.grad for n, p in model.parameters().items() if p.grad is not None}
    model.net.zero_grad()
    return found


def near(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert any(bool(value.any()) for value in one.values())
    for name, value in one.items():
        # transformers' RMSNorm works in float32 whatever the dtype
        torch.testing.assert_close(value, other[name], rtol=1e-4, atol=1e-6, msg=name)


# Packing


def tiny(folder: Path, kind: str) -> str:
    """A random model of another family, with the embedded tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(base_path("embedded"))
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 40, "initializer_range": 0.2,
        "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    config: Any
    if kind == "gpt2":
        config = GPT2Config(n_embd=24, n_layer=2, n_head=2, **shape)
    elif kind == "qwen2":
        config = Qwen2Config(num_key_value_heads=1, **shape)
    elif kind == "mistral":
        config = MistralConfig(num_key_value_heads=1, sliding_window=4, **shape)
    else:
        own = {"hidden_size": 24, "num_hidden_layers": 2, "vocab_size": len(tokenizer)}
        config = AutoConfig.for_model(kind, n_head=2, **own)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("kind", "packed"),
    [("qwen2", True), ("mistral", True), ("gpt2", True), ("bloom", False), ("mamba", False)],
)
def test_rows_see_only_themselves(tmp_path: Path, kind: str, packed: bool) -> None:
    """Grouped heads, a sliding window, learned positions; ALiBi and a recurrence cannot be packed.

    Whichever way is taken, each row's states are those that it has alone.
    """
    model = Model(tiny(tmp_path, kind), Adaptation("full"), options=LoadingOptions(dtype="float64"))
    rows = encode(records("unlearn", "train", 5), model.tokenizer)
    assert model.capabilities.packing is packed
    with torch.no_grad():
        together = hidden_states(model, collate(rows, model.pad))
        alone = [
            all_hidden_states(model, b := collate([r], model.pad))[0][b.positions] for r in rows
        ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_packed_gradients_are_the_padded_ones(
    toy: Model, toy_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = collate(toy_rows["unlearn"], toy.pad)

    def found() -> dict[str, torch.Tensor]:
        toy.train_only(toy.parameters())
        half = Half(batch, hidden_states(toy, batch), live_head(toy))
        return gradients(toy, half.mean_nll.mean())

    assert toy.capabilities.packing
    packed = found()
    monkeypatch.setitem(vars(toy.capabilities), "packing_window", 0)
    near(packed, found())


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_what_rows_begin_with_alike_is_computed_once(
    toy_base: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Noisy copies, a row that is the beginning of another, and one that is there twice."""
    model = Model(
        toy_base, Adaptation(kind, rank=2, alpha=4), options=LoadingOptions(dtype="float64")
    )
    if kind == "lora":
        randomize(model)
    rows = encode(records("unlearn", "train", 4), model.tokenizer)
    rows += noisy_copies(rows[1:], copies=3, vocabulary=300, seed=0)
    rows += [replace(rows[3], ids=rows[3].ids[:-4], tail=0), rows[2]]
    batch = collate(rows, model.pad)
    beginnings = {row.ids[:end] for row in rows for end in range(1, len(row.ids) + 1)}
    assert len(batch.filled) == len(beginnings) < 0.5 * int(batch.mask.sum())
    seen = list[int]()
    decoder: Any = model.causal_lm().get_decoder()  # type: ignore[operator]
    decoder.layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))

    def found() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        model.train_only(model.parameters())
        half = Half(batch, hidden_states(model, batch), live_head(model))
        return half.states.detach(), gradients(model, half.mean_nll.mean())

    assert model.capabilities.packing
    states, packed = found()
    assert seen[-1] == len(beginnings)
    monkeypatch.setitem(vars(model.capabilities), "packing_window", 0)
    plain, padded = found()
    torch.testing.assert_close(states, plain, rtol=1e-5, atol=1e-6)
    near(packed, padded)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rounding_is_no_reason_to_pad(dtype: str) -> None:
    model = Model("embedded", options=LoadingOptions(dtype=dtype))
    assert model.capabilities.packing
    rows = encode(records("unlearn", "train", 5), model.tokenizer)
    batch = collate(rows, model.pad)
    with torch.no_grad():
        packed = hidden_states(model, batch).float()
        padded = all_hidden_states(model, batch).flatten(0, 1)[batch.positions].float()
    assert float((packed - padded).norm() / padded.norm()) < (1e-5 if dtype == "float32" else 0.03)


def test_eager_attention_is_left_alone(toy_base: str, toy_rows: Rows) -> None:
    model = Model(toy_base, options=LoadingOptions(dtype="float64", attention="eager"))
    assert not model.capabilities.packing
    assert model.causal_lm().config._attn_implementation == "eager"  # type: ignore[union-attr]


def test_attention_that_is_not_told_is_found_out(
    toy: Model, toy_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that loses the packing on the way would let rows see each other."""
    decoder = toy.causal_lm().get_decoder()  # type: ignore[operator]
    forward = decoder.forward

    def lost(*, packing: Any = None, **rest: Any) -> Any:
        return forward(**rest)

    monkeypatch.setattr(decoder, "forward", lost)
    assert not toy.capabilities.packing


# Pieces


@pytest.mark.parametrize("tokens", [1, 20, 60, 10**6])
@pytest.mark.parametrize("rows", [None, 1, 2])
@pytest.mark.parametrize("retained", [None, 2, 4])
@pytest.mark.parametrize("shared", [True, False])
def test_pieces_hold_every_row_once_for_its_share(
    toy: Model, toy_rows: Rows, tokens: int, rows: int | None, retained: int | None, shared: bool
) -> None:
    batch = paired(
        toy_rows["unlearn"], toy_rows["retention"], size=4, epochs=1, seed=0, pad=toy.pad,
        retained=retained,
    )[0]  # fmt: skip
    made = micro_batches(batch, tokens=tokens, rows=rows, shared=shared)
    for half in ("unlearn", "retention"):
        whole: list[Encoded] = getattr(batch, half).encoded
        there = [getattr(piece, half).encoded for piece in made]
        assert all(getattr(piece, half).whole == whole for piece in made)
        assert sorted(row.record.id for part in there for row in part) == sorted(
            row.record.id for row in whole
        )
        if rows is not None and retained is None:
            assert all(len(part) <= rows for part in there)
    for piece in made if retained is None else []:
        held = [*piece.unlearn.encoded, *piece.retention.encoded]
        there = len(collate(held, toy.pad).filled) if shared else sum(len(r.ids) for r in held)
        assert there <= tokens or len(held) == 2


@pytest.mark.parametrize(("unlearn", "retention"), [(8, 12), (5, 3), (7, 73)])
def test_pieces_of_unequal_halves_hold_few_rows(toy: Model, unlearn: int, retention: int) -> None:
    """Whatever divides their numbers: of 7 and 73 rows, none but 7 · 1 and 73 · 1 does."""
    row = encode(records("unlearn", "train", 1), toy.tokenizer)[0]
    halves = [
        collate([replace(row, ids=tuple(range(n, n + 12))) for n in range(count)], toy.pad)
        for count in (unlearn, retention)
    ]
    made = micro_batches(PairedBatch(*halves), tokens=1)
    least, most = sorted((unlearn, retention))
    assert len(made) == least
    assert {min(len(p.unlearn), len(p.retention)) for p in made} == {1}
    assert max(max(len(p.unlearn), len(p.retention)) for p in made) == -(-most // least)


@torch.no_grad()
def test_means_of_pieces_add_up(toy: Model, toy_rows: Rows) -> None:
    """Over rows and over tokens, of each half of its own number of rows."""
    half = collate(toy_rows["unlearn"], toy.pad)
    sums = {"rows": 0.0, "tokens": 0.0}
    made = micro_batches(half, tokens=1)
    assert len(made) == len(half) > 1
    for batch, weight in [(half, -1.0), *((piece, 1.0) for piece in made)]:
        own = Half(batch, hidden_states(toy, batch), live_head(toy))
        over_tokens = own.by_token(lambda logits: (logits.logsumexp(-1),))[0]
        sums["rows"] += weight * float(own.mean(own.mean_nll))
        sums["tokens"] += weight * float(own.mean(over_tokens, over="tokens"))
        if weight < 0:
            assert float(own.mean(own.mean_nll)) == pytest.approx(float(own.mean_nll.mean()))
            assert float(own.mean(over_tokens, over="tokens")) == pytest.approx(
                float(over_tokens.mean())
            )
    assert sums == {"rows": pytest.approx(0, abs=1e-5), "tokens": pytest.approx(0, abs=1e-5)}


def test_pieces_are_as_few_as_can_be_and_nearly_even(toy: Model) -> None:
    """Ten rows of 12 tokens in pieces of at most 50: not 4, 4 and 2."""
    rows = encode(records("unlearn", "train", 1), toy.tokenizer)
    batch = collate([replace(rows[0], ids=tuple(range(n, n + 12))) for n in range(10)], toy.pad)
    assert sorted(len(piece) for piece in micro_batches(batch, tokens=50)) == [3, 3, 4]
    same, length = collate(rows * 5, toy.pad), len(rows[0].ids)
    assert (
        len(micro_batches(same, tokens=2 * length, shared=True)) == 1
    )  # four of them count a quarter
    assert len(micro_batches(same, tokens=2 * length)) == 3


@pytest.mark.parametrize("limit", [64, 256])
@pytest.mark.parametrize("common", [0, 23, 40, 75])
@pytest.mark.parametrize("count", [1, 6, 16])
def test_pieces_keep_to_the_limit_where_both_halves_begin_alike(
    toy: Model, count: int, common: int, limit: int
) -> None:
    """A template's tokens before each row of both halves."""
    row = encode(records("unlearn", "train", 1), toy.tokenizer)[0]
    template = range(10_000, 10_000 + common)
    rows = [
        [replace(row, ids=(*template, *range(n, n + 10 + 5 * half))) for n in range(count)]
        for half in (0, 1)
    ]
    batch = PairedBatch(*(collate(half, toy.pad) for half in rows))
    made = micro_batches(batch, tokens=limit, shared=True)
    for piece in made:
        held = [*piece.unlearn.encoded, *piece.retention.encoded]
        assert len(collate(held, toy.pad).filled) <= limit or len(held) == 2
    assert len(made) <= max(count, 1)


def test_rows_have_nothing_in_common_where_tokens_are_dropped(toy_base: str) -> None:
    """Each row has its own masks in training; scored, they begin alike again."""
    model = Model(toy_base, Adaptation("lora", rank=2, alpha=4, dropout=0.5))
    rows = encode(records("unlearn", "train", 3), model.tokenizer)
    batch = collate([*rows, *rows], model.pad)
    seen = list[int]()
    layer = layers_of(model)[0]
    layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    assert model.capabilities.packing
    for training, tokens in ((True, int(batch.mask.sum())), (False, len(batch.filled))):
        model.net.train(training)
        with torch.no_grad():
            hidden_states(model, batch)
        assert seen[-1] == tokens
    assert not model.capabilities.shared_prefixes
    assert Model(toy_base, Adaptation("lora")).capabilities.shared_prefixes is True


def test_halves_that_nothing_reads_do_not_count(toy: Model, toy_rows: Rows) -> None:
    batch = PairedBatch(*(collate(toy_rows[s], toy.pad) for s in ("unlearn", "retention")))
    tokens = sum(len(row.ids) for row in toy_rows["unlearn"])
    assert len(micro_batches(batch, tokens=tokens, halves={"unlearn"})) == 1
    assert len(micro_batches(batch, tokens=tokens)) > 1


@pytest.mark.parametrize("retained", [None, 6, 3])
@pytest.mark.parametrize("method", sorted(entries("method")))
def test_unlearning_in_pieces_ends_at_the_same_weights(
    toy_base: str, method: str, retained: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps of four rows and four, six or three beside them, whole and in single rows."""
    ends, curves = [], []
    for tokens in (10**6, 1):
        monkeypatch.setattr(Model, "tokens", tokens)
        model = Model(
            toy_base, Adaptation("lora", rank=2, alpha=4), options=LoadingOptions(dtype="float64")
        )
        randomize(model)
        model.mark_initial()
        rows = {
            s: encode(records(s, "train", count), model.tokenizer)
            for s, count in (("unlearn", 4), ("retention", 6))
        }
        start = Start(
            model, rows["unlearn"], rows, seed=0, encode=lambda r, m=model: encode(r, m.tokenizer)
        )  # type: ignore[misc]
        done = unlearn(
            start,
            UnlearnSettings(
                method=method, lr=1e-3, epochs=2, batch_size=4, accumulation=1, retained=retained
            ),
        )
        ends.append({n: v - model.initial.tensors[n] for n, v in model.state().items()})
        curves.append([list(row["parts"].values()) for row in done.curve])
    assert curves[0] == [pytest.approx(parts, rel=1e-6, abs=1e-9) for parts in curves[1]]
    for name, moved in ends[0].items():
        # Adam makes a step of any gradient: where it is rounding, its sign is
        torch.testing.assert_close(moved, ends[1][name], rtol=1e-3, atol=2e-5)


def test_localizing_in_pieces_gives_the_same_gradients(
    toy: Model, toy_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = mean_gradients(toy, toy_rows["unlearn"])
    monkeypatch.setattr(Model, "tokens", 1)
    near({n: v.clone() for n, v in mean_gradients(toy, toy_rows["unlearn"]).items()}, whole)


def test_fixed_length_stays(toy: Model, toy_rows: Rows) -> None:
    batch = collate(toy_rows["unlearn"], toy.pad, length=64)
    assert all(piece.ids.shape[1] == 64 for piece in micro_batches(batch, tokens=1))


# Logits


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("portion", [1, 100, 2**22])
def test_numbers_by_token_are_those_of_all_logits(
    toy_base: str, kind: str, portion: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cross-entropy, divergence and their gradients, of a head that is trained or not."""
    monkeypatch.setattr(vocabulary, "PORTION", portion)
    monkeypatch.setattr(vocabulary, "LEAST", 1)
    model = Model(toy_base, Adaptation(kind, rank=2), options=LoadingOptions(dtype="float64"))
    if kind == "lora":
        randomize(model)
    batch = collate(encode(records("unlearn", "train", 4), model.tokenizer), model.pad)
    with torch.no_grad():
        before = Half(batch, 0.5 * hidden_states(model, batch), live_head(model))
        memorized = before.logits.log_softmax(-1)

    def found(loss: Callable[[Half], torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        model.train_only(model.parameters())
        half = Half(batch, hidden_states(model, batch), live_head(model))
        assert half.head.frozen is (kind == "lora")
        value = loss(half)
        return value.detach(), gradients(model, (value * torch.arange(1.0, 5)).sum())

    def plain_nll(half: Half) -> torch.Tensor:
        return half.per_row(cross_entropy(half.logits, batch.targets, reduction="none"))

    def plain_divergence(half: Half) -> torch.Tensor:
        now = half.logits.log_softmax(-1)
        return half.per_row((memorized.exp() * (memorized - now)).sum(-1))

    losses: list[tuple[Callable[[Half], torch.Tensor], Callable[[Half], torch.Tensor]]] = [
        (lambda half: half.mean_nll, plain_nll),
        (lambda half: half.divergence_from(before), plain_divergence),
    ]
    for fast, plain in losses:
        (value, slopes), (expected, wanted) = found(fast), found(plain)
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)
        near(slopes, wanted)
    half = Half(batch, hidden_states(model, batch), live_head(model))
    assert torch.equal(half.right, half.logits.argmax(-1) == batch.targets)


class Held:
    """A tensor that a graph holds."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


def test_no_graph_holds_numbers_of_the_vocabulary(toy: Model, toy_rows: Rows) -> None:
    head, held = live_head(toy), WeakSet[Held]()
    layer: Any = toy.causal_lm().get_output_embeddings()  # type: ignore[operator]
    weights = layer.weight.untyped_storage().data_ptr()

    def pack(tensor: torch.Tensor) -> Held:
        held.add(one := Held(tensor))
        return one

    def sizes() -> set[int]:
        gc.collect()
        own = [h.tensor for h in held if h.tensor.untyped_storage().data_ptr() != weights]
        return {size for tensor in own for size in tensor.shape}

    toy.train_only(toy.parameters())
    batch = collate(toy_rows["unlearn"], toy.pad)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda one: one.tensor):
        half = Half(batch, hidden_states(toy, batch), head)
        fast = half.mean_nll.mean()
        assert len(batch.targets) in sizes()
        assert head.vocabulary not in sizes()
        plain = cross_entropy(half.logits, batch.targets)
        assert head.vocabulary in sizes()  # what the plain way holds
    assert fast.item() > 0 < plain.item()


# The layers below a region


UPPER = "layers.1."


def upper(model: Model) -> list[str]:
    return [name for name in model.parameters() if UPPER in name]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("method", ["ascent_plus_descent", "ascent_plus_kl_divergence"])
def test_what_lies_below_a_region_is_computed_once(
    toy_base: str, method: str, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends, passes = [], []
    for held in (2**30, 0):
        monkeypatch.setattr(lower, "MOST_BYTES", held)
        model = Model(
            toy_base,
            Adaptation("lora", rank=2),
            options=LoadingOptions(dtype="float64", gradient_checkpointing=checkpointing),
        )
        randomize(model)
        model.mark_initial()
        rows = {
            s: encode(records(s, "train", count), model.tokenizer)
            for s, count in (("unlearn", 4), ("retention", 6))
        }
        count = 0

        def counted(*_: Any) -> None:
            nonlocal count
            count += 1

        layer: Any = layers_of(model)[0]
        assert model.capabilities.packing
        layer.self_attn.q_proj.register_forward_hook(counted)
        start = Start(model, rows["unlearn"], rows, seed=0)
        unlearn(
            start,
            UnlearnSettings(
                method=method, region=upper(model), lr=1e-3, epochs=6, batch_size=4, accumulation=1
            ),
        )
        assert ("forward" in vars(layer)) is checkpointing  # as it was
        assert not layers_of(model)[1]._forward_pre_hooks
        ends.append({n: v - model.initial.tensors[n] for n, v in model.state().items()})
        passes.append(count)
    near({n: ends[0][n] for n in upper(model)}, {n: ends[1][n] for n in upper(model)})
    assert passes[0] == 2 < 6 < passes[1]  # once a half, against once or more a step


@pytest.mark.parametrize("case", ["lowest layer", "dropout", "embeddings", "too much", "once"])
def test_nothing_stands_in_where_something_moves(
    toy_base: str, toy_rows: Rows, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = "full" if case == "embeddings" else "lora"
    dropout = 0.1 if case == "dropout" else 0.0
    model = Model(
        toy_base, Adaptation(kind, rank=2, dropout=dropout), options=LoadingOptions(dtype="float64")
    )
    if case == "too much":
        monkeypatch.setattr(lower, "MOST_BYTES", 1000)
    region = upper(model)
    if case == "lowest layer":
        region = list(model.parameters())
    if case == "embeddings":
        region = [*region, "model.embed_tokens.weight"]
        assert lowest(region) == 0
    if case != "once":
        assert make_prefix_cache(model, region, [toy_rows["unlearn"]]) is None
        return
    assert make_prefix_cache(model, region, [toy_rows["unlearn"]]) is not None
    rows = {s: toy_rows[s][:2] for s in ("unlearn", "retention")}
    seen: list[Any] = []
    plain = Forward.hidden_states
    monkeypatch.setattr(
        Forward, "hidden_states", lambda f, b: (seen.append(f.prefix_cache), plain(f, b))[1]
    )
    options: dict[str, Any] = {"region": region, "lr": 1e-3, "batch_size": 2, "accumulation": 1}
    unlearn(
        Start(model, rows["unlearn"], rows, seed=0),
        UnlearnSettings(method="gradient_ascent", epochs=1, **options),
    )
    assert seen == [None]


def test_rows_that_are_not_held_take_the_whole_way(toy: Model, toy_rows: Rows) -> None:
    batch = collate(toy_rows["retention"], toy.pad)
    assert toy.capabilities.packing
    plain = hidden_states(toy, batch)
    forward = Forward(toy, make_prefix_cache(toy, upper(toy), [toy_rows["unlearn"]]))
    assert forward.prefix_cache is not None
    assert torch.equal(forward.hidden_states(batch), plain)
    both = collate([*toy_rows["unlearn"], *toy_rows["retention"]], toy.pad)
    found = forward.hidden_states(both)[-len(plain) :]
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-6)


# The reference


def test_likelihoods_of_the_reference_are_computed_once_a_row(
    toy: Model, toy_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Start(toy, toy_rows["unlearn"], {"retention": toy_rows["retention"]}, seed=0)
    start.reference.hold(start.reference.rows)
    products = 0

    def head(states: torch.Tensor) -> torch.Tensor:
        nonlocal products
        products += 1
        return live_head(toy)(states)

    start.reference.head = head  # type: ignore[assignment]
    for batch in shuffled(toy_rows["unlearn"], 2, 3, 0, toy.pad):
        found = start.reference.half(batch).nll
        with torch.no_grad():
            plain = Half(batch, hidden_states(toy, batch), live_head(toy)).nll
        torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-6)
    assert products == len(toy_rows["unlearn"])
