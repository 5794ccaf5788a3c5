"""Layers and modules that are named by hand."""

from __future__ import annotations

from knowundo.errors import BadInput
from knowundo.localization.gradients import Measured
from knowundo.modeling.regions import place
from knowundo.registry import localizer


@localizer
def layers(
    measured: Measured, *, numbers: list[int] | None = None, modules: list[str] | None = None
) -> set[str]:
    """Tensors of the named layers and modules; nothing is searched.

    Args:
        measured: Names of the tensors.
        numbers: Of the layers, from 0. If `None`, the upper half of them.
        modules: Names of the modules, such as `down_proj`. If `None`, all.

    Raises:
        BadInput: No tensor is in such a layer and module.
    """
    places = {name: place(name) for name in measured.names}
    there = sorted({at["layer"] for at in places.values() if at["layer"] is not None})
    wanted = there[len(there) // 2 :] if numbers is None else numbers
    region = {
        name
        for name, at in places.items()
        if at["layer"] in wanted and (modules is None or at["module"] in modules)
    }
    if not region:
        known = sorted({at["module"] for at in places.values()})
        raise BadInput(
            f"localize.layers: no tensor is in layers {wanted} and modules {modules}; there are "
            f"layers {there} and modules {', '.join(known)}"
        )
    return region
