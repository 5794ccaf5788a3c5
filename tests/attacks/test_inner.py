"""Attacks on what is inside: states of inner layers, and the weights of another base."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from attacks.attacking import Rows, under_attack
from knowundo.attacks.logit_lens import logit_lens
from knowundo.attacks.merging import merging
from knowundo.errors import BadInput
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.model import Model


def test_the_lens_of_the_last_layer_is_the_model(toy: Model, toy_rows: Rows) -> None:
    attacked = under_attack(toy, toy_rows, generated_splits=("train",))
    logit_lens(attacked, layers=(0, 1))
    attacked.score("whole")
    last, whole = (attacked.tables[name]["mean_nll"] for name in ("layer 1", "whole"))
    torch.testing.assert_close(torch.tensor(last), torch.tensor(whole))
    # Of the first layer, by transformers' own hidden states.
    row = toy_rows["unlearn"][2]
    inner = toy.causal_lm()
    states = toy.net(input_ids=torch.tensor([row.ids]), output_hidden_states=True).hidden_states[1]
    logits = inner.lm_head(inner.model.norm(states))[0, row.answer_from - 1 : -1].log_softmax(-1)
    truth = torch.tensor(row.ids[row.answer_from :])
    expected = -logits[torch.arange(len(truth)), truth].mean()
    table = attacked.tables["layer 0"].set_index("id")
    assert table.loc[row.record.id, "mean_nll"] == pytest.approx(expected.item(), rel=1e-4)
    assert attacked.tables["layer 0"]["exact_match"].isna().all()


def test_a_layer_that_is_not_there_is_refused(toy: Model, toy_rows: Rows) -> None:
    with pytest.raises(BadInput, match="no layer 2; there are 0 to 1"):
        logit_lens(under_attack(toy, toy_rows), layers=(2,))


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_the_change_is_put_on_the_other_base(
    toy_base: str, toy_rows: Rows, tmp_path: Path, kind: str
) -> None:
    model = Model(toy_base, Adaptation(kind))  # type: ignore[arg-type]
    # Another finetune of the base: all weights a little larger.
    other = Model(toy_base, Adaptation("full"))
    with torch.no_grad():
        for parameter in other.net.parameters():
            parameter.mul_(1.1)
    other.net.save_pretrained(tmp_path / "other")
    attacked = under_attack(model, toy_rows)
    merging(attacked, model=str(tmp_path / "other"))  # nothing was changed: it is the other model
    whole = under_attack(other, toy_rows)
    whole.score("whole")
    torch.testing.assert_close(
        torch.tensor(attacked.tables["other"]["mean_nll"]),
        torch.tensor(whole.tables["whole"]["mean_nll"]),
        rtol=1e-4,
        atol=1e-5,
    )


def test_another_base_is_refused(toy: Model, toy_rows: Rows, tmp_path: Path) -> None:
    attacked = under_attack(toy, toy_rows)
    with pytest.raises(BadInput, match="no such folder"):
        merging(attacked, model=str(tmp_path / "none"))
