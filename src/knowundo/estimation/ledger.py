"""Bytes that are held on a device, counted operation by operation without computing them."""

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


class Ledger(TorchDispatchMode):
    """Bytes of the tensors alive, by kind: fake or real ones, made while this is entered.

    `most` is the most there ever was of each kind, `peak` the most of all at one time. A tensor of
    the vocabulary's width counts under logits, a parameter's gradient under gradients.
    """

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary, self.kind = vocabulary, "activations"
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.peak = 0
        self._held: Any = WeakIdKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                wide = tensor.ndim > 1 and tensor.shape[-1] == self.vocabulary
                self._see(tensor, "logits" if wide else self.kind)
        return result

    def _see(self, tensor: torch.Tensor, kind: str) -> None:
        storage = tensor.untyped_storage()
        if storage in self._held:
            return
        size = storage.nbytes()
        entry = self._held[storage] = [kind, size]
        finalize(storage, self._drop, entry).atexit = False
        self._add(kind, size)

    def _add(self, kind: str, size: int) -> None:
        self.now[kind] += size
        self.most[kind] = max(self.most[kind], self.now[kind])
        self.peak = max(self.peak, self.now.total())

    def _drop(self, entry: list[Any]) -> None:
        self.now[entry[0]] -= entry[1]

    def hold(self, kind: str, tensors: Iterable[torch.Tensor]) -> None:
        """Count tensors under a kind, those that are counted under another already too."""
        for tensor in tensors:
            self._see(tensor, kind)
            entry = self._held[tensor.untyped_storage()]
            if entry[0] != kind:
                self.now[entry[0]] -= entry[1]
                entry[0] = kind
                self._add(*entry)

    @contextmanager
    def counting(self, kind: str) -> Iterator[None]:
        """Whatever is made meanwhile counts under this kind."""
        before, self.kind = self.kind, kind
        yield
        self.kind = before
