"""How scores become a region: arguments that every localizer that scores takes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import Field

# What is chosen or left as a whole. `module`: A and B of a LoRA, or a layer's weight and bias;
# `row`: the weights of one output; `column`: those of one input; `weight`: each number.
Granularity = Literal["tensor", "module", "row", "column", "weight"]


@dataclass(frozen=True)
class RegionRule:
    """Which of the scored parameters are in the region.

    Attributes:
        share: Share of the parameters, of those with the highest scores.
        granularity: What is chosen or left as a whole.
    """

    share: Annotated[float, Field(gt=0, le=1)] = 0.25
    granularity: Granularity = "tensor"

    @property
    def masks(self) -> bool:
        """Whether a region may hold a part of a tensor."""
        return self.granularity in ("row", "column", "weight")


RULE_DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(RegionRule)}
RULE_TYPES: dict[str, Any] = get_type_hints(RegionRule, include_extras=True)
