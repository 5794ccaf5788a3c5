"""Hidden states of the memorized model after it was trained further on the unlearn rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from knowundo.data.batches import Batch, shuffled
from knowundo.data.encoded import Encoded
from knowundo.errors import BadInput
from knowundo.modeling.forward import Forward, answer_states, hidden_states
from knowundo.modeling.half import Half
from knowundo.modeling.head import live_head, trained_head
from knowundo.modeling.model import Model
from knowundo.modeling.step import Parts
from knowundo.training.settings import TrainingSettings
from knowundo.training.trainer import train


def reinforced_states(
    model: Model, rows: Sequence[Encoded], *, epochs: int, lr: float, seed: int
) -> dict[str, torch.Tensor]:
    """Train the model further on rows and return its hidden states at their answers.

    Args:
        model: Changed in place; whoever calls this restores it.
        rows: What is trained on, and whose states are taken.
        epochs: Passes over the rows. An optimizer step has 32 rows; the first epoch warms the rate
            up, then it decays linearly, as in Wang et al. 2024, arXiv:2406.01983.
        lr: Peak learning rate.
        seed: Seed of the order of rows.

    Returns:
        By record id, [answer tokens, hidden]. The head of the memorized model makes logits of them.

    Raises:
        BadInput: All weights are trained, or the head, so that a copy of them would be needed.
        Diverged: A loss, a gradient or a weight is no longer finite.
    """
    if model.adaptation.kind != "lora" or trained_head(model):
        raise BadInput(
            "this method trains a second model, which has to be a LoRA that leaves the head as it "
            "is; set model.adaptation to lora without the head, or choose another method"
        )

    def loss(batch: Batch) -> Parts:
        batch = batch.to(model.device)
        half = Half(batch, hidden_states(model, batch), live_head(model))
        return {"reinforce": half.mean(half.mean_nll)}

    settings = TrainingSettings(
        lr=lr, seed=seed, accumulation=4, schedule="linear", warmup=1 / epochs, weight_decay=0.01
    )
    training = model.net.training
    train(model, shuffled(rows, 8, epochs, seed, model.pad), loss, model.parameters(), settings)
    model.net.eval()  # no dropout in what is frozen
    found = {row.record.id: part.clone() for row, part in answer_states(Forward(model), rows)}
    model.net.train(training)
    return found
