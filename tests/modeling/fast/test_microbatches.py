"""Micro-batches against the whole batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from gradients_of import near

from conftest import randomize, records
from knowundo.data.batches import PairedBatch, collate, paired
from knowundo.data.encoded import Encoded
from knowundo.data.encoding import encode
from knowundo.localization.gradients import mean_gradients
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.fast.microbatches import micro_batches
from knowundo.modeling.fast.prefix_cache import layers_of
from knowundo.modeling.forward import hidden_states
from knowundo.modeling.half import Half
from knowundo.modeling.head import live_head
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from knowundo.registry import entries
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import unlearn

Rows = dict[str, list[Encoded]]


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
# The loss of `rr` has its maximum at the memorized model: its first gradients are rounding, of
# which Adam makes whole steps. It is tried away from the memorized model, as every method is.
@pytest.mark.parametrize("method", sorted(entries("method").keys() - {"rr"}))
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
