"""Losses on hidden states against their formulas, row by row in float64 on unpadded rows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from conftest import randomize, records
from knowundo.data.batches import PairedBatch, collate
from knowundo.data.encoded import Encoded
from knowundo.data.encoding import encode
from knowundo.errors import BadInput
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.fast.prefix_cache import layers_of
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from knowundo.registry import get
from knowundo.unlearning.hidden_states import chosen_layer
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import unlearn

Rows = dict[str, list[Encoded]]

CASES: list[tuple[str, dict[str, Any]]] = [
    ("rmu", {}),
    ("rmu", {"layer": 0, "steering": 6.5, "alpha": 3.0}),
    ("rmu", {"alpha": 0.0}),
    ("adaptive_rmu", {}),
    ("adaptive_rmu", {"layer": 0, "beta": 3.0, "alpha": 0.5}),
]


@pytest.fixture
def start(toy: Model, toy_rows: Rows) -> Start:
    return Start(toy, toy_rows["unlearn"], {"retention": toy_rows["retention"]}, seed=4)


def paired_rows(model: Model, rows: Rows) -> PairedBatch:
    return PairedBatch(*(collate(rows[s], model.pad) for s in ("unlearn", "retention")))


def hidden(model: Model, row: Encoded, layer: int) -> torch.Tensor:
    """One unpadded row through the whole model, [answer tokens, hidden]."""
    output = model.net(input_ids=torch.tensor([row.ids]), output_hidden_states=True)
    found: torch.Tensor = output.hidden_states[layer + 1][0, row.answer_from - 1 : -1]
    return found


@pytest.mark.parametrize(("method", "given"), CASES)
def test_loss_equals_formula(
    toy: Model, toy_rows: Rows, start: Start, method: str, given: dict[str, Any]
) -> None:
    entry, batch, read = get("method", method), paired_rows(toy, toy_rows), set[str]()
    bound = entry.bind(given)
    both = {
        row: hidden(toy, row, 0).detach() for s in ("unlearn", "retention") for row in toy_rows[s]
    }
    with torch.no_grad():  # the reference is taken, as in the first step of a training
        start.parts(entry, bound, batch, read)
    randomize(toy, seed=9)
    found = start.parts(entry, bound, batch, read)

    drawn = torch.rand(24, generator=torch.Generator().manual_seed(4))
    unit = drawn / drawn.square().sum().sqrt()
    terms = []
    for row in toy_rows["unlearn"]:
        now = hidden(toy, row, 0)
        if method == "rmu":
            wanted = (bound["steering"] * unit).expand(now.shape)
        else:
            wanted = bound["beta"] * torch.stack(
                [h.square().sum().sqrt() * unit for h in both[row]]
            )
        terms.append(((now - wanted) ** 2).mean())
    torch.testing.assert_close(found["unlearn"], torch.stack(terms).mean(), rtol=1e-6, atol=1e-9)
    assert set(found) == ({"unlearn", "retention"} if bound["alpha"] else {"unlearn"})
    if bound["alpha"]:
        kept = [((hidden(toy, row, 0) - both[row]) ** 2).mean() for row in toy_rows["retention"]]
        wanted = bound["alpha"] * torch.stack(kept).mean()
        torch.testing.assert_close(found["retention"], wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("method", ["rmu", "adaptive_rmu"])
def test_retention_is_at_rest_at_the_start(
    toy: Model, toy_rows: Rows, start: Start, method: str
) -> None:
    entry = get("method", method)
    parts = start.parts(entry, entry.bind({}), paired_rows(toy, toy_rows), set())
    assert parts["retention"].item() == pytest.approx(0, abs=1e-12)
    assert parts["unlearn"].item() > 0
    assert set(start.reference.layers) == {0}
    assert not start.reference.states  # no final states, and no logits


@pytest.mark.parametrize(("layers", "wanted"), [(32, 7), (16, 3), (24, 5), (2, 0), (1, 0)])
def test_the_layer_is_a_quarter_of_the_way_up(
    layers: int, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "knowundo.unlearning.hidden_states.layers_of", lambda model: [None] * layers
    )
    assert chosen_layer(SimpleNamespace(model=None), None) == wanted  # type: ignore[arg-type]
    assert chosen_layer(SimpleNamespace(model=None), 4) == 4  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["rmu", "adaptive_rmu"])
def test_training_steers_what_must_go_and_keeps_the_rest(toy_base: str, method: str) -> None:
    """Both parts fall or stay small, micro-batches and all, and layers above do not move."""
    model = Model(toy_base, Adaptation("lora", 8, 16), options=LoadingOptions(dtype="float64"))
    rows = {s: encode(records(s, "train", 5), model.tokenizer) for s in ("unlearn", "retention")}
    start, before = Start(model, rows["unlearn"], rows, seed=0), model.state()
    done = unlearn(start, UnlearnSettings(method, epochs=40, batch_size=5, accumulation=1, lr=1e-2))
    first, last = done.curve[0]["parts"], done.curve[-1]["parts"]
    assert last["unlearn"] < 0.5 * first["unlearn"]
    assert last["retention"] < 0.5 * first["unlearn"]
    assert done.facts["reads"] == ["retention", "unlearn"]
    moved = {n for n, value in model.state().items() if not torch.equal(value, before[n])}
    assert moved
    assert all("layers.0." in name for name in moved)
    assert len(layers_of(model)) == 2


def test_a_region_above_the_layer_is_refused(toy: Model, start: Start) -> None:
    region = [name for name in toy.parameters() if "layers.1." in name]
    settings = UnlearnSettings("rmu", 1, 5, 1, lr=1e-3, arguments={"layer": 0}, region=region)
    with pytest.raises(BadInput, match="layer 0, which do not depend on what is trained"):
        unlearn(start, settings)
