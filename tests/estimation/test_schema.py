"""Whether an estimate fits into a GPU."""

from __future__ import annotations

from knowundo.estimation.schema import CUDA_RESERVE, GPU_MEMORY, Estimate, StageEstimate


def test_stages_of_unknown_peak_are_not_the_highest() -> None:
    peaks = {"a": 5, "b": None, "c": 7}
    stages = [StageEstimate(n, 1, "steps", False, 1, 1, {}, p) for n, p in peaks.items()]
    found = Estimate("base", "all weights", "float32", "cuda", 1, 1, stages)
    assert found.highest.name == "c"


def test_a_gpu_must_leave_room_for_cuda() -> None:
    def fits(peak: int) -> bool:
        stage = StageEstimate("memorize", 1, "steps", False, 1, 1, {}, peak)
        return Estimate("base", "all weights", "float32", "cuda", 1, 1, [stage]).fits

    assert fits(GPU_MEMORY - CUDA_RESERVE)
    assert not fits(GPU_MEMORY - CUDA_RESERVE + 1)
