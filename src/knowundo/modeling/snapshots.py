"""Copies of weights: every one of a model is taken here, counted, and named after its holder.

Who holds copies of what, at most, beside the weights themselves:

initial     the model: what a LoRA was at first, or the originals of all weights that changed
memorized   `Start`: the memorized model, all of it that any method has changed so far
best step   `EarlyStopping`: the region at the best evaluation step
best rate   the search for a learning rate: the region after its best attempt
step n      `StepKeeper`: the region after every n-th optimizer step but the last
end         the stage unlearn: the region at the end, while it writes the steps before it
before      batched scoring: all of the LoRA, while it tries whether adapters can be batched
adapter     batched scoring: all of each adapter's LoRA, until they are stacked on the device
base        attacks that change the base's weights: all of them, while they are changed

Training itself holds none, but for `gradients: sam`, which copies the region within an optimizer
step, on the device. The others are in the host's memory, which on a CPU is the model's own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from weakref import WeakSet

import torch

INITIAL, MEMORIZED, BEST_STEP, BEST_RATE = "initial", "memorized", "best step", "best rate"
END, BEFORE, ADAPTER, BASE = "end", "before", "adapter", "base"


@dataclass(eq=False)
class Snapshot:
    """A copy of some parameters. Its memory is free again when its holder drops it.

    Attributes:
        holder: Who holds it, for the count.
        tensors: By parameter name, in the host's memory.
    """

    holder: str
    tensors: dict[str, torch.Tensor]

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


class Snapshots:
    """All copies of one model's weights.

    Attributes:
        taken: How often weights were copied.
        peak: The most bytes that all copies together ever had.
    """

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._alive: WeakSet[Snapshot] = WeakSet()
        self.taken = self.peak = 0

    def take(self, holder: str, parameters: Mapping[str, torch.Tensor]) -> Snapshot:
        """Copy parameters as they are now.

        Args:
            holder: Who will hold the copy.
            parameters: By name.
        """
        snapshot = self.adopt(holder, {})
        self.extend(snapshot, parameters)
        return snapshot

    def extend(self, snapshot: Snapshot, parameters: Mapping[str, torch.Tensor]) -> None:
        """Copy those of the parameters that the snapshot does not have yet."""
        missing = [name for name in parameters if name not in snapshot.tensors]
        if not missing:
            return
        # `clone` after `cpu`: on a CPU, `cpu` alone returns the parameter's own memory.
        copies = {name: parameters[name].detach().cpu().clone() for name in missing}
        snapshot.tensors |= copies
        self.taken += 1
        self._count()

    def adopt(self, holder: str, tensors: dict[str, torch.Tensor]) -> Snapshot:
        """Take over tensors that were copied before, such as those of a checkpoint."""
        snapshot = Snapshot(holder, tensors)
        self._alive.add(snapshot)
        self._count()
        return snapshot

    def nbytes(self) -> Counter[str]:
        """Return the bytes that are held now, by holder."""
        held: Counter[str] = Counter()
        for snapshot in self._alive:
            held[snapshot.holder] += snapshot.nbytes
        return held

    def _count(self) -> None:
        self.peak = max(self.peak, self.nbytes().total())
