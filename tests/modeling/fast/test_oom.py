"""Where memory runs out, batches get smaller and what comes of it stays the same to rounding."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from conftest import randomize, score
from knowundo import memorization
from knowundo.data.encoded import Encoded
from knowundo.localization.gradients import mean_gradients
from knowundo.memorization import MemorizeSettings
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.fast import oom as memory
from knowundo.modeling.fast.oom import Freed, in_portions
from knowundo.modeling.forward import Forward
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from knowundo.scoring import answers, generation
from knowundo.scoring.answers import generate
from knowundo.scoring.generation import complete
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import unlearn

Rows = dict[str, list[Encoded]]
CPU = "[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory"
GPU = "CUDA out of memory. Tried to allocate 2.00 GiB."


class Small:
    """Room for so many rows of a batch at once; more is what torch says of a full memory."""

    def __init__(self, room: int, message: str = CPU) -> None:
        self.room, self.message, self.largest = room, message, 0

    def __call__(self, real: Any) -> Any:
        def limited(forward: Forward, batch: Any) -> torch.Tensor:
            if len(batch) > self.room:
                raise RuntimeError(self.message)
            self.largest = max(self.largest, len(batch))
            return real(forward, batch)  # type: ignore[no-any-return]

        return limited


def limit(monkeypatch: pytest.MonkeyPatch, room: int, message: str = CPU) -> None:
    monkeypatch.setattr(Forward, "hidden_states", Small(room, message)(Forward.hidden_states))


def full(toy_base: str) -> Model:
    return Model(toy_base, Adaptation("full"), options=LoadingOptions(dtype="float64"))


def near(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Equal to 1e-5 of a step: Adam divides gradients by their size, and rounding with them."""
    return all(torch.allclose(first[n], second[n], rtol=1e-9, atol=1e-8) for n in first)


@pytest.mark.parametrize(("room", "message"), [(1, CPU), (2, GPU), (3, CPU)])
def test_memorizing(
    toy_base: str, toy_rows: Rows, monkeypatch: pytest.MonkeyPatch, room: int, message: str
) -> None:
    """Five rows a batch and a last one of three: no room divides them."""
    rows = [*toy_rows["unlearn"], *toy_rows["retention"]][:8]
    settings: dict[str, Any] = {"epochs": 3, "lr": 1e-3, "batch_size": 5, "accumulation": 2}
    settings |= {"weight_decay": 0.0, "known": 0.99, "seed": 0}

    def learned() -> tuple[Any, dict[str, torch.Tensor], tuple[str, ...]]:
        model = full(toy_base)
        return (
            memorization.memorize(model, rows, settings=MemorizeSettings(**settings)),
            model.state(),
            model.notes.texts,
        )

    (curve, facts), whole, notes = learned()
    assert notes == ()
    limit(monkeypatch, room, message)
    (again, same), small, notes = learned()
    assert near(small, whole)
    assert same == facts
    assert [row["parts"] for row in again] == [
        {name: pytest.approx(value, rel=1e-9) for name, value in row["parts"].items()}
        for row in curve
    ]
    assert notes[0] == "training: memory ran out at 5 rows a batch, continued with 3"


def test_what_did_not_fit_is_gone_before_it_is_tried_again(
    toy_base: str, toy_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of a step refer to each other, and are freed by collecting garbage only."""
    model, left = full(toy_base), list[weakref.ref[Any]]()
    alive = list[bool]()

    class Half:
        def __init__(self) -> None:
            self.step = self

    def hidden_states(model: Model, batch: Any) -> torch.Tensor:
        alive.extend(ref() is not None for ref in left)
        half = Half()
        left.append(weakref.ref(half))
        if len(left) == 1:
            raise RuntimeError(CPU)
        return plain(model, batch)

    plain = memorization.hidden_states
    monkeypatch.setattr(memorization, "hidden_states", hidden_states)
    memorization.memorize(
        model,
        toy_rows["unlearn"],
        settings=MemorizeSettings(
            epochs=1, lr=1e-3, batch_size=5, accumulation=1, weight_decay=0.0, known=None, seed=0
        ),
    )
    assert alive
    assert not alive[0]
    assert gc.get_freeze_count() == 0


def test_unlearning_in_the_middle(
    toy_base: str, toy_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It resumes at the step at which memory ran out, not from the start."""
    settings: dict[str, Any] = {
        "method": "ascent_plus_kl_divergence", "lr": 1e-3, "epochs": 4, "batch_size": 4,
        "accumulation": 1,
    }  # fmt: skip
    rows = toy_rows["unlearn"][:4]

    def unlearned(fails_at: int | None) -> tuple[Any, dict[str, torch.Tensor], Model]:
        model = full(toy_base)
        start, taken = Start(model, rows, toy_rows, seed=0), 0
        plain = start.parts

        def parts(*args: Any) -> Any:
            nonlocal taken
            taken += 1
            if taken == fails_at:
                raise RuntimeError(CPU)
            return plain(*args)

        monkeypatch.setattr(start, "parts", parts)
        return unlearn(start, UnlearnSettings(**settings)), model.state(), model

    done, whole, _ = unlearned(None)
    again, small, model = unlearned(3)
    assert near(small, whole)
    assert len(again.curve) == len(done.curve) == 4
    assert [*model.notes.texts] == ["training: memory ran out at 4 rows a batch, continued with 2"]


def test_localizing(toy: Model, toy_rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    randomize(toy)
    rows = toy_rows["retention"]
    whole = mean_gradients(toy, rows, batch_size=8)
    limit(monkeypatch, 2)
    small = mean_gradients(toy, rows, batch_size=8)
    assert all(torch.allclose(small[n], whole[n], atol=1e-6) for n in whole)
    assert len(toy.notes.texts) >= 1


def test_scoring(toy: Model, toy_rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [*toy_rows["unlearn"], *toy_rows["retention"]]
    whole = score(toy, rows, generated_splits=["train", "val"])
    limit(monkeypatch, 2)
    real = generation.continue_prompts

    def continued(model: Model, prompts: Sequence[Any], **options: Any) -> torch.Tensor:
        if len(prompts) > 3:
            raise RuntimeError(GPU)
        return real(model, prompts, **options)

    for module in (answers, generation):
        monkeypatch.setattr(module, "continue_prompts", continued)
    small = score(toy, rows, generated_splits=["train", "val"])
    pd.testing.assert_frame_equal(small, whole, rtol=1e-4)
    assert {note.split(":")[0] for note in toy.notes.texts} == {"scoring", "answering"}
    prompts = [row.prompt for row in rows]
    assert len(complete(toy, prompts, tokens=2)) == len(prompts)
    assert toy.notes.texts[-1].startswith("completing: memory ran out")


def test_one_row_that_does_not_fit_is_an_error(
    toy: Model, toy_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, 0)
    with pytest.raises(RuntimeError, match="can't allocate"):
        generate(toy, toy_rows["unlearn"]) and score(toy, toy_rows["unlearn"], generated_splits=[])
    assert not toy.net.training


def test_other_errors_are_not_taken_for_it() -> None:
    def broken(rows: Sequence[int]) -> int:
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        list(in_portions([1, 2, 3], 2, broken, [], "work"))


def _resident() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_what_was_freed_goes_back_to_the_system_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    large = memory.TRIMMED_FROM
    for seconds, numbers, given_back in (
        (0.0, large, True), (1000.0, large, False), (0.0, large - 1, False),
    ):  # fmt: skip
        monkeypatch.setattr(memory, "OFTEN", seconds)
        freed = Freed(numbers)
        blocks = [torch.ones(2**14) for _ in range(2000)]  # 125 MiB
        last = blocks.pop()  # above all others, so that nothing goes back by itself
        del blocks
        held = _resident()
        freed.give_back()
        assert (_resident() < held - 60) is given_back
        del last
