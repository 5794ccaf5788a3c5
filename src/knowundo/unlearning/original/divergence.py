"""The divergence from the memorized model, as the public KnowUnDo code measures it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from knowundo.data.batches import Batch, collate
from knowundo.data.encoded import Encoded
from knowundo.modeling.fast.chunked_logits import full_precision
from knowundo.modeling.forward import hidden_states
from knowundo.modeling.half import Half
from knowundo.modeling.head import frozen_head, live_head
from knowundo.modeling.model import Model
from knowundo.modeling.padded import all_hidden_states
from knowundo.modeling.step import Step
from knowundo.unlearning.original.losses import soft_cross_entropy


class OriginalDivergence:
    """The memorized model beside the current one, frozen, with or without dropout in its LoRA.

    Attributes:
        soft: Measure −Σ p·log q at every position, not the divergence at the answers' tokens.
        drops: The memorized model drops inputs of its LoRA.
        states: Without dropout, the memorized model's hidden states by record id,
            [positions, hidden size].
    """

    def __init__(
        self, model: Model, memorized: Mapping[str, torch.Tensor], *, soft: bool, drops: bool
    ) -> None:
        """Take the head as it is now; the model is the memorized one.

        Args:
            model: The model that will be trained.
            memorized: What its trainable tensors are now, by name.
            soft: See the class.
            drops: See the class.
        """
        self.model, self.soft, self.drops = model, soft, drops
        self.states: dict[str, torch.Tensor] = {}
        self._memorized = memorized
        self._on_device: dict[str, torch.Tensor] = {}
        self._head = frozen_head(model)

    @torch.no_grad()
    def remember(self, rows: Sequence[Encoded], length: int) -> None:
        """Compute the memorized model's states at every position that a batch may have.

        Args:
            rows: Those that a batch may hold.
            length: Tokens that rows are padded to, at least.
        """
        if not self.soft or self.drops:  # with dropout they differ each time
            return
        length = max(length, *(len(row.ids) for row in rows))
        for row in rows:
            if row.record.id not in self.states:
                batch = collate([row], self.model.pad, length=length).to(self.model.device)
                self.states[row.record.id] = all_hidden_states(self.model, batch)[0]

    def __call__(self, step: Step) -> torch.Tensor:
        """Return the mean divergence over the step's retention rows."""
        return self._of_positions(step) if self.soft else self._of_answers(step)

    def _of_positions(self, step: Step) -> torch.Tensor:
        """Soft cross-entropy, mean over every position, question and padding too."""
        step.used.add("retention")
        batch = step.batch.retention
        with torch.no_grad():
            memorized = full_precision(self._head(self._memorized_states(batch).flatten(0, 1)))
        states = all_hidden_states(self.model, batch)
        current = full_precision(live_head(self.model)(states.flatten(0, 1)))
        # A mean over positions: a part of the batch gets its share.
        return soft_cross_entropy(current, memorized) * len(batch) / len(batch.whole)

    def _memorized_states(self, batch: Batch) -> torch.Tensor:
        if self.drops:
            with self._dropping():
                return all_hidden_states(self.model, batch)
        # States were computed at the greatest length; what is causal does not depend on it.
        longest = batch.ids.shape[1]
        return torch.stack([self.states[row.record.id][:longest] for row in batch.encoded])

    def _of_answers(self, step: Step) -> torch.Tensor:
        """KL(memorized ‖ current) at the answers, with dropout in both."""
        batch = step.batch.retention
        with self._dropping():
            states = hidden_states(self.model, batch.apart())
        reference = Half(batch, states, self._head)
        return step.retention.mean(step.retention.divergence_from(reference))

    @contextmanager
    def _dropping(self) -> Iterator[None]:
        """Within it, the model is the memorized one, its LoRA drops, and no graph is built.

        Parameters are exchanged, not overwritten: what a graph has saved of them stays as it is.
        """
        own = self.model.parameters()
        if not self._on_device:
            device = self.model.device
            self._on_device = {name: value.to(device) for name, value in self._memorized.items()}
        before = {name: own[name].data for name in self._on_device}
        dropouts = [m for name, m in self.model.net.named_modules() if "lora_dropout" in name]
        training = [module.training for module in dropouts]
        try:
            for name, value in self._on_device.items():
                own[name].data = value
            for module in dropouts:
                module.train()
            with torch.no_grad():
                yield
        finally:
            for module, mode in zip(dropouts, training, strict=True):
                module.training = mode
            for name, value in before.items():
                own[name].data = value
