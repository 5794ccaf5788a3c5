"""Which modules hold the unlearn scope: take memorizing back in one of them, and look."""

from __future__ import annotations

from pydantic import PositiveInt

from knowundo.localization.probing import Probe
from knowundo.registry import localizer


@localizer(needs=("model", "base"))
def reversion(probe: Probe, *, rows: PositiveInt = 64) -> dict[str, float]:
    """How much more of the unlearn than of the retention scope one module's reversion costs.

    A module's weights are those of the base for a moment, all others stay memorized: an
    intervention on the weights, where causal tracing (Meng et al. 2022, arXiv:2202.05262)
    intervenes on activations. The score is the share of what all reversions cost the unlearn
    scope, minus that of the retention scope. One forward per module and row.

    Args:
        probe: Model and rows.
        rows: At most so many rows of each scope.
    """
    before, costs = probe.losses(rows), {}
    for module, names in probe.modules.items():
        with probe.reverted(names):
            after = probe.losses(rows)
        costs[module] = [max(one - other, 0.0) for one, other in zip(after, before, strict=True)]
    unlearn, retention = (sum(scope) or 1.0 for scope in zip(*costs.values(), strict=True))
    return {
        name: costs[module][0] / unlearn - costs[module][1] / retention
        for module, names in probe.modules.items()
        for name in names
    }
