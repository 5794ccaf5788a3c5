"""What an estimate says: bytes and counts of each stage, and whether they fit into a GPU."""

from __future__ import annotations

from dataclasses import dataclass, field

from knowundo.estimation.memory_trace import GIB

# The memory of the GPU that most users of the paper's code have (RTX 3090, RTX 4090), and what the
# CUDA context takes of it before the first tensor: 1 GiB is an assumption, half of it is usual.
GPU_MEMORY, CUDA_RESERVE = 24 * GIB, GIB


@dataclass
class StageEstimate:
    """What one stage takes.

    Attributes:
        name: name of the stage, or of the variant that is unlearned.
        count: number of units in the whole stage.
        unit: what is counted: optimizer steps, backward passes or rows.
        at_most: True if the stage may stop earlier, so that `count` is an upper bound.
        rows: rows of the heaviest batch.
        tokens: tokens of the heaviest batch, padding included.
        memory: for each of `KINDS`, the highest number of bytes that this kind ever took.
        peak: the highest number of bytes at one time. It is `None` if the loss reads values of
            its tensors, so that it cannot run on fake ones.
    """

    name: str
    count: int
    unit: str
    at_most: bool
    rows: int
    tokens: int
    memory: dict[str, int]
    peak: int | None


@dataclass
class Estimate:
    """What a recipe takes with one adaptation.

    Attributes:
        base: name or folder of the base.
        adaptation: what is trained, in words.
        dtype: dtype of the weights, in words.
        device: device that the recipe asks for.
        parameters: number of parameters of the base.
        trainable: number of trainable parameters.
        stages: one estimate for each stage, in the order of the pipeline.
        notes: what the figures do not show, one sentence each.
    """

    base: str
    adaptation: str
    dtype: str
    device: str
    parameters: int
    trainable: int
    stages: list[StageEstimate]
    notes: list[str] = field(default_factory=list)

    @property
    def highest(self) -> StageEstimate:
        """The stage with the highest peak."""
        return max(self.stages, key=lambda stage: stage.peak or 0)

    @property
    def fits(self) -> bool:
        """True if the highest peak leaves `CUDA_RESERVE` free on a GPU of `GPU_MEMORY`."""
        return (self.highest.peak or 0) + CUDA_RESERVE <= GPU_MEMORY
