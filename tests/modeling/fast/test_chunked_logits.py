"""Numbers by token against those of all logits at once."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import pytest
import torch
from gradients_of import gradients, near
from torch.nn.functional import cross_entropy

from conftest import randomize, records
from knowundo.data.batches import collate
from knowundo.data.encoded import Encoded
from knowundo.data.encoding import encode
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.fast import chunked_logits as vocabulary
from knowundo.modeling.forward import hidden_states
from knowundo.modeling.half import Half
from knowundo.modeling.head import live_head
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model

Rows = dict[str, list[Encoded]]


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
        (value, found_gradients), (expected, wanted) = found(fast), found(plain)
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)
        near(found_gradients, wanted)
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
