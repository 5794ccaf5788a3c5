"""Bytes that tensors take on a device, counted operation by operation without computing them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import finalize

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

MIB, GIB = 2**20, 2**30
KINDS = ("weights", "gradients", "optimizer", "activations", "logits", "copies")


class MemoryTrace(TorchDispatchMode):
    """Counts the bytes of all live tensors by kind, for fake and for real tensors.

    A tensor is counted if it is made while the trace is entered, or attributed to a kind by hand.
    A tensor as wide as the vocabulary counts as logits, a parameter's gradient as gradients.

    Attributes:
        now: bytes of each kind that are live now.
        most: the highest number of bytes that each kind ever took.
        peak: the highest number of bytes of all kinds together at one time.
    """

    def __init__(self, vocabulary: int) -> None:
        """Start with nothing counted.

        Args:
            vocabulary: width of the logits.
        """
        super().__init__()
        self.vocabulary, self.kind = vocabulary, "activations"
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.peak = 0
        # Keyed by storage and not by tensor: views share their bytes, which count once.
        self._live: Any = WeakIdKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                wide = tensor.ndim > 1 and tensor.shape[-1] == self.vocabulary
                self._count(tensor, "logits" if wide else self.kind)
        return result

    def _count(self, tensor: torch.Tensor, kind: str) -> None:
        storage = tensor.untyped_storage()
        if storage in self._live:
            return
        size = storage.nbytes()
        entry = self._live[storage] = [kind, size]
        finalize(storage, self._release, entry).atexit = False
        self._add(kind, size)

    def _add(self, kind: str, size: int) -> None:
        self.now[kind] += size
        self.most[kind] = max(self.most[kind], self.now[kind])
        self.peak = max(self.peak, self.now.total())

    def _release(self, entry: list[Any]) -> None:
        self.now[entry[0]] -= entry[1]

    def attribute(self, kind: str, tensors: Iterable[torch.Tensor]) -> None:
        """Count tensors under a kind, and move those that were counted under another one.

        Args:
            kind: one of `KINDS`.
            tensors: live tensors, fake or real.
        """
        for tensor in tensors:
            self._count(tensor, kind)
            entry = self._live[tensor.untyped_storage()]
            if entry[0] != kind:
                self.now[entry[0]] -= entry[1]
                entry[0] = kind
                self._add(*entry)

    @contextmanager
    def counting(self, kind: str) -> Iterator[None]:
        """Count every tensor that is made in the block under this kind."""
        before, self.kind = self.kind, kind
        yield
        self.kind = before


def trace_gradients(chosen: Iterable[torch.nn.Parameter], trace: MemoryTrace) -> list[Any]:
    """Attribute each parameter's gradient to gradients as soon as it is accumulated.

    Args:
        chosen: trainable parameters.
        trace: what counts.

    Returns:
        Handles of the hooks; call `remove` on each after the backward pass.
    """

    def attribute(parameter: torch.Tensor) -> None:
        if parameter.grad is not None:
            trace.attribute("gradients", [parameter.grad])

    return [parameter.register_post_accumulate_grad_hook(attribute) for parameter in chosen]
