"""Causal tracing, by layer."""

from __future__ import annotations

import torch
from pydantic import PositiveFloat, PositiveInt

from knowundo.localization.patching import traced
from knowundo.localization.probing import Probe, spread
from knowundo.modeling.regions import place
from knowundo.registry import localizer


@localizer(needs=("model",))
def causal_tracing(
    probe: Probe, *, noise: PositiveFloat = 3.0, rows: PositiveInt = 64
) -> dict[str, float]:
    """How much of the unlearn answers a layer's clean state restores, minus retention's.

    Meng et al. 2022 (ROME), arXiv:2202.05262: the subject's embeddings are corrupted, and the
    clean state at its last token is put back after one layer. What is restored is the share of the
    loss that corruption costs. Every tensor of a layer has the layer's score, and those outside
    of layers the lowest.

    Args:
        probe: Model and rows.
        noise: Standard deviation of the noise, in those of the embeddings.
        rows: At most so many rows of each scope.
    """
    effects = []
    for encoded in (probe.unlearn, probe.retention):
        generator = torch.Generator().manual_seed(0)
        chosen = spread(encoded, rows)
        losses = torch.stack([traced(probe.model, r, noise, generator) for r in chosen]).sum(0)
        clean, corrupted, restored = losses[0], losses[1], losses[2:]
        effects.append((corrupted - restored) / (corrupted - clean).clamp_min(1e-12))
    score = (effects[0] - effects[1]).tolist()
    layers = {name: place(name)["layer"] for name in probe.names}
    return {n: min(score) if at is None else score[at] for n, at in layers.items()}
