"""RR against its formula, and its schedule."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from conftest import randomize, records
from knowundo.data.batches import PairedBatch, collate
from knowundo.data.encoded import Encoded
from knowundo.data.encoding import encode
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from knowundo.registry import get
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import unlearn

Rows = dict[str, list[Encoded]]


def hidden(model: Model, row: Encoded) -> torch.Tensor:
    """After the first layer, of one unpadded row, [answer tokens, hidden]."""
    output = model.net(input_ids=torch.tensor([row.ids]), output_hidden_states=True)
    found: torch.Tensor = output.hidden_states[1][0, row.answer_from - 1 : -1]
    return found


@pytest.mark.parametrize("half", [0.0, 0.3])
def test_loss_is_its_formula(toy: Model, toy_rows: Rows, half: float) -> None:
    entry, read = get("method", "rr"), set[str]()
    bound = entry.bind({"layer": 0, "alpha": 7.0})
    start = Start(toy, toy_rows["unlearn"], {"retention": toy_rows["retention"]}, seed=0)
    batch = PairedBatch(*(collate(toy_rows[s], toy.pad) for s in ("unlearn", "retention")))
    before = {row: hidden(toy, row).detach() for rows in toy_rows.values() for row in rows}
    with torch.no_grad():  # the reference is taken, as in the first step of a training
        start.parts(entry, bound, batch, read)
    randomize(toy, seed=9)
    found = start.parts(entry, bound, batch, read, state={"half": half})

    def mean(values: Any, scope: str) -> torch.Tensor:
        return torch.stack([values(row).mean() for row in toy_rows[scope]]).mean()

    def cosines(row: Encoded) -> torch.Tensor:
        now, old = hidden(toy, row), before[row]
        values = (now * old).sum(-1) / (now.square().sum(-1) * old.square().sum(-1)).sqrt()
        return torch.where(values > 0, values, 0.0)

    def distances(row: Encoded) -> torch.Tensor:
        return (hidden(toy, row) - before[row]).square().sum(-1).sqrt()

    wanted = 7 * (1 - half) * mean(cosines, "unlearn")
    torch.testing.assert_close(found["unlearn"], wanted, rtol=1e-6, atol=1e-9)
    wanted = 7 * half * mean(distances, "retention")
    torch.testing.assert_close(found["retention"], wanted, rtol=1e-6, atol=1e-9)


def test_training_makes_unlearn_rows_orthogonal_to_what_they_were(toy_base: str) -> None:
    model = Model(toy_base, Adaptation("lora", 8, 16), options=LoadingOptions(dtype="float64"))
    rows = {s: encode(records(s, "train", 5), model.tokenizer) for s in ("unlearn", "retention")}
    start = Start(model, rows["unlearn"], rows, seed=0)
    settings = UnlearnSettings("rr", epochs=40, batch_size=5, accumulation=1, lr=1e-2)
    done = unlearn(start, settings)
    first, last = done.curve[0]["parts"], done.curve[-1]["parts"]
    assert first["unlearn"] == pytest.approx(10.0)
    assert last["unlearn"] < 0.2 * first["unlearn"]
    assert done.facts["state"] == {"half": 0.5}
