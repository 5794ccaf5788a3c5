"""MemFlex's knowledge localization."""

from __future__ import annotations

import numpy as np

from knowundo.errors import BadInput
from knowundo.localization.gradients import Measured
from knowundo.registry import localizer


@localizer
def memflex(
    gradients: Measured,
    *,
    mu: float | None = None,
    sigma: float | None = None,
    cosine_quantile: float = 0.5,
    magnitude_quantile: float = 0.5,
) -> set[str]:
    """Tensors whose unlearn gradient is large and points elsewhere (Tian et al. 2024, section 4.1).

    A tensor is in the region when cos(g_unlearn, g_retention) < mu and mean|g_unlearn| > sigma.

    Args:
        gradients: Cosine and magnitude of each tensor.
        mu: Absolute threshold of the cosine. If `None`, `cosine_quantile` counts.
        sigma: Absolute threshold of the magnitude. If `None`, `magnitude_quantile` counts.
        cosine_quantile: Share of tensors under the cosine's threshold.
        magnitude_quantile: Share of tensors under the magnitude's threshold.

    Raises:
        BadInput: No tensor passes, or a quantile is not between 0 and 1.
    """
    for name, share in (("cosine", cosine_quantile), ("magnitude", magnitude_quantile)):
        if not 0 <= share <= 1:
            raise BadInput(f"localize.memflex: {name}_quantile: {share} is not between 0 and 1")
    # B and A of a LoRA have gradients of different sizes, so that each kind has its own quantiles.
    kinds: dict[str, list[str]] = {}
    for name in gradients.names:
        kinds.setdefault("lora_B" if "lora_B" in name else "other", []).append(name)
    region = set()
    for names in kinds.values():
        cosines = np.array([gradients.cosine(name) for name in names])
        magnitudes = np.array([gradients.magnitude(name) for name in names])
        low = np.quantile(cosines, cosine_quantile) if mu is None else mu
        high = np.quantile(magnitudes, magnitude_quantile) if sigma is None else sigma
        chosen = (cosines < low) & (magnitudes > high)
        region |= {name for name, inside in zip(names, chosen, strict=True) if inside}
    if not region:
        raise BadInput(
            "localize.memflex: no tensor passes the thresholds; raise mu or lower sigma "
            "(or use the quantiles)"
        )
    return region
